/* What CPython's garbage collector is told of the instances that a loop makes:
 * those of a long one are not looked through as long as the loop holds them all. */
#ifndef VNL_MODEL_GARBAGE_H
#define VNL_MODEL_GARBAGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Finds the collector's lists.  0, or -1 with an exception. */
int vnl_garbage_setup(PyObject *module);

/* A loop: zeroed at its beginning. */
typedef struct {
    void *last;        /* the youngest object before the row; NULL: nothing is moved */
    Py_ssize_t passes; /* of the collector, before the row */
    int count;         /* of the youngest generation, before the row */
    Py_ssize_t made;   /* objects of the whole loop */
    Py_ssize_t moved;
} vnl_garbage_loop;

/* Around the making of a row that runs no Python: what it makes is reachable
 * until vnl_garbage_end, and nothing older goes in between. */
void vnl_garbage_before_row(vnl_garbage_loop *self);
/* 0, or -1 with an exception: a pass that was due may run Python. */
int vnl_garbage_after_row(vnl_garbage_loop *self);
void vnl_garbage_end(vnl_garbage_loop *self);

/* Spares a new object its __del__.  1, or 0 where that cannot be done. */
int vnl_garbage_skip_finalizer(PyObject *object);

#endif
