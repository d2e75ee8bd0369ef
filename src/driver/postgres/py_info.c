/* connection.info: what libpq knows of the server's end.  Asking a link that
 * holds no physical connection takes one for the moment. */
#include "py.h"

typedef struct pg_info {
    PyObject_HEAD
    pg_link *link;
} pg_info;

PyObject *
pg_info_new(pg_link *link)
{
    pg_info *info = (pg_info *)PyType_GenericAlloc(link->state->info_type, 0);
    if (info != NULL) {
        info->link = (pg_link *)Py_NewRef(link);
    }
    return (PyObject *)info;
}

/* The PGconn, entered; NULL with an exception. */
static PGconn *
hold_wait(pg_link *link)
{
    if (pg_link_enter_wait(link) < 0) {
        return NULL;
    }
    if (pg_link_attach_wait(link) < 0) {
        pg_link_leave(link);
        return NULL;
    }
    return link->conn->pg;
}

static PyObject *
text_or_empty(const char *text)
{
    return PyUnicode_DecodeFSDefault(text != NULL ? text : "");
}

#define TEXT_GETTER(name, call) \
    static PyObject *get_##name(PyObject *op, void *unused) \
    { \
        pg_link *link = ((pg_info *)op)->link; \
        PGconn *pg = hold_wait(link); \
        if (pg == NULL) { \
            return NULL; \
        } \
        PyObject *text = text_or_empty(call(pg)); \
        pg_link_leave(link); \
        return text; \
    }

TEXT_GETTER(dbname, PQdb)
TEXT_GETTER(user, PQuser)
TEXT_GETTER(host, PQhost)
TEXT_GETTER(hostaddr, PQhostaddr)
TEXT_GETTER(options, PQoptions)

#define INT_GETTER(name, call) \
    static PyObject *get_##name(PyObject *op, void *unused) \
    { \
        pg_link *link = ((pg_info *)op)->link; \
        PGconn *pg = hold_wait(link); \
        if (pg == NULL) { \
            return NULL; \
        } \
        PyObject *number = PyLong_FromLong((long)call(pg)); \
        pg_link_leave(link); \
        return number; \
    }

INT_GETTER(backend_pid, PQbackendPID)
INT_GETTER(protocol_version, PQprotocolVersion)
INT_GETTER(socket, PQsocket)

static PyObject *
get_port(PyObject *op, void *unused)
{
    pg_link *link = ((pg_info *)op)->link;
    PGconn *pg = hold_wait(link);
    if (pg == NULL) {
        return NULL;
    }
    const char *port = PQport(pg);
    PyObject *number = PyLong_FromString(port != NULL && *port ? port : "5432", NULL, 10);
    pg_link_leave(link);
    return number;
}

static PyObject *
get_server_version(PyObject *op, void *unused)
{
    pg_link *link = ((pg_info *)op)->link;
    if (link->config->server_version == 0) {
        if (hold_wait(link) == NULL) {
            return NULL;
        }
        pg_link_leave(link);
    }
    return PyLong_FromLong(link->config->server_version);
}

static PyObject *
get_transaction_status(PyObject *op, void *unused)
{
    pg_link *link = ((pg_info *)op)->link;
    long status = link->broken         ? PQTRANS_UNKNOWN
                  : pg_held_any(link)  ? PQTRANS_INTRANS
                  : link->conn == NULL ? PQTRANS_IDLE
                                       : (long)vnl_pg_txn(link->conn);
    PyObject *module = PyImport_ImportModule("psycopg.pq");
    PyObject *value = module != NULL ? PyObject_CallMethod(module, "TransactionStatus", "l", status) : NULL;
    Py_XDECREF(module);
    return value;
}

static PyObject *
get_dsn(PyObject *op, void *unused)
{
    pg_link *link = ((pg_info *)op)->link;
    PyObject *conninfo = PyImport_ImportModule("psycopg.conninfo");
    PyObject *make = conninfo != NULL ? PyObject_GetAttrString(conninfo, "make_conninfo") : NULL;
    PyObject *params = make != NULL ? PyDict_Copy(link->config->params) : NULL;
    PyObject *none = params != NULL ? PyTuple_New(0) : NULL;
    PyObject *dsn = NULL;
    static const char *const secrets[] = {"password", "sslpassword", NULL};
    for (int i = 0; none != NULL && secrets[i] != NULL; i++) {
        if (PyDict_DelItemString(params, secrets[i]) < 0) {
            PyErr_Clear();
        }
    }
    if (none != NULL) {
        dsn = PyObject_Call(make, none, params);
    }
    Py_XDECREF(none);
    Py_XDECREF(params);
    Py_XDECREF(make);
    Py_XDECREF(conninfo);
    return dsn;
}

static PyObject *
get_encoding(PyObject *op, void *unused)
{
    return PyUnicode_FromString("utf-8");
}

static PyObject *
info_parameter_status(PyObject *op, PyObject *name)
{
    pg_link *link = ((pg_info *)op)->link;
    const char *text = PyUnicode_AsUTF8(name);
    PGconn *pg = text != NULL ? hold_wait(link) : NULL;
    if (pg == NULL) {
        return NULL;
    }
    const char *value = PQparameterStatus(pg, text);
    PyObject *found = value != NULL ? PyUnicode_FromString(value) : Py_NewRef(Py_None);
    pg_link_leave(link);
    return found;
}

static int
info_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((pg_info *)op)->link);
    return 0;
}

static void
info_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((pg_info *)op)->link);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef info_methods[] = {
    {"parameter_status", info_parameter_status, METH_O, "A parameter that the server reports, or None."},
    {NULL},
};

static PyGetSetDef info_getset[] = {
    {"dbname", get_dbname, NULL, NULL, NULL},
    {"user", get_user, NULL, NULL, NULL},
    {"host", get_host, NULL, NULL, NULL},
    {"hostaddr", get_hostaddr, NULL, NULL, NULL},
    {"port", get_port, NULL, NULL, NULL},
    {"options", get_options, NULL, NULL, NULL},
    {"dsn", get_dsn, NULL, "The connection string, without passwords.", NULL},
    {"backend_pid", get_backend_pid, NULL, NULL, NULL},
    {"protocol_version", get_protocol_version, NULL, NULL, NULL},
    {"socket", get_socket, NULL, NULL, NULL},
    {"server_version", get_server_version, NULL, "As 150004.", NULL},
    {"transaction_status", get_transaction_status, NULL, "A psycopg.pq.TransactionStatus.", NULL},
    {"encoding", get_encoding, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot info_slots[] = {
    {Py_tp_traverse, info_traverse},
    {Py_tp_dealloc, info_dealloc},
    {Py_tp_methods, info_methods},
    {Py_tp_getset, info_getset},
    {0, NULL},
};

PyType_Spec pg_info_spec = {
    .name = "vinyl._postgres.ConnectionInfo",
    .basicsize = sizeof(pg_info),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = info_slots,
};
