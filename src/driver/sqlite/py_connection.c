/* vinyl._sqlite3.Connection: the DB-API side of a link. */
#include "py_sqlite.h"
#include <structmember.h>

vnl_link *
vnl_link_new(vnl_sqlite_state *state, PyObject *config, PyObject *pool)
{
    PyTypeObject *type = state->connection_type;
    PyObject *detect = PyObject_GetAttrString(config, "detect_types");
    long detect_types = detect == NULL ? -1 : PyLong_AsLong(detect);
    vnl_link *self = NULL;

    Py_XDECREF(detect);
    if (detect_types == -1 && PyErr_Occurred()) {
        return NULL;
    }
    self = (vnl_link *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    vnl_list_init(&self->turns);
    self->detect_types = (int)detect_types;
    self->config = Py_NewRef(config);
    self->pool = Py_XNewRef(pool);
    self->isolation_level = Py_NewRef(Py_None);
    self->trace = Py_NewRef(Py_None);
    self->row_factory = Py_NewRef(Py_None);
    if ((self->lock = PyThread_allocate_lock()) == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    return self;
}

static PyObject *
connection_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"config", "pool", NULL};
    PyObject *config, *pool = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:Connection", names, &config, &pool)) {
        return NULL;
    }
    return (PyObject *)vnl_link_new(vnl_sqlite_state_of(type), config, pool == Py_None ? NULL : pool);
}

/* --- methods */

static PyObject *
connection_cursor(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"factory", "format", NULL};
    vnl_link *self = (vnl_link *)op;
    PyObject *factory = Py_None;
    int format = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Op:cursor", names, &factory, &format)) {
        return NULL;
    }
    if (self->closed) {
        return vnl_sqlite_fail(self->state, VNL_E_PROGRAMMING, "Cannot operate on a closed database.");
    }
    return factory == Py_None ? vnl_cursor_new(self, format) : PyObject_CallOneArg(factory, op);
}

static PyObject *
connection_execute(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *cursor, *result;

    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "execute() takes 1 or 2 arguments (%zd given)", nargs);
    }
    if ((cursor = vnl_cursor_new((vnl_link *)op, 0)) == NULL) {
        return NULL;
    }
    result = vnl_cursor_execute_wait((vnl_cursor *)cursor, args[0], nargs == 2 ? args[1] : NULL);
    Py_DECREF(cursor);
    return result;
}

static PyObject *
connection_executemany(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *cursor, *result;

    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "executemany() takes 2 arguments (%zd given)", nargs);
    }
    if ((cursor = vnl_cursor_new((vnl_link *)op, 0)) == NULL) {
        return NULL;
    }
    result = vnl_cursor_executemany_wait((vnl_cursor *)cursor, args[0], args[1]);
    Py_DECREF(cursor);
    return result;
}

/* In and out of the link around a call without arguments. */
static PyObject *
bracketed(PyObject *op, int (*wait)(vnl_link *))
{
    vnl_link *self = (vnl_link *)op;
    int rc;

    if (vnl_link_enter_wait(self, 0) < 0) {
        return NULL;
    }
    rc = wait(self);
    vnl_link_leave(self);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
connection_commit(PyObject *op, PyObject *Py_UNUSED(args))
{
    return bracketed(op, vnl_link_commit_wait);
}

static PyObject *
connection_rollback(PyObject *op, PyObject *Py_UNUSED(args))
{
    return bracketed(op, vnl_link_rollback_wait);
}

static PyObject *
connection_close(PyObject *op, PyObject *Py_UNUSED(args))
{
    if (vnl_link_close_wait((vnl_link *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
connection_interrupt(PyObject *op, PyObject *Py_UNUSED(args))
{
    vnl_link *self = (vnl_link *)op;

    if (self->conn != NULL) {
        sqlite3_interrupt(self->conn->db);
    }
    Py_RETURN_NONE;
}

static PyObject *
connection_enter(PyObject *op, PyObject *Py_UNUSED(args))
{
    return Py_NewRef(op);
}

static PyObject *
connection_exit(PyObject *op, PyObject *args)
{
    PyObject *type, *value, *tb;
    PyObject *done;

    if (!PyArg_UnpackTuple(args, "__exit__", 3, 3, &type, &value, &tb)) {
        return NULL;
    }
    done = bracketed(op, type == Py_None ? vnl_link_commit_wait : vnl_link_rollback_wait);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    Py_RETURN_FALSE;
}

static PyObject *
connection_iterdump(PyObject *op, PyObject *Py_UNUSED(args))
{
    PyObject *module = PyImport_ImportModule("sqlite3.dump");
    PyObject *result = module == NULL ? NULL : PyObject_CallMethod(module, "_iterdump", "O", op);

    Py_XDECREF(module);
    return result;
}

/* --- attributes */

static PyObject *
get_in_transaction(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(vnl_link_in_transaction((vnl_link *)op));
}

static PyObject *
get_isolation_level(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((vnl_link *)op)->isolation_level);
}

/* None commits what is open, as sqlite3 does. */
static int
set_isolation_level(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    static const char *const levels[] = {"", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"};
    vnl_link *self = (vnl_link *)op;
    PyObject *done = NULL;

    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    if (value == Py_None) {
        if ((self->begin != NULL || self->conn != NULL || self->lost) &&
            (done = bracketed(op, vnl_link_commit_wait)) == NULL) {
            return -1;
        }
        else if (self->begin != NULL || self->conn != NULL || self->lost) {
            Py_XDECREF(done);
        }
        Py_XSETREF(self->isolation_level, Py_NewRef(Py_None));
        return 0;
    }
    if (!PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "isolation_level must be str or None");
        return -1;
    }
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        PyObject *upper = PyObject_CallMethod(value, "upper", NULL);
        int same = upper != NULL && PyUnicode_CompareWithASCIIString(upper, levels[i]) == 0;
        if (upper == NULL) {
            return -1;
        }
        if (same) {
            Py_XSETREF(self->isolation_level, upper);
            return 0;
        }
        Py_DECREF(upper);
    }
    PyErr_SetString(PyExc_ValueError,
                    "isolation_level must be '', 'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE' or None");
    return -1;
}

static PyObject *
get_total_changes(PyObject *op, void *Py_UNUSED(closure))
{
    vnl_link *self = (vnl_link *)op;

    return PyLong_FromLong(self->conn == NULL ? 0 : sqlite3_total_changes(self->conn->db));
}

static PyObject *
get_pinned(PyObject *op, void *Py_UNUSED(closure))
{
    vnl_link *self = (vnl_link *)op;

    return PyBool_FromLong(self->conn != NULL && vnl_sqlite_pinned(self->conn));
}

static PyObject *
get_holds_slot(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((vnl_link *)op)->conn != NULL);
}

/* --- the type */

static int
connection_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_link *self = (vnl_link *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->pool);
    Py_VISIT(self->config);
    Py_VISIT(self->trace);
    Py_VISIT(self->functions);
    Py_VISIT(self->row_factory);
    return 0;
}

static int
connection_clear(PyObject *op)
{
    vnl_link *self = (vnl_link *)op;

    if (self->lock != NULL && self->owner == 0) {
        vnl_link_drop(self);
    }
    Py_CLEAR(self->trace);
    Py_CLEAR(self->functions);
    Py_CLEAR(self->row_factory);
    return 0;
}

static void
connection_dealloc(PyObject *op)
{
    vnl_link *self = (vnl_link *)op;
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    connection_clear(op);
    if (self->lock != NULL) {
        PyThread_free_lock(self->lock);
    }
    Py_CLEAR(self->isolation_level);
    Py_CLEAR(self->config);
    Py_CLEAR(self->pool);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
connection_repr(PyObject *op)
{
    vnl_link *self = (vnl_link *)op;
    PyObject *name = PyObject_GetAttrString(self->config, "database");
    PyObject *text = name == NULL ? NULL
                                  : PyUnicode_FromFormat("<vinyl._sqlite3.Connection to %R%s>", name,
                                                         self->closed ? ", closed" : "");
    Py_XDECREF(name);
    return text;
}

static PyMethodDef methods[] = {
    {"cursor", _PyCFunction_CAST(connection_cursor), METH_VARARGS | METH_KEYWORDS,
     "cursor(factory=None, *, format=False) -> Cursor\n\nformat: the SQL has Django's %s and %(name)s."},
    {"execute", _PyCFunction_CAST(connection_execute), METH_FASTCALL,
     "execute(sql, params=None, /) -> Cursor"},
    {"executemany", _PyCFunction_CAST(connection_executemany), METH_FASTCALL,
     "executemany(sql, rows, /) -> Cursor"},
    {"commit", connection_commit, METH_NOARGS, "commit() -> None"},
    {"rollback", connection_rollback, METH_NOARGS, "rollback() -> None"},
    {"close", connection_close, METH_NOARGS,
     "close() -> None\n\nRolls back what is open; the physical connection goes back to the pool."},
    {"interrupt", connection_interrupt, METH_NOARGS,
     "interrupt() -> None\n\nThe statement under way ends with OperationalError."},
    {"iterdump", connection_iterdump, METH_NOARGS, "iterdump() -> Iterator[str]"},
    {"__enter__", connection_enter, METH_NOARGS, NULL},
    {"__exit__", connection_exit, METH_VARARGS, NULL},
    {NULL},
};

static int
is_none(const PyObject *value)
{
    return value == NULL || value == Py_None;
}

static PyObject *
get_is_new(PyObject *op, void *Py_UNUSED(closure))
{
    vnl_link *link = (vnl_link *)op;
    return PyBool_FromLong(link->pool != NULL && link->conn == NULL && link->slot == NULL && !link->closed &&
                           !link->lost && link->depth == 0 && link->open == NULL && link->begin == NULL &&
                           link->functions == NULL && is_none(link->trace) && is_none(link->row_factory) &&
                           is_none(link->isolation_level) && link->weakrefs == NULL);
}

static PyObject *
get_is_traced(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!is_none(((vnl_link *)op)->trace));
}

static PyGetSetDef getset[] = {
    {"in_transaction", get_in_transaction, NULL, NULL, NULL},
    {"isolation_level", get_isolation_level, set_isolation_level, NULL, NULL},
    {"total_changes", get_total_changes, NULL, NULL, NULL},
    {"pinned", get_pinned, NULL, "Whether state on the server keeps the physical connection here.", NULL},
    {"is_new", get_is_new, NULL, "Whether no physical connection is held and nothing was set.", NULL},
    {"is_traced", get_is_traced, NULL, "Whether set_trace_callback() has been given one.", NULL},
    {"holds_slot", get_holds_slot, NULL, "Whether a physical connection is held now.", NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"committed", T_INT, offsetof(vnl_link, committed), READONLY,
     "After a commit() that an exception from outside has interrupted: 1 it took place, 0 not."},
    {"row_factory", T_OBJECT, offsetof(vnl_link, row_factory), 0, NULL},
    {"pool", T_OBJECT, offsetof(vnl_link, pool), READONLY, "The pool, or None."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(vnl_link, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc,
     "Connection(config, pool=None)\n\nA DB-API connection that borrows physical ones from a pool;\n"
     "without a pool it opens one of its own."},
    {Py_tp_new, connection_new},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_traverse, connection_traverse},
    {Py_tp_clear, connection_clear},
    {Py_tp_repr, connection_repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec vnl_connection_spec = {
    .name = "vinyl._sqlite3.Connection",
    .basicsize = sizeof(vnl_link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = type_slots,
};
