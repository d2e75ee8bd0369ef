/* What is set on a live connection (functions, collations, limits, tracing),
 * scripts, and backup: methods of vinyl._sqlite3.Connection.  A limit or a
 * trace callback pins the physical connection to its link. */
#include "py_sqlite.h"

#define PAGES_PER_TURN 64

static PyObject *
set_up(vnl_link *self, int rc)
{
    if (rc == 0 && !self->borrowed) {
        self->conn->pins |= VNL_PIN_USER;
    }
    vnl_link_leave(self);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
registered(int rc)
{
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
create_function(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "narg", "func", "deterministic", NULL};
    const char *name;
    int narg, deterministic = 0;
    PyObject *func;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "siO|$p:create_function", names, &name, &narg, &func,
                                     &deterministic)) {
        return NULL;
    }
    return registered(vnl_link_register((vnl_link *)op, VNL_REG_FUNCTION, name, narg, func,
                                        deterministic ? SQLITE_DETERMINISTIC : 0));
}

static PyObject *
create_aggregate(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "n_arg", "aggregate_class", NULL};
    const char *name;
    int narg;
    PyObject *cls;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "siO:create_aggregate", names, &name, &narg, &cls)) {
        return NULL;
    }
    return registered(vnl_link_register((vnl_link *)op, VNL_REG_AGGREGATE, name, narg, cls, 0));
}

static PyObject *
create_window_function(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "num_params", "aggregate_class", NULL};
    const char *name;
    int narg;
    PyObject *cls;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "siO:create_window_function", names, &name, &narg, &cls)) {
        return NULL;
    }
    return registered(vnl_link_register((vnl_link *)op, VNL_REG_WINDOW, name, narg, cls, 0));
}

static PyObject *
create_collation(PyObject *op, PyObject *args)
{
    const char *name;
    PyObject *callable;

    if (!PyArg_ParseTuple(args, "sO:create_collation", &name, &callable)) {
        return NULL;
    }
    if (callable != Py_None && !PyCallable_Check(callable)) {
        PyErr_SetString(PyExc_TypeError, "parameter must be callable");
        return NULL;
    }
    return registered(vnl_link_register((vnl_link *)op, VNL_REG_COLLATION, name, 0, callable, 0));
}

static PyObject *
set_trace_callback(PyObject *op, PyObject *callable)
{
    vnl_link *self = (vnl_link *)op;

    if (vnl_link_enter_wait(self, 1) < 0) {
        return NULL;
    }
    Py_XSETREF(self->trace, Py_NewRef(callable));
    return set_up(self, vnl_link_trace(self, callable));
}

/* SQLite's limits are the same for every fresh connection of a process. */
static PyObject *
limit(vnl_link *self, int category, int value)
{
    sqlite3 *db = NULL;
    int old = -1;

    if (self->conn != NULL) {
        old = sqlite3_limit(self->conn->db, category, value);
    }
    else if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL) ==
             SQLITE_OK) {
        old = sqlite3_limit(db, category, -1);
    }
    sqlite3_close(db);
    if (old < 0) {
        return vnl_sqlite_fail(self->state, VNL_E_PROGRAMMING, "'category' is out of bounds");
    }
    return PyLong_FromLong(old);
}

static PyObject *
getlimit(PyObject *op, PyObject *arg)
{
    long category = PyLong_AsLong(arg);

    if (category == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return limit((vnl_link *)op, category < 0 || category > 100 ? 100 : (int)category, -1);
}

static PyObject *
setlimit(PyObject *op, PyObject *args)
{
    vnl_link *self = (vnl_link *)op;
    int category, value;
    PyObject *old;

    if (!PyArg_ParseTuple(args, "ii:setlimit", &category, &value) || vnl_link_enter_wait(self, 1) < 0) {
        return NULL;
    }
    vnl_sqlite_batch_connect_wait(self->conn);
    old = limit(self, category, value);
    Py_XDECREF(set_up(self, old == NULL ? -1 : 0));
    return old;
}

/* --- scripts */

static int
run_script_wait(vnl_link *self, const char *sql)
{
    vnl_sqlite_conn *conn = self->conn;

    while (*sql != '\0') {
        vnl_sqlite_stmt stmt = {.kind = VNL_KIND_OTHER};
        const char *tail = "";
        int rc = SQLITE_NOMEM;
        if (vnl_sqlite_classify(&stmt, sql) == 0) {
            if (stmt.pragma != NULL) {
                vnl_sqlite_pin_before(conn, &stmt);
            }
            vnl_sqlite_enter(conn);
            rc = sqlite3_prepare_v2(conn->db, sql, -1, &stmt.raw, &tail);
            vnl_sqlite_leave(conn);
        }
        if (rc == SQLITE_OK && stmt.raw != NULL) {
            do {
                rc = vnl_sqlite_step_wait(conn, &stmt, 1);
            } while (rc == SQLITE_ROW);
            if (rc == SQLITE_DONE) {
                rc = SQLITE_OK;
                vnl_sqlite_pin_after(conn, &stmt);
            }
        }
        sqlite3_finalize(stmt.raw);
        free(stmt.pragma);
        if (rc != SQLITE_OK || tail == NULL) {
            vnl_sqlite_raise(self->state, conn, rc);
            return -1;
        }
        if (PyErr_Occurred() || vnl_sqlite_turn_wait(conn) < 0) {
            return -1;
        }
        sql = tail;
    }
    return 0;
}

/* As sqlite3's: an open transaction is committed first. */
static PyObject *
executescript(PyObject *op, PyObject *arg)
{
    vnl_link *self = (vnl_link *)op;
    const char *text;
    Py_ssize_t len;
    PyObject *cursor = NULL;
    int rc;

    if (!PyUnicode_Check(arg)) {
        return PyErr_Format(PyExc_TypeError, "executescript() argument must be str, not %s",
                            Py_TYPE(arg)->tp_name);
    }
    if ((text = PyUnicode_AsUTF8AndSize(arg, &len)) == NULL) {
        return NULL;
    }
    if (strlen(text) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "embedded null character");
        return NULL;
    }
    if ((cursor = vnl_cursor_new(self, 0)) == NULL || vnl_link_enter_wait(self, 1) < 0) {
        Py_XDECREF(cursor);
        return NULL;
    }
    rc = vnl_link_commit_wait(self);
    if (rc == 0) {
        rc = run_script_wait(self, text);
    }
    vnl_link_leave(self);
    if (rc < 0) {
        Py_CLEAR(cursor);
    }
    return cursor;
}

/* --- backup */

/* Copies page by page, giving the loop its turn between steps: nothing is
 * switched inside SQLite but the target's fsync and the waits for locks. */
static int
copy_wait(vnl_link *self, vnl_sqlite_conn *to, const char *name, int pages, PyObject *progress, double pause)
{
    vnl_sqlite_conn *from = self->conn;
    sqlite3_backup *backup = sqlite3_backup_init(to->db, "main", from->db, name);
    int rc = SQLITE_OK;
    int chunk = pages > 0 ? pages : PAGES_PER_TURN;

    if (backup == NULL) {
        vnl_sqlite_raise(self->state, to, sqlite3_errcode(to->db));
        return -1;
    }
    do {
        vnl_sqlite_enter_both(to, from);
        rc = sqlite3_backup_step(backup, chunk);
        vnl_sqlite_leave_both(to, from);
        if (progress != Py_None && !PyErr_Occurred()) {
            Py_XDECREF(PyObject_CallFunction(progress, "iii", rc, sqlite3_backup_remaining(backup),
                                             sqlite3_backup_pagecount(backup)));
        }
        if (PyErr_Occurred()) {
            break;
        }
        if ((rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED) {
            (void)self->state->core->sleep_wait((int64_t)(pause * 1e9));
        }
        else if (rc == SQLITE_OK) {
            (void)vnl_sqlite_turn_wait(to);
        }
    } while (!PyErr_Occurred() &&
             (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED));
    sqlite3_backup_finish(backup);
    if (rc != SQLITE_DONE && !PyErr_Occurred()) {
        vnl_sqlite_raise(self->state, to, rc);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* The database as one byte string, in rollback-journal form: an in-memory copy
 * cannot be opened in WAL mode. */
static PyObject *
image_of(vnl_link *self, const char *name)
{
    sqlite3_int64 size = 0;
    unsigned char *data = sqlite3_serialize(self->conn->db, name, &size, 0);
    PyObject *image = NULL;

    if (data == NULL) {
        return size == 0 ? PyBytes_FromStringAndSize("", 0) : PyErr_NoMemory();
    }
    if (size >= 100) { /* bytes 18 and 19 of the header: the read and write versions */
        data[18] = data[19] = 1;
    }
    image = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    sqlite3_free(data);
    return image;
}

/* Into a connection of the sqlite3 module, whose handle nobody can reach: by
 * way of an in-memory one that can load our image. */
static int
copy_to_module(vnl_link *self, PyObject *target, const char *name)
{
    PyObject *image = image_of(self, name);
    PyObject *module = image == NULL ? NULL : PyImport_ImportModule("sqlite3");
    PyObject *memory = module == NULL ? NULL : PyObject_CallMethod(module, "connect", "s", ":memory:");
    PyObject *done = NULL, *pending;

    if (memory != NULL) {
        done = PyBytes_GET_SIZE(image) == 0 ? Py_NewRef(Py_None)
                                            : PyObject_CallMethod(memory, "deserialize", "O", image);
        if (done != NULL) {
            Py_SETREF(done, PyObject_CallMethod(memory, "backup", "O", target));
        }
        pending = vnl_sqlite_take_error();
        Py_XDECREF(PyObject_CallMethod(memory, "close", NULL));
        PyErr_Clear();
        vnl_sqlite_put_error(pending);
    }
    Py_XDECREF(memory);
    Py_XDECREF(module);
    Py_XDECREF(image);
    if (done == NULL) {
        return -1;
    }
    Py_DECREF(done);
    return 0;
}

static PyObject *
backup(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"target", "pages", "progress", "name", "sleep", NULL};
    vnl_link *self = (vnl_link *)op;
    PyObject *target, *progress = Py_None;
    const char *name = "main";
    int pages = -1, rc;
    double pause = 0.25;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$iOsd:backup", names, &target, &pages, &progress, &name,
                                     &pause)) {
        return NULL;
    }
    if (target == op) {
        PyErr_SetString(PyExc_ValueError, "target cannot be the same connection instance");
        return NULL;
    }
    if (vnl_link_enter_wait(self, 1) < 0) {
        return NULL;
    }
    if (Py_IS_TYPE(target, self->state->connection_type)) {
        vnl_link *to = (vnl_link *)target;
        rc = vnl_link_enter_wait(to, 1);
        if (rc == 0) {
            rc = copy_wait(self, to->conn, name, pages, progress, pause);
            vnl_link_leave(to);
        }
    }
    else {
        rc = copy_to_module(self, target, name);
    }
    vnl_link_leave(self);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef vnl_connection_more[] = {
    {"create_function", _PyCFunction_CAST(create_function), METH_VARARGS | METH_KEYWORDS,
     "create_function(name, narg, func, *, deterministic=False) -> None"},
    {"create_aggregate", _PyCFunction_CAST(create_aggregate), METH_VARARGS | METH_KEYWORDS,
     "create_aggregate(name, n_arg, aggregate_class) -> None"},
    {"create_window_function", _PyCFunction_CAST(create_window_function), METH_VARARGS | METH_KEYWORDS,
     "create_window_function(name, n_arg, aggregate_class) -> None"},
    {"create_collation", create_collation, METH_VARARGS, "create_collation(name, callable, /) -> None"},
    {"set_trace_callback", set_trace_callback, METH_O, "set_trace_callback(callable, /) -> None"},
    {"getlimit", getlimit, METH_O, "getlimit(category, /) -> int"},
    {"setlimit", setlimit, METH_VARARGS, "setlimit(category, limit, /) -> int"},
    {"executescript", executescript, METH_O, "executescript(sql, /) -> Cursor"},
    {"backup", _PyCFunction_CAST(backup), METH_VARARGS | METH_KEYWORDS,
     "backup(target, *, pages=-1, progress=None, name='main', sleep=0.25) -> None\n\n"
     "target: a vinyl or sqlite3 connection."},
    {NULL},
};
