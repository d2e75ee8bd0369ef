/* vinyl._sqlite3.Batch: columns of Python values as the parameter of sqlite_vinyl_batch(?). */
#include "py_sqlite.h"

#define CELLS_PER_LOOK 1024

/* Its columns are tuples, so that what cells point to stays. */
typedef struct py_batch {
    PyObject_HEAD
    PyObject *columns; /* tuple of tuples, all as long */
    PyObject *kept;    /* list: what adapters have made of their values */
    Py_ssize_t rows;
} py_batch;

/* A list's or tuple's items, as a new tuple as long as `rows`; -1: as it is. */
static PyObject *
column_of(PyObject *values, Py_ssize_t rows)
{
    PyObject *column = NULL;

    if (!PyList_Check(values) && !PyTuple_Check(values)) {
        return PyErr_Format(PyExc_TypeError, "a column is a list or a tuple, not %s",
                            Py_TYPE(values)->tp_name);
    }
    column = PySequence_Tuple(values);
    if (column != NULL && rows >= 0 && PyTuple_GET_SIZE(column) != rows) {
        PyErr_SetString(PyExc_ValueError, "the columns of a batch are as long as each other");
        Py_CLEAR(column);
    }
    return column;
}

static PyObject *
batch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *given = NULL, *lists = NULL;
    py_batch *self = NULL;
    Py_ssize_t count;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Batch() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!:Batch", &PyList_Type, &given)) {
        return NULL;
    }
    count = PyList_GET_SIZE(given);
    if (count < 1 || count > VNL_BATCH_COLUMNS) {
        return PyErr_Format(PyExc_ValueError, "a batch has 1 to %d columns, not %zd", VNL_BATCH_COLUMNS,
                            count);
    }
    self = (py_batch *)type->tp_alloc(type, 0);
    if (self == NULL || (lists = PyList_AsTuple(given)) == NULL ||
        (self->columns = PyTuple_New(count)) == NULL || (self->kept = PyList_New(0)) == NULL) {
        goto fail;
    }
    self->rows = -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *column = column_of(PyTuple_GET_ITEM(lists, i), self->rows);
        if (column == NULL) {
            goto fail;
        }
        PyTuple_SET_ITEM(self->columns, i, column);
        self->rows = PyTuple_GET_SIZE(column);
    }
    if (self->rows > INT_MAX / count) {
        PyErr_SetString(PyExc_OverflowError, "a batch of more than INT_MAX values");
        goto fail;
    }
    Py_DECREF(lists);
    return (PyObject *)self;

fail:
    Py_XDECREF(lists);
    Py_XDECREF(self);
    return NULL;
}

/* The cell of one value; -1 with an exception. */
static int
fill_cell(vnl_sqlite_state *state, py_batch *self, int number, int at, vnl_sqlite_cell *cell)
{
    int columns = (int)PyTuple_GET_SIZE(self->columns);
    PyObject *value = PyTuple_GET_ITEM(PyTuple_GET_ITEM(self->columns, number % columns), number / columns);
    PyObject *keep = NULL;
    int rc = vnl_sqlite_cell_of(state, value, at + number, cell, &keep);

    if (rc == 0 && keep != NULL) {
        rc = PyList_Append(self->kept, keep);
    }
    Py_XDECREF(keep);
    return rc;
}

int
vnl_sqlite_batch_bind_wait(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, int at,
                           PyObject *op)
{
    py_batch *self = (py_batch *)op;
    int columns = (int)PyTuple_GET_SIZE(self->columns);
    int count = (int)self->rows * columns;
    vnl_sqlite_batch *batch = vnl_sqlite_batch_new((int)self->rows, columns);

    if (batch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < count; i++) {
        /* Row by row, so that the first wrong value is the one that VALUES would have met. */
        if (fill_cell(state, self, i, at, vnl_sqlite_batch_cells(batch) + i) < 0 ||
            (i % CELLS_PER_LOOK == CELLS_PER_LOOK - 1 && vnl_sqlite_turn_wait(conn) < 0)) {
            vnl_sqlite_batch_free(batch);
            return -1;
        }
    }
    return vnl_sqlite_batch_bind(stmt->raw, at, batch);
}

static int
batch_traverse(PyObject *op, visitproc visit, void *arg)
{
    py_batch *self = (py_batch *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->columns);
    Py_VISIT(self->kept);
    return 0;
}

/* No tp_clear: a statement may point to what the values hold, and neither a
 * tuple nor this list, which nobody else sees, can come to hold the batch. */
static void
batch_dealloc(PyObject *op)
{
    py_batch *self = (py_batch *)op;
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    Py_CLEAR(self->columns);
    Py_CLEAR(self->kept);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot type_slots[] = {
    {Py_tp_doc,
     "Batch(columns, /)\n\n"
     "Lists of values, one for each column of the rows, as the parameter of sqlite_vinyl_batch(?):\n"
     "`INSERT INTO t (a, b) SELECT c0, c1 FROM sqlite_vinyl_batch(?)` inserts them as `VALUES` would."},
    {Py_tp_new, batch_new},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_traverse, batch_traverse},
    {0, NULL},
};

PyType_Spec vnl_batch_spec = {
    .name = "vinyl._sqlite3.Batch",
    .basicsize = sizeof(py_batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = type_slots,
};
