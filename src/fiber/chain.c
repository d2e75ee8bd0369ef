#include "fiber/chain.h"

/* Borrowed of the exception. */
static PyObject *
context_of(PyObject *error)
{
    PyObject *context = PyException_GetContext(error);
    Py_XDECREF(context);
    return context;
}

/* Whose context `end` is, in the exception's chain of contexts (NULL: the last of the chain).  Borrowed; NULL
 * where it is nobody's, or the chain goes round. */
static PyObject *
whose_context(PyObject *error, const PyObject *end)
{
    PyObject *at = error, *slow = error;
    for (int odd = 0;; odd = !odd) {
        PyObject *next = context_of(at);
        if (next == end) {
            return at;
        }
        if (next == NULL) {
            return NULL;
        }
        at = next;
        slow = odd ? context_of(slow) : slow;
        if (at == slow) {
            return NULL;
        }
    }
}

/* A fiber starts with no handled exception of its own: what is being handled
 * where the operation is awaited becomes the context here. */
void
vnl_chain_context(PyObject *error)
{
    PyObject *handled = PyErr_GetHandledException();
    PyObject *last = NULL;
    if (handled != NULL && handled != Py_None && handled != error && whose_context(error, handled) == NULL) {
        last = whose_context(error, NULL);
    }
    if (last != NULL) {
        /* Raised anew while one is handled that it has led to: as Python does, no chain is closed. */
        PyObject *before = whose_context(handled, last);
        if (before != NULL) {
            PyException_SetContext(before, NULL);
        }
        PyException_SetContext(last, Py_NewRef(handled));
    }
    Py_XDECREF(handled);
}
