#ifndef VNL_CORE_TESTING_H
#define VNL_CORE_TESTING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_testing_setup(PyObject *module);

#endif
