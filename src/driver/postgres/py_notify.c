/* LISTEN's other end: notifications that the server sends when it likes. */
#include "py.h"

/* (channel, payload, pid) of each notification that has come.  New list. */
static PyObject *
take_notifies(pg_link *link)
{
    PyObject *found = PyList_New(0);
    PGnotify *notify = NULL;
    while (found != NULL && (notify = PQnotifies(link->conn->pg)) != NULL) {
        PyObject *entry = Py_BuildValue("(ssi)", notify->relname, notify->extra, notify->be_pid);
        PQfreemem(notify);
        if (entry == NULL || PyList_Append(found, entry) < 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(entry);
    }
    return found;
}

PyObject *
pg_link_notifies(pg_link *link, PyObject *timeout)
{
    int64_t deadline = VNL_FOREVER;
    if (timeout != Py_None) {
        double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        if (!(seconds >= 0.0)) {
            PyErr_SetString(PyExc_ValueError, "timeout must be a number of seconds >= 0, or None");
            return NULL;
        }
        if (seconds < 1e9) {
            deadline = vnl_pg_core->now() + (int64_t)(seconds * 1e9);
        }
    }
    if (pg_link_enter_wait(link) < 0) {
        return NULL;
    }
    PyObject *found = NULL;
    if (!link->listening || link->conn == NULL) {
        pg_raise(link->state, "ProgrammingError",
                 "notifies() needs a connection that listens: listen() first");
        goto done;
    }
    vnl_pg_status settled = vnl_pg_ahead_settle_wait(link->conn, pg_link_deadline(link));
    if (settled == VNL_PG_TIMEOUT) {
        pg_link_overdue(link);
    }
    else if (settled != VNL_PG_OK && settled != VNL_PG_INTERRUPTED) {
        pg_raise_status(link->state, settled, NULL, link->conn->pg);
        pg_link_lost(link, 0);
    }
    if (settled != VNL_PG_OK) {
        goto done;
    }
    for (;;) {
        found = take_notifies(link);
        if (found == NULL || PyList_GET_SIZE(found) > 0) {
            break;
        }
        vnl_pg_status status = vnl_pg_readable_wait(link->conn, deadline);
        if (status == VNL_PG_TIMEOUT) {
            break;
        }
        if (status != VNL_PG_OK) {
            Py_CLEAR(found);
            if (status != VNL_PG_INTERRUPTED) {
                pg_raise_status(link->state, status, NULL, link->conn->pg);
                pg_link_lost(link, 0);
            }
            break;
        }
        Py_CLEAR(found);
    }
done:
    pg_link_leave(link);
    return found;
}

/* LISTEN on each channel; the connection is this link's alone from then on. */
PyObject *
pg_link_listen(pg_link *link, PyObject *channels)
{
    PyObject *names = PySequence_Tuple(channels);
    int failed = 0;
    if (names == NULL) {
        return NULL;
    }
    if (pg_link_enter_wait(link) < 0) {
        Py_DECREF(names);
        return NULL;
    }
    failed = pg_link_attach_wait(link);
    for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(names); i++) {
        Py_ssize_t size = 0;
        const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(names, i), &size);
        if (name == NULL) {
            failed = 1;
            break;
        }
        char *quoted = PQescapeIdentifier(link->conn->pg, name, (size_t)size);
        if (quoted == NULL) {
            pg_raise(link->state, "DataError", "not a name for a channel: %s",
                     PQerrorMessage(link->conn->pg));
            failed = 1;
            break;
        }
        PyObject *sql = PyUnicode_FromFormat("LISTEN %s", quoted);
        PQfreemem(quoted);
        link->listening = link->sticky = 1;
        failed = sql == NULL || pg_link_command_wait(link, PyUnicode_AsUTF8(sql)) < 0;
        Py_XDECREF(sql);
    }
    pg_link_leave(link);
    Py_DECREF(names);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}
