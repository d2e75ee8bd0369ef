/* A statement as Django writes it, with values -> what is sent. */
#include "py.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEMPLATES 2048
#define MAX_PARAMS 65535 /* the protocol counts parameters in 16 bits */
#define TEMPLATE_CAPSULE "vinyl._postgres.template"

PyObject *
pg_query_text(pg_state *state, PyObject *query, PyObject *context)
{
    if (PyUnicode_CheckExact(query)) {
        return Py_NewRef(query);
    }
    if (PyUnicode_Check(query)) {
        return PyUnicode_FromObject(query); /* SafeString and the like */
    }
    if (PyBytes_Check(query)) {
        return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(query), PyBytes_GET_SIZE(query), NULL);
    }
    PyObject *as_string = PyObject_GetAttrString(query, "as_string"); /* psycopg.sql.Composable */
    if (as_string == NULL) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "a statement must be str, bytes or a psycopg.sql object, not %.100s",
                     Py_TYPE(query)->tp_name);
        return NULL;
    }
    PyObject *text = PyObject_CallOneArg(as_string, context);
    Py_DECREF(as_string);
    return text;
}

static void
capsule_free(PyObject *capsule)
{
    vnl_sql_free(PyCapsule_GetPointer(capsule, TEMPLATE_CAPSULE));
}

/* New reference to the capsule of the statement's template. */
static PyObject *
template_of(pg_state *state, PyObject *sql, int placeholders)
{
    PyObject *cache = placeholders ? state->templates : state->raw;
    PyObject *capsule = PyDict_GetItemWithError(cache, sql);
    if (capsule != NULL || PyErr_Occurred()) {
        return Py_XNewRef(capsule);
    }
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(sql, &len);
    if (text == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            PyErr_Clear();
            pg_raise(state, "DataError", "the statement contains lone surrogates, which UTF-8 cannot hold");
        }
        return NULL;
    }
    if (memchr(text, 0, (size_t)len) != NULL) {
        pg_raise(state, "DataError", "the statement contains a NUL character (0x00)");
        return NULL;
    }
    char error[120];
    vnl_sql *read = vnl_sql_read(text, (size_t)len, placeholders, error);
    if (read == NULL) {
        return error[0] ? pg_raise(state, "ProgrammingError", "%s", error) : PyErr_NoMemory();
    }
    capsule = PyCapsule_New(read, TEMPLATE_CAPSULE, capsule_free);
    if (capsule == NULL) {
        vnl_sql_free(read);
        return NULL;
    }
    if (len <= 65536) {
        if (PyDict_GET_SIZE(cache) >= MAX_TEMPLATES) {
            PyDict_Clear(cache);
        }
        if (PyDict_SetItem(cache, sql, capsule) < 0) {
            Py_CLEAR(capsule);
        }
    }
    return capsule;
}

void
pg_request_clear(pg_request *request)
{
    for (int i = 0; i < request->nparams; i++) {
        vnl_param_clear(&request->params[i]);
    }
    request->nparams = 0;
    PyMem_Free(request->params);
    request->params = NULL;
    vnl_buf_free(&request->text);
    Py_CLEAR(request->capsule);
}

/* params, oids, values, lengths and formats in one block. */
static int
allocate(pg_request *request, int n)
{
    if (n == 0) {
        return 0;
    }
    size_t count = (size_t)n;
    size_t each = sizeof(vnl_param) + sizeof(char *) + sizeof(Oid) + 2 * sizeof(int);
    char *block = PyMem_Malloc(count * each);
    if (block == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    request->params = (vnl_param *)block;
    block += count * sizeof(vnl_param);
    request->values = (const char **)block;
    block += count * sizeof(char *);
    request->oids = (Oid *)block;
    block += count * sizeof(Oid);
    request->lengths = (int *)block;
    request->formats = request->lengths + count;
    return 0;
}

static int
put_number(vnl_buf *buf, int number)
{
    char digits[12];
    int n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    vnl_buf_putc(buf, '$');
    while (n > 0) {
        vnl_buf_putc(buf, digits[--n]);
    }
    return 0;
}

/* The number of an earlier equal parameter, or -1. */
static int
find_equal(const pg_request *request, const vnl_param *param)
{
    for (int i = 0; i < request->nparams; i++) {
        const vnl_param *p = &request->params[i];
        if (p->oid == param->oid && p->format == param->format && p->len == param->len && p->data != NULL &&
            param->data != NULL && memcmp(p->data, param->data, (size_t)p->len) == 0) {
            return i;
        }
    }
    return -1;
}

/* Binds `value` as a parameter.  1 done, 0 it must be a literal, -1 exception. */
static int
bind_param(pg_request *request, vnl_decode_ctx *ctx, int kind, PyObject *value, int share)
{
    vnl_param *param = &request->params[request->nparams];
    if (kind == VNL_HOLE_TYPED && (value == Py_None || PyUnicode_CheckExact(value))) {
        return 0;
    }
    if (vnl_bind_value(ctx, value, param) < 0) {
        return -1;
    }
    if (kind == VNL_HOLE_TYPED && param->oid == 0) {
        vnl_param_clear(param);
        return 0;
    }
    int same = share ? find_equal(request, param) : -1;
    if (same >= 0) {
        vnl_param_clear(param);
        put_number(&request->text, same + 1);
        return 1;
    }
    int n = request->nparams++;
    request->oids[n] = param->oid;
    request->values[n] = param->data;
    request->lengths[n] = param->len;
    request->formats[n] = param->format;
    put_number(&request->text, n + 1);
    return 1;
}

static int
put_value(pg_request *request, vnl_decode_ctx *ctx, const vnl_hole *hole, PyObject *value, pg_binding binding)
{
    int kind = binding == PG_BIND_SERVER                                   ? VNL_HOLE_ANY
               : binding == PG_BIND_LITERAL || request->sql->force_literal ? VNL_HOLE_LITERAL
                                                                           : hole->kind;
    if (kind != VNL_HOLE_LITERAL && request->nparams < MAX_PARAMS) {
        int share = binding == PG_BIND_AUTO && (request->sql->flags & VNL_SQL_SHARE) != 0;
        int bound = bind_param(request, ctx, kind, value, share);
        if (bound != 0) {
            return bound < 0 ? -1 : 0;
        }
    }
    request->nliteral++;
    return vnl_bind_literal(ctx, value, &request->text);
}

/* A strong reference to the value of a hole. */
static PyObject *
value_of(pg_state *state, const pg_request *request, PyObject *params, PyObject *fast, int i)
{
    const vnl_hole *hole = &request->sql->holes[i];
    if (!(request->sql->flags & VNL_SQL_NAMED)) {
        /* An adapter may have changed the caller's list. */
        if (fast == NULL || i >= PySequence_Fast_GET_SIZE(fast)) {
            return pg_raise(state, "ProgrammingError", "the parameters changed while they were read");
        }
        return Py_NewRef(PySequence_Fast_GET_ITEM(fast, i));
    }
    PyObject *key = PyUnicode_DecodeUTF8(request->sql->names + hole->name, hole->namelen, NULL);
    PyObject *value = key != NULL ? PyObject_GetItem(params, key) : NULL;
    if (value == NULL && key != NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
        pg_raise(state, "ProgrammingError", "query parameter missing: %s", PyUnicode_AsUTF8(key));
    }
    Py_XDECREF(key);
    return value;
}

/* A sequence of as many values as there are holes; NULL with `ok` for a mapping. */
static PyObject *
check_params(pg_state *state, const vnl_sql *sql, PyObject *params, int *ok)
{
    *ok = 0;
    int mapping = PyMapping_Check(params) && !PySequence_Check(params);
    mapping |= PyDict_Check(params);
    if (sql->flags & VNL_SQL_NAMED) {
        if (!mapping) {
            return pg_raise(state, "ProgrammingError", "query parameters should be a mapping, got %s",
                            Py_TYPE(params)->tp_name);
        }
        *ok = 1;
        return NULL;
    }
    if (mapping && sql->nholes > 0) {
        return pg_raise(state, "ProgrammingError", "query parameters should be a sequence, got %s",
                        Py_TYPE(params)->tp_name);
    }
    if (mapping) {
        *ok = 1;
        return NULL;
    }
    if (PyUnicode_Check(params) || PyBytes_Check(params)) {
        return pg_raise(state, "ProgrammingError",
                        "query parameters should be a sequence or a mapping, got %s",
                        Py_TYPE(params)->tp_name);
    }
    PyObject *fast = PySequence_Fast(params, "query parameters should be a sequence or a mapping");
    if (fast != NULL && PySequence_Fast_GET_SIZE(fast) != sql->nholes) {
        pg_raise(state, "ProgrammingError", "the query has %d placeholders but %zd parameters were passed",
                 sql->nholes, PySequence_Fast_GET_SIZE(fast));
        Py_CLEAR(fast);
    }
    *ok = fast != NULL;
    return fast;
}

static int
build(pg_state *state, pg_request *request, vnl_decode_ctx *ctx, PyObject *params, PyObject *fast,
      pg_binding binding)
{
    const vnl_sql *sql = request->sql;
    size_t at = 0;
    if (vnl_buf_reserve(&request->text, sql->len + 16 + (size_t)sql->nholes * 4) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < sql->nholes; i++) {
        const vnl_hole *hole = &sql->holes[i];
        vnl_buf_put(&request->text, sql->text + at, hole->at - at);
        at = hole->at;
        PyObject *value = value_of(state, request, params, fast, i);
        int rc = value != NULL ? put_value(request, ctx, hole, value, binding) : -1;
        Py_XDECREF(value);
        if (rc < 0) {
            return -1;
        }
    }
    vnl_buf_put(&request->text, sql->text + at, sql->len - at);
    if (vnl_buf_cstr(&request->text) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int
pg_request_init(pg_state *state, pg_request *request, vnl_decode_ctx *ctx, PyObject *sql, PyObject *params,
                pg_binding binding)
{
    memset(request, 0, sizeof(*request));
    request->binding = binding;
    request->capsule = template_of(state, sql, params != NULL);
    if (request->capsule == NULL) {
        return -1;
    }
    request->sql = PyCapsule_GetPointer(request->capsule, TEMPLATE_CAPSULE);
    PyObject *fast = NULL;
    int ok = 1;
    if (params != NULL) {
        fast = check_params(state, request->sql, params, &ok);
    }
    if (ok) {
        ok = allocate(request, request->sql->nholes) == 0 &&
             build(state, request, ctx, params, fast, binding) == 0;
    }
    Py_XDECREF(fast);
    if (!ok) {
        pg_request_clear(request);
        return -1;
    }
    return 0;
}

vnl_pg_query
pg_request_query(const pg_request *request)
{
    return (vnl_pg_query){
        .sql = request->text.data,
        .nparams = request->nparams,
        .oids = request->oids,
        .values = request->values,
        .lengths = request->lengths,
        .formats = request->formats,
    };
}
