/* What newer CPythons offer, for 3.11. */
#ifndef VNL_BASE_COMPAT_H
#define VNL_BASE_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_T_OBJECT_EX T_OBJECT_EX
#define Py_T_BOOL T_BOOL
#define Py_T_INT T_INT
#define Py_READONLY READONLY

/* New reference, or NULL when nothing is raised. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Steals.  NULL: nothing is raised from now on. */
static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

#if PY_VERSION_HEX < 0x030D0000
/* 1 with a new reference, 0 when the referent is gone, -1 with an exception. */
static inline int
PyWeakref_GetRef(PyObject *ref, PyObject **referent)
{
    PyObject *found = PyWeakref_GetObject(ref);
    *referent = found == NULL || found == Py_None ? NULL : Py_NewRef(found);
    return found == NULL ? -1 : *referent != NULL;
}
#endif

#endif
