/* vinyl._sqlite3.Cursor: the type, its statement under way, fetching. */
#include "py_sqlite.h"
#include <structmember.h>

#define ROWS_PER_LOOK 16

/* --- the statement under way */

static void
unlink_cursor(vnl_cursor *self)
{
    if (self->at != NULL) {
        *self->at = self->next;
        if (self->next != NULL) {
            self->next->at = self->at;
        }
        self->next = NULL;
        self->at = NULL;
    }
}

void
vnl_cursor_link(vnl_cursor *self)
{
    vnl_link *link = self->link;

    self->next = link->open;
    self->at = &link->open;
    if (link->open != NULL) {
        link->open->at = &self->next;
    }
    link->open = self;
}

void
vnl_cursor_reset(vnl_cursor *self)
{
    vnl_sqlite_stmt *stmt = self->stmt;

    self->stmt = NULL;
    unlink_cursor(self);
    if (stmt != NULL && self->link->conn != NULL && !vnl_sqlite_inherited(self->link->conn)) {
        vnl_sqlite_vfs_direct(1);
        vnl_sqlite_stmt_done(self->link->conn, stmt);
        vnl_sqlite_vfs_direct(-1);
    }
    Py_CLEAR(self->bound);
}

/* The same when the connection may be in the middle of something else: then it
 * is left to whoever is using it. */
void
vnl_cursor_let_go(vnl_cursor *self)
{
    vnl_link *link = self->link;

    if (self->stmt == NULL) {
        return;
    }
    if (PyThread_acquire_lock(link->lock, NOWAIT_LOCK)) {
        link->depth = 1;
        vnl_cursor_reset(self);
        vnl_link_leave(link);
    }
    else {
        self->stmt->doomed = link->doomed;
        link->doomed = self->stmt;
        self->stmt = NULL;
        unlink_cursor(self);
    }
}

int
vnl_cursor_enter_wait(vnl_cursor *self, int take)
{
    vnl_sqlite_state *state = self->link->state;

    if (self->closed) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "Cannot operate on a closed cursor.");
        return -1;
    }
    if (self->busy && (self->link->user == state->core->who() || !state->core->can_suspend())) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "Recursive use of cursors not allowed.");
        return -1;
    }
    if (vnl_link_enter_wait(self->link, take) < 0) {
        return -1;
    }
    if (self->busy || self->closed) { /* while it waited for its turn */
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING,
                        self->busy ? "This cursor is in the middle of an executemany() of another task."
                                   : "Cannot operate on a closed cursor.");
        vnl_link_leave(self->link);
        return -1;
    }
    self->busy = 1;
    return 0;
}

void
vnl_cursor_leave(vnl_cursor *self)
{
    self->busy = 0;
    vnl_link_leave(self->link);
}

/* --- fetching */

/* The row at hand, and on to the next; NULL without an exception: no more. */
static PyObject *
next_row_wait(vnl_cursor *self)
{
    vnl_link *link = self->link;
    vnl_sqlite_columns *columns;
    PyObject *row;

    if (self->stmt == NULL) {
        return NULL;
    }
    columns = vnl_sqlite_columns_of(link->state, self->stmt, link->detect_types);
    row = columns == NULL ? NULL : vnl_sqlite_row(link->state, self->stmt, columns);
    if (row == NULL) {
        vnl_cursor_reset(self);
        return NULL;
    }
    if (self->row_factory != NULL && self->row_factory != Py_None) {
        Py_SETREF(row, PyObject_CallFunctionObjArgs(self->row_factory, (PyObject *)self, row, NULL));
        if (row == NULL) {
            vnl_cursor_reset(self);
            return NULL;
        }
    }
    if (vnl_cursor_step_wait(self, 0) < 0) {
        Py_CLEAR(row);
    }
    return row;
}

static int
check_open(vnl_cursor *self)
{
    if (self->closed) {
        vnl_sqlite_fail(self->link->state, VNL_E_PROGRAMMING, "Cannot operate on a closed cursor.");
        return -1;
    }
    if (self->link->closed) {
        vnl_sqlite_fail(self->link->state, VNL_E_PROGRAMMING, "Cannot operate on a closed database.");
        return -1;
    }
    return 0;
}

static PyObject *
cursor_next(PyObject *op)
{
    vnl_cursor *self = (vnl_cursor *)op;
    PyObject *row;

    if (check_open(self) < 0 || self->stmt == NULL || vnl_cursor_enter_wait(self, 0) < 0) {
        return NULL;
    }
    row = next_row_wait(self);
    if (row != NULL && vnl_sqlite_turn_wait(self->link->conn) < 0) {
        vnl_cursor_reset(self);
        Py_CLEAR(row);
    }
    vnl_cursor_leave(self);
    return row;
}

static PyObject *
cursor_fetchone(PyObject *op, PyObject *Py_UNUSED(args))
{
    PyObject *row = cursor_next(op);

    if (row == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return row;
}

static PyObject *
fetch_wait(vnl_cursor *self, Py_ssize_t most)
{
    PyObject *rows = NULL;
    PyObject *row = NULL;

    if (check_open(self) < 0 || (rows = PyList_New(0)) == NULL || self->stmt == NULL) {
        return rows;
    }
    if (vnl_cursor_enter_wait(self, 0) < 0) {
        Py_DECREF(rows);
        return NULL;
    }
    for (Py_ssize_t n = 1; n <= most && (row = next_row_wait(self)) != NULL; n++) {
        int rc = PyList_Append(rows, row);
        Py_DECREF(row);
        if (rc == 0 && n % ROWS_PER_LOOK == 0) {
            rc = vnl_sqlite_turn_wait(self->link->conn);
        }
        if (rc < 0) {
            vnl_cursor_reset(self);
            break;
        }
    }
    vnl_cursor_leave(self);
    if (PyErr_Occurred()) {
        Py_CLEAR(rows);
    }
    return rows;
}

static PyObject *
cursor_fetchmany(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", NULL};
    vnl_cursor *self = (vnl_cursor *)op;
    Py_ssize_t size = self->arraysize;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:fetchmany", names, &size)) {
        return NULL;
    }
    return fetch_wait(self, size < 0 ? PY_SSIZE_T_MAX : size);
}

static PyObject *
cursor_fetchall(PyObject *op, PyObject *Py_UNUSED(args))
{
    return fetch_wait((vnl_cursor *)op, PY_SSIZE_T_MAX);
}

/* --- rows for the core's loops */

static int
source_columns(PyObject *op)
{
    vnl_cursor *self = (vnl_cursor *)op;
    int makes_rows = self->row_factory != NULL && self->row_factory != Py_None;

    if (self->closed || self->busy || self->stmt == NULL || self->stmt->raw == NULL || makes_rows) {
        return 0;
    }
    return sqlite3_column_count(self->stmt->raw);
}

/* The row at hand, and on to the next.  1, 0 no more, -1 with an exception. */
static int
next_cells_wait(vnl_cursor *self, PyObject **cells, int count)
{
    vnl_link *link = self->link;
    vnl_sqlite_columns *columns;

    if (self->stmt == NULL) {
        return 0;
    }
    columns = vnl_sqlite_columns_of(link->state, self->stmt, link->detect_types);
    if (columns != NULL && columns->count != count) {
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING, "The cursor was executed while its rows were read.");
        columns = NULL;
    }
    if (columns == NULL || vnl_sqlite_cells(link->state, self->stmt, columns, cells) < 0) {
        vnl_cursor_reset(self);
        return -1;
    }
    if (vnl_cursor_step_wait(self, 0) < 0) {
        for (int i = 0; i < count; i++) {
            Py_CLEAR(cells[i]);
        }
        return -1;
    }
    return 1;
}

static int
source_next_wait(PyObject *op, PyObject **cells, int columns, int rows)
{
    vnl_cursor *self = (vnl_cursor *)op;
    int n = 0, rc = 1;

    if (check_open(self) < 0) {
        return -1;
    }
    if (self->stmt == NULL) {
        return 0;
    }
    if (vnl_cursor_enter_wait(self, 0) < 0) {
        return -1;
    }
    while (n < rows && (rc = next_cells_wait(self, cells + (Py_ssize_t)n * columns, columns)) > 0) {
        n++;
    }
    if (rc >= 0 && n > 0 && vnl_sqlite_turn_wait(self->link->conn) < 0) {
        vnl_cursor_reset(self);
        rc = -1;
    }
    vnl_cursor_leave(self);
    for (int i = 0; rc < 0 && i < n * columns; i++) {
        Py_CLEAR(cells[i]);
    }
    return rc < 0 ? -1 : n;
}

const vnl_row_source vnl_cursor_source = {source_columns, source_next_wait};

/* --- the type */

static PyObject *
cursor_execute(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "execute() takes 1 or 2 arguments (%zd given)", nargs);
    }
    return vnl_cursor_execute_wait((vnl_cursor *)op, args[0], nargs == 2 ? args[1] : NULL);
}

static PyObject *
cursor_executemany(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "executemany() takes 2 arguments (%zd given)", nargs);
    }
    return vnl_cursor_executemany_wait((vnl_cursor *)op, args[0], args[1]);
}

static PyObject *
cursor_close(PyObject *op, PyObject *Py_UNUSED(args))
{
    vnl_cursor *self = (vnl_cursor *)op;

    if (self->busy) {
        return vnl_sqlite_fail(self->link->state, VNL_E_PROGRAMMING, "Recursive use of cursors not allowed.");
    }
    vnl_cursor_let_go(self);
    self->closed = 1;
    Py_RETURN_NONE;
}

static PyObject *
cursor_ignore(PyObject *op, PyObject *Py_UNUSED(args))
{
    Py_RETURN_NONE; /* setinputsizes, setoutputsize: DB-API asks for them */
}

PyObject *
vnl_cursor_new(vnl_link *link, int format)
{
    PyTypeObject *type = link->state->cursor_type;
    vnl_cursor *self = (vnl_cursor *)type->tp_alloc(type, 0);

    if (self != NULL) {
        self->link = (vnl_link *)Py_NewRef(link);
        self->description = Py_NewRef(Py_None);
        self->lastrowid = Py_NewRef(Py_None);
        self->row_factory = Py_NewRef(link->row_factory != NULL ? link->row_factory : Py_None);
        self->rowcount = -1;
        self->arraysize = 1;
        self->format = format;
    }
    return (PyObject *)self;
}

static int
cursor_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_cursor *self = (vnl_cursor *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->link);
    Py_VISIT(self->bound);
    Py_VISIT(self->description);
    Py_VISIT(self->row_factory);
    return 0;
}

static int
cursor_clear(PyObject *op)
{
    vnl_cursor *self = (vnl_cursor *)op;

    if (self->link != NULL) {
        PyObject *pending = vnl_sqlite_take_error();
        vnl_cursor_let_go(self);
        vnl_sqlite_put_error(pending);
        self->closed = 1;
    }
    Py_CLEAR(self->bound);
    Py_CLEAR(self->description);
    Py_CLEAR(self->row_factory);
    return 0;
}

static void
cursor_dealloc(PyObject *op)
{
    vnl_cursor *self = (vnl_cursor *)op;
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    cursor_clear(op);
    Py_CLEAR(self->lastrowid);
    Py_CLEAR(self->link);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"execute", _PyCFunction_CAST(cursor_execute), METH_FASTCALL,
     "execute(sql, params=None, /) -> Cursor\n\nRaises sqlite3's errors."},
    {"executemany", _PyCFunction_CAST(cursor_executemany), METH_FASTCALL,
     "executemany(sql, rows, /) -> Cursor\n\nOne statement for every row of parameters."},
    {"fetchone", cursor_fetchone, METH_NOARGS, "fetchone() -> tuple | None"},
    {"fetchmany", _PyCFunction_CAST(cursor_fetchmany), METH_VARARGS | METH_KEYWORDS,
     "fetchmany(size=arraysize) -> list[tuple]"},
    {"fetchall", cursor_fetchall, METH_NOARGS, "fetchall() -> list[tuple]"},
    {"close", cursor_close, METH_NOARGS, "close() -> None"},
    {"setinputsizes", cursor_ignore, METH_O, NULL},
    {"setoutputsize", cursor_ignore, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"connection", T_OBJECT, offsetof(vnl_cursor, link), READONLY, NULL},
    {"description", T_OBJECT, offsetof(vnl_cursor, description), READONLY, NULL},
    {"lastrowid", T_OBJECT, offsetof(vnl_cursor, lastrowid), READONLY, NULL},
    {"row_factory", T_OBJECT, offsetof(vnl_cursor, row_factory), 0, NULL},
    {"rowcount", T_PYSSIZET, offsetof(vnl_cursor, rowcount), READONLY, NULL},
    {"arraysize", T_PYSSIZET, offsetof(vnl_cursor, arraysize), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(vnl_cursor, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "A DB-API cursor; made by Connection.cursor()."},
    {Py_tp_dealloc, cursor_dealloc},
    {Py_tp_traverse, cursor_traverse},
    {Py_tp_clear, cursor_clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cursor_next},
    {0, NULL},
};

PyType_Spec vnl_cursor_spec = {
    .name = "vinyl._sqlite3.Cursor",
    .basicsize = sizeof(vnl_cursor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = type_slots,
};
