/* The bridges between coroutines and plain code: drive() runs a coroutine with
 * no loop, await_() waits for an awaitable inside an operation, and the
 * questions about the calling frame. */
#ifndef VNL_FIBER_BRIDGE_H
#define VNL_FIBER_BRIDGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *vnl_bridge_drive(PyObject *module, PyObject *coroutine);
PyObject *vnl_bridge_await(PyObject *module, PyObject *awaitable);
PyObject *vnl_frame_in_coroutine(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *vnl_frame_awaits(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
