/* Rows of an iterator, or straight from an engine's cursor: then a row is never
 * a tuple. */
#include "model/rows.h"

enum {
    MOST_ENGINES = 4,
    TOGETHER = 16 /* rows that a cursor is asked for */
};

static struct {
    PyObject *type; /* of the engine's module, which is never unloaded; compared only */
    const vnl_row_source *source;
} sources[MOST_ENGINES];

void
vnl_rows_register(PyObject *cursor_type, const vnl_row_source *source)
{
    for (int i = 0; i < MOST_ENGINES; i++) {
        if (sources[i].type == NULL || sources[i].type == cursor_type) {
            sources[i].type = cursor_type;
            sources[i].source = source;
            return;
        }
    }
}

static const vnl_row_source *
source_of(PyObject *rows)
{
    for (int i = 0; i < MOST_ENGINES; i++) {
        if (sources[i].type == (PyObject *)Py_TYPE(rows)) {
            return sources[i].source;
        }
    }
    return NULL;
}

int
vnl_rows_are_a_source(PyObject *rows)
{
    const vnl_row_source *source = source_of(rows);
    return source != NULL && source->columns(rows) > 0;
}

static void
drop_cells(PyObject **cells, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_CLEAR(cells[i]);
    }
}

static int
make_room(vnl_rows *self, Py_ssize_t count)
{
    if (count > self->room) {
        PyObject **block = PyMem_Realloc(self->block, (size_t)count * sizeof(*block));
        if (block == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->block = block;
        self->room = count;
    }
    return 0;
}

int
vnl_rows_open(vnl_rows *self, PyObject *rows, Py_ssize_t most)
{
    *self = (vnl_rows){.left = most >= 0 ? most : PY_SSIZE_T_MAX};
    const vnl_row_source *source = source_of(rows);
    self->columns = source != NULL ? source->columns(rows) : 0;
    if (self->columns > 0) {
        self->rows = Py_NewRef(rows);
        self->source = source;
        return make_room(self, (Py_ssize_t)self->columns * TOGETHER);
    }
    self->rows = PyObject_GetIter(rows);
    return self->rows != NULL ? 0 : -1;
}

static int
load(vnl_rows *self, PyObject *row)
{
    if (!PyTuple_Check(row) && !PyList_Check(row)) {
        PyErr_SetString(PyExc_TypeError, "a row is a tuple or a list");
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(row);
    if (make_room(self, count) < 0) {
        return -1;
    }
    PyObject **items = PySequence_Fast_ITEMS(row);
    for (Py_ssize_t i = 0; i < count; i++) {
        self->block[i] = Py_NewRef(items[i]);
    }
    self->cells = self->block;
    self->count = count;
    return 1;
}

static int
next_of_block_wait(vnl_rows *self)
{
    if (++self->at >= self->filled) {
        self->at = self->filled = 0;
        int most = self->left < TOGETHER ? (int)self->left : TOGETHER;
        int filled = most > 0 ? self->source->next_wait(self->rows, self->block, self->columns, most) : 0;
        if (filled <= 0) {
            return filled;
        }
        self->filled = filled;
        self->left -= filled;
    }
    self->cells = self->block + (Py_ssize_t)self->at * self->columns;
    self->count = self->columns;
    return 1;
}

int
vnl_rows_next_wait(vnl_rows *self)
{
    drop_cells(self->cells, self->count);
    self->count = 0;
    if (self->source != NULL) {
        return next_of_block_wait(self);
    }
    PyObject *row = self->left > 0 ? PyIter_Next(self->rows) : NULL;
    if (row == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int rc = load(self, row);
    self->left--;
    Py_DECREF(row);
    return rc;
}

void
vnl_rows_close(vnl_rows *self)
{
    drop_cells(self->cells, self->count);
    self->count = 0;
    for (self->at++; self->at < self->filled; self->at++) {
        drop_cells(self->block + (Py_ssize_t)self->at * self->columns, self->columns);
    }
    PyMem_Free(self->block);
    self->block = self->cells = NULL;
    Py_CLEAR(self->rows);
}
