/* Pin: in a test, the sessions that all tasks share, since all of them are in
 * the test's transaction.  Each task keeps a scope of its own, so that blocks
 * have owners; their operations take turns, and while a task has an atomic
 * block open the turn is its alone. */
#ifndef VNL_SESSION_PIN_H
#define VNL_SESSION_PIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "base/list.h"
#include "fiber/fiber.h"

typedef struct {
    PyObject_HEAD
    PyObject *sessions; /* owned dict: alias -> DatabaseWrapper */
    PyObject *owner;    /* owned: the scope with an open block, or NULL */
    PyObject *block;    /* owned: that block */
    Py_ssize_t depth;   /* of atomic blocks outside of it */
    double seconds;     /* how long other tasks wait for its end */
    vnl_fiber *holder;  /* borrowed: whose turn it is, or NULL */
    vnl_node turns;     /* who waits for it */
} vnl_pin;

int vnl_pin_setup(PyObject *module);

/* As vnl_scope_enter_wait and vnl_scope_leave, for a fiber whose scope has a
 * pin.  -1 with TransactionManagementError in a task that was started inside
 * the open block, and when that block goes on for too long. */
int vnl_pin_enter_wait(vnl_fiber *fiber);
void vnl_pin_leave(vnl_fiber *fiber);

/* For the module's method table. */
PyObject *vnl_pin_exchange(PyObject *module, PyObject *pin);
PyObject *vnl_pin_current(PyObject *module, PyObject *ignored);

#endif
