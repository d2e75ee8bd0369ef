/* Operation: what users await.  A coroutine in asyncio's eyes; awaited on a
 * loop it runs its call in a fiber, awaited without one it runs it here. */
#ifndef VNL_FIBER_OPERATION_H
#define VNL_FIBER_OPERATION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vnl_operation_setup(PyObject *module);
/* New reference to an operation of fn(*args, **kwargs); takes new references. */
PyObject *vnl_operation_new(PyObject *fn, PyObject *args, PyObject *kwargs);
/* New reference: the name to show. */
PyObject *vnl_operation_name(PyObject *operation);
/* Borrowed: the open block it was made in, or NULL; of NULL, NULL. */
PyObject *vnl_operation_block(PyObject *operation);
/* Ends a suspended operation whose loop is gone: its clean-up runs, blocking.
 * Errors go to sys.unraisablehook. */
void vnl_operation_end(PyObject *operation);

#endif
