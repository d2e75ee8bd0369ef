/* Rows into model instances and through converters, as Django does it but
 * without Django's Python per row. */
#ifndef VNL_MODEL_HYDRATE_H
#define VNL_MODEL_HYDRATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_hydrator_setup(PyObject *module);
int vnl_converter_setup(PyObject *module);
int vnl_columns_setup(PyObject *module);

#endif
