/* The chain of an exception's contexts, where it leaves a greenlet. */
#ifndef VNL_FIBER_CHAIN_H
#define VNL_FIBER_CHAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* What is being handled where it comes out becomes its context. */
void vnl_chain_context(PyObject *error);

#endif
