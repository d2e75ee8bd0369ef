/* Block: an open transaction of a scope, as other tasks see it.  Tasks inherit
 * the block in which they were created through a context variable; it is not
 * theirs, and while it is open they may not use the database without saying
 * how (vinyl.independent). */
#ifndef VNL_SESSION_BLOCK_H
#define VNL_SESSION_BLOCK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "core_api.h"

typedef struct vnl_block {
    PyObject_HEAD
    PyObject *scope;    /* owned; NULL in blocking mode, where the thread's sessions are used */
    PyObject *outer;    /* owned: the block that the context had before, or NULL */
    vnl_event *idle;    /* who waits for the operations that run, or NULL */
    Py_ssize_t running; /* operations made in it that have begun and not ended */
    int open;
    int sealed; /* it is being committed or rolled back: nothing more may begin in it */
} vnl_block;

int vnl_block_setup(PyObject *module);
/* The innermost block of a scope (NULL: of this thread, in blocking mode) in which operations
 * may begin.  New reference or NULL, no exception. */
PyObject *vnl_block_of_scope(PyObject *scope);
/* An operation made in the block begins: 0, or -1 without an exception when it is too late.
 * vnl_block_let_go: it has ended. */
int vnl_block_let_in(PyObject *block);
void vnl_block_let_go(PyObject *block);
/* 0 while the block that the operation was made in goes on, else -1 with TransactionManagementError. */
int vnl_block_check_operation(PyObject *operation);

/* A new innermost open block of `scope`, which the running context then has.
 * New reference. */
PyObject *vnl_block_open(PyObject *scope);
/* 1 when the running context is in an open block of another task than the one
 * of `scope`, 0, or -1. */
int vnl_block_is_foreign(PyObject *scope);
/* TransactionManagementError: for such a task, which uses the database `alias`;
 * or with a format that takes one object. */
void vnl_block_raise_foreign(PyObject *alias);
void vnl_block_raise(const char *format, PyObject *name);

/* For the module's method table. */
PyObject *vnl_block_begin(PyObject *module, PyObject *ignored);
PyObject *vnl_block_end(PyObject *module, PyObject *block);
PyObject *vnl_block_seal(PyObject *module, PyObject *block);
PyObject *vnl_block_settle(PyObject *module, PyObject *block);
PyObject *vnl_block_check_session(PyObject *module, PyObject *alias);
PyObject *vnl_block_hide(PyObject *module, PyObject *ignored);
PyObject *vnl_block_show(PyObject *module, PyObject *block);

#endif
