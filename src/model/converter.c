/* ConvertedRows: rows whose columns go through the converters of their fields
 * and backends (SQLCompiler.apply_converters). */
#include "model/hydrate.h"

#include "core/state.h"

typedef struct {
    PyObject *functions;  /* owned: converters, called one after the other */
    PyObject *expression; /* owned: their second argument */
    Py_ssize_t column;
} column_plan;

typedef struct {
    PyObject_HEAD
    PyObject *rows;       /* owned iterator */
    PyObject *connection; /* owned: the converters' third argument */
    column_plan *columns;
    Py_ssize_t count;
} vnl_converted_rows;

static void
free_columns(vnl_converted_rows *self)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->columns[i].functions);
        Py_CLEAR(self->columns[i].expression);
    }
    PyMem_Free(self->columns);
    self->columns = NULL;
    self->count = 0;
}

/* converters: {column: (functions, expression)} */
static int
read_columns(vnl_converted_rows *self, PyObject *converters)
{
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    self->columns = PyMem_Calloc((size_t)PyDict_GET_SIZE(converters) + 1, sizeof(column_plan));
    if (self->columns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    while (PyDict_Next(converters, &position, &key, &value)) {
        column_plan *plan = &self->columns[self->count];
        PyObject *functions = NULL, *expression = NULL;
        if (!PyTuple_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "converters: {column: (functions, expression)}");
            return -1;
        }
        if (!PyArg_ParseTuple(value, "OO", &functions, &expression)) {
            return -1;
        }
        plan->column = PyLong_AsSsize_t(key);
        if (plan->column < 0) {
            return -1;
        }
        plan->functions = PySequence_Tuple(functions);
        if (plan->functions == NULL) {
            return -1;
        }
        plan->expression = Py_NewRef(expression);
        self->count++;
    }
    return 0;
}

static PyObject *
converted_rows_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *rows = NULL, *converters = NULL, *connection = NULL;
    if (!PyArg_ParseTuple(args, "OO!O:ConvertedRows", &rows, &PyDict_Type, &converters, &connection)) {
        return NULL;
    }
    vnl_converted_rows *self = (vnl_converted_rows *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->connection = Py_NewRef(connection);
    self->rows = PyObject_GetIter(rows);
    if (self->rows == NULL || read_columns(self, converters) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* value goes through one column's converters.  Steals it; new reference. */
static PyObject *
convert(vnl_converted_rows *self, const column_plan *plan, PyObject *value)
{
    for (Py_ssize_t i = 0; value != NULL && i < PyTuple_GET_SIZE(plan->functions); i++) {
        PyObject *args[4] = {NULL, value, plan->expression, self->connection};
        PyObject *converted = PyObject_Vectorcall(PyTuple_GET_ITEM(plan->functions, i), args + 1,
                                                  3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(value);
        value = converted;
    }
    return value;
}

static PyObject *
converted_rows_next(PyObject *op)
{
    vnl_converted_rows *self = (vnl_converted_rows *)op;
    PyObject *source = PyIter_Next(self->rows);
    if (source == NULL) {
        return NULL;
    }
    PyObject *row = PySequence_List(source); /* a list, as Django's */
    Py_DECREF(source);
    for (Py_ssize_t i = 0; row != NULL && i < self->count; i++) {
        const column_plan *plan = &self->columns[i];
        if (plan->column >= PyList_GET_SIZE(row)) {
            PyErr_SetString(PyExc_IndexError, "list index out of range");
            Py_CLEAR(row);
            break;
        }
        PyObject *value = convert(self, plan, Py_NewRef(PyList_GET_ITEM(row, plan->column)));
        if (value == NULL || PyList_SetItem(row, plan->column, value) < 0) {
            Py_CLEAR(row);
        }
    }
    return row;
}

static int
converted_rows_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_converted_rows *self = (vnl_converted_rows *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->rows);
    Py_VISIT(self->connection);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->columns[i].functions);
        Py_VISIT(self->columns[i].expression);
    }
    return 0;
}

static int
converted_rows_clear(PyObject *op)
{
    vnl_converted_rows *self = (vnl_converted_rows *)op;
    Py_CLEAR(self->rows);
    Py_CLEAR(self->connection);
    free_columns(self);
    return 0;
}

static void
converted_rows_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)converted_rows_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot converted_rows_slots[] = {
    {Py_tp_doc,
     "ConvertedRows(rows, converters, connection, /)\n--\n\n"
     "Iterates rows as lists, each column passed through its converters:\n"
     "converters is {column: (functions, expression)}, a function is called with\n"
     "(value, expression, connection)."},
    {Py_tp_new, converted_rows_new},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, converted_rows_next},
    {Py_tp_traverse, converted_rows_traverse},
    {Py_tp_clear, converted_rows_clear},
    {Py_tp_dealloc, converted_rows_dealloc},
    {0, NULL},
};

static PyType_Spec converted_rows_spec = {
    .name = "vinyl._core.ConvertedRows",
    .basicsize = sizeof(vnl_converted_rows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = converted_rows_slots,
};

int
vnl_converter_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &converted_rows_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
