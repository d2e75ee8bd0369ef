/* User functions, aggregates, collations and trace callbacks.
 *
 * SQLite calls them while a statement runs: in a fiber with the GIL held, in
 * blocking mode with it released.  An exception ends the statement as
 * sqlite3's module has it, "user-defined function raised exception"; one that
 * is no Exception (a cancel, Ctrl-C) stays set and is what the caller sees. */
#include "py_sqlite.h"

typedef struct call {
    vnl_sqlite_state *state;
    vnl_sqlite_conn *conn;
    PyObject *callable;
} call;

/* Into Python and out again.  What was pending before stays pending. */
typedef struct entry {
    void *token;
    PyObject *pending;
} entry;

static entry
enter_python(vnl_sqlite_conn *conn)
{
    entry in = {.token = conn->unlocked};

    conn->unlocked = NULL;
    if (in.token != NULL) {
        vnl_sqlite_host_calls.lock(in.token);
    }
    in.pending = vnl_sqlite_take_error();
    return in;
}

static void
leave_python(vnl_sqlite_conn *conn, entry in)
{
    if (in.pending != NULL) {
        PyErr_Clear();
        vnl_sqlite_put_error(in.pending);
    }
    if (in.token != NULL) {
        conn->unlocked = vnl_sqlite_host_calls.unlock();
    }
}

/* What is set becomes SQLite's error; only BaseExceptions stay set. */
static void
report(sqlite3_context *ctx, const char *message)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        sqlite3_result_error_nomem(ctx);
    }
    else if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        sqlite3_result_error_toobig(ctx);
    }
    else {
        sqlite3_result_error(ctx, message, -1);
    }
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
}

static call *
call_new(vnl_sqlite_state *state, vnl_sqlite_conn *conn, PyObject *callable)
{
    call *c = PyMem_RawMalloc(sizeof(*c));

    if (c == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *c = (call){.state = state, .conn = conn, .callable = Py_NewRef(callable)};
    return c;
}

static void
call_free(void *arg)
{
    call *c = arg;
    entry in = enter_python(c->conn);

    Py_DECREF(c->callable);
    leave_python(c->conn, in);
    PyMem_RawFree(c);
}

/* --- values */

static PyObject *
value_of(sqlite3_value *value)
{
    switch (sqlite3_value_type(value)) {
    case SQLITE_INTEGER:
        return PyLong_FromLongLong(sqlite3_value_int64(value));
    case SQLITE_FLOAT:
        return PyFloat_FromDouble(sqlite3_value_double(value));
    case SQLITE_TEXT: {
        const char *text = (const char *)sqlite3_value_text(value);
        return text == NULL ? PyErr_NoMemory() : PyUnicode_DecodeUTF8(text, sqlite3_value_bytes(value), NULL);
    }
    case SQLITE_BLOB: {
        const void *blob = sqlite3_value_blob(value);
        return PyBytes_FromStringAndSize(blob, sqlite3_value_bytes(value));
    }
    default:
        Py_RETURN_NONE;
    }
}

/* Calls with SQLite's arguments; `self` may be NULL. */
static PyObject *
call_with(PyObject *callable, int argc, sqlite3_value **argv)
{
    PyObject *small[8] = {NULL};
    PyObject **args = small;
    PyObject *result = NULL;
    int n = 0;

    if (argc > 8 && (args = PyMem_Malloc((size_t)argc * sizeof(*args))) == NULL) {
        return PyErr_NoMemory();
    }
    for (; n < argc; n++) {
        if ((args[n] = value_of(argv[n])) == NULL) {
            goto done;
        }
    }
    result = PyObject_Vectorcall(callable, args, (size_t)argc, NULL);
done:
    while (n > 0) {
        Py_DECREF(args[--n]);
    }
    if (args != small) {
        PyMem_Free(args);
    }
    return result;
}

static int
give_buffer(sqlite3_context *ctx, PyObject *value)
{
    Py_buffer view;

    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (view.len == 0) {
        sqlite3_result_zeroblob(ctx, 0);
    }
    else {
        sqlite3_result_blob64(ctx, view.buf, (sqlite3_uint64)view.len, SQLITE_TRANSIENT);
    }
    PyBuffer_Release(&view);
    return 0;
}

static int
give(sqlite3_context *ctx, PyObject *value)
{
    if (value == Py_None) {
        sqlite3_result_null(ctx);
    }
    else if (PyLong_Check(value)) {
        int overflow = 0;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow != 0) {
            PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to SQLite INTEGER");
            return -1;
        }
        if (number == -1 && PyErr_Occurred()) {
            return -1;
        }
        sqlite3_result_int64(ctx, number);
    }
    else if (PyFloat_Check(value)) {
        sqlite3_result_double(ctx, PyFloat_AS_DOUBLE(value));
    }
    else if (PyUnicode_Check(value)) {
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(value, &len);
        if (text == NULL) {
            return -1;
        }
        sqlite3_result_text64(ctx, text, (sqlite3_uint64)len, SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    else if (PyObject_CheckBuffer(value)) {
        return give_buffer(ctx, value);
    }
    else {
        PyErr_Format(PyExc_TypeError, "a user function returned %s", Py_TYPE(value)->tp_name);
        return -1;
    }
    return 0;
}

/* --- functions */

static void
on_function(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    call *c = sqlite3_user_data(ctx);
    entry in = enter_python(c->conn);
    PyObject *result = call_with(c->callable, argc, argv);

    if (result == NULL || give(ctx, result) < 0) {
        report(ctx, "user-defined function raised exception");
    }
    Py_XDECREF(result);
    leave_python(c->conn, in);
}

static int
created(vnl_sqlite_state *state, vnl_sqlite_conn *conn, int rc, const char *what)
{
    if (rc == SQLITE_OK) {
        return 0;
    }
    if ((rc & 0xff) == SQLITE_MISUSE || (rc & 0xff) == SQLITE_ERROR) {
        vnl_sqlite_fail(state, VNL_E_OPERATIONAL, "Error creating %s", what);
    }
    else {
        vnl_sqlite_raise(state, conn, rc);
    }
    return -1;
}

int
vnl_sqlite_create_function(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name, int narg,
                           PyObject *callable, int flags)
{
    call *c = NULL;
    int rc;

    if (callable == Py_None) {
        rc = sqlite3_create_function_v2(conn->db, name, narg, SQLITE_UTF8, NULL, NULL, NULL, NULL, NULL);
        return created(state, conn, rc, "function");
    }
    if ((c = call_new(state, conn, callable)) == NULL) {
        return -1;
    }
    /* On failure SQLite calls the destructor itself. */
    rc = sqlite3_create_function_v2(conn->db, name, narg, SQLITE_UTF8 | flags, c, on_function, NULL, NULL,
                                    call_free);
    return created(state, conn, rc, "function");
}

/* --- aggregates: SQLite's per-group memory holds the instance */

static PyObject **
instance_of(sqlite3_context *ctx, call *c)
{
    PyObject **instance = sqlite3_aggregate_context(ctx, sizeof(PyObject *));

    if (instance == NULL) {
        PyErr_NoMemory();
        report(ctx, "");
        return NULL;
    }
    if (*instance == NULL && (*instance = PyObject_CallNoArgs(c->callable)) == NULL) {
        report(ctx, "user-defined aggregate's '__init__' method raised error");
        return NULL;
    }
    return instance;
}

static void
call_method(sqlite3_context *ctx, call *c, const char *name, int argc, sqlite3_value **argv,
            const char *message)
{
    PyObject **instance = instance_of(ctx, c);
    PyObject *method = NULL, *result = NULL;

    if (instance == NULL) {
        return;
    }
    method = PyObject_GetAttrString(*instance, name);
    result = method == NULL ? NULL : call_with(method, argc, argv);
    if (result == NULL) {
        report(ctx, message);
    }
    Py_XDECREF(method);
    Py_XDECREF(result);
}

static void
on_step(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    call *c = sqlite3_user_data(ctx);
    entry in = enter_python(c->conn);

    call_method(ctx, c, "step", argc, argv, "user-defined aggregate's 'step' method raised error");
    leave_python(c->conn, in);
}

static void
on_inverse(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    call *c = sqlite3_user_data(ctx);
    entry in = enter_python(c->conn);

    call_method(ctx, c, "inverse", argc, argv, "user-defined aggregate's 'inverse' method raised error");
    leave_python(c->conn, in);
}

static void
answer(sqlite3_context *ctx, PyObject *instance, const char *name, const char *message)
{
    PyObject *result = PyObject_CallMethod(instance, name, NULL);

    if (result == NULL || give(ctx, result) < 0) {
        report(ctx, message);
    }
    Py_XDECREF(result);
}

static void
on_value(sqlite3_context *ctx)
{
    call *c = sqlite3_user_data(ctx);
    entry in = enter_python(c->conn);
    PyObject **instance = instance_of(ctx, c);

    if (instance != NULL) {
        answer(ctx, *instance, "value", "user-defined aggregate's 'value' method raised error");
    }
    leave_python(c->conn, in);
}

static void
on_final(sqlite3_context *ctx)
{
    call *c = sqlite3_user_data(ctx);
    entry in = enter_python(c->conn);
    PyObject **instance = sqlite3_aggregate_context(ctx, 0);

    /* Without one (an empty group) the answer is NULL. */
    if (instance != NULL && *instance != NULL) {
        /* After a failed step finalize is called only to clean up. */
        if (in.pending == NULL) {
            answer(ctx, *instance, "finalize", "user-defined aggregate's 'finalize' method raised error");
        }
        Py_CLEAR(*instance);
    }
    leave_python(c->conn, in);
}

int
vnl_sqlite_create_aggregate(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name, int narg,
                            PyObject *cls, int window)
{
    call *c = NULL;
    int rc;

    if (cls == Py_None) {
        rc = sqlite3_create_function_v2(conn->db, name, narg, SQLITE_UTF8, NULL, NULL, NULL, NULL, NULL);
        return created(state, conn, rc, "aggregate");
    }
    if ((c = call_new(state, conn, cls)) == NULL) {
        return -1;
    }
    rc = window ? sqlite3_create_window_function(conn->db, name, narg, SQLITE_UTF8, c, on_step, on_final,
                                                 on_value, on_inverse, call_free)
                : sqlite3_create_function_v2(conn->db, name, narg, SQLITE_UTF8, c, NULL, on_step, on_final,
                                             call_free);
    return created(state, conn, rc, "aggregate");
}

/* --- collations */

static int
on_compare(void *arg, int a_len, const void *a, int b_len, const void *b)
{
    call *c = arg;
    entry in = enter_python(c->conn);
    PyObject *left = NULL, *right = NULL, *result = NULL;
    int order = 0;

    if ((left = PyUnicode_DecodeUTF8(a, a_len, NULL)) != NULL &&
        (right = PyUnicode_DecodeUTF8(b, b_len, NULL)) != NULL &&
        (result = PyObject_CallFunctionObjArgs(c->callable, left, right, NULL)) != NULL) {
        int overflow = 0;
        long long number = PyLong_AsLongLongAndOverflow(result, &overflow);
        order = overflow != 0 ? overflow : (number > 0) - (number < 0);
    }
    /* SQLite has no way to report a failed comparison. */
    if (PyErr_Occurred()) {
        order = 0;
        if (PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear();
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(right);
    Py_XDECREF(left);
    leave_python(c->conn, in);
    return order;
}

int
vnl_sqlite_create_collation(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name,
                            PyObject *callable)
{
    call *c = NULL;
    int rc;

    if (callable == Py_None) {
        rc = sqlite3_create_collation_v2(conn->db, name, SQLITE_UTF8, NULL, NULL, NULL);
        return created(state, conn, rc, "collation");
    }
    if ((c = call_new(state, conn, callable)) == NULL) {
        return -1;
    }
    rc = sqlite3_create_collation_v2(conn->db, name, SQLITE_UTF8, c, on_compare, call_free);
    if (rc != SQLITE_OK) {
        call_free(c); /* unlike the others, this one leaves it to us */
    }
    return created(state, conn, rc, "collation");
}

/* --- tracing */

static int
on_trace(unsigned what, void *arg, void *stmt, void *text)
{
    call *c = arg;
    const char *sql = text;
    char *expanded = NULL;
    entry in;
    PyObject *result;

    if (sql == NULL || (sql[0] == '-' && sql[1] == '-')) {
        return 0; /* a trigger's comment */
    }
    expanded = sqlite3_expanded_sql(stmt);
    in = enter_python(c->conn);
    result = PyObject_CallFunction(c->callable, "s", expanded != NULL ? expanded : sql);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    leave_python(c->conn, in);
    sqlite3_free(expanded);
    return 0;
}

int
vnl_sqlite_set_trace(vnl_sqlite_state *state, vnl_sqlite_conn *conn, PyObject *callable, void **handle)
{
    call *c = NULL;

    if (callable != Py_None && (c = call_new(state, conn, callable)) == NULL) {
        return -1;
    }
    sqlite3_trace_v2(conn->db, c == NULL ? 0 : SQLITE_TRACE_STMT, c == NULL ? NULL : on_trace, c);
    *handle = c;
    return 0;
}

void
vnl_sqlite_free_trace(void *handle)
{
    if (handle != NULL) {
        call_free(handle);
    }
}
