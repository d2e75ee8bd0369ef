/* Arrays -> lists, nested by dimension; lower bounds are dropped.
 * Binary (array_send): int32 ndim, int32 has-null, oid element; per dimension
 * int32 size and int32 lower bound; per element int32 length (-1 NULL), data. */
#include "row/row.h"
#include "row/scan.h"

enum {
    MAXDIM = 6
};

/* --- text */
typedef struct array_reader {
    vnl_decode_ctx *ctx;
    vnl_scan s;
    char delimiter;
    uint32_t sub;
    vnl_decode_fn fn;
    vnl_buf unescaped;
} array_reader;

static PyObject *
read_quoted(array_reader *r)
{
    const char *start = ++r->s.at;
    const char *p = start;

    while (p < r->s.end && *p != '"' && *p != '\\') {
        p++;
    }
    if (p < r->s.end && *p == '"') {
        r->s.at = p + 1;
        return r->fn(r->ctx, r->sub, start, (int)(p - start));
    }
    vnl_buf_clear(&r->unescaped);
    for (p = start; p < r->s.end && *p != '"'; p++) {
        if (*p == '\\' && ++p == r->s.end) {
            break;
        }
        vnl_buf_putc(&r->unescaped, *p);
    }
    if (p >= r->s.end) {
        return vnl_row_error(r->ctx, "malformed array: unterminated string");
    }
    r->s.at = p + 1;
    if (vnl_row_check_buf(&r->unescaped) < 0) {
        return NULL;
    }
    return r->fn(r->ctx, r->sub, r->unescaped.data ? r->unescaped.data : "", (int)r->unescaped.len);
}

static PyObject *
read_element(array_reader *r)
{
    const char *start = r->s.at;
    const char *p = start;

    if (p < r->s.end && *p == '"') {
        return read_quoted(r);
    }
    while (p < r->s.end && *p != r->delimiter && *p != '}' && *p != '{' && *p != '"' && *p != '\\') {
        p++;
    }
    r->s.at = p;
    if (p == start) {
        return vnl_row_error(r->ctx, "malformed array: an element is missing");
    }
    if (p - start == 4 && memcmp(start, "NULL", 4) == 0) {
        return Py_NewRef(Py_None);
    }
    return r->fn(r->ctx, r->sub, start, (int)(p - start));
}

/* At a "{": reads to its "}". */
static PyObject *
read_list(array_reader *r, int depth)
{
    PyObject *list = NULL;

    if (depth > VNL_MAX_DEPTH) {
        return vnl_row_error(r->ctx, "malformed array: nested too deeply");
    }
    r->s.at++;
    list = PyList_New(0);
    if (list == NULL || vnl_scan_char(&r->s, '}')) {
        return list;
    }
    for (;;) {
        PyObject *item = vnl_scan_peek(&r->s) == '{' ? read_list(r, depth + 1) : read_element(r);
        int failed = item == NULL || PyList_Append(list, item) < 0;
        Py_XDECREF(item);
        if (failed) {
            break;
        }
        if (vnl_scan_char(&r->s, '}')) {
            return list;
        }
        if (!vnl_scan_char(&r->s, r->delimiter)) {
            vnl_row_error(r->ctx, "malformed array: a delimiter is missing");
            break;
        }
    }
    Py_DECREF(list);
    return NULL;
}

PyObject *
vnl_array_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    vnl_codec *sub = codec ? vnl_row_codec(ctx, codec->sub) : NULL;
    array_reader r = {ctx, vnl_scan_of(data, len), 0, 0, NULL, VNL_BUF_INIT};
    PyObject *list = NULL;

    if (sub == NULL) {
        return NULL;
    }
    r.delimiter = codec->delimiter;
    r.sub = codec->sub;
    r.fn = sub->fn[0];
    if (vnl_scan_peek(&r.s) == '[') { /* "[2:3][0:1]={…}" */
        const char *equals = memchr(data, '=', (size_t)len);
        if (equals == NULL) {
            return vnl_row_error(ctx, "malformed array: no '=' after dimension information");
        }
        r.s.at = equals + 1;
    }
    if (vnl_scan_peek(&r.s) != '{') {
        return vnl_row_bad(ctx, "array", 0, data, len);
    }
    if (ctx->depth >= VNL_MAX_DEPTH) {
        return vnl_row_error(ctx, "malformed array: nested too deeply");
    }
    ctx->depth++;
    list = read_list(&r, 0);
    ctx->depth--;
    vnl_buf_free(&r.unescaped);
    if (list != NULL && !vnl_scan_done(&r.s)) {
        Py_DECREF(list);
        return vnl_row_error(ctx, "malformed array: unexpected text after it");
    }
    return list;
}

/* --- binary */
typedef struct binary_reader {
    vnl_decode_ctx *ctx;
    vnl_scan s;
    uint32_t sub;
    vnl_decode_fn fn;
    int ndim;
    uint32_t dims[MAXDIM];
} binary_reader;

static PyObject *
read_item(binary_reader *r)
{
    const char *data = r->s.at;
    int32_t size;

    if (r->s.end - data < 4) {
        return vnl_row_error(r->ctx, "malformed binary array: too short");
    }
    size = (int32_t)vnl_be32(data);
    r->s.at = data += 4;
    if (size == -1) {
        return Py_NewRef(Py_None);
    }
    if (size < 0 || size > r->s.end - data) {
        return vnl_row_error(r->ctx, "malformed binary array: too short");
    }
    r->s.at += size;
    return r->fn(r->ctx, r->sub, data, size);
}

static PyObject *
read_dim(binary_reader *r, int dim)
{
    uint32_t count = r->dims[dim];
    PyObject *list = NULL;

    /* Each element takes 4 bytes at least, so a lying size fails here and not in malloc. */
    if (count == 0 || count > (uint32_t)((r->s.end - r->s.at) / 4)) {
        return vnl_row_error(r->ctx, "malformed binary array: too short");
    }
    list = PyList_New((Py_ssize_t)count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = dim == r->ndim - 1 ? read_item(r) : read_dim(r, dim + 1);
        if (item == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        }
    }
    return list;
}

PyObject *
vnl_array_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    vnl_codec *sub = codec ? vnl_row_codec(ctx, codec->sub) : NULL;
    binary_reader r = {ctx, vnl_scan_of(data, len), 0, NULL, 0, {0}};
    uint32_t ndim;
    PyObject *list = NULL;

    if (sub == NULL) {
        return NULL;
    }
    if (len < 12 || (ndim = vnl_be32(data)) > MAXDIM || (uint32_t)len < 12 + 8 * ndim ||
        vnl_be32(data + 8) != sub->oid || sub->fn[1] == NULL) {
        return vnl_row_bad(ctx, "array", 1, data, len);
    }
    r.ndim = (int)ndim;
    r.sub = sub->oid;
    r.fn = sub->fn[1];
    r.s.at += 12;
    for (uint32_t i = 0; i < ndim; i++, r.s.at += 8) {
        r.dims[i] = vnl_be32(r.s.at);
    }
    if (ndim == 0) {
        list = PyList_New(0);
    }
    else if (ctx->depth >= VNL_MAX_DEPTH) {
        return vnl_row_error(ctx, "malformed array: nested too deeply");
    }
    else {
        ctx->depth++;
        list = read_dim(&r, 0);
        ctx->depth--;
    }
    if (list != NULL && !vnl_scan_done(&r.s)) {
        Py_DECREF(list);
        return vnl_row_bad(ctx, "array", 1, data, len);
    }
    return list;
}
