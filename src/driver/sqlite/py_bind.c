/* Python values into a statement's parameters. */
#include "py_sqlite.h"

/* How a value's bytes may be bound: those of an object that `keep` holds are
 * not copied. */
static int
bind_text(sqlite3_stmt *raw, int at, PyObject *value, int kept)
{
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(value, &len);

    if (text == NULL) {
        return -1;
    }
    if (len > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "string longer than INT_MAX bytes");
        return -1;
    }
    return sqlite3_bind_text(raw, at, text, (int)len, kept ? SQLITE_STATIC : SQLITE_TRANSIENT);
}

static int
bind_buffer(sqlite3_stmt *raw, int at, PyObject *value)
{
    Py_buffer view;
    int rc;

    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (view.len > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "BLOB longer than INT_MAX bytes");
        PyBuffer_Release(&view);
        return -1;
    }
    /* An empty buffer may have no address, which SQLite would take for NULL. */
    rc = view.len == 0 ? sqlite3_bind_zeroblob(raw, at, 0)
                       : sqlite3_bind_blob(raw, at, view.buf, (int)view.len, SQLITE_TRANSIENT);
    PyBuffer_Release(&view);
    return rc;
}

static void
raise_out_of_range(PyObject *value, int at)
{
    PyObject *module = PyImport_ImportModule("vinyl.exceptions");
    PyObject *cls = module == NULL ? NULL : PyObject_GetAttrString(module, "IntegerOutOfRange");
    PyObject *error = cls == NULL ? NULL : PyObject_CallMethod(cls, "of", "Oi", value, at);
    if (error != NULL) {
        PyErr_SetObject(cls, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(cls);
    Py_XDECREF(module);
}

static int
bind_int(sqlite3_stmt *raw, int at, PyObject *value)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);

    if (overflow != 0) {
        raise_out_of_range(value, at);
        return -1;
    }
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    return sqlite3_bind_int64(raw, at, number);
}

/* After adapters had their say. */
static int
bind_adapted(vnl_sqlite_state *state, sqlite3_stmt *raw, int at, PyObject *value)
{
    if (value == Py_None) {
        return sqlite3_bind_null(raw, at);
    }
    if (PyLong_Check(value)) {
        return bind_int(raw, at, value);
    }
    if (PyFloat_Check(value)) {
        return sqlite3_bind_double(raw, at, PyFloat_AS_DOUBLE(value));
    }
    if (PyUnicode_Check(value)) {
        return bind_text(raw, at, value, 0);
    }
    if (PyObject_CheckBuffer(value)) {
        return bind_buffer(raw, at, value);
    }
    vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "Error binding parameter %d: type '%s' is not supported", at,
                    Py_TYPE(value)->tp_name);
    return -1;
}

/* 1 when someone registered an adapter for this basic type. */
static int
has_adapter(vnl_sqlite_state *state, PyObject *key)
{
    return PyDict_GetItemWithError(state->adapters, key) != NULL || PyErr_Occurred() != NULL;
}

/* `kept`: the caller holds the value for as long as the statement runs. */
static int
bind_one(vnl_sqlite_state *state, sqlite3_stmt *raw, int at, PyObject *value, int kept)
{
    PyObject *adapted;
    int rc;

    if (PyUnicode_CheckExact(value)) {
        return bind_text(raw, at, value, kept);
    }
    if (PyLong_CheckExact(value)) {
        return bind_int(raw, at, value);
    }
    if (value == Py_None) {
        return sqlite3_bind_null(raw, at);
    }
    if (PyFloat_CheckExact(value)) {
        return sqlite3_bind_double(raw, at, PyFloat_AS_DOUBLE(value));
    }
    if (PyBool_Check(value) && !has_adapter(state, state->bool_key)) {
        return sqlite3_bind_int(raw, at, value == Py_True);
    }
    if (PyByteArray_CheckExact(value) ||
        (PyBytes_CheckExact(value) && !has_adapter(state, state->bytes_key))) {
        return bind_buffer(raw, at, value);
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    adapted = PyObject_CallFunctionObjArgs(state->adapt, value, state->prepare_protocol, value, NULL);
    if (adapted == NULL) {
        return -1;
    }
    rc = bind_adapted(state, raw, at, adapted);
    Py_DECREF(adapted);
    return rc;
}

static int
check(vnl_sqlite_state *state, vnl_sqlite_conn *conn, int rc)
{
    if (rc == SQLITE_OK) {
        return 0;
    }
    if (rc > 0) {
        vnl_sqlite_raise(state, conn, rc);
    }
    return -1;
}

static int
bind_mapping(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, PyObject *params,
             int wanted)
{
    for (int i = 1; i <= wanted; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt->raw, i);
        PyObject *value;
        int rc;
        if (name == NULL) {
            vnl_sqlite_fail(state, VNL_E_PROGRAMMING,
                            "Binding %d has no name, but you supplied a dictionary (which has only names).",
                            i);
            return -1;
        }
        value = PyMapping_GetItemString(params, name + 1);
        if (value == NULL) {
            /* With Django's %(name)s a missing one is a KeyError, as Python's % has it. */
            if (stmt->style == VNL_STYLE_RAW && PyErr_ExceptionMatches(PyExc_LookupError)) {
                PyErr_Clear();
                vnl_sqlite_fail(state, VNL_E_PROGRAMMING,
                                "You did not supply a value for binding parameter %s.", name);
            }
            return -1;
        }
        rc = bind_one(state, stmt->raw, i, value, 0);
        Py_DECREF(value);
        if (check(state, conn, rc) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
wrong_count(vnl_sqlite_state *state, int wanted, Py_ssize_t given)
{
    vnl_sqlite_fail(
        state, VNL_E_PROGRAMMING,
        "Incorrect number of bindings supplied. The current statement uses %d, and there are %zd supplied.",
        wanted, given);
    return -1;
}

int
vnl_sqlite_bind(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, PyObject *params,
                PyObject **keep)
{
    int wanted = stmt->raw == NULL ? 0 : sqlite3_bind_parameter_count(stmt->raw);
    PyObject *tuple = NULL;

    if (params == NULL || params == Py_None) {
        return wanted == 0 ? 0 : wrong_count(state, wanted, 0);
    }
    if (!PyTuple_Check(params) && !PyList_Check(params)) {
        if (PyDict_Check(params) || (PyMapping_Check(params) && !PySequence_Check(params)) ||
            PyObject_HasAttrString(params, "keys")) {
            return bind_mapping(state, conn, stmt, params, wanted);
        }
        if (!PySequence_Check(params)) {
            vnl_sqlite_fail(state, VNL_E_PROGRAMMING, "parameters are of unsupported type");
            return -1;
        }
    }
    tuple = PySequence_Tuple(params);
    if (tuple == NULL) {
        return -1;
    }
    if (PyTuple_GET_SIZE(tuple) != wanted) {
        Py_ssize_t given = PyTuple_GET_SIZE(tuple);
        Py_DECREF(tuple);
        return wrong_count(state, wanted, given);
    }
    for (int i = 0; i < wanted; i++) {
        if (check(state, conn, bind_one(state, stmt->raw, i + 1, PyTuple_GET_ITEM(tuple, i), 1)) < 0) {
            sqlite3_clear_bindings(stmt->raw);
            Py_DECREF(tuple);
            return -1;
        }
    }
    Py_XSETREF(*keep, tuple);
    return 0;
}
