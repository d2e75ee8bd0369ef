/* Ranges and multiranges -> psycopg.types.range.Range, multirange.Multirange.
 * Binary (range_send): a byte of flags, then per finite bound int32 length and
 * data; multirange_send: int32 count, then int32 length and range each. */
#include "row/row.h"
#include "row/scan.h"

enum {
    EMPTY = 0x01,
    LOWER_INC = 0x02,
    UPPER_INC = 0x04,
    LOWER_INF = 0x08,
    UPPER_INF = 0x10
};

/* Steals lower and upper, which may be NULL with an exception set. */
static PyObject *
make_range(vnl_decode_ctx *ctx, PyObject *lower, PyObject *upper, int lower_inc, int upper_inc)
{
    static const char *const bounds[4] = {"()", "(]", "[)", "[]"};
    PyObject *range = NULL;

    if (lower != NULL && upper != NULL) {
        range = PyObject_CallFunction(ctx->st->Range, "OOs", lower, upper, bounds[lower_inc * 2 + upper_inc]);
    }
    Py_XDECREF(lower);
    Py_XDECREF(upper);
    return range;
}

static PyObject *
make_empty(vnl_decode_ctx *ctx)
{
    return PyObject_CallFunction(ctx->st->Range, "OOsO", Py_None, Py_None, "[)", Py_True);
}

/* The decoder of an oid's subtype; NULL with an exception. */
static vnl_decode_fn
sub_decoder(vnl_decode_ctx *ctx, uint32_t oid, int binary, uint32_t *sub_oid)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    vnl_codec *sub = codec ? vnl_row_codec(ctx, codec->sub) : NULL;

    if (sub == NULL) {
        return NULL;
    }
    if (sub->fn[binary] == NULL) {
        vnl_row_error(ctx, "range of oid %u has no decoder for this format", (unsigned)oid);
    }
    *sub_oid = sub->oid;
    return sub->fn[binary];
}

/* --- text: "[lower,upper)"; a bound may be quoted, with "" or \" for a quote. */
static PyObject *
read_bound(vnl_decode_ctx *ctx, vnl_scan *s, uint32_t sub, vnl_decode_fn fn, const char *stop)
{
    vnl_buf buf = VNL_BUF_INIT;
    PyObject *value = NULL;
    const char *start = s->at;
    int quoted = vnl_scan_char(s, '"');

    if (!quoted) {
        while (!vnl_scan_done(s) && strchr(stop, *s->at) == NULL) {
            s->at++;
        }
        return s->at == start ? Py_NewRef(Py_None) : fn(ctx, sub, start, (int)(s->at - start));
    }
    for (;;) {
        if (vnl_scan_done(s)) {
            vnl_row_error(ctx, "malformed range: unterminated string");
            goto done;
        }
        if (*s->at == '"') {
            s->at++;
            if (vnl_scan_peek(s) != '"') {
                break;
            }
        }
        else if (*s->at == '\\' && ++s->at == s->end) {
            continue;
        }
        vnl_buf_putc(&buf, *s->at++);
    }
    if (vnl_row_check_buf(&buf) == 0) {
        value = fn(ctx, sub, buf.data ? buf.data : "", (int)buf.len);
    }
done:
    vnl_buf_free(&buf);
    return value;
}

static PyObject *
read_range(vnl_decode_ctx *ctx, vnl_scan *s, uint32_t sub, vnl_decode_fn fn)
{
    int lower_inc = vnl_scan_char(s, '[');
    int upper_inc;
    PyObject *lower = NULL;
    PyObject *upper = NULL;

    if (!lower_inc && !vnl_scan_char(s, '(')) {
        return vnl_row_error(ctx, "malformed range: no opening bracket");
    }
    lower = read_bound(ctx, s, sub, fn, ",");
    if (lower == NULL) {
        return NULL;
    }
    if (!vnl_scan_char(s, ',')) {
        vnl_row_error(ctx, "malformed range: no comma");
        goto fail;
    }
    upper = read_bound(ctx, s, sub, fn, ")]");
    if (upper == NULL) {
        goto fail;
    }
    upper_inc = vnl_scan_char(s, ']');
    if (!upper_inc && !vnl_scan_char(s, ')')) {
        vnl_row_error(ctx, "malformed range: no closing bracket");
        goto fail;
    }
    return make_range(ctx, lower, upper, lower_inc, upper_inc);

fail:
    Py_XDECREF(lower);
    Py_XDECREF(upper);
    return NULL;
}

PyObject *
vnl_range_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    uint32_t sub = 0;
    vnl_decode_fn fn = NULL;
    PyObject *range = NULL;

    if (len == 5 && memcmp(data, "empty", 5) == 0) {
        return make_empty(ctx);
    }
    fn = sub_decoder(ctx, oid, 0, &sub);
    range = fn ? read_range(ctx, &s, sub, fn) : NULL;
    if (range != NULL && !vnl_scan_done(&s)) {
        Py_DECREF(range);
        return vnl_row_bad(ctx, "range", 0, data, len);
    }
    return range;
}

PyObject *
vnl_multirange_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    uint32_t sub = 0;
    vnl_decode_fn fn = sub_decoder(ctx, oid, 0, &sub);
    PyObject *list = NULL;
    PyObject *result = NULL;

    if (fn == NULL) {
        return NULL;
    }
    if (!vnl_scan_char(&s, '{')) {
        return vnl_row_bad(ctx, "multirange", 0, data, len);
    }
    list = PyList_New(0);
    while (list != NULL && vnl_scan_peek(&s) != '}') {
        PyObject *range = NULL;
        if (PyList_GET_SIZE(list) > 0 && !vnl_scan_char(&s, ',')) {
            vnl_row_bad(ctx, "multirange", 0, data, len);
        }
        else {
            range = read_range(ctx, &s, sub, fn);
        }
        if (range == NULL || PyList_Append(list, range) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(range);
    }
    if (list != NULL) {
        s.at++;
        result = vnl_scan_done(&s) ? PyObject_CallOneArg(ctx->st->Multirange, list)
                                   : vnl_row_bad(ctx, "multirange", 0, data, len);
    }
    Py_XDECREF(list);
    return result;
}

/* --- binary */
static PyObject *
read_bound_binary(vnl_decode_ctx *ctx, vnl_scan *s, uint32_t sub, vnl_decode_fn fn, int infinite)
{
    const char *data = s->at;
    int32_t size;

    if (infinite) {
        return Py_NewRef(Py_None);
    }
    if (s->end - data < 4 || (size = (int32_t)vnl_be32(data)) < 0 || size > s->end - data - 4) {
        return vnl_row_error(ctx, "malformed binary range: too short");
    }
    s->at = data + 4 + size;
    return fn(ctx, sub, data + 4, size);
}

static PyObject *
read_range_binary(vnl_decode_ctx *ctx, const char *data, int len, uint32_t sub, vnl_decode_fn fn)
{
    vnl_scan s = vnl_scan_of(data, len);
    int flags;
    PyObject *lower = NULL;
    PyObject *upper = NULL;

    if (len < 1) {
        return vnl_row_bad(ctx, "range", 1, data, len);
    }
    flags = (unsigned char)*s.at++;
    if (flags & EMPTY) {
        return len == 1 ? make_empty(ctx) : vnl_row_bad(ctx, "range", 1, data, len);
    }
    lower = read_bound_binary(ctx, &s, sub, fn, flags & LOWER_INF);
    if (lower == NULL) {
        return NULL;
    }
    upper = read_bound_binary(ctx, &s, sub, fn, flags & UPPER_INF);
    if (upper != NULL && !vnl_scan_done(&s)) {
        Py_CLEAR(upper);
        vnl_row_bad(ctx, "range", 1, data, len);
    }
    return make_range(ctx, lower, upper, (flags & LOWER_INC) != 0, (flags & UPPER_INC) != 0);
}

PyObject *
vnl_range_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    uint32_t sub = 0;
    vnl_decode_fn fn = sub_decoder(ctx, oid, 1, &sub);

    return fn ? read_range_binary(ctx, data, len, sub, fn) : NULL;
}

PyObject *
vnl_multirange_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    uint32_t sub = 0;
    uint32_t count;
    vnl_decode_fn fn = sub_decoder(ctx, oid, 1, &sub);
    PyObject *list = NULL;
    PyObject *result = NULL;

    if (fn == NULL) {
        return NULL;
    }
    if (len < 4 || (count = vnl_be32(data)) > (uint32_t)(len - 4) / 4) {
        return vnl_row_bad(ctx, "multirange", 1, data, len);
    }
    s.at += 4;
    list = PyList_New((Py_ssize_t)count);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        PyObject *range = NULL;
        int32_t size = s.end - s.at < 4 ? -1 : (int32_t)vnl_be32(s.at);
        if (size < 0 || size > s.end - s.at - 4) {
            vnl_row_bad(ctx, "multirange", 1, data, len);
        }
        else {
            range = read_range_binary(ctx, s.at + 4, size, sub, fn);
            s.at += 4 + size;
        }
        if (range == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, range);
        }
    }
    if (list != NULL) {
        result = vnl_scan_done(&s) ? PyObject_CallOneArg(ctx->st->Multirange, list)
                                   : vnl_row_bad(ctx, "multirange", 1, data, len);
    }
    Py_XDECREF(list);
    return result;
}
