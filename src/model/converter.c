/* ConvertedRows: rows whose columns go through the converters of their fields
 * and backends (SQLCompiler.apply_converters). */
#include "model/hydrate.h"

#include "core/state.h"

typedef struct {
    PyObject *functions;  /* owned: converters, called one after the other */
    PyObject *expression; /* owned: their second argument */
    Py_ssize_t column;
} column_plan;

struct vnl_converters {
    PyObject *connection; /* owned: the converters' third argument */
    Py_ssize_t count;
    column_plan columns[];
};

typedef struct {
    PyObject_HEAD
    PyObject *rows; /* owned iterator */
    vnl_converters *converters;
} vnl_converted_rows;

void
vnl_converters_free(vnl_converters *self)
{
    if (self == NULL) {
        return;
    }
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->columns[i].functions);
        Py_CLEAR(self->columns[i].expression);
    }
    Py_CLEAR(self->connection);
    PyMem_Free(self);
}

int
vnl_converters_traverse(const vnl_converters *self, visitproc visit, void *arg)
{
    if (self == NULL) {
        return 0;
    }
    Py_VISIT(self->connection);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->columns[i].functions);
        Py_VISIT(self->columns[i].expression);
    }
    return 0;
}

static int
read_column(vnl_converters *self, PyObject *key, PyObject *value)
{
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
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a column's number is not negative");
        }
        return -1;
    }
    plan->functions = PySequence_Tuple(functions);
    if (plan->functions == NULL) {
        return -1;
    }
    plan->expression = Py_NewRef(expression);
    self->count++;
    return 0;
}

vnl_converters *
vnl_converters_new(PyObject *converters, PyObject *connection)
{
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    vnl_converters *self =
        PyMem_Calloc(1, sizeof(*self) + (size_t)PyDict_GET_SIZE(converters) * sizeof(column_plan));
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->connection = Py_NewRef(connection);
    while (PyDict_Next(converters, &position, &key, &value)) {
        if (read_column(self, key, value) < 0) {
            vnl_converters_free(self);
            return NULL;
        }
    }
    return self;
}

/* value goes through one column's converters.  Steals it; new reference. */
static PyObject *
convert(const vnl_converters *self, const column_plan *plan, PyObject *value)
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

int
vnl_converters_apply(const vnl_converters *self, PyObject **cells, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const column_plan *plan = &self->columns[i];
        if (plan->column >= count) {
            PyErr_SetString(PyExc_IndexError, "list index out of range");
            return -1;
        }
        PyObject *value = convert(self, plan, Py_NewRef(cells[plan->column]));
        if (value == NULL) {
            return -1;
        }
        Py_SETREF(cells[plan->column], value);
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
    self->rows = PyObject_GetIter(rows);
    self->converters = self->rows != NULL ? vnl_converters_new(converters, connection) : NULL;
    if (self->converters == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
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
    if (row != NULL &&
        vnl_converters_apply(self->converters, ((PyListObject *)row)->ob_item, PyList_GET_SIZE(row)) < 0) {
        Py_CLEAR(row);
    }
    return row;
}

static int
converted_rows_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_converted_rows *self = (vnl_converted_rows *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->rows);
    return vnl_converters_traverse(self->converters, visit, arg);
}

static int
converted_rows_clear(PyObject *op)
{
    vnl_converted_rows *self = (vnl_converted_rows *)op;
    vnl_converters *converters = self->converters;
    self->converters = NULL;
    Py_CLEAR(self->rows);
    vnl_converters_free(converters);
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
