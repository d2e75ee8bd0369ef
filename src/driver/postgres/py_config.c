/* Config: how the connections of one pool are opened; and the pool's vnl_driver. */
#include "py.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

/* Secrets that libpq may quote in its messages when it cannot parse them. */
static void
hide(char *message, const char *secret)
{
    size_t n = secret != NULL ? strlen(secret) : 0;
    if (n < 3) {
        return;
    }
    for (char *at = strstr(message, secret); at != NULL; at = strstr(at + n, secret)) {
        memset(at, '*', n);
    }
}

static PyObject *
raise_connect(pg_config *config, vnl_pg_status status, char *message)
{
    pg_state *state = pg_state_of(Py_TYPE(config));
    if (state == NULL || status == VNL_PG_INTERRUPTED) {
        return NULL;
    }
    if (status == VNL_PG_NOMEM) {
        return PyErr_NoMemory();
    }
    if (status == VNL_PG_TIMEOUT) {
        return pg_raise(state, "OperationalError",
                        "connection failed: the server did not answer within connect_timeout (%g s)",
                        (double)config->connect_timeout / 1e9);
    }
    static const char *const secrets[] = {"password", "sslpassword", NULL};
    for (int i = 0; message != NULL && secrets[i] != NULL; i++) {
        PyObject *secret = PyDict_GetItemString(config->params, secrets[i]);
        const char *text = secret != NULL && PyUnicode_Check(secret) ? PyUnicode_AsUTF8(secret) : NULL;
        hide(message, text);
    }
    size_t len = message != NULL ? strlen(message) : 0;
    while (len > 0 && message[len - 1] == '\n') {
        message[--len] = 0;
    }
    const char *text = len > 0 ? message : "unknown error";
    const char *option = strstr(text, "invalid connection option");
    if (option != NULL) {
        return pg_raise(state, "OperationalError", "%s: neither vinyl nor libpq %d knows this key of OPTIONS",
                        text, PQlibVersion() / 10000);
    }
    return pg_raise(state, "OperationalError", "%s%s",
                    strstr(text, "connection") != NULL ? "" : "connection failed: ", text);
}

/* A pooler like PgBouncer greets with a process number of its own making: a
 * statement that was prepared through it may be unknown to the next one's server. */
static void
look_for_pooler(pg_config *config, const PGconn *pg, const PGresult *result)
{
    if (PQntuples(result) == 1 && PQnfields(result) == 1) {
        long pid = strtol(PQgetvalue(result, 0, 0), NULL, 10);
        config->pooler |= pid != PQbackendPID(pg);
    }
}

/* Runs the setup statements, in one round trip with the question who answers. */
static int
run_setup_wait(pg_config *config, vnl_pg_conn *conn, int64_t deadline)
{
    PyObject *text = PyUnicode_FromFormat("SELECT pg_catalog.pg_backend_pid(); %U", config->setup);
    pg_state *state = pg_state_of(Py_TYPE(config));
    const char *sql = text != NULL && state != NULL ? PyUnicode_AsUTF8(text) : NULL;
    if (sql == NULL) {
        Py_XDECREF(text);
        return -1;
    }
    vnl_pg_query query = {.sql = sql, .simple = 1, .setup = 1};
    vnl_pg_answer answer;
    int64_t began = vnl_pg_core->now();
    vnl_pg_status status = vnl_pg_run_wait(conn, &query, deadline, &answer);
    if (status == VNL_PG_OK) {
        int64_t took = vnl_pg_core->now() - began;
        config->round_trip = took < config->round_trip ? took : config->round_trip;
        look_for_pooler(config, conn->pg, answer.result);
    }
    else {
        pg_raise_status(state, status, answer.result, conn->pg);
    }
    PQclear(answer.result);
    Py_DECREF(text);
    return status == VNL_PG_OK ? 0 : -1;
}

static const char *
cell(const void *result, int row, int column)
{
    return PQgetvalue(result, row, column);
}

vnl_pg_status
pg_config_names_wait(pg_config *config, vnl_pg_conn *conn, int64_t deadline)
{
    vnl_pg_query query = {.sql = vnl_pg_names_sql, .setup = 1};
    vnl_pg_answer answer;
    config->names_old = 0; /* what is changed while it is read is read again */
    vnl_pg_status status = vnl_pg_run_wait(conn, &query, deadline, &answer);
    if (status == VNL_PG_OK && PQnfields(answer.result) == 2) {
        vnl_pg_names *names = vnl_pg_names_new(PQntuples(answer.result), cell, answer.result);
        vnl_pg_names_free(config->names);
        config->names = names;
    }
    PQclear(answer.result);
    return status;
}

/* keywords[], values[] in one block; the strings belong to the dict. */
static const char **
keyword_array(PyObject *params)
{
    Py_ssize_t n = PyDict_GET_SIZE(params), i = 0, pos = 0;
    const char **array = PyMem_Calloc((size_t)(2 * (n + 1)), sizeof(char *));
    PyObject *key = NULL, *value = NULL;
    if (array == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    while (PyDict_Next(params, &pos, &key, &value)) {
        array[i] = PyUnicode_AsUTF8(key);
        array[n + 1 + i] = PyUnicode_AsUTF8(value);
        if (array[i] == NULL || array[n + 1 + i] == NULL) {
            PyMem_Free(array);
            return NULL;
        }
        i++;
    }
    return array;
}

/* One attempt with `params`.  *message: as vnl_pg_connect_wait. */
static vnl_pg_status
attempt_wait(pg_config *config, PyObject *params, vnl_pg_conn **conn, char **message)
{
    Py_ssize_t n = PyDict_GET_SIZE(params);
    const char **array = keyword_array(params);
    if (array == NULL) {
        return VNL_PG_INTERRUPTED;
    }
    int64_t deadline =
        config->connect_timeout > 0 ? vnl_pg_core->now() + config->connect_timeout : VNL_FOREVER;
    vnl_pg_status status = vnl_pg_connect_wait(array, array + n + 1, deadline, conn, message);
    PyMem_Free(array);
    if (status != VNL_PG_OK) {
        return status;
    }
    if (run_setup_wait(config, *conn, deadline) < 0) {
        vnl_pg_close(*conn);
        *conn = NULL;
        return VNL_PG_INTERRUPTED;
    }
    if (config->server_version == 0) { /* the first */
        status = pg_config_names_wait(config, *conn, deadline);
        if (status != VNL_PG_OK && status != VNL_PG_SERVER) {
            *message = status == VNL_PG_TIMEOUT ? vnl_pg_place(*conn) : strdup(PQerrorMessage((*conn)->pg));
            vnl_pg_close(*conn);
            *conn = NULL;
            return status;
        }
    }
    vnl_pg_stmts_init(&(*conn)->stmts, config->prepared_max);
    config->server_version = PQserverVersion((*conn)->pg);
    return VNL_PG_OK;
}

vnl_pg_conn *
pg_config_open_wait(pg_config *config)
{
    vnl_pg_conn *conn = NULL;
    char *message = NULL;
    Py_INCREF(config);
    PyObject *params = Py_NewRef(config->params);
    for (;;) {
        vnl_pg_status status = attempt_wait(config, params, &conn, &message);
        if (status == VNL_PG_OK) {
            break;
        }
        PyObject *rest = NULL;
        char *port = status == VNL_PG_TIMEOUT && message != NULL ? strchr(message, '\n') : NULL;
        if (port != NULL) {
            *port++ = 0;
            rest = pg_hosts_without(params, message, port);
        }
        if (rest == NULL && !PyErr_Occurred()) {
            raise_connect(config, status, message);
        }
        free(message);
        message = NULL;
        if (rest == NULL) {
            break;
        }
        Py_SETREF(params, rest);
    }
    Py_DECREF(params);
    Py_DECREF(config);
    return conn;
}

static void *
driver_open_wait(PyObject *config)
{
    pg_state *state = NULL;
    PyObject *module = PyImport_ImportModule("vinyl._postgres");
    if (module != NULL) {
        state = PyModule_GetState(module);
        Py_DECREF(module);
    }
    if (state == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(config, state->config_type)) {
        PyErr_Format(PyExc_TypeError, "a PostgreSQL pool needs a vinyl._postgres.Config, not %.100s",
                     Py_TYPE(config)->tp_name);
        return NULL;
    }
    return pg_config_open_wait((pg_config *)config);
}

static void
driver_close(void *conn)
{
    vnl_pg_close(conn);
}

static int
driver_check(void *conn)
{
    return vnl_pg_check(conn);
}

static void
driver_abandon(void *conn)
{
    vnl_pg_abandon(conn);
}

const vnl_driver pg_driver = {VNL_CORE_ABI, "postgresql", driver_open_wait,
                              driver_close, driver_check, driver_abandon};

static int
check_params(pg_config *self)
{
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t pos = 0;
    while (PyDict_Next(self->params, &pos, &key, &value)) {
        if (!PyUnicode_Check(key) || !PyUnicode_Check(value)) {
            PyErr_Format(PyExc_TypeError, "connection parameter %R must be a str", key);
            return -1;
        }
        Py_ssize_t len = 0;
        const char *text = PyUnicode_AsUTF8AndSize(value, &len);
        if (text == NULL || strlen(text) != (size_t)len) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_ValueError, "connection parameter %R contains a NUL character", key);
            }
            return -1;
        }
    }
    return 0;
}

static int
config_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"params",
                               "setup",
                               "timezone",
                               "adapters",
                               "connect_timeout",
                               "command_timeout",
                               "prepare_threshold",
                               "prepared_max",
                               "server_side_binding",
                               "shares",
                               "share_below",
                               NULL};
    pg_config *self = (pg_config *)op;
    PyObject *params = NULL, *setup = NULL, *timezone = Py_None, *adapters = Py_None, *threshold = NULL;
    double timeout = 0, command_timeout = 0, share_below = 0.02;
    int prepared_max = 100, server_side = 0, shares = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$UOOddOippd", keywords, &PyDict_Type, &params, &setup,
                                     &timezone, &adapters, &timeout, &command_timeout, &threshold,
                                     &prepared_max, &server_side, &shares, &share_below)) {
        return -1;
    }
    long prepare = threshold == NULL ? 1 : threshold == Py_None ? -1 : PyLong_AsLong(threshold);
    if (prepare == -1 && PyErr_Occurred()) {
        return -1;
    }
    Py_XSETREF(self->params, PyDict_Copy(params));
    Py_XSETREF(self->setup, setup != NULL ? Py_NewRef(setup) : PyUnicode_FromString(""));
    Py_XSETREF(self->timezone, Py_NewRef(timezone));
    if (self->params == NULL || self->setup == NULL || check_params(self) < 0) {
        return -1;
    }
    self->connect_timeout = timeout > 0 && timeout < 1e9 ? (int64_t)(timeout * 1e9) : 0;
    self->command_timeout =
        command_timeout > 0 && command_timeout < 1e9 ? (int64_t)(command_timeout * 1e9) : 0;
    self->prepare_threshold = prepare < 0 || prepare > 1000000 ? -1 : (int)prepare;
    self->prepared_max = prepared_max < 0 ? 0 : prepared_max > 10000 ? 10000 : prepared_max;
    self->server_side_binding = server_side;
    self->shares = shares;
    self->share_below = (int64_t)((share_below > 0 && share_below < 3600 ? share_below : 3600) * 1e9);
    self->round_trip = VNL_FOREVER;
    PyObject *module = pg_module_of(Py_TYPE(op));
    if (module == NULL) {
        return -1;
    }
    vnl_decode_ctx *ctx = vnl_decode_ctx_new(module, adapters == Py_None ? NULL : adapters);
    if (ctx == NULL) {
        return -1;
    }
    vnl_decode_ctx_free(self->ctx);
    self->ctx = ctx;
    return 0;
}

static PyObject *
config_repr(PyObject *op)
{
    pg_config *self = (pg_config *)op;
    PyObject *shown = PyDict_New();
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t pos = 0;
    while (shown != NULL && self->params != NULL && PyDict_Next(self->params, &pos, &key, &value)) {
        if (PyUnicode_CompareWithASCIIString(key, "password") != 0 &&
            PyUnicode_CompareWithASCIIString(key, "sslpassword") != 0 &&
            PyDict_SetItem(shown, key, value) < 0) {
            Py_CLEAR(shown);
        }
    }
    PyObject *text = shown != NULL ? PyUnicode_FromFormat("<vinyl._postgres.Config %R>", shown) : NULL;
    Py_XDECREF(shown);
    return text;
}

static PyObject *
config_adapters(PyObject *op, void *closure)
{
    pg_config *self = (pg_config *)op;
    if (self->ctx == NULL) {
        Py_RETURN_NONE;
    }
    vnl_decode_ctx_flush(self->ctx);
    return Py_NewRef(vnl_decode_ctx_adapters(self->ctx));
}

static int
config_traverse(PyObject *op, visitproc visit, void *arg)
{
    pg_config *self = (pg_config *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->params);
    Py_VISIT(self->setup);
    Py_VISIT(self->timezone);
    return self->ctx != NULL ? vnl_decode_ctx_traverse(self->ctx, visit, arg) : 0;
}

static int
config_clear(PyObject *op)
{
    pg_config *self = (pg_config *)op;
    Py_CLEAR(self->params);
    Py_CLEAR(self->setup);
    Py_CLEAR(self->timezone);
    vnl_pg_names_free(self->names);
    self->names = NULL;
    vnl_decode_ctx *ctx = self->ctx;
    self->ctx = NULL;
    vnl_decode_ctx_free(ctx);
    return 0;
}

static void
config_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    config_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef config_members[] = {
    {"timezone", T_OBJECT, offsetof(pg_config, timezone), READONLY,
     "The time zone that setup sets, or None."},
    {"server_version", T_INT, offsetof(pg_config, server_version), READONLY,
     "As 150004; 0: never connected."},
    {"pooler", T_BOOL, offsetof(pg_config, pooler), READONLY,
     "Whether a pooler like PgBouncer was met: nothing is prepared, no cursor outlives its transaction."},
    {"server_side_binding", T_INT, offsetof(pg_config, server_side_binding), READONLY, NULL},
    {NULL},
};

static PyGetSetDef config_getset[] = {
    {"adapters", config_adapters, NULL, "The psycopg AdaptersMap of all these connections.", NULL},
    {NULL},
};

static PyType_Slot config_slots[] = {
    {Py_tp_doc,
     "Config(params, *, setup='', timezone=None, adapters=None, connect_timeout=0, command_timeout=0,\n"
     "       prepare_threshold=1, prepared_max=100, server_side_binding=False, shares=False, "
     "share_below=0.02)\n--\n\n"
     "shares: statements of cursors that only read may run behind others on a connection,\n"
     "where they take less than share_below seconds beyond a round trip.\n"
     "How to open physical connections: libpq's keywords and what to run once on each."},
    {Py_tp_init, config_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_repr, config_repr},
    {Py_tp_traverse, config_traverse},
    {Py_tp_clear, config_clear},
    {Py_tp_dealloc, config_dealloc},
    {Py_tp_members, config_members},
    {Py_tp_getset, config_getset},
    {0, NULL},
};

PyType_Spec pg_config_spec = {
    .name = "vinyl._postgres.Config",
    .basicsize = sizeof(pg_config),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = config_slots,
};
