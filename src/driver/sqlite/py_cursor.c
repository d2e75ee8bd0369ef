/* vinyl._sqlite3.Cursor: execute, executemany, fetch. */
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

static void
link_cursor(vnl_cursor *self)
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
    if (stmt != NULL && self->link->conn != NULL) {
        vnl_sqlite_vfs_direct(1);
        vnl_sqlite_stmt_done(self->link->conn, stmt);
        vnl_sqlite_vfs_direct(-1);
    }
    Py_CLEAR(self->bound);
}

/* The same when the connection may be in the middle of something else: then it
 * is left to whoever is using it. */
static void
let_go(vnl_cursor *self)
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

static int
enter_wait(vnl_cursor *self, int take)
{
    vnl_sqlite_state *state = self->link->state;

    if (self->closed) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "Cannot operate on a closed cursor.");
        return -1;
    }
    if (self->busy) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "Recursive use of cursors not allowed.");
        return -1;
    }
    if (vnl_link_enter_wait(self->link, take) < 0) {
        return -1;
    }
    self->busy = 1;
    return 0;
}

static void
leave(vnl_cursor *self)
{
    self->busy = 0;
    vnl_link_leave(self->link);
}

/* A statement failed: SQLite may have ended the transaction with it. */
static void
note_failure(vnl_link *link, int was_open)
{
    if (was_open && link->conn != NULL && sqlite3_get_autocommit(link->conn->db)) {
        link->lost = 1;
    }
}

/* --- executing */

/* The SQL's UTF-8; NULL with an exception. */
static const char *
text_of(vnl_sqlite_state *state, PyObject *sql, Py_ssize_t *len)
{
    const char *text;

    if (!PyUnicode_Check(sql)) {
        PyErr_Format(PyExc_TypeError, "execute() argument 1 must be str, not %s", Py_TYPE(sql)->tp_name);
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(sql, len);
    if (text != NULL && memchr(text, '\0', (size_t)*len) != NULL) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "the query contains a null character");
        return NULL;
    }
    return text;
}

/* A BEGIN without I/O: it travels with the next statement.  1: that was one. */
static int
defer_begin(vnl_link *link, const char *sql, Py_ssize_t len)
{
    static const char *const begins[] = {"BEGIN", "BEGIN DEFERRED", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"};

    if (len > 15 || memcmp(sql, "BEGIN", len < 5 ? (size_t)len : 5) != 0 || link->closed ||
        vnl_link_in_transaction(link)) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
        if (strcmp(sql, begins[i]) == 0) {
            link->begin = begins[i];
            return 1;
        }
    }
    return 0;
}

static vnl_sqlite_style
style_of(const vnl_cursor *self, PyObject *params)
{
    if (!self->format || params == NULL || params == Py_None) {
        return VNL_STYLE_RAW;
    }
    if (PyTuple_Check(params) || PyList_Check(params)) {
        return VNL_STYLE_FORMAT;
    }
    return PyDict_Check(params) || PyObject_HasAttrString(params, "keys") ? VNL_STYLE_NAMED
                                                                          : VNL_STYLE_FORMAT;
}

static vnl_sqlite_stmt *
prepare_wait(vnl_cursor *self, const char *sql, Py_ssize_t len, vnl_sqlite_style style)
{
    vnl_sqlite_state *state = self->link->state;
    int rc = SQLITE_OK;
    vnl_sqlite_stmt *stmt = vnl_sqlite_prepare_wait(self->link->conn, sql, (size_t)len, style, &rc);

    if (stmt != NULL || PyErr_Occurred()) {
        if (stmt != NULL && PyErr_Occurred()) {
            vnl_sqlite_stmt_done(self->link->conn, stmt);
            return NULL;
        }
        return stmt;
    }
    if (rc == VNL_MORE_SQL) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "You can only execute one statement at a time.");
    }
    else if (rc == VNL_BAD_FORMAT) {
        vnl_sqlite_fail(state, VNL_E_PROGRAMMING,
                        "Placeholders must be %%(name)s, and a percent sign %%%%, in: %.200s", sql);
    }
    else if (rc == SQLITE_TOOBIG) {
        vnl_sqlite_fail(state, VNL_E_DATA, "query string is too large");
    }
    else {
        vnl_sqlite_raise(state, self->link->conn, rc);
    }
    return NULL;
}

/* After SQLITE_DONE: what the statement did; then it is let go of. */
static int
finish(vnl_cursor *self)
{
    vnl_sqlite_stmt *stmt = self->stmt;
    sqlite3 *db = self->link->conn->db;
    PyObject *rowid;

    if (stmt->writes) {
        self->rowcount = (self->rowcount < 0 ? 0 : self->rowcount) + sqlite3_changes(db);
    }
    if (stmt->kind == VNL_KIND_INSERT) {
        if ((rowid = PyLong_FromLongLong(sqlite3_last_insert_rowid(db))) == NULL) {
            return -1;
        }
        Py_XSETREF(self->lastrowid, rowid);
    }
    if (stmt->kind != VNL_KIND_OTHER) {
        vnl_sqlite_pin_after(self->link->conn, stmt);
    }
    vnl_cursor_reset(self);
    return 0;
}

/* One step; 1: a row stands ready, 0: done, -1: failed, the statement gone. */
static int
step_wait(vnl_cursor *self, int first)
{
    vnl_link *link = self->link;
    vnl_sqlite_stmt *stmt = self->stmt;
    int was_open = !sqlite3_get_autocommit(link->conn->db);
    int rc = vnl_sqlite_step_wait(link->conn, stmt, first);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        vnl_sqlite_raise(link->state, link->conn, rc);
        vnl_cursor_reset(self);
        note_failure(link, was_open);
        return -1;
    }
    if (PyErr_Occurred()) { /* a cancel that came while it was finishing */
        vnl_cursor_reset(self);
        return -1;
    }
    if (rc == SQLITE_ROW) {
        return 1;
    }
    return finish(self) < 0 ? -1 : 0;
}

/* Whether SQLite has left this transaction; its ROLLBACK is still welcome. */
static int
refuse_lost(vnl_link *link, const vnl_sqlite_stmt *stmt)
{
    if (!link->lost) {
        return 0;
    }
    if (stmt->kind == VNL_KIND_ROLLBACK) {
        link->lost = 0;
    }
    vnl_sqlite_fail(link->state, VNL_E_OPERATIONAL,
                    "SQLite rolled this transaction back when a statement failed; nothing of it is left");
    return -1;
}

static int
describe(vnl_cursor *self)
{
    vnl_sqlite_columns *columns = NULL;

    if (self->stmt->raw == NULL || sqlite3_column_count(self->stmt->raw) == 0) {
        return 0;
    }
    columns = vnl_sqlite_columns_of(self->link->state, self->stmt, self->link->detect_types);
    if (columns == NULL) {
        return -1;
    }
    Py_XSETREF(self->description, Py_NewRef(columns->description));
    return 0;
}

/* Prepared and begun, in self->stmt; -1. */
static int
start_wait(vnl_cursor *self, const char *sql, Py_ssize_t len, vnl_sqlite_style style)
{
    vnl_link *link = self->link;
    /* The schema may only be right inside the transaction: BEGIN goes first. */
    vnl_sqlite_stmt *stmt = prepare_wait(self, sql, len, style);

    if (stmt == NULL) {
        return -1;
    }
    self->stmt = stmt;
    link_cursor(self);
    if (refuse_lost(link, stmt) < 0 || vnl_link_begin_wait(link, stmt) < 0) {
        vnl_cursor_reset(self);
        return -1;
    }
    link->state->core->count_statement();
    return 0;
}

PyObject *
vnl_cursor_execute_wait(vnl_cursor *self, PyObject *sql, PyObject *params)
{
    vnl_link *link = self->link;
    Py_ssize_t len = 0;
    const char *text = text_of(link->state, sql, &len);
    int rc = -1;

    if (text == NULL) {
        return NULL;
    }
    if (!self->closed && self->stmt == NULL && defer_begin(link, text, len)) {
        Py_XSETREF(self->description, Py_NewRef(Py_None));
        self->rowcount = -1;
        return Py_NewRef(self);
    }
    if (enter_wait(self, 1) < 0) {
        return NULL;
    }
    vnl_cursor_reset(self);
    Py_XSETREF(self->description, Py_NewRef(Py_None));
    self->rowcount = -1;
    if (start_wait(self, text, len, style_of(self, params)) < 0) {
        goto done;
    }
    if (vnl_sqlite_bind(link->state, link->conn, self->stmt, params, &self->bound) < 0) {
        vnl_cursor_reset(self);
        goto done;
    }
    if (self->stmt->pragma != NULL) {
        vnl_sqlite_pin_before(link->conn, self->stmt);
    }
    if (describe(self) < 0) {
        vnl_cursor_reset(self);
        goto done;
    }
    rc = step_wait(self, 1);
    /* SQLite may have prepared it anew for a changed schema. */
    if (rc == 1 && describe(self) < 0) {
        vnl_cursor_reset(self);
        rc = -1;
    }
done:
    leave(self);
    return rc < 0 ? NULL : Py_NewRef(self);
}

/* Runs the started statement once for `params`; keeps it started. */
static int
run_once_wait(vnl_cursor *self, PyObject *params)
{
    vnl_link *link = self->link;
    vnl_sqlite_stmt *stmt = self->stmt;
    int was_open = !sqlite3_get_autocommit(link->conn->db);
    int rc;

    if (vnl_sqlite_bind(link->state, link->conn, stmt, params, &self->bound) < 0) {
        return -1;
    }
    do { /* rows of a RETURNING clause are not kept */
        rc = vnl_sqlite_step_wait(link->conn, stmt, 1);
    } while (rc == SQLITE_ROW);
    if (rc != SQLITE_DONE) {
        vnl_sqlite_raise(link->state, link->conn, rc);
        sqlite3_reset(stmt->raw);
        note_failure(link, was_open);
        return -1;
    }
    sqlite3_reset(stmt->raw);
    if (PyErr_Occurred()) {
        return -1;
    }
    self->rowcount += stmt->writes ? sqlite3_changes(link->conn->db) : 0;
    return vnl_sqlite_turn_wait(link->conn);
}

PyObject *
vnl_cursor_executemany_wait(vnl_cursor *self, PyObject *sql, PyObject *rows)
{
    vnl_link *link = self->link;
    Py_ssize_t len = 0;
    const char *text = text_of(link->state, sql, &len);
    PyObject *iterator = NULL, *params = NULL;
    int rc = -1;

    if (text == NULL || (iterator = PyObject_GetIter(rows)) == NULL) {
        return NULL;
    }
    params = PyIter_Next(iterator);
    if (PyErr_Occurred() || enter_wait(self, 1) < 0) {
        goto done;
    }
    vnl_cursor_reset(self);
    Py_XSETREF(self->description, Py_NewRef(Py_None));
    self->rowcount = -1;
    if (start_wait(self, text, len, style_of(self, params)) < 0) {
        goto out;
    }
    if (!self->stmt->writes) {
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING, "executemany() can only execute DML statements.");
        goto out;
    }
    self->rowcount = 0;
    while (params != NULL) {
        if (run_once_wait(self, params) < 0) {
            goto out;
        }
        Py_SETREF(params, PyIter_Next(iterator));
    }
    rc = PyErr_Occurred() ? -1 : 0;
out:
    vnl_cursor_reset(self);
    leave(self);
done:
    Py_XDECREF(params);
    Py_DECREF(iterator);
    return rc < 0 ? NULL : Py_NewRef(self);
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
    if (step_wait(self, 0) < 0) {
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

    if (check_open(self) < 0 || self->stmt == NULL || enter_wait(self, 0) < 0) {
        return NULL;
    }
    row = next_row_wait(self);
    leave(self);
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
    if (enter_wait(self, 0) < 0) {
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
    leave(self);
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
    let_go(self);
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
    return 0;
}

static int
cursor_clear(PyObject *op)
{
    vnl_cursor *self = (vnl_cursor *)op;

    if (self->link != NULL) {
        PyObject *pending = vnl_sqlite_take_error();
        let_go(self);
        vnl_sqlite_put_error(pending);
        self->closed = 1;
    }
    Py_CLEAR(self->bound);
    Py_CLEAR(self->description);
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
