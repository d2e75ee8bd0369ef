/* Copy: what cursor.copy() gives, a context manager.
 *
 * The link is entered from start to end: nothing else runs on it meanwhile.
 * Leaving the block with an exception makes a COPY FROM fail on the server,
 * and cancels a COPY TO.
 */
#include "py.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FULL 32768 /* bytes of rows that are kept before they are sent */

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
        pg_link_raise(link, status, result);
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
    copy->binary = PQbinaryTuples(result);
    PQclear(result);
    return Py_NewRef(op);
}

int
pg_copy_check(pg_copy *copy, int out)
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

/* `data` stays where it is meanwhile. */
static int
send_wait(pg_copy *copy, const char *data, Py_ssize_t len)
{
    vnl_pg_status status = VNL_PG_OK;
    for (Py_ssize_t at = 0; at < len && status == VNL_PG_OK; at += 65536) {
        if (pg_copy_check(copy, 0) < 0) { /* ended while it waited */
            return -1;
        }
        int part = (int)(len - at < 65536 ? len - at : 65536);
        status = vnl_pg_copy_put_wait(copy->cursor->link->conn, data + at, part,
                                      pg_link_deadline(copy->cursor->link));
    }
    if (status != VNL_PG_OK) {
        fail(copy, status, NULL);
        return -1;
    }
    return 0;
}

int
pg_copy_flush_wait(pg_copy *copy)
{
    size_t len = 0;
    char *data = vnl_buf_steal(&copy->unsent, &len);
    int rc = data != NULL ? send_wait(copy, data, (Py_ssize_t)len) : 0;
    free(data);
    return rc;
}

static PyObject *
copy_write(PyObject *op, PyObject *data)
{
    pg_copy *copy = (pg_copy *)op;
    if (pg_copy_check(copy, 0) < 0 || pg_copy_flush_wait(copy) < 0) {
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
    copy->begun = 1; /* whoever writes bytes writes the signature and the trailer too */
    /* The caller may drop its argument while the fiber waits. */
    Py_INCREF(data);
    int rc = send_wait(copy, bytes, len);
    if (view.obj != NULL) {
        PyBuffer_Release(&view);
    }
    Py_DECREF(data);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
copy_keep_row(PyObject *op, PyObject *row)
{
    pg_copy *copy = (pg_copy *)op;
    if (pg_copy_check(copy, 0) < 0 || pg_copy_add_row(copy, row) < 0) {
        return NULL;
    }
    return PyBool_FromLong(copy->unsent.len >= FULL);
}

static PyObject *
copy_send_rows(PyObject *op, PyObject *unused)
{
    pg_copy *copy = (pg_copy *)op;
    if (pg_copy_check(copy, 0) < 0 || pg_copy_flush_wait(copy) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
copy_write_row(PyObject *op, PyObject *row)
{
    PyObject *full = copy_keep_row(op, row);
    int send = full == Py_True;
    Py_XDECREF(full);
    return full == NULL ? NULL : send ? copy_send_rows(op, NULL) : Py_NewRef(Py_None);
}

int
pg_copy_next_wait(pg_copy *copy, int wait, char **data, int *len)
{
    vnl_pg_conn *conn = copy->cursor->link->conn;
    *len = 0;
    if (!copy->drained) {
        vnl_pg_status status = VNL_PG_OK;
        if (wait) {
            status = vnl_pg_copy_get_wait(conn, pg_link_deadline(copy->cursor->link), data, len);
        }
        else {
            *len = PQgetCopyData(conn->pg, data, 1);
        }
        if (status != VNL_PG_OK) {
            fail(copy, status, NULL);
            return -1;
        }
        if (*len > 0) {
            return 1;
        }
        copy->drained = wait || *len < 0;
    }
    if (!wait) {
        return 0;
    }
    PGresult *result = NULL;
    vnl_pg_status status = vnl_pg_copy_finish_wait(conn, pg_link_deadline(copy->cursor->link), &result);
    return finish(copy, status, result);
}

/* The next block, or NULL: at the end with no exception. */
static PyObject *
next_block(pg_copy *copy)
{
    char *data = NULL;
    int len = 0;
    if (pg_copy_next_wait(copy, 1, &data, &len) <= 0) {
        return NULL;
    }
    PyObject *block = PyBytes_FromStringAndSize(data, len);
    PQfreemem(data);
    copy->begun = 1;
    return block;
}

/* Whether all has been read. */
static int
is_read(const pg_copy *copy)
{
    return !copy->running && copy->out && copy->sql == NULL;
}

static PyObject *
copy_read(PyObject *op, PyObject *unused)
{
    pg_copy *copy = (pg_copy *)op;
    if (is_read(copy)) {
        return PyBytes_FromStringAndSize("", 0);
    }
    if (pg_copy_check(copy, 1) < 0) {
        return NULL;
    }
    PyObject *block = next_block(copy);
    return block != NULL || PyErr_Occurred() ? block : PyBytes_FromStringAndSize("", 0);
}

static PyObject *
copy_iternext(PyObject *op)
{
    pg_copy *copy = (pg_copy *)op;
    if (is_read(copy)) {
        return NULL;
    }
    return pg_copy_check(copy, 1) < 0 ? NULL : next_block(copy);
}

static PyObject *
copy_read_row(PyObject *op, PyObject *unused)
{
    pg_copy *copy = (pg_copy *)op;
    if (is_read(copy)) {
        Py_RETURN_NONE;
    }
    PyObject *row = pg_copy_check(copy, 1) < 0 ? NULL : pg_copy_read_wait(copy, 1);
    return row != NULL || PyErr_Occurred() ? row : Py_NewRef(Py_None);
}

/* At least one row, and those that are here already. */
static PyObject *
copy_read_rows(PyObject *op, PyObject *limit)
{
    pg_copy *copy = (pg_copy *)op;
    Py_ssize_t most = PyLong_AsSsize_t(limit);
    PyObject *rows = most == -1 && PyErr_Occurred() ? NULL : PyList_New(0);
    if (rows == NULL || is_read(copy)) {
        return rows;
    }
    if (pg_copy_check(copy, 1) < 0) {
        Py_DECREF(rows);
        return NULL;
    }
    for (Py_ssize_t n = 0; n < most; n++) {
        PyObject *row = pg_copy_read_wait(copy, n == 0);
        if (row == NULL || PyList_Append(rows, row) < 0) {
            Py_XDECREF(row);
            break;
        }
        Py_DECREF(row);
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(rows);
    }
    return rows;
}

static PyObject *
copy_rows(PyObject *op, PyObject *unused)
{
    PyObject *read = PyObject_GetAttrString(op, "read_row");
    PyObject *rows = read != NULL ? PyCallIter_New(read, Py_None) : NULL;
    Py_XDECREF(read);
    return rows;
}

static PyObject *
copy_set_types(PyObject *op, PyObject *types)
{
    pg_copy *copy = (pg_copy *)op;
    if (pg_copy_check(copy, copy->out) < 0 || pg_copy_set_types(copy, types) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
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
    if (type == Py_None && (pg_copy_end_rows(copy) < 0 || pg_copy_flush_wait(copy) < 0)) {
        if (copy->running) {
            abandon(copy); /* out of memory: nothing of it may be stored */
        }
        return NULL;
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
    Py_VISIT(((pg_copy *)op)->tx);
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
    vnl_buf_free(&copy->unsent);
    PyMem_Free(copy->types);
    Py_CLEAR(copy->tx);
    Py_CLEAR(copy->sql);
    Py_CLEAR(copy->cursor);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef copy_methods[] = {
    {"write", copy_write, METH_O, "Sends str (as UTF-8) or bytes of a COPY … FROM STDIN."},
    {"read", copy_read, METH_NOARGS, "The next block of a COPY … TO STDOUT as bytes; b'' at the end."},
    {"write_row", copy_write_row, METH_O, "Sends a sequence of values as a row of a COPY … FROM STDIN."},
    {"read_row", copy_read_row, METH_NOARGS,
     "The next row of a COPY … TO STDOUT as a tuple; None at the end."},
    {"rows", copy_rows, METH_NOARGS, "Iterates over the rows of a COPY … TO STDOUT."},
    {"set_types", copy_set_types, METH_O,
     "The columns' types, by names or oids; without them rows are read as text (binary: bytes)."},
    {"_keep_row", copy_keep_row, METH_O, "write_row() without sending; whether it is time to."},
    {"_send_rows", copy_send_rows, METH_NOARGS, NULL},
    {"_read_rows", copy_read_rows, METH_O, "A list of at least one row and at most so many; [] at the end."},
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
