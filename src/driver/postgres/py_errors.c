/* libpq's errors as psycopg's exceptions, so that Django's error wrapper and
 * users' checks of __cause__ (sqlstate, diag) find what they expect. */
#include "py.h"

#include <stdarg.h>
#include <string.h>

static int
load(pg_state *state)
{
    if (state->errors != NULL) {
        return 0;
    }
    PyObject *psycopg = PyImport_ImportModule("psycopg");
    PyObject *errors = psycopg != NULL ? PyImport_ImportModule("psycopg.errors") : NULL;
    if (errors == NULL) {
        Py_XDECREF(psycopg);
        return -1;
    }
    Py_XSETREF(state->psycopg, psycopg);
    Py_XSETREF(state->errors, errors);
    return 0;
}

PyObject *
pg_raise(pg_state *state, const char *name, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    PyObject *type = load(state) == 0 ? PyObject_GetAttrString(state->psycopg, name) : NULL;
    PyObject *message = type != NULL ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : NULL;
    if (message != NULL) {
        PyErr_SetObject(type, message);
    }
    Py_XDECREF(message);
    Py_XDECREF(type);
    return NULL;
}

/* The class of a sqlstate: its own, or that of its two-character class. */
static PyObject *
class_of(pg_state *state, const char *sqlstate)
{
    static const struct {
        const char *prefix, *name;
    } classes[] = {
        {"08", "OperationalError"}, {"0A", "NotSupportedError"}, {"20", "ProgrammingError"},
        {"21", "ProgrammingError"}, {"22", "DataError"},         {"23", "IntegrityError"},
        {"24", "InternalError"},    {"25", "InternalError"},     {"26", "ProgrammingError"},
        {"27", "OperationalError"}, {"28", "OperationalError"},  {"2B", "InternalError"},
        {"2D", "InternalError"},    {"2F", "OperationalError"},  {"34", "ProgrammingError"},
        {"38", "OperationalError"}, {"39", "OperationalError"},  {"3B", "OperationalError"},
        {"3D", "ProgrammingError"}, {"3F", "ProgrammingError"},  {"40", "OperationalError"},
        {"42", "ProgrammingError"}, {"44", "ProgrammingError"},  {"53", "OperationalError"},
        {"54", "OperationalError"}, {"55", "OperationalError"},  {"57", "OperationalError"},
        {"58", "OperationalError"}, {"F0", "OperationalError"},  {"HV", "OperationalError"},
        {"P0", "ProgrammingError"}, {"XX", "InternalError"},     {NULL, NULL},
    };
    PyObject *type = PyObject_CallMethod(state->errors, "lookup", "s", sqlstate);
    if (type != NULL || !PyErr_ExceptionMatches(PyExc_KeyError)) {
        return type;
    }
    PyErr_Clear();
    for (int i = 0; classes[i].prefix != NULL; i++) {
        if (strncmp(sqlstate, classes[i].prefix, 2) == 0) {
            return PyObject_GetAttrString(state->psycopg, classes[i].name);
        }
    }
    return PyObject_GetAttrString(state->psycopg, "DatabaseError");
}

PyObject *
pg_raise_state(pg_state *state, const char *sqlstate, const char *message)
{
    PyObject *type = load(state) == 0 ? class_of(state, sqlstate) : NULL;
    PyObject *text =
        type != NULL ? PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace") : NULL;
    if (text != NULL) {
        PyErr_SetObject(type, text);
    }
    Py_XDECREF(text);
    Py_XDECREF(type);
    return NULL;
}

/* The fields by their libpq codes, as psycopg's Diagnostic reads them. */
static PyObject *
diag_dict(const PGresult *result)
{
    static const int fields[] = {
        PG_DIAG_SEVERITY,           PG_DIAG_SEVERITY_NONLOCALIZED,
        PG_DIAG_SQLSTATE,           PG_DIAG_MESSAGE_PRIMARY,
        PG_DIAG_MESSAGE_DETAIL,     PG_DIAG_MESSAGE_HINT,
        PG_DIAG_STATEMENT_POSITION, PG_DIAG_INTERNAL_POSITION,
        PG_DIAG_INTERNAL_QUERY,     PG_DIAG_CONTEXT,
        PG_DIAG_SCHEMA_NAME,        PG_DIAG_TABLE_NAME,
        PG_DIAG_COLUMN_NAME,        PG_DIAG_DATATYPE_NAME,
        PG_DIAG_CONSTRAINT_NAME,    PG_DIAG_SOURCE_FILE,
        PG_DIAG_SOURCE_LINE,        PG_DIAG_SOURCE_FUNCTION,
    };
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < sizeof(fields) / sizeof(*fields); i++) {
        const char *text = PQresultErrorField(result, fields[i]);
        PyObject *key = PyLong_FromLong(fields[i]);
        PyObject *value = text != NULL ? PyBytes_FromString(text) : Py_NewRef(Py_None);
        if (key == NULL || value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
error_text(const PGresult *result)
{
    const char *text = PQresultErrorMessage(result);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY);
    size_t n = severity != NULL ? strlen(severity) : 0;
    if (n > 0 && strncmp(text, severity, n) == 0 && text[n] == ':') {
        text += n + 1;
        text += strspn(text, " ");
    }
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '\n') {
        len--;
    }
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)len, "replace");
}

PyObject *
pg_raise_result(pg_state *state, const PGresult *result)
{
    if (load(state) < 0) {
        return NULL;
    }
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    PyObject *type = sqlstate != NULL ? class_of(state, sqlstate)
                                      : PyObject_GetAttrString(state->psycopg, "OperationalError");
    PyObject *info = type != NULL ? diag_dict(result) : NULL;
    PyObject *text = info != NULL ? error_text(result) : NULL;
    PyObject *args = text != NULL ? PyTuple_Pack(1, text) : NULL;
    PyObject *kwargs = args != NULL ? Py_BuildValue("{sO}", "info", info) : NULL;
    PyObject *error = kwargs != NULL ? PyObject_Call(type, args, kwargs) : NULL;
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(error);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(text);
    Py_XDECREF(info);
    Py_XDECREF(type);
    return NULL;
}

PyObject *
pg_raise_status(pg_state *state, vnl_pg_status status, const PGresult *result, PGconn *pg)
{
    switch (status) {
    case VNL_PG_INTERRUPTED:
        return NULL;
    case VNL_PG_NOMEM:
        return PyErr_NoMemory();
    case VNL_PG_TIMEOUT:
        return pg_raise(state, "OperationalError", "the server did not answer in time");
    case VNL_PG_COPY:
        return pg_raise(state, "ProgrammingError", "COPY cannot be used with execute(): use cursor.copy()");
    default:
        break;
    }
    if (result != NULL && PQresultStatus(result) == PGRES_FATAL_ERROR) {
        return pg_raise_result(state, result);
    }
    const char *why = pg != NULL ? PQerrorMessage(pg) : "";
    size_t len = strcspn(why, "\n");
    return pg_raise(state, "OperationalError", "the connection is lost%s%.*s", len > 0 ? ": " : "", (int)len,
                    why);
}

void
pg_link_raise(pg_link *link, vnl_pg_status status, const PGresult *result)
{
    const char *state = result != NULL ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    if (status == VNL_PG_SERVER && link->refused != NULL && state != NULL && strcmp(state, "25P02") == 0) {
        result = link->refused;
    }
    pg_raise_status(link->state, status, result, link->conn != NULL ? link->conn->pg : NULL);
}

static PyObject *
notice_object(pg_state *state, const vnl_pg_notice *notice)
{
    PyObject *types = PyImport_ImportModule("types");
    PyObject *space = types != NULL ? PyObject_GetAttrString(types, "SimpleNamespace") : NULL;
    PyObject *fields = space != NULL
                           ? Py_BuildValue("{szszszszsz}", "severity", notice->severity, "sqlstate",
                                           notice->sqlstate, "message_primary", notice->message,
                                           "message_detail", notice->detail, "message_hint", notice->hint)
                           : NULL;
    PyObject *none = fields != NULL ? PyTuple_New(0) : NULL;
    PyObject *made = none != NULL ? PyObject_Call(space, none, fields) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(fields);
    Py_XDECREF(space);
    Py_XDECREF(types);
    return made;
}

static int
emit_one(PyObject *logger, PyObject *notice, const vnl_pg_notice *raw, PyObject *handlers)
{
    int level = raw->severity != NULL && strcmp(raw->severity, "WARNING") == 0 ? 20 : 10;
    PyObject *done = PyObject_CallMethod(logger, "log", "iszz", level, "%s: %s", raw->severity, raw->message);
    Py_XDECREF(done);
    if (done == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; handlers != NULL && i < PyList_GET_SIZE(handlers); i++) {
        PyObject *handler = Py_NewRef(PyList_GET_ITEM(handlers, i));
        PyObject *answer = PyObject_CallOneArg(handler, notice);
        if (answer == NULL) {
            /* A handler's fault is not the statement's. */
            PyErr_WriteUnraisable(handler);
        }
        Py_XDECREF(answer);
        Py_DECREF(handler);
    }
    return 0;
}

int
pg_emit_notices(pg_state *state, vnl_pg_notice *notices, PyObject *handlers)
{
    int rc = 0;
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger =
        logging != NULL ? PyObject_CallMethod(logging, "getLogger", "s", "vinyl.postgresql") : NULL;
    if (logger == NULL) {
        rc = -1;
    }
    for (vnl_pg_notice *n = notices; n != NULL && rc == 0; n = n->next) {
        PyObject *notice = notice_object(state, n);
        rc = notice != NULL ? emit_one(logger, notice, n, handlers) : -1;
        Py_XDECREF(notice);
    }
    Py_XDECREF(logger);
    Py_XDECREF(logging);
    vnl_pg_notices_free(notices);
    return rc;
}
