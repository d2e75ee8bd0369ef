/* Scope: the database sessions of one task.  Operations of the task take turns
 * on it inside a transaction, and get a scope of their own outside. */
#ifndef VNL_SESSION_SCOPE_H
#define VNL_SESSION_SCOPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "base/list.h"
#include "fiber/fiber.h"

typedef struct {
    PyObject_HEAD
    PyObject *sessions; /* owned dict: alias -> DatabaseWrapper */
    PyObject *parent;   /* owned: the scope whose overflow this is, or NULL */
    PyObject *block;    /* owned: its innermost open transaction, or NULL */
    PyObject *pin;      /* owned: the vnl_pin whose sessions it shares, or NULL (session/pin.h) */
    PyObject *task;     /* owned weak reference to the task it belongs to, or NULL */
    PyObject *dict;
    PyObject *weakrefs;
    vnl_fiber *holder; /* borrowed: whose turn it is, or NULL */
    vnl_node turns;    /* who waits for it */
} vnl_scope;

int vnl_scope_setup(PyObject *module);
/* A scope with sessions of its own, or one that shares those of `pin`. */
vnl_scope *vnl_scope_new(PyObject *parent, PyObject *pin);
/* The scope of the running task (the pinned one, if any), made on first use.
 * New reference; NULL without an exception where there is no task. */
PyObject *vnl_scope_of_task(PyObject *loop);
/* The scope that statements issued right here belong to: the fiber's or the
 * task's.  New reference; NULL without an exception in plain code. */
PyObject *vnl_scope_current(void);

/* Borrowed: the scope itself, or whose overflow it is; of NULL, NULL. */
PyObject *vnl_scope_root(PyObject *scope);

/* exchange_scope(scope): makes `scope` (None: a default one) the running task's,
 * or in blocking mode the driven coroutine's, and gives back the old one. */
PyObject *vnl_scope_exchange(PyObject *module, PyObject *scope);

/* Around code that a fiber awaits, with the loop shown: what is made there belongs to whom the fiber's
 * operation belongs to, also where another task awaits it.  New reference, for vnl_scope_unlend, or
 * NULL without an exception. */
PyObject *vnl_scope_lend(vnl_fiber *fiber, PyObject *loop);
void vnl_scope_unlend(PyObject *before);

/* At the start of a fiber's call: waits for its turn inside a transaction,
 * gives the fiber an overflow scope when the task's own is busy outside of
 * one.  0 or -1. */
int vnl_scope_enter_wait(vnl_fiber *fiber);
/* In the middle of it, after vnl_scope_leave: always waits, since the fiber
 * goes on with the same sessions. */
int vnl_scope_reenter_wait(vnl_fiber *fiber);
void vnl_scope_leave(vnl_fiber *fiber);

#endif
