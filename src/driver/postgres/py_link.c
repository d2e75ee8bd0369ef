/* Connection: what Django's wrapper holds as its connection.
 *
 * It owns a physical connection only while it needs one: a statement takes a
 * slot of the pool and gives it back when the server is idle, nothing of ours
 * lives in its session, and somebody else could use it meanwhile (a loop runs).
 */
#include "py.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

vnl_decode_ctx *
pg_link_ctx(pg_link *link)
{
    return link->own_ctx != NULL ? link->own_ctx : link->config->ctx;
}

void
pg_link_sync_parameters(pg_link *link, const vnl_pg_conn *conn)
{
    static const char *const names[] = {"TimeZone", "DateStyle", "IntervalStyle", NULL};
    vnl_decode_ctx *ctx = pg_link_ctx(link);
    for (int i = 0; names[i] != NULL; i++) {
        if (vnl_decode_ctx_set_parameter(ctx, names[i], PQparameterStatus(conn->pg, names[i])) < 0) {
            PyErr_Clear();
        }
    }
}

vnl_pg_status
pg_link_run_wait(pg_link *link, vnl_pg_query *query, vnl_pg_answer *answer)
{
    char begin[128];
    vnl_pg_conn *conn = link->conn;
    int was_in_txn = vnl_pg_txn(conn) != PQTRANS_IDLE;
    query->begin = NULL;
    if (!link->autocommit && !was_in_txn) {
        if (pg_link_begin_sql(link, begin, sizeof(begin)) < 0) {
            memset(answer, 0, sizeof(*answer));
            return VNL_PG_INTERRUPTED;
        }
        query->begin = begin;
        link->txn++;
    }
    vnl_pg_status status = vnl_pg_run_wait(conn, query, pg_link_deadline(link), answer);
    query->begin = NULL;
    if (status == VNL_PG_TIMEOUT) {
        pg_link_overdue(link);
        return VNL_PG_INTERRUPTED;
    }
    if (status == VNL_PG_INTERRUPTED) {
        pg_link_cancel_statement(link);
        return status;
    }
    if (status == VNL_PG_LOST && answer->result == NULL) {
        /* Keep libpq's words: the connection is about to go. */
        answer->result = PQmakeEmptyPGresult(conn->pg, PGRES_FATAL_ERROR);
    }
    if (status == VNL_PG_LOST || (status != VNL_PG_OK && conn->inflight)) {
        pg_link_lost(link, was_in_txn);
        return status;
    }
    pg_link_answered(link);
    return status;
}

void
pg_link_answered(pg_link *link)
{
    PGnotify *notify = NULL;
    pg_link_sync_parameters(link, link->conn);
    while (!link->listening && (notify = PQnotifies(link->conn->pg)) != NULL) {
        PQfreemem(notify);
    }
}

int
pg_link_notices(pg_link *link)
{
    if (link->conn == NULL || link->conn->notices == NULL) {
        return 0;
    }
    return pg_emit_notices(link->state, vnl_pg_notices_take(link->conn), link->notice_handlers);
}

int
pg_link_command_wait(pg_link *link, const char *sql)
{
    if (pg_link_attach_wait(link) < 0) {
        return -1;
    }
    vnl_pg_query query = {.sql = sql};
    vnl_pg_answer answer;
    vnl_pg_status status = pg_link_run_wait(link, &query, &answer);
    if (status != VNL_PG_OK) {
        pg_link_raise(link, status, answer.result);
    }
    PQclear(answer.result);
    return status == VNL_PG_OK ? pg_link_notices(link) : -1;
}

/* --- the Python type ------------------------------------------------------ */

#define ROLLBACK_BOUND 1000000000 /* 1 s */
#define CANCEL_BOUND 5000000000   /* 5 s: somebody asked for it and waits */

static PyObject *
link_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pg_link *self = (pg_link *)PyType_GenericAlloc(type, 0);
    if (self != NULL) {
        vnl_list_init(&self->turns);
    }
    return (PyObject *)self;
}

static int
link_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"pool", "config", "autocommit", NULL};
    pg_link *self = (pg_link *)op;
    PyObject *pool = NULL, *config = NULL;
    int autocommit = 1;
    self->state = pg_state_of(Py_TYPE(op));
    if (self->state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "OO!|$p", keywords, &pool,
                                                            self->state->config_type, &config, &autocommit)) {
        return -1;
    }
    if (self->config != NULL) {
        PyErr_SetString(PyExc_TypeError, "a Connection is made once");
        return -1;
    }
    self->pool = pool != Py_None ? Py_NewRef(pool) : NULL;
    self->config = (pg_config *)Py_NewRef(config);
    if (self->config->ctx == NULL) {
        PyErr_SetString(PyExc_TypeError, "the Config was not initialised");
        return -1;
    }
    self->autocommit = autocommit;
    self->strict_commit = 1;
    self->isolation_level = Py_NewRef(Py_None);
    self->read_only = Py_NewRef(Py_None);
    self->deferrable = Py_NewRef(Py_None);
    return 0;
}

static PyObject *
link_close(PyObject *op, PyObject *unused)
{
    pg_link *self = (pg_link *)op;
    if (self->closed || self->config == NULL) {
        Py_RETURN_NONE;
    }
    if (self->busy) {
        /* The running statement meets a connection that is gone. */
        return pg_raise(self->state, "InterfaceError", "another statement is running on this connection");
    }
    self->closed = 1;
    pg_held_end(self);
    if (self->conn == NULL) {
        Py_RETURN_NONE;
    }
    if (self->slot != NULL && !self->sticky && PQstatus(self->conn->pg) == CONNECTION_OK &&
        vnl_pg_txn(self->conn) != PQTRANS_IDLE) {
        /* Give it back whole, if the server does its part soon. */
        vnl_pg_query query = {.sql = "ROLLBACK"};
        vnl_pg_answer answer;
        Py_INCREF(self);
        self->busy = 1;
        vnl_pg_core->shield_enter();
        vnl_pg_run_wait(self->conn, &query, vnl_pg_core->now() + ROLLBACK_BOUND, &answer);
        PQclear(answer.result);
        self->busy = 0;
        pg_link_detach(self, vnl_pg_check(self->conn));
        int interrupted = vnl_pg_core->shield_leave() < 0 || PyErr_Occurred();
        Py_DECREF(self);
        return interrupted ? NULL : Py_NewRef(Py_None);
    }
    pg_link_detach(self, self->pins == 0 && vnl_pg_check(self->conn));
    Py_RETURN_NONE;
}

static PyObject *
link_cursor(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", "scrollable", "withhold", "server_side_binding", NULL};
    PyObject *name = NULL, *scrollable = Py_None;
    int withhold = 0, server_side = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$Opp", keywords, &name, &scrollable, &withhold,
                                     &server_side)) {
        return NULL;
    }
    pg_link *self = (pg_link *)op;
    if (self->closed) {
        return pg_raise(self->state, "OperationalError", "the connection is closed");
    }
    if (name == Py_None || name == NULL) {
        name = NULL;
    }
    else if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a cursor's name must be a str");
        return NULL;
    }
    int scroll = scrollable == Py_None ? -1 : PyObject_IsTrue(scrollable);
    return pg_cursor_new(self, name, scroll, withhold, server_side);
}

static PyObject *
link_execute(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *cursor = pg_cursor_new((pg_link *)op, NULL, -1, 0, -1);
    PyObject *execute = cursor != NULL ? PyObject_GetAttrString(cursor, "execute") : NULL;
    PyObject *result = execute != NULL ? PyObject_Call(execute, args, kwargs) : NULL;
    Py_XDECREF(execute);
    Py_XDECREF(cursor);
    return result;
}

static PyObject *
link_cancel(PyObject *op, PyObject *unused)
{
    pg_link *self = (pg_link *)op;
    if (self->conn == NULL || !self->conn->inflight) {
        Py_RETURN_NONE;
    }
    Py_INCREF(self);
    vnl_pg_cancel_request_wait(self->conn, vnl_pg_core->now() + CANCEL_BOUND);
    Py_DECREF(self);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *
link_add_notice_handler(PyObject *op, PyObject *handler)
{
    pg_link *self = (pg_link *)op;
    if (self->notice_handlers == NULL && (self->notice_handlers = PyList_New(0)) == NULL) {
        return NULL;
    }
    return PyList_Append(self->notice_handlers, handler) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
link_remove_notice_handler(PyObject *op, PyObject *handler)
{
    pg_link *self = (pg_link *)op;
    if (self->notice_handlers == NULL) {
        PyErr_SetString(PyExc_ValueError, "no such notice handler");
        return NULL;
    }
    return PyObject_CallMethod(self->notice_handlers, "remove", "O", handler);
}

static PyObject *
link_enter(PyObject *op, PyObject *unused)
{
    return Py_NewRef(op);
}

static PyObject *
link_exit(PyObject *op, PyObject *args)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    if (!PyArg_ParseTuple(args, "OOO", &type, &value, &trace)) {
        return NULL;
    }
    pg_link *self = (pg_link *)op;
    if (self->closed) {
        Py_RETURN_NONE;
    }
    PyObject *ended = type == Py_None ? pg_link_commit(self, NULL) : pg_link_rollback(self, NULL);
    if (ended == NULL) {
        return NULL;
    }
    Py_DECREF(ended);
    return link_close(op, NULL);
}

static PyObject *
link_repr(PyObject *op)
{
    pg_link *self = (pg_link *)op;
    return PyUnicode_FromFormat("<vinyl._postgres.Connection %s at %p>",
                                self->closed           ? "closed"
                                : self->broken         ? "lost"
                                : self->conn == NULL   ? "without a slot"
                                : pg_link_in_txn(self) ? "in a transaction"
                                                       : "idle",
                                (void *)self);
}

static PyObject *
get_adapters(PyObject *op, void *closure)
{
    vnl_decode_ctx *ctx = pg_link_ctx((pg_link *)op);
    vnl_decode_ctx_flush(ctx);
    return Py_NewRef(vnl_decode_ctx_adapters(ctx));
}

static int
set_adapters(PyObject *op, PyObject *value, void *closure)
{
    pg_link *self = (pg_link *)op;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "adapters cannot be deleted");
        return -1;
    }
    if (vnl_decode_ctx_adapters(pg_link_ctx(self)) == value) {
        return 0;
    }
    if (self->own_ctx != NULL) {
        return vnl_decode_ctx_set_adapters(self->own_ctx, value);
    }
    self->own_ctx = vnl_decode_ctx_new(pg_module_of(Py_TYPE(op)), value);
    return self->own_ctx != NULL ? 0 : -1;
}

static PyObject *
get_none(PyObject *op, void *closure)
{
    Py_RETURN_NONE;
}

static PyObject *
get_autocommit(PyObject *op, void *closure)
{
    return PyBool_FromLong(((pg_link *)op)->autocommit);
}

static int
set_autocommit(PyObject *op, PyObject *value, void *closure)
{
    int truth = value != NULL ? PyObject_IsTrue(value) : -1;
    return truth < 0 ? -1 : pg_link_set_autocommit((pg_link *)op, truth);
}

static PyObject *
get_closed(PyObject *op, void *closure)
{
    return PyBool_FromLong(((pg_link *)op)->closed || ((pg_link *)op)->broken);
}

static PyObject *
get_broken(PyObject *op, void *closure)
{
    return PyBool_FromLong(((pg_link *)op)->broken);
}

static PyObject *
get_info(PyObject *op, void *closure)
{
    return pg_info_new((pg_link *)op);
}

static PyObject *
get_attached(PyObject *op, void *closure)
{
    return PyBool_FromLong(((pg_link *)op)->conn != NULL);
}

static PyObject *
get_is_new(PyObject *op, void *closure)
{
    pg_link *self = (pg_link *)op;
    return PyBool_FromLong(self->pool != NULL && self->conn == NULL && self->slot == NULL && !self->busy &&
                           self->held == NULL && !self->closed && !self->copying && !self->broken &&
                           !self->sticky && !self->listening && self->pins == 0 && self->autocommit &&
                           self->strict_commit && self->own_ctx == NULL && self->notice_handlers == NULL &&
                           self->weakrefs == NULL && self->isolation_level == Py_None &&
                           self->read_only == Py_None && self->deferrable == Py_None);
}

static PyObject *
link_attach(PyObject *op, PyObject *unused)
{
    pg_link *self = (pg_link *)op;
    if (pg_link_enter_wait(self) < 0) {
        return NULL;
    }
    int rc = pg_link_attach_wait(self);
    pg_link_leave(self);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
link_discard(PyObject *op, PyObject *unused)
{
    ((pg_link *)op)->sticky = ((pg_link *)op)->conn != NULL;
    Py_RETURN_NONE;
}

static int
link_traverse(PyObject *op, visitproc visit, void *arg)
{
    pg_link *self = (pg_link *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->pool);
    Py_VISIT(self->config);
    Py_VISIT(self->isolation_level);
    Py_VISIT(self->read_only);
    Py_VISIT(self->deferrable);
    Py_VISIT(self->notice_handlers);
    return self->own_ctx != NULL ? vnl_decode_ctx_traverse(self->own_ctx, visit, arg) : 0;
}

static int
link_clear(PyObject *op)
{
    pg_link *self = (pg_link *)op;
    Py_CLEAR(self->isolation_level);
    Py_CLEAR(self->read_only);
    Py_CLEAR(self->deferrable);
    Py_CLEAR(self->notice_handlers);
    return 0;
}

static void
link_dealloc(PyObject *op)
{
    pg_link *self = (pg_link *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    PyObject *error_type = NULL, *error = NULL, *trace = NULL;
    PyErr_Fetch(&error_type, &error, &trace);
    pg_link_warn_dropped(self);
    pg_held_end(self);
    pg_link_detach(self, 0);
    PyErr_Restore(error_type, error, trace);
    link_clear(op);
    vnl_decode_ctx_free(self->own_ctx);
    Py_CLEAR(self->pool);
    Py_CLEAR(self->config);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef link_methods[] = {
    {"cursor", _PyCFunction_CAST(link_cursor), METH_VARARGS | METH_KEYWORDS,
     "cursor(name=None, *, scrollable=None, withhold=False): a Cursor; with a name, a server-side one."},
    {"execute", _PyCFunction_CAST(link_execute), METH_VARARGS | METH_KEYWORDS,
     "A new cursor that has executed this."},
    {"execute_together", _PyCFunction_CAST(pg_link_execute_together), METH_VARARGS | METH_KEYWORDS,
     "execute_together(statements, *, reads=False): executes pairs of a statement and its parameters, a new\n"
     "cursor for each; inside a transaction, or with reads (they are SELECTs), in one round trip."},
    {"hold", pg_link_hold, METH_O,
     "hold(beginnings): from now on an INSERT, UPDATE or DELETE of the running fiber that begins with one "
     "of\n"
     "these texts, inside a transaction, may be kept and sent with the next statement or COMMIT; its "
     "rowcount\n"
     "is 0. False when somebody else has asked for it."},
    {"release", pg_link_release, METH_O, "release(send): ends that; what is kept is sent, or dropped."},
    {"commit", (PyCFunction)pg_link_commit, METH_NOARGS,
     "Commits. Raises InFailedSqlTransaction when the server rolled back instead."},
    {"rollback", (PyCFunction)pg_link_rollback, METH_NOARGS,
     "Rolls back; nothing to do without a transaction."},
    {"close", link_close, METH_NOARGS,
     "Lets go of the physical connection. Does no I/O but for an open transaction."},
    {"cancel", link_cancel, METH_NOARGS, "Asks the server to cancel the statement that runs now."},
    {"listen", (PyCFunction)(void *)pg_link_listen, METH_O,
     "listen(channels): LISTEN; the physical connection stays with this link until it is closed."},
    {"notifies", (PyCFunction)(void *)pg_link_notifies, METH_O,
     "notifies(timeout): waits, timeout seconds or for ever (None), for notifications:\n"
     "a list of (channel, payload, pid)."},
    {"attach", link_attach, METH_NOARGS, "Connects now if need be, so that a failure shows here."},
    {"discard", link_discard, METH_NOARGS,
     "The physical connection is not to be used by others after this link."},
    {"add_notice_handler", link_add_notice_handler, METH_O, "handler(notice) for each notice from now on."},
    {"remove_notice_handler", link_remove_notice_handler, METH_O, NULL},
    {"__enter__", link_enter, METH_NOARGS, NULL},
    {"__exit__", link_exit, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef link_members[] = {
    {"isolation_level", T_OBJECT, offsetof(pg_link, isolation_level), 0,
     "psycopg.IsolationLevel or None; for BEGIN."},
    {"read_only", T_OBJECT, offsetof(pg_link, read_only), 0, "bool or None; for BEGIN."},
    {"deferrable", T_OBJECT, offsetof(pg_link, deferrable), 0, "bool or None; for BEGIN."},
    {"strict_commit", T_INT, offsetof(pg_link, strict_commit), 0,
     "Whether commit() raises when the server answers ROLLBACK; else it only logs."},
    {"committed", T_INT, offsetof(pg_link, committed), READONLY,
     "After a commit() that an exception from outside has interrupted: 1 it took place, 0 not, -1 nobody "
     "knows."},
    {"parks", T_INT, offsetof(pg_link, parks), 0,
     "Not 0: in a strand (_core.together) a SELECT waits for those of the others, to be sent with them."},
    {"parks_writes", T_INT, offsetof(pg_link, parks_writes), 0,
     "The same for every statement, and they keep their order."},
    {"config", T_OBJECT, offsetof(pg_link, config), READONLY, "The Config."},
    {"pool", T_OBJECT, offsetof(pg_link, pool), READONLY, "The pool, or None."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pg_link, weakrefs), READONLY, NULL},
    {NULL},
};

static PyGetSetDef link_getset[] = {
    {"adapters", get_adapters, set_adapters, "psycopg's AdaptersMap.", NULL},
    {"connection", get_none, NULL, "None: there is no psycopg connection behind this adapt context.", NULL},
    {"autocommit", get_autocommit, set_autocommit, "False: BEGIN travels with the next statement.", NULL},
    {"closed", get_closed, NULL, NULL, NULL},
    {"broken", get_broken, NULL, "Lost inside a transaction.", NULL},
    {"info", get_info, NULL, "What is known of the server's end.", NULL},
    {"is_new", get_is_new, NULL, "Whether no physical connection is held and nothing was set.", NULL},
    {"attached", get_attached, NULL, "Whether a physical connection is held now.", NULL},
    {NULL},
};

static PyType_Slot link_slots[] = {
    {Py_tp_doc,
     "Connection(pool, config, *, autocommit=True)\n--\n\n"
     "A session's connection. pool None: a physical connection of its own."},
    {Py_tp_init, link_init},
    {Py_tp_new, link_new},
    {Py_tp_repr, link_repr},
    {Py_tp_traverse, link_traverse},
    {Py_tp_clear, link_clear},
    {Py_tp_dealloc, link_dealloc},
    {Py_tp_methods, link_methods},
    {Py_tp_members, link_members},
    {Py_tp_getset, link_getset},
    {0, NULL},
};

PyType_Spec pg_link_spec = {
    .name = "vinyl._postgres.Connection",
    .basicsize = sizeof(pg_link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = link_slots,
};
