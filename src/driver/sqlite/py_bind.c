/* Python values into a statement's parameters. */
#include "py_sqlite.h"

/* --- a value as SQLite has it: a cell, whose bytes are those of the value or of *keep */

static int
text_cell(PyObject *value, vnl_sqlite_cell *cell)
{
    Py_ssize_t size;

    cell->type = SQLITE_TEXT;
    cell->bytes = PyUnicode_AsUTF8AndSize(value, &size);
    if (cell->bytes == NULL) {
        return -1;
    }
    if (size > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "string longer than INT_MAX bytes");
        return -1;
    }
    cell->size = (int)size;
    return 0;
}

/* Of an object that cannot change. */
static int
bytes_cell(PyObject *value, vnl_sqlite_cell *cell)
{
    if (PyBytes_GET_SIZE(value) > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "BLOB longer than INT_MAX bytes");
        return -1;
    }
    cell->type = SQLITE_BLOB;
    cell->bytes = PyBytes_AS_STRING(value);
    cell->size = (int)PyBytes_GET_SIZE(value);
    return 0;
}

/* A copy of what may change. */
static int
buffer_cell(PyObject *value, vnl_sqlite_cell *cell, PyObject **keep)
{
    Py_buffer view;
    PyObject *copy;

    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    copy = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    if (copy == NULL) {
        return -1;
    }
    Py_XSETREF(*keep, copy);
    return bytes_cell(copy, cell);
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
int_cell(PyObject *value, int at, vnl_sqlite_cell *cell)
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
    cell->type = SQLITE_INTEGER;
    cell->integer = number;
    return 0;
}

static int
float_cell(PyObject *value, vnl_sqlite_cell *cell)
{
    cell->type = SQLITE_FLOAT;
    cell->real = PyFloat_AS_DOUBLE(value);
    return 0;
}

static int
null_cell(vnl_sqlite_cell *cell)
{
    cell->type = SQLITE_NULL;
    return 0;
}

/* Of what an adapter has given, which *keep holds. */
static int
adapted_cell(vnl_sqlite_state *state, PyObject *value, int at, vnl_sqlite_cell *cell, PyObject **keep)
{
    if (value == Py_None) {
        return null_cell(cell);
    }
    if (PyLong_Check(value)) {
        return int_cell(value, at, cell);
    }
    if (PyFloat_Check(value)) {
        return float_cell(value, cell);
    }
    if (PyUnicode_Check(value)) {
        return text_cell(value, cell);
    }
    if (PyBytes_CheckExact(value)) {
        return bytes_cell(value, cell);
    }
    if (PyObject_CheckBuffer(value)) {
        return buffer_cell(value, cell, keep);
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

/* New reference to what the registered adapter makes of it. */
static PyObject *
adapted_value(vnl_sqlite_state *state, PyObject *value)
{
    if (Py_IS_TYPE(value, (PyTypeObject *)state->decimal)) {
        /* The one that Django's backend registers. */
        PyObject *adapter = PyDict_GetItemWithError(state->adapters, state->decimal_key);
        if (adapter == (PyObject *)&PyUnicode_Type) {
            return PyObject_Str(value);
        }
        if (adapter == NULL && PyErr_Occurred()) {
            return NULL;
        }
    }
    return PyObject_CallFunctionObjArgs(state->adapt, value, state->prepare_protocol, value, NULL);
}

int
vnl_sqlite_cell_of(vnl_sqlite_state *state, PyObject *value, int at, vnl_sqlite_cell *cell, PyObject **keep)
{
    PyObject *adapted;

    if (PyUnicode_CheckExact(value)) {
        return text_cell(value, cell);
    }
    if (PyLong_CheckExact(value)) {
        return int_cell(value, at, cell);
    }
    if (value == Py_None) {
        return null_cell(cell);
    }
    if (PyFloat_CheckExact(value)) {
        return float_cell(value, cell);
    }
    if (PyBool_Check(value) && !has_adapter(state, state->bool_key)) {
        cell->type = SQLITE_INTEGER;
        cell->integer = value == Py_True;
        return 0;
    }
    if (PyByteArray_CheckExact(value)) {
        return buffer_cell(value, cell, keep);
    }
    if (PyBytes_CheckExact(value) && !has_adapter(state, state->bytes_key)) {
        return bytes_cell(value, cell);
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    adapted = adapted_value(state, value);
    if (adapted == NULL) {
        return -1;
    }
    Py_XSETREF(*keep, adapted);
    return adapted_cell(state, adapted, at, cell, keep);
}

/* --- binding */

/* `lasts`: the cell's bytes are there for as long as the statement runs. */
static int
bind_cell(sqlite3_stmt *raw, int at, const vnl_sqlite_cell *cell, int lasts)
{
    sqlite3_destructor_type whose = lasts ? SQLITE_STATIC : SQLITE_TRANSIENT;

    switch (cell->type) {
    case SQLITE_INTEGER:
        return sqlite3_bind_int64(raw, at, cell->integer);
    case SQLITE_FLOAT:
        return sqlite3_bind_double(raw, at, cell->real);
    case SQLITE_TEXT:
        return sqlite3_bind_text(raw, at, cell->bytes, cell->size, whose);
    case SQLITE_BLOB:
        return sqlite3_bind_blob(raw, at, cell->bytes, cell->size, whose);
    default:
        return sqlite3_bind_null(raw, at);
    }
}

/* `kept`: the caller holds the value for as long as the statement runs. */
static int
bind_one(vnl_sqlite_state *state, sqlite3_stmt *raw, int at, PyObject *value, int kept)
{
    vnl_sqlite_cell cell;
    PyObject *keep = NULL;
    int rc = vnl_sqlite_cell_of(state, value, at, &cell, &keep);

    if (rc == 0) {
        rc = bind_cell(raw, at, &cell, kept && keep == NULL);
    }
    Py_XDECREF(keep);
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

static int
bind_kept_wait(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, int at, PyObject *value)
{
    return Py_IS_TYPE(value, state->batch_type) ? vnl_sqlite_batch_bind_wait(state, conn, stmt, at, value)
                                                : bind_one(state, stmt->raw, at, value, 1);
}

int
vnl_sqlite_bind_wait(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, PyObject *params,
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
        int rc = bind_kept_wait(state, conn, stmt, i + 1, PyTuple_GET_ITEM(tuple, i));
        if (check(state, conn, rc) < 0) {
            sqlite3_clear_bindings(stmt->raw);
            Py_DECREF(tuple);
            return -1;
        }
    }
    Py_XSETREF(*keep, tuple);
    return 0;
}
