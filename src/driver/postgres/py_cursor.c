/* Cursor: execute, and rows from a PGresult decoded when they are fetched. */
#include "py.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* --- rows --------------------------------------------------------------- */

void
pg_cursor_reset(pg_cursor *cur)
{
    PQclear(cur->result);
    cur->result = NULL;
    PyMem_Free(cur->columns);
    cur->columns = NULL;
    cur->ncols = cur->nrows = cur->pos = 0;
    cur->rowcount = -1;
    Py_CLEAR(cur->description);
    Py_CLEAR(cur->statusmessage);
}

int
pg_cursor_take(pg_cursor *cur, PGresult *result)
{
    pg_cursor_reset(cur);
    cur->result = result;
    ExecStatusType status = PQresultStatus(result);
    const char *tag = PQcmdStatus(result);
    if (tag != NULL && *tag && (cur->statusmessage = PyUnicode_FromString(tag)) == NULL) {
        return -1;
    }
    if (status != PGRES_TUPLES_OK) {
        const char *count = PQcmdTuples(result);
        cur->rowcount = *count ? (Py_ssize_t)strtoll(count, NULL, 10) : -1;
        return 0;
    }
    cur->ncols = PQnfields(result);
    cur->nrows = PQntuples(result);
    cur->rowcount = cur->nrows;
    cur->binary = PQbinaryTuples(result);
    cur->columns = PyMem_Calloc((size_t)cur->ncols + 1, sizeof(*cur->columns));
    if (cur->columns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    vnl_decode_ctx *ctx = pg_link_ctx(cur->link);
    for (int i = 0; i < cur->ncols; i++) {
        cur->columns[i].oid = PQftype(result, i);
        cur->columns[i].decode = vnl_decode_find(ctx, cur->columns[i].oid, cur->binary);
        if (cur->columns[i].decode == NULL && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

int
pg_cursor_check_open(pg_cursor *cur)
{
    if (cur->link == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Cursor is made by Connection.cursor()");
        return -1;
    }
    if (cur->closed) {
        pg_raise(cur->link->state, "InterfaceError", "the cursor is closed");
        return -1;
    }
    return 0;
}

int
pg_cursor_check_rows(pg_cursor *cur)
{
    if (pg_cursor_check_open(cur) < 0) {
        return -1;
    }
    if (cur->name != NULL ? !cur->declared
                          : cur->result == NULL || PQresultStatus(cur->result) != PGRES_TUPLES_OK) {
        pg_raise(cur->link->state, "ProgrammingError",
                 cur->sql == NULL ? "no result available: nothing was executed"
                                  : "the last operation didn't produce records");
        return -1;
    }
    return 0;
}

/* The next row, or NULL with no exception at the end. */
static PyObject *
next_row(pg_cursor *cur, Py_ssize_t want)
{
    if (cur->pos >= cur->nrows) {
        if (cur->name == NULL || pg_named_fill_wait(cur, want) <= 0) {
            return NULL;
        }
    }
    return pg_cursor_row(cur, cur->pos++);
}

static PyObject *
cursor_fetchone(PyObject *op, PyObject *unused)
{
    pg_cursor *cur = (pg_cursor *)op;
    if (pg_cursor_check_rows(cur) < 0) {
        return NULL;
    }
    PyObject *row = next_row(cur, 1);
    return row != NULL || PyErr_Occurred() ? row : Py_NewRef(Py_None);
}

static PyObject *
fetch(pg_cursor *cur, Py_ssize_t limit)
{
    PyObject *rows = PyList_New(0);
    while (rows != NULL && (limit < 0 || PyList_GET_SIZE(rows) < limit)) {
        PyObject *row = next_row(cur, limit < 0 ? -1 : limit - PyList_GET_SIZE(rows));
        if (row == NULL) {
            if (PyErr_Occurred()) {
                Py_CLEAR(rows);
            }
            break;
        }
        if (PyList_Append(rows, row) < 0) {
            Py_CLEAR(rows);
        }
        Py_DECREF(row);
    }
    return rows;
}

static PyObject *
cursor_fetchmany(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"size", NULL};
    pg_cursor *cur = (pg_cursor *)op;
    Py_ssize_t size = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n", keywords, &size) || pg_cursor_check_rows(cur) < 0) {
        return NULL;
    }
    return fetch(cur, size > 0 ? size : cur->arraysize);
}

static PyObject *
cursor_fetchall(PyObject *op, PyObject *unused)
{
    pg_cursor *cur = (pg_cursor *)op;
    return pg_cursor_check_rows(cur) < 0 ? NULL : fetch(cur, -1);
}

static PyObject *
cursor_iternext(PyObject *op)
{
    pg_cursor *cur = (pg_cursor *)op;
    return pg_cursor_check_rows(cur) < 0 ? NULL : next_row(cur, cur->itersize);
}

/* --- execute ------------------------------------------------------------ */

int
pg_cursor_set_statement(pg_cursor *cur, PyObject *query, PyObject *params)
{
    if (pg_cursor_check_open(cur) < 0) {
        return -1;
    }
    PyObject *sql = pg_query_text(cur->link->state, query, (PyObject *)cur->link);
    if (sql == NULL) {
        return -1;
    }
    Py_XSETREF(cur->sql, sql);
    Py_XSETREF(cur->params, params == Py_None ? NULL : Py_XNewRef(params));
    return 0;
}

static int
execute_wait(pg_cursor *cur, PyObject *query, PyObject *params)
{
    if (cur->name != NULL) {
        return pg_cursor_set_statement(cur, query, params) < 0 ? -1 : pg_named_execute_wait(cur);
    }
    PGresult *result = NULL;
    int flown = pg_park_run_wait(cur, query, params, &result);
    if (flown < 0 || pg_cursor_check_open(cur) < 0 || pg_link_enter_holding_wait(cur->link) < 0) {
        PQclear(result);
        return -1;
    }
    if (pg_cursor_set_statement(cur, query, params) < 0) {
        PQclear(result);
        pg_link_leave(cur->link);
        return -1;
    }
    pg_cursor_reset(cur);
    pg_binding binding = cur->server_side ? PG_BIND_SERVER : PG_BIND_AUTO;
    int held = !flown && cur->link->held != NULL ? pg_held_execute_wait(cur, binding, &result) : 0;
    int rc = flown || held > 0 ? 0 : held < 0 ? -1 : pg_cursor_run_wait(cur, binding, &result);
    if (rc == 0 && result == NULL) {
        cur->rowcount = 0; /* it is held */
    }
    else if (rc == 0) {
        rc = pg_cursor_take(cur, result);
    }
    if (rc == 0) {
        rc = pg_link_notices(cur->link);
    }
    pg_link_leave(cur->link);
    return rc;
}

static PyObject *
cursor_execute(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"query", "params", "prepare", "binary", NULL};
    PyObject *query = NULL, *params = NULL, *prepare = NULL, *binary = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O$OO", keywords, &query, &params, &prepare, &binary)) {
        return NULL;
    }
    pg_cursor *cur = (pg_cursor *)op;
    if (execute_wait(cur, query, params) < 0) {
        return NULL;
    }
    return Py_NewRef(op);
}

static PyObject *
cursor_executemany(PyObject *op, PyObject *args)
{
    PyObject *query = NULL, *many = NULL, *params = NULL;
    pg_cursor *cur = (pg_cursor *)op;
    if (!PyArg_ParseTuple(args, "OO", &query, &many)) {
        return NULL;
    }
    PyObject *iterator = PyObject_GetIter(many);
    Py_ssize_t total = 0;
    int rc = iterator != NULL ? 0 : -1;
    while (rc == 0 && (params = PyIter_Next(iterator)) != NULL) {
        rc = execute_wait(cur, query, params);
        Py_DECREF(params);
        total += rc == 0 && cur->rowcount > 0 ? cur->rowcount : 0;
    }
    Py_XDECREF(iterator);
    if (rc < 0 || PyErr_Occurred()) {
        return NULL;
    }
    cur->rowcount = total;
    Py_RETURN_NONE;
}

static int
put_identifier(vnl_buf *buf, PyObject *name)
{
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(name, &len);
    if (text == NULL) {
        return -1;
    }
    vnl_buf_putc(buf, '"');
    for (Py_ssize_t i = 0; i < len; i++) {
        if (text[i] == '"') {
            vnl_buf_putc(buf, '"');
        }
        vnl_buf_putc(buf, text[i] != '%' ? text[i] : '%');
        if (text[i] == '%') {
            vnl_buf_putc(buf, '%');
        }
    }
    vnl_buf_putc(buf, '"');
    return 0;
}

static PyObject *
cursor_callproc(PyObject *op, PyObject *args)
{
    PyObject *name = NULL, *params = NULL;
    if (!PyArg_ParseTuple(args, "U|O", &name, &params)) {
        return NULL;
    }
    PyObject *values = params == NULL || params == Py_None ? PyTuple_New(0) : PySequence_Tuple(params);
    vnl_buf buf = VNL_BUF_INIT;
    vnl_buf_puts(&buf, "SELECT * FROM ");
    PyObject *query = NULL;
    if (values != NULL && put_identifier(&buf, name) == 0) {
        vnl_buf_putc(&buf, '(');
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); i++) {
            vnl_buf_puts(&buf, i > 0 ? ",%s" : "%s");
        }
        vnl_buf_putc(&buf, ')');
        query = vnl_buf_failed(&buf) ? PyErr_NoMemory()
                                     : PyUnicode_DecodeUTF8(buf.data, (Py_ssize_t)buf.len, NULL);
    }
    vnl_buf_free(&buf);
    pg_cursor *cur = (pg_cursor *)op;
    int rc = query != NULL ? execute_wait(cur, query, values) : -1;
    Py_XDECREF(query);
    Py_XDECREF(values);
    if (rc < 0) {
        return NULL;
    }
    return Py_NewRef(params != NULL ? params : Py_None);
}

/* --- what was said ------------------------------------------------------ */

static PyObject *
literal_text(pg_cursor *cur, PyObject *sql, PyObject *params)
{
    pg_request request;
    if (pg_request_init(cur->link->state, &request, pg_link_ctx(cur->link), sql, params, PG_BIND_LITERAL) <
        0) {
        return NULL;
    }
    PyObject *text = PyUnicode_DecodeUTF8(request.text.data, (Py_ssize_t)request.text.len, "replace");
    pg_request_clear(&request);
    return text;
}

static PyObject *
cursor_mogrify(PyObject *op, PyObject *args)
{
    PyObject *query = NULL, *params = NULL;
    pg_cursor *cur = (pg_cursor *)op;
    if (!PyArg_ParseTuple(args, "O|O", &query, &params) || pg_cursor_check_open(cur) < 0) {
        return NULL;
    }
    PyObject *sql = pg_query_text(cur->link->state, query, (PyObject *)cur->link);
    PyObject *text = sql != NULL ? literal_text(cur, sql, params == Py_None ? NULL : params) : NULL;
    Py_XDECREF(sql);
    return text;
}

static PyObject *
get_query(PyObject *op, void *closure)
{
    pg_cursor *cur = (pg_cursor *)op;
    if (cur->sql == NULL) {
        Py_RETURN_NONE;
    }
    return literal_text(cur, cur->sql, cur->params);
}

static PyObject *
make_column(pg_state *state, pg_cursor *cur, PyObject *types, int i)
{
    const char *name = PQfname(cur->result, i);
    PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
    PyObject *column =
        text != NULL
            ? PyObject_CallFunction(state->column, "OkiiO", text, (unsigned long)PQftype(cur->result, i),
                                    PQfmod(cur->result, i), PQfsize(cur->result, i), types)
            : NULL;
    Py_XDECREF(text);
    return column;
}

static PyObject *
get_description(PyObject *op, void *closure)
{
    pg_cursor *cur = (pg_cursor *)op;
    if (cur->description != NULL || cur->result == NULL || cur->link == NULL || PQnfields(cur->result) == 0) {
        return Py_NewRef(cur->description != NULL ? cur->description : Py_None);
    }
    pg_state *state = cur->link->state;
    if (state->column == NULL) {
        PyObject *module = PyImport_ImportModule("vinyl.backends.postgresql.column");
        PyObject *column = module != NULL ? PyObject_GetAttrString(module, "Column") : NULL;
        Py_XDECREF(module);
        if (column == NULL) {
            return NULL;
        }
        Py_XSETREF(state->column, column);
    }
    PyObject *types = PyObject_GetAttrString(vnl_decode_ctx_adapters(pg_link_ctx(cur->link)), "types");
    int n = PQnfields(cur->result);
    PyObject *list = types != NULL ? PyList_New(n) : NULL;
    for (int i = 0; list != NULL && i < n; i++) {
        PyObject *column = make_column(state, cur, types, i);
        if (column == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, i, column);
        }
    }
    Py_XDECREF(types);
    cur->description = list;
    return Py_XNewRef(list);
}

static PyObject *
cursor_close(PyObject *op, PyObject *unused)
{
    pg_cursor *cur = (pg_cursor *)op;
    if (cur->closed || cur->link == NULL) {
        Py_RETURN_NONE;
    }
    int rc = 0;
    if (cur->name != NULL && cur->link->busy) {
        /* A generator left early is closed by whoever drops it, in the middle of what runs. */
        pg_named_drop(cur);
    }
    else if (cur->name != NULL) {
        rc = pg_named_close_wait(cur);
    }
    cur->closed = 1;
    pg_cursor_reset(cur);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
cursor_enter(PyObject *op, PyObject *unused)
{
    return Py_NewRef(op);
}

static PyObject *
cursor_exit(PyObject *op, PyObject *args)
{
    return cursor_close(op, NULL);
}

static PyObject *
cursor_nothing(PyObject *op, PyObject *args)
{
    Py_RETURN_NONE;
}

static PyObject *
get_rownumber(PyObject *op, void *closure)
{
    pg_cursor *cur = (pg_cursor *)op;
    return cur->result != NULL ? PyLong_FromLong(cur->pos) : Py_NewRef(Py_None);
}

static PyObject *
get_closed(PyObject *op, void *closure)
{
    return PyBool_FromLong(((pg_cursor *)op)->closed);
}

static PyObject *
cursor_repr(PyObject *op)
{
    pg_cursor *cur = (pg_cursor *)op;
    return PyUnicode_FromFormat("<vinyl._postgres.Cursor%s%V %s at %p>", cur->name != NULL ? " " : "",
                                cur->name, "",
                                cur->closed        ? "closed"
                                : cur->sql == NULL ? "new"
                                                   : "executed",
                                (void *)cur);
}

PyObject *
pg_cursor_new(pg_link *link, PyObject *name, int scrollable, int withhold, int server_side)
{
    if (link->config == NULL) {
        PyErr_SetString(PyExc_TypeError, "the Connection was not initialised");
        return NULL;
    }
    pg_cursor *cur = (pg_cursor *)PyType_GenericAlloc(link->state->cursor_type, 0);
    if (cur == NULL) {
        return NULL;
    }
    cur->link = (pg_link *)Py_NewRef(link);
    cur->rowcount = -1;
    cur->arraysize = 1;
    cur->itersize = 100;
    cur->name = Py_XNewRef(name);
    cur->scrollable = scrollable;
    cur->withhold = withhold;
    cur->server_side = server_side >= 0 ? server_side : link->config->server_side_binding;
    return (PyObject *)cur;
}

static int
cursor_traverse(PyObject *op, visitproc visit, void *arg)
{
    pg_cursor *cur = (pg_cursor *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(cur->link);
    Py_VISIT(cur->sql);
    Py_VISIT(cur->params);
    Py_VISIT(cur->description);
    Py_VISIT(cur->name);
    Py_VISIT(cur->dict);
    return 0;
}

static int
cursor_clear(PyObject *op)
{
    pg_cursor *cur = (pg_cursor *)op;
    Py_CLEAR(cur->params);
    Py_CLEAR(cur->description);
    Py_CLEAR(cur->dict);
    return 0;
}

static void
cursor_dealloc(PyObject *op)
{
    pg_cursor *cur = (pg_cursor *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (cur->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (cur->name != NULL && cur->link != NULL && !cur->closed) {
        pg_named_drop(cur);
    }
    pg_cursor_reset(cur);
    cursor_clear(op);
    Py_CLEAR(cur->sql);
    Py_CLEAR(cur->name);
    Py_CLEAR(cur->link);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef cursor_methods[] = {
    {"execute", _PyCFunction_CAST(cursor_execute), METH_VARARGS | METH_KEYWORDS,
     "execute(query, params=None): runs a statement; %s and %(name)s are the placeholders. Returns the "
     "cursor."},
    {"executemany", cursor_executemany, METH_VARARGS, "executemany(query, params_seq): rowcount is the sum."},
    {"callproc", cursor_callproc, METH_VARARGS, "callproc(name, args=None): SELECT * FROM name(args)."},
    {"copy", (PyCFunction)pg_cursor_copy, METH_VARARGS,
     "copy(query, params=None): a context manager for COPY: write(), read(), iteration."},
    {"fetchone", cursor_fetchone, METH_NOARGS, "The next row as a tuple, or None."},
    {"fetchmany", _PyCFunction_CAST(cursor_fetchmany), METH_VARARGS | METH_KEYWORDS,
     "A list of up to size rows."},
    {"fetchall", cursor_fetchall, METH_NOARGS, "A list of the rows that are left."},
    {"mogrify", cursor_mogrify, METH_VARARGS,
     "mogrify(query, params=None): the statement with literals, a str."},
    {"close", cursor_close, METH_NOARGS, NULL},
    {"nextset", cursor_nothing, METH_NOARGS, "None: one result per statement."},
    {"setinputsizes", cursor_nothing, METH_VARARGS, NULL},
    {"setoutputsize", cursor_nothing, METH_VARARGS, NULL},
    {"__enter__", cursor_enter, METH_NOARGS, NULL},
    {"__exit__", cursor_exit, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef cursor_members[] = {
    {"connection", T_OBJECT, offsetof(pg_cursor, link), READONLY, NULL},
    {"name", T_OBJECT, offsetof(pg_cursor, name), READONLY, "Of a server-side cursor, else None."},
    {"rowcount", T_PYSSIZET, offsetof(pg_cursor, rowcount), READONLY, NULL},
    {"statusmessage", T_OBJECT, offsetof(pg_cursor, statusmessage), READONLY,
     "The command tag, as 'INSERT 0 1'."},
    {"arraysize", T_PYSSIZET, offsetof(pg_cursor, arraysize), 0, NULL},
    {"reads", T_BOOL, offsetof(pg_cursor, reads), 0,
     "What it executes are SELECTs that depend on nothing in their session and may run twice: they may "
     "share\n"
     "a connection with those of other tasks."},
    {"itersize", T_PYSSIZET, offsetof(pg_cursor, itersize), 0,
     "Rows per round trip of a server-side cursor."},
    {"reads_ahead", T_INT, offsetof(pg_cursor, reads_ahead), 0,
     "Not 0: a server-side cursor WITH HOLD asks for its next rows as soon as some have come."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pg_cursor, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(pg_cursor, dict), READONLY, NULL},
    {NULL},
};

static PyGetSetDef cursor_getset[] = {
    {"description", get_description, NULL, "A list of Columns, or None.", NULL},
    {"query", get_query, NULL, "The last statement with literals in place of its parameters.", NULL},
    {"rownumber", get_rownumber, NULL, NULL, NULL},
    {"closed", get_closed, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot cursor_slots[] = {
    {Py_tp_doc, "A cursor of a Connection."},
    {Py_tp_repr, cursor_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cursor_iternext},
    {Py_tp_traverse, cursor_traverse},
    {Py_tp_clear, cursor_clear},
    {Py_tp_dealloc, cursor_dealloc},
    {Py_tp_methods, cursor_methods},
    {Py_tp_members, cursor_members},
    {Py_tp_getset, cursor_getset},
    {0, NULL},
};

PyType_Spec pg_cursor_spec = {
    .name = "vinyl._postgres.Cursor",
    .basicsize = sizeof(pg_cursor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = cursor_slots,
};
