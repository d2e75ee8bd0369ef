/* The aggregates of one aggregate() as a key: all that their SQL and their
 * converters depend on, beside the query (vinyl/plan/aggregates.py). */
#include "plan/plan.h"

#include "core/state.h"

typedef struct {
    PyObject *kinds; /* frozenset of classes */
    PyTypeObject *f, *star;
} known;

/* Whether the object has nothing of its own but its attribute `name`, given borrowed in `found`. */
static int
has_only(PyObject *dict, const char *name, PyObject **found)
{
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!PyUnicode_Check(key)) {
            return 0;
        }
        if (PyUnicode_CompareWithASCIIString(key, name) == 0) {
            *found = value;
        }
        else if (PyUnicode_CompareWithASCIIString(key, "_constructor_args") != 0) {
            return 0;
        }
    }
    return 1;
}

/* What is aggregated: a field's name, or the class Star.  New reference; NULL without an
 * exception for anything else. */
static PyObject *
operand(const known *classes, PyObject *sources)
{
    if (!PyList_CheckExact(sources) || PyList_GET_SIZE(sources) != 1) {
        return NULL;
    }
    PyObject *source = PyList_GET_ITEM(sources, 0);
    int star = Py_IS_TYPE(source, classes->star);
    PyObject *dict = star || Py_IS_TYPE(source, classes->f) ? PyObject_GenericGetDict(source, NULL) : NULL;
    if (dict == NULL) {
        return NULL;
    }
    PyObject *name = NULL, *result = NULL;
    if (has_only(dict, "name", &name)) {
        if (star && name == NULL) {
            result = Py_NewRef((PyObject *)classes->star);
        }
        else if (!star && name != NULL && PyUnicode_CheckExact(name)) {
            result = Py_NewRef(name);
        }
    }
    Py_DECREF(dict);
    return result;
}

/* Adds the operand and DISTINCT to `parts`: 1, 0, -1. */
static int
add_attribute(const known *classes, PyObject *name, PyObject *value, PyObject *parts)
{
    if (PyUnicode_CompareWithASCIIString(name, "source_expressions") == 0) {
        PyObject *part = operand(classes, value);
        if (part == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        int failed = PyList_Append(parts, part);
        Py_DECREF(part);
        return failed < 0 ? -1 : 1;
    }
    if (PyUnicode_CompareWithASCIIString(name, "distinct") == 0) {
        return PyBool_Check(value) ? (PyList_Append(parts, value) < 0 ? -1 : 1) : 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "extra") == 0) {
        return PyDict_CheckExact(value) && PyDict_GET_SIZE(value) == 0;
    }
    /* filter, default, order_by; and what a later Django may add. */
    return value == Py_None || PyUnicode_CompareWithASCIIString(name, "_constructor_args") == 0;
}

static int
add_aggregate(const known *classes, PyObject *aggregate, PyObject *parts)
{
    int found = PySet_Contains(classes->kinds, (PyObject *)Py_TYPE(aggregate));
    if (found <= 0 || PyList_Append(parts, (PyObject *)Py_TYPE(aggregate)) < 0) {
        return found == 0 ? 0 : -1;
    }
    PyObject *dict = PyObject_GenericGetDict(aggregate, NULL);
    if (dict == NULL) {
        return -1;
    }
    PyObject *name = NULL, *value = NULL;
    Py_ssize_t position = 0, before = PyList_GET_SIZE(parts);
    while (found == 1 && PyDict_Next(dict, &position, &name, &value)) {
        found = PyUnicode_Check(name) ? add_attribute(classes, name, value, parts) : 0;
    }
    Py_DECREF(dict);
    /* One operand and whether it is DISTINCT, whichever comes first. */
    return found == 1 ? PyList_GET_SIZE(parts) == before + 2 : found;
}

static PyObject *
aggregates_key(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *expressions = NULL, *f = NULL, *star = NULL;
    known classes = {0};
    if (!PyArg_ParseTuple(args, "O!O!O!O!:aggregates_key", &PyDict_Type, &expressions, &PyFrozenSet_Type,
                          &classes.kinds, &PyType_Type, &f, &PyType_Type, &star)) {
        return NULL;
    }
    classes.f = (PyTypeObject *)f;
    classes.star = (PyTypeObject *)star;
    PyObject *parts = PyList_New(0), *alias = NULL, *aggregate = NULL;
    Py_ssize_t position = 0;
    int found = parts == NULL ? -1 : 1;
    while (found == 1 && PyDict_Next(expressions, &position, &alias, &aggregate)) {
        if (!PyUnicode_CheckExact(alias)) {
            found = 0;
        }
        else {
            found = PyList_Append(parts, alias) < 0 ? -1 : add_aggregate(&classes, aggregate, parts);
        }
    }
    PyObject *key = found == 1 ? PyList_AsTuple(parts) : NULL;
    Py_XDECREF(parts);
    return found == 0 ? Py_NewRef(Py_None) : key;
}

static PyMethodDef aggregates_methods[] = {
    {"aggregates_key", aggregates_key, METH_VARARGS,
     "aggregates_key(expressions, kinds, F, Star, /)\n--\n\n"
     "(alias, class, column's name or Star, distinct, …) of a dict of aggregates that are exactly of these\n"
     "classes and have nothing more; None when there are others."},
    {NULL},
};

int
vnl_aggregates_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, aggregates_methods);
}
