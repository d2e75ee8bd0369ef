/* Copy: what cursor.copy() gives, a context manager.
 *
 * The link is entered from start to end: nothing else runs on it meanwhile.
 * Leaving the block with an exception makes a COPY FROM fail on the server,
 * and cancels a COPY TO.
 */
#include "py.h"

#include <limits.h>
#include <string.h>

typedef struct pg_copy {
    PyObject_HEAD
    pg_cursor *cursor;
    PyObject *sql; /* with literals; NULL once started */
    int running, out;
    int was_in_txn;
} pg_copy;

PyObject *
pg_cursor_copy(pg_cursor *cur, PyObject *args)
{
    PyObject *query = NULL, *params = NULL;
    if (!PyArg_ParseTuple(args, "O|O", &query, &params) || pg_cursor_set_statement(cur, query, params) < 0) {
        return NULL;
    }
    PyObject *sql = PyObject_GetAttrString((PyObject *)cur, "query");
    pg_copy *copy = sql != NULL ? (pg_copy *)PyType_GenericAlloc(cur->link->state->copy_type, 0) : NULL;
    if (copy == NULL) {
        Py_XDECREF(sql);
        return NULL;
    }
    copy->cursor = (pg_cursor *)Py_NewRef(cur);
    copy->sql = sql;
    return (PyObject *)copy;
}

/* The copy is over: the link is free again. */
static void
release(pg_copy *copy)
{
    pg_link *link = copy->cursor->link;
    copy->running = 0;
    link->copying = 0;
    pg_link_leave(link);
}

/* A step failed: raises, cleans up, ends the copy.  Clears `result`. */
static void
fail(pg_copy *copy, vnl_pg_status status, PGresult *result)
{
    pg_link *link = copy->cursor->link;
    if (status == VNL_PG_INTERRUPTED) {
        pg_link_cancel_statement(link);
    }
    else if (status == VNL_PG_TIMEOUT) {
        pg_link_overdue(link);
    }
    else {
        pg_raise_status(link->state, status, result, link->conn->pg);
        if (status == VNL_PG_LOST || link->conn->inflight) {
            pg_link_lost(link, copy->was_in_txn);
        }
    }
    PQclear(result);
    release(copy);
}

static PyObject *
copy_enter(PyObject *op, PyObject *unused)
{
    pg_copy *copy = (pg_copy *)op;
    pg_link *link = copy->cursor->link;
    if (copy->sql == NULL) {
        return pg_raise(link->state, "ProgrammingError", "a copy object is used once");
    }
    if (pg_link_enter_wait(link) < 0) {
        return NULL;
    }
    PyObject *sql = copy->sql;
    copy->sql = NULL;
    copy->running = link->copying = 1;
    const char *text = PyUnicode_AsUTF8(sql);
    if (text == NULL || pg_link_attach_wait(link) < 0 || pg_link_begin_wait(link) < 0) {
        release(copy);
        Py_DECREF(sql);
        return NULL;
    }
    pg_cursor_reset(copy->cursor);
    copy->was_in_txn = pg_link_in_txn(link);
    PGresult *result = NULL;
    vnl_pg_status status = vnl_pg_copy_start_wait(link->conn, text, pg_link_deadline(link), &result);
    Py_DECREF(sql);
    if (status == VNL_PG_COPY) {
        PQclear(result);
        release(copy);
        return pg_raise(link->state, "ProgrammingError",
                        "copy() needs a COPY … FROM STDIN or TO STDOUT statement");
    }
    if (status != VNL_PG_OK) {
        fail(copy, status, result);
        return NULL;
    }
    copy->out = PQresultStatus(result) == PGRES_COPY_OUT;
    PQclear(result);
    return Py_NewRef(op);
}

static int
check_running(pg_copy *copy, int out)
{
    if (copy->running && copy->out == out) {
        return 0;
    }
    pg_raise(copy->cursor->link->state, "ProgrammingError", "%s",
             !copy->running ? "the copy is not running: use it as a context manager"
             : copy->out    ? "this COPY … TO STDOUT is to be read, not written"
                            : "this COPY … FROM STDIN is to be written, not read");
    return -1;
}

/* The statement's last word. */
static int
finish(pg_copy *copy, vnl_pg_status status, PGresult *result)
{
    if (status != VNL_PG_OK) {
        fail(copy, status, result);
        return -1;
    }
    pg_link *link = copy->cursor->link;
    int rc = result != NULL ? pg_cursor_take(copy->cursor, result) : 0;
    if (rc == 0) {
        rc = pg_link_notices(link);
    }
    release(copy);
    return rc;
}

static PyObject *
copy_write(PyObject *op, PyObject *data)
{
    pg_copy *copy = (pg_copy *)op;
    if (check_running(copy, 0) < 0) {
        return NULL;
    }
    Py_buffer view = {0};
    const char *bytes = NULL;
    Py_ssize_t len = 0;
    if (PyUnicode_Check(data)) {
        bytes = PyUnicode_AsUTF8AndSize(data, &len);
        if (bytes == NULL) {
            return NULL;
        }
    }
    else if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
        bytes = view.buf;
        len = view.len;
    }
    else {
        return NULL;
    }
    /* The caller may drop its argument while the fiber waits. */
    Py_INCREF(data);
    vnl_pg_status status = VNL_PG_OK;
    for (Py_ssize_t at = 0; at < len && status == VNL_PG_OK; at += 65536) {
        int part = (int)(len - at < 65536 ? len - at : 65536);
        status = vnl_pg_copy_put_wait(copy->cursor->link->conn, bytes + at, part,
                                      pg_link_deadline(copy->cursor->link));
    }
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    Py_DECREF(data);
    if (status != VNL_PG_OK) {
        fail(copy, status, NULL);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The next block, or NULL: at the end with no exception. */
static PyObject *
next_block(pg_copy *copy)
{
    vnl_pg_conn *conn = copy->cursor->link->conn;
    char *data = NULL;
    int len = 0;
    vnl_pg_status status = vnl_pg_copy_get_wait(conn, pg_link_deadline(copy->cursor->link), &data, &len);
    if (status != VNL_PG_OK) {
        fail(copy, status, NULL);
        return NULL;
    }
    if (len > 0) {
        PyObject *block = PyBytes_FromStringAndSize(data, len);
        PQfreemem(data);
        return block;
    }
    PGresult *result = NULL;
    status = vnl_pg_copy_finish_wait(conn, pg_link_deadline(copy->cursor->link), &result);
    finish(copy, status, result);
    return NULL;
}

static PyObject *
copy_read(PyObject *op, PyObject *unused)
{
    pg_copy *copy = (pg_copy *)op;
    if (!copy->running && copy->out && copy->sql == NULL) {
        return PyBytes_FromStringAndSize("", 0);
    }
    if (check_running(copy, 1) < 0) {
        return NULL;
    }
    PyObject *block = next_block(copy);
    return block != NULL || PyErr_Occurred() ? block : PyBytes_FromStringAndSize("", 0);
}

static PyObject *
copy_iternext(PyObject *op)
{
    pg_copy *copy = (pg_copy *)op;
    if (!copy->running && copy->out && copy->sql == NULL) {
        return NULL;
    }
    return check_running(copy, 1) < 0 ? NULL : next_block(copy);
}

/* Ends a copy that is left early; the exception in flight, if any, is kept by Python. */
static void
abandon(pg_copy *copy)
{
    pg_link *link = copy->cursor->link;
    pg_link_cancel_statement(link);
    release(copy);
}

static PyObject *
copy_exit(PyObject *op, PyObject *args)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    pg_copy *copy = (pg_copy *)op;
    if (!PyArg_ParseTuple(args, "OOO", &type, &value, &trace)) {
        return NULL;
    }
    if (!copy->running) {
        Py_RETURN_NONE;
    }
    if (copy->out) {
        abandon(copy);
        Py_RETURN_NONE;
    }
    PGresult *result = NULL;
    const char *error = type != Py_None ? "the program that sends the data failed" : NULL;
    vnl_pg_status status =
        vnl_pg_copy_end_wait(copy->cursor->link->conn, error, pg_link_deadline(copy->cursor->link), &result);
    if (error != NULL && status == VNL_PG_SERVER) {
        PQclear(result);
        release(copy);
        Py_RETURN_NONE; /* as asked; the program's own exception goes on */
    }
    return finish(copy, status, result) < 0 ? NULL : Py_NewRef(Py_None);
}

static int
copy_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((pg_copy *)op)->cursor);
    return 0;
}

static void
copy_dealloc(PyObject *op)
{
    pg_copy *copy = (pg_copy *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (copy->running) {
        /* Dropped in mid-copy: no I/O here, the connection goes. */
        PyObject *error_type = NULL, *error = NULL, *trace = NULL;
        PyErr_Fetch(&error_type, &error, &trace);
        if (copy->cursor->link->slot != NULL) {
            vnl_pg_core->slot_warn_dropped(copy->cursor->link->slot, "in the middle of a COPY, which fails");
        }
        pg_link_lost(copy->cursor->link, copy->was_in_txn);
        release(copy);
        PyErr_Restore(error_type, error, trace);
    }
    Py_CLEAR(copy->sql);
    Py_CLEAR(copy->cursor);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef copy_methods[] = {
    {"write", copy_write, METH_O, "Sends str (as UTF-8) or bytes of a COPY … FROM STDIN."},
    {"read", copy_read, METH_NOARGS, "The next block of a COPY … TO STDOUT as bytes; b'' at the end."},
    {"__enter__", copy_enter, METH_NOARGS, NULL},
    {"__exit__", copy_exit, METH_VARARGS, NULL},
    {NULL},
};

static PyType_Slot copy_slots[] = {
    {Py_tp_doc, "A running COPY: with cursor.copy(sql) as copy."},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, copy_iternext},
    {Py_tp_traverse, copy_traverse},
    {Py_tp_dealloc, copy_dealloc},
    {Py_tp_methods, copy_methods},
    {0, NULL},
};

PyType_Spec pg_copy_spec = {
    .name = "vinyl._postgres.Copy",
    .basicsize = sizeof(pg_copy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = copy_slots,
};
