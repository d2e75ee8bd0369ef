/* The plan cache's hot parts: is everything as it was (guard.c), a call
 * without its values (shape.c, aggregates.c), values into parameters (binder.c). */
#ifndef VNL_PLAN_PLAN_H
#define VNL_PLAN_PLAN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_aggregates_setup(PyObject *module);
int vnl_binder_setup(PyObject *module);
int vnl_guard_setup(PyObject *module);
int vnl_shapes_setup(PyObject *module);

/* --- guard.c */
/* Of an Unchanged: 1, 0, or -1 with an exception. */
int vnl_unchanged_holds(PyObject *unchanged);

#endif
