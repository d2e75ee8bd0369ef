/* What an operation answers to any use but awaiting: NotFetched, with the cure. */
#ifndef VNL_FIBER_UNAWAITED_H
#define VNL_FIBER_UNAWAITED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* For the type's slots. */
PyObject *vnl_unawaited_getattro(PyObject *op, PyObject *name);
PyObject *vnl_unawaited_richcompare(PyObject *op, PyObject *other, int how);
PyObject *vnl_unawaited_str(PyObject *op);
PyObject *vnl_unawaited_iter(PyObject *op);
int vnl_unawaited_bool(PyObject *op);
Py_ssize_t vnl_unawaited_length(PyObject *op);
PyObject *vnl_unawaited_subscript(PyObject *op, PyObject *key);
int vnl_unawaited_contains(PyObject *op, PyObject *item);

#endif
