/* The future-like object that a suspended operation yields to its task.  Each
 * fiber has one and arms it anew for each wait. */
#ifndef VNL_FIBER_WAITER_H
#define VNL_FIBER_WAITER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "reactor/reactor.h"

typedef enum {
    VNL_WAITER_IDLE,
    VNL_WAITER_ARMED,
    VNL_WAITER_FIRED,
    VNL_WAITER_CANCELLED
} vnl_waiter_status;

typedef struct {
    PyObject_HEAD
    vnl_wake wake;
    PyObject *reactor;  /* owned */
    PyObject *callback; /* owned: the task's wake-up, until called */
    PyObject *context;  /* owned: the context it is called in */
    PyObject *message;  /* owned: of cancel(msg) */
    vnl_waiter_status status;
    int blocking;  /* asyncio's _asyncio_future_blocking */
    int sheltered; /* cancel() does not end this wait */
} vnl_waiter;

int vnl_waiter_setup(PyObject *module);
/* New reference. */
vnl_waiter *vnl_waiter_new(vnl_reactor *reactor);
/* Makes it ready for one more wait. */
void vnl_waiter_arm(vnl_waiter *waiter, int sheltered);
/* Wakes the task at the loop's next turn: for use from a fiber or a coroutine
 * of the same thread, where the task cannot be entered directly.  0 or -1. */
int vnl_waiter_fire_soon(vnl_waiter *waiter);
/* Wakes the task now; only from the loop's own callbacks.  0, or -1 with what
 * the task's step raised (KeyboardInterrupt, SystemExit). */
int vnl_waiter_fire_now(vnl_waiter *waiter);

#endif
