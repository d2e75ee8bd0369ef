#include "fiber/unawaited.h"

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/operation.h"

static void
raise_not_awaited(PyObject *op, const char *use)
{
    PyObject *name = vnl_operation_name(op);
    const char *cure =
        vnl_where() == VNL_PLAIN
            ? "in plain synchronous code give it to vinyl.drive(), or use Model.objects"
            : "write 'await' before it, or run the synchronous code that needs it with vinyl.run()";
    if (name != NULL) {
        vnl_raise("NotFetched", "%S() was not awaited and cannot be %s: %s.", name, use, cure);
        Py_DECREF(name);
        /* For who makes the call again in a fiber: this one is given up then. */
        PyObject *error = PyErr_GetRaisedException();
        if (PyObject_SetAttrString(error, "operation", op) < 0) {
            PyErr_Clear();
        }
        PyErr_SetRaisedException(error);
    }
}

PyObject *
vnl_unawaited_getattro(PyObject *op, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(op, name);
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError) || !PyUnicode_Check(name)) {
        return value;
    }
    /* What asyncio and inspect ask of any coroutine stays an AttributeError. */
    const char *text = PyUnicode_AsUTF8(name);
    if (text == NULL || text[0] == '_' || strncmp(text, "cr_", 3) == 0 || strncmp(text, "gi_", 3) == 0 ||
        strncmp(text, "ag_", 3) == 0) {
        return NULL;
    }
    PyErr_Clear();
    raise_not_awaited(op, "read");
    return NULL;
}

/* asyncio's repr of a task tests its coroutine for truth. */
static int
called_by_asyncio(void)
{
    PyObject *globals = PyEval_GetGlobals(); /* borrowed */
    PyObject *name = globals == NULL ? NULL : PyDict_GetItemString(globals, "__name__");
    const char *text = name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    return text != NULL && strncmp(text, "asyncio.", 8) == 0;
}

int
vnl_unawaited_bool(PyObject *op)
{
    if (called_by_asyncio()) {
        return 1;
    }
    raise_not_awaited(op, "tested for truth");
    return -1;
}

PyObject *
vnl_unawaited_richcompare(PyObject *op, PyObject *other, int how)
{
    raise_not_awaited(op, "compared");
    return NULL;
}

Py_ssize_t
vnl_unawaited_length(PyObject *op)
{
    raise_not_awaited(op, "measured");
    return -1;
}

PyObject *
vnl_unawaited_subscript(PyObject *op, PyObject *key)
{
    raise_not_awaited(op, "indexed");
    return NULL;
}

int
vnl_unawaited_contains(PyObject *op, PyObject *item)
{
    raise_not_awaited(op, "searched");
    return -1;
}

PyObject *
vnl_unawaited_iter(PyObject *op)
{
    raise_not_awaited(op, "iterated");
    return NULL;
}

/* In an f-string, a template or a join() it would pass for a value. */
PyObject *
vnl_unawaited_str(PyObject *op)
{
    raise_not_awaited(op, "turned into text");
    return NULL;
}
