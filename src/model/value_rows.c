/* value_rows: what values() and values_list() make of rows. */
#include "model/hydrate.h"

#include "core/state.h"

typedef enum {
    AS_TUPLE,
    AS_DICT,
    AS_FLAT,
    AS_NAMED
} value_kind;

typedef struct {
    value_kind kind;
    PyObject *shape; /* tuple of names, the named tuple's class, or None */
    vnl_converters *converters;
} value_plan;

/* The row as a tuple with its values converted.  New reference. */
static PyObject *
converted(const value_plan *plan, PyObject *row)
{
    if (plan->converters == NULL && PyTuple_CheckExact(row)) {
        return Py_NewRef(row);
    }
    PyObject *list = PySequence_List(row);
    if (list != NULL && plan->converters != NULL &&
        vnl_converters_apply(plan->converters, ((PyListObject *)list)->ob_item, PyList_GET_SIZE(list)) < 0) {
        Py_CLEAR(list);
    }
    PyObject *tuple = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

/* New reference. */
static PyObject *
as_dict(PyObject *names, PyObject *values)
{
    if (PyTuple_GET_SIZE(names) > PyTuple_GET_SIZE(values)) {
        PyErr_SetString(PyExc_IndexError, "list index out of range");
        return NULL;
    }
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(names, i), PyTuple_GET_ITEM(values, i)) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

/* New reference. */
static PyObject *
as_named(PyObject *type, PyObject *values)
{
    PyObject *args = PyTuple_Pack(1, values);
    PyObject *named = args != NULL ? PyTuple_Type.tp_new((PyTypeObject *)type, args, NULL) : NULL;
    Py_XDECREF(args);
    return named;
}

/* New reference. */
static PyObject *
shaped(const value_plan *plan, PyObject *values)
{
    switch (plan->kind) {
    case AS_DICT:
        return as_dict(plan->shape, values);
    case AS_NAMED:
        return as_named(plan->shape, values);
    case AS_FLAT:
        if (PyTuple_GET_SIZE(values) == 0) {
            PyErr_SetString(PyExc_IndexError, "list index out of range");
            return NULL;
        }
        return Py_NewRef(PyTuple_GET_ITEM(values, 0));
    default:
        return Py_NewRef(values);
    }
}

static int
check_shape(const value_plan *plan)
{
    int right = plan->kind == AS_DICT    ? PyTuple_Check(plan->shape)
                : plan->kind == AS_NAMED ? PyType_Check(plan->shape) &&
                                               PyType_IsSubtype((PyTypeObject *)plan->shape, &PyTuple_Type)
                                         : plan->kind == AS_TUPLE || plan->kind == AS_FLAT;
    if (!right) {
        PyErr_SetString(PyExc_TypeError, "kind: 0 tuples, 1 dicts of names, 2 flat, 3 a class of tuples");
        return -1;
    }
    return 0;
}

static PyObject *
collect(const value_plan *plan, PyObject *rows)
{
    PyObject *row = NULL;
    PyObject *iterator = PyObject_GetIter(rows);
    PyObject *list = iterator != NULL ? PyList_New(0) : NULL;
    while (list != NULL && (row = PyIter_Next(iterator)) != NULL) {
        PyObject *values = converted(plan, row);
        PyObject *made = values != NULL ? shaped(plan, values) : NULL;
        if (made == NULL || PyList_Append(list, made) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(made);
        Py_XDECREF(values);
        Py_DECREF(row);
    }
    if (list != NULL && PyErr_Occurred()) {
        Py_CLEAR(list);
    }
    Py_XDECREF(iterator);
    return list;
}

static PyObject *
value_rows(PyObject *module, PyObject *args)
{
    PyObject *rows = NULL, *converters = NULL, *connection = NULL;
    int kind = 0;
    value_plan plan = {AS_TUPLE, NULL, NULL};
    if (!PyArg_ParseTuple(args, "OiOO!O:value_rows", &rows, &kind, &plan.shape, &PyDict_Type, &converters,
                          &connection)) {
        return NULL;
    }
    plan.kind = (value_kind)kind;
    if (check_shape(&plan) < 0) {
        return NULL;
    }
    if (PyDict_GET_SIZE(converters) > 0) {
        plan.converters = vnl_converters_new(converters, connection);
        if (plan.converters == NULL) {
            return NULL;
        }
    }
    PyObject *list = collect(&plan, rows);
    vnl_converters_free(plan.converters);
    return list;
}

static PyMethodDef value_rows_methods[] = {
    {"value_rows", value_rows, METH_VARARGS,
     "value_rows(rows, kind, shape, converters, connection, /) -> list\n--\n\n"
     "The rows as tuples (kind 0), dicts of the names in shape (1), first values (2), or tuples of\n"
     "the class shape (3), their columns passed through converters, as ConvertedRows'."},
    {NULL},
};

int
vnl_value_rows_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, value_rows_methods);
}
