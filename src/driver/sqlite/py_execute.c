/* Cursor.execute and executemany. */
#include "py_sqlite.h"

#define ROWS_AT_ONCE 200

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

/* Of one set of parameters; without any, the SQL is taken as it is. */
static vnl_sqlite_style
style_of(const vnl_cursor *self, PyObject *params)
{
    if (!self->format || params == Py_None) {
        return VNL_STYLE_RAW;
    }
    if (params == NULL || PyTuple_Check(params) || PyList_Check(params)) {
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
int
vnl_cursor_step_wait(vnl_cursor *self, int first)
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
describe(vnl_cursor *self, int again)
{
    vnl_sqlite_columns *columns = NULL;

    if (self->stmt->raw == NULL || sqlite3_column_count(self->stmt->raw) == 0) {
        return 0;
    }
    if (again && vnl_sqlite_columns_hold(self->link->state, self->stmt) < 0) {
        return -1;
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
    vnl_sqlite_stmt *stmt = NULL;

    /* Preparing may do what the statement says: a BEGIN that waits goes first. */
    if (vnl_link_begin_wait(link, NULL) < 0 || (stmt = prepare_wait(self, sql, len, style)) == NULL) {
        return -1;
    }
    self->stmt = stmt;
    vnl_cursor_link(self);
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
    if (vnl_cursor_enter_wait(self, 1) < 0) {
        return NULL;
    }
    vnl_cursor_reset(self);
    Py_XSETREF(self->description, Py_NewRef(Py_None));
    self->rowcount = -1;
    if (start_wait(self, text, len, style_of(self, params == NULL ? Py_None : params)) < 0) {
        goto done;
    }
    if (vnl_sqlite_bind_wait(link->state, link->conn, self->stmt, params, &self->bound) < 0) {
        vnl_cursor_reset(self);
        goto done;
    }
    if (describe(self, 1) < 0) {
        vnl_cursor_reset(self);
        goto done;
    }
    rc = vnl_cursor_step_wait(self, 1);
    /* SQLite may have prepared it anew for a changed schema. */
    if (rc == 1 && describe(self, 0) < 0) {
        vnl_cursor_reset(self);
        rc = -1;
    }
done:
    vnl_cursor_leave(self);
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

    if (vnl_sqlite_bind_wait(link->state, link->conn, stmt, params, &self->bound) < 0) {
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

/* The next parameters, as a new list that is empty at the end.  No connection
 * is held meanwhile: an iterator may itself ask the database. */
static PyObject *
next_rows(PyObject *iterator)
{
    PyObject *rows = PyList_New(0);

    for (int n = 0; rows != NULL && n < ROWS_AT_ONCE; n++) {
        PyObject *params = PyIter_Next(iterator);
        if (params == NULL || PyList_Append(rows, params) < 0) {
            Py_XDECREF(params);
            break;
        }
        Py_DECREF(params);
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(rows);
    }
    return rows;
}

static int
run_rows_wait(vnl_cursor *self, PyObject *rows)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        if (run_once_wait(self, PyList_GET_ITEM(rows, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The first rows, with which the statement starts. */
static int
start_many_wait(vnl_cursor *self, const char *sql, Py_ssize_t len, PyObject *rows)
{
    vnl_sqlite_style style = style_of(self, PyList_GET_SIZE(rows) > 0 ? PyList_GET_ITEM(rows, 0) : NULL);

    vnl_cursor_reset(self);
    Py_XSETREF(self->description, Py_NewRef(Py_None));
    self->rowcount = -1;
    if (start_wait(self, sql, len, style) < 0) {
        return -1;
    }
    if (!self->stmt->writes) {
        vnl_sqlite_fail(self->link->state, VNL_E_PROGRAMMING,
                        "executemany() can only execute DML statements.");
        return -1;
    }
    self->rowcount = 0;
    return run_rows_wait(self, rows);
}

PyObject *
vnl_cursor_executemany_wait(vnl_cursor *self, PyObject *sql, PyObject *many)
{
    Py_ssize_t len = 0;
    const char *text = text_of(self->link->state, sql, &len);
    PyObject *iterator = NULL, *rows = NULL;
    int rc = -1;

    if (text == NULL || (iterator = PyObject_GetIter(many)) == NULL) {
        return NULL;
    }
    rows = next_rows(iterator);
    if (rows == NULL || vnl_cursor_enter_wait(self, 1) < 0) {
        goto done;
    }
    rc = start_many_wait(self, text, len, rows);
    while (rc == 0 && PyList_GET_SIZE(rows) == ROWS_AT_ONCE) {
        /* The statement under way keeps the connection. */
        vnl_link_leave(self->link);
        Py_SETREF(rows, next_rows(iterator));
        if (rows == NULL || vnl_link_enter_wait(self->link, 1) < 0) {
            self->busy = 0;
            vnl_cursor_let_go(self);
            rc = -1;
            goto done;
        }
        rc = self->stmt == NULL ? -1 : run_rows_wait(self, rows);
        if (self->stmt == NULL) {
            vnl_sqlite_fail(self->link->state, VNL_E_PROGRAMMING, "Cannot operate on a closed database.");
        }
    }
    vnl_cursor_reset(self);
    vnl_cursor_leave(self);
done:
    Py_XDECREF(rows);
    Py_DECREF(iterator);
    return rc < 0 ? NULL : Py_NewRef(self);
}
