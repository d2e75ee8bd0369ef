/* value_rows: what values() and values_list() make of rows. */
#include "model/hydrate.h"
#include "model/rows.h"

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

/* The row's values as a tuple, which takes them.  New reference. */
static PyObject *
as_tuple(vnl_rows *row)
{
    PyObject *tuple = PyTuple_New(row->count);
    if (tuple != NULL) {
        for (Py_ssize_t i = 0; i < row->count; i++) {
            PyTuple_SET_ITEM(tuple, i, row->cells[i]);
        }
        row->count = 0;
    }
    return tuple;
}

/* New reference. */
static PyObject *
as_dict(PyObject *names, const vnl_rows *row)
{
    if (PyTuple_GET_SIZE(names) > row->count) {
        PyErr_SetString(PyExc_IndexError, "list index out of range");
        return NULL;
    }
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(names, i), row->cells[i]) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

/* New reference. */
static PyObject *
as_named(PyObject *type, vnl_rows *row)
{
    PyObject *values = as_tuple(row);
    PyObject *args = values != NULL ? PyTuple_Pack(1, values) : NULL;
    PyObject *named = args != NULL ? PyTuple_Type.tp_new((PyTypeObject *)type, args, NULL) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(values);
    return named;
}

/* New reference. */
static PyObject *
shaped(const value_plan *plan, vnl_rows *row)
{
    if (plan->converters != NULL && vnl_converters_apply(plan->converters, row->cells, row->count) < 0) {
        return NULL;
    }
    switch (plan->kind) {
    case AS_DICT:
        return as_dict(plan->shape, row);
    case AS_NAMED:
        return as_named(plan->shape, row);
    case AS_FLAT:
        if (row->count == 0) {
            PyErr_SetString(PyExc_IndexError, "list index out of range");
            return NULL;
        }
        return Py_NewRef(row->cells[0]);
    default:
        return as_tuple(row);
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

/* The rows as they are, which were tuples before. */
static PyObject *
collect_tuples(PyObject *rows)
{
    PyObject *list = PySequence_List(rows);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *tuple = PySequence_Tuple(PyList_GET_ITEM(list, i));
        if (tuple == NULL || PyList_SetItem(list, i, tuple) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
collect(const value_plan *plan, PyObject *rows, Py_ssize_t most)
{
    vnl_rows row;
    int rc = vnl_rows_open(&row, rows, most);
    if (rc == 0 && most < 0 && row.source == NULL && plan->kind == AS_TUPLE && plan->converters == NULL) {
        PyObject *tuples = collect_tuples(row.rows);
        vnl_rows_close(&row);
        return tuples;
    }
    PyObject *list = rc == 0 ? PyList_New(0) : NULL;
    while (list != NULL && (rc = vnl_rows_next_wait(&row)) > 0) {
        PyObject *made = shaped(plan, &row);
        if (made == NULL || PyList_Append(list, made) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(made);
    }
    if (rc < 0) {
        Py_CLEAR(list);
    }
    vnl_rows_close(&row);
    return list;
}

static PyObject *
value_rows(PyObject *module, PyObject *args)
{
    PyObject *rows = NULL, *converters = NULL, *connection = NULL;
    int kind = 0;
    Py_ssize_t most = -1;
    value_plan plan = {AS_TUPLE, NULL, NULL};
    if (!PyArg_ParseTuple(args, "OiOO!O|n:value_rows", &rows, &kind, &plan.shape, &PyDict_Type, &converters,
                          &connection, &most)) {
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
    PyObject *list = collect(&plan, rows, most);
    vnl_converters_free(plan.converters);
    return list;
}

static PyObject *
reads_cells(PyObject *module, PyObject *rows)
{
    return PyBool_FromLong(vnl_rows_are_a_source(rows));
}

static PyMethodDef value_rows_methods[] = {
    {"reads_cells", reads_cells, METH_O,
     "reads_cells(rows, /) -> bool\n--\n\nWhether rows are an engine's cursor with rows, read without "
     "tuples."},
    {"value_rows", value_rows, METH_VARARGS,
     "value_rows(rows, kind, shape, converters, connection, most=-1, /) -> list\n--\n\n"
     "The rows as tuples (kind 0), dicts of the names in shape (1), first values (2), or tuples of\n"
     "the class shape (3), their columns passed through converters, as ConvertedRows'; only the next\n"
     "most of them, where that is not -1."},
    {NULL},
};

int
vnl_value_rows_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, value_rows_methods);
}
