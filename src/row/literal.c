/* SQL literals, as psycopg's ClientCursor renders them. */
#include "row/row.h"

#include <math.h>

static const struct {
    uint32_t oid;
    const char *name;
} types[] = {
    {VNL_OID_BYTEA, "bytea"},         {VNL_OID_DATE, "date"},
    {VNL_OID_TIME, "time"},           {VNL_OID_TIMETZ, "timetz"},
    {VNL_OID_TIMESTAMP, "timestamp"}, {VNL_OID_TIMESTAMPTZ, "timestamptz"},
    {VNL_OID_UUID, "uuid"},           {VNL_OID_INTERVAL, "interval"},
    {VNL_OID_JSON, "json"},           {VNL_OID_JSONB, "jsonb"},
    {VNL_OID_INET, "inet"},           {VNL_OID_CIDR, "cidr"},
    {VNL_OID_BOOL, "bool"},           {VNL_OID_INT2, "int2"},
    {VNL_OID_INT4, "int4"},           {VNL_OID_INT8, "int8"},
    {VNL_OID_NUMERIC, "numeric"},     {VNL_OID_FLOAT4, "float4"},
    {VNL_OID_FLOAT8, "float8"},       {VNL_OID_OID, "oid"},
};

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* '…', or E'…' when there is a backslash: right under either setting of
 * standard_conforming_strings. The space keeps E apart from a word before it. */
static void
put_quoted(vnl_buf *out, const char *data, size_t len)
{
    int escaped = memchr(data, '\\', len) != NULL;

    vnl_buf_puts(out, escaped ? " E'" : "'");
    for (size_t i = 0; i < len; i++) {
        if (data[i] == '\'' || (escaped && data[i] == '\\')) {
            vnl_buf_putc(out, data[i]);
        }
        vnl_buf_putc(out, data[i]);
    }
    vnl_buf_putc(out, '\'');
}

static void
put_cast(vnl_buf *out, uint32_t oid)
{
    for (size_t i = 0; i < LEN(types); i++) {
        int array = vnl_array_oid(types[i].oid) == oid;
        if (types[i].oid == oid || array) {
            vnl_buf_puts(out, "::");
            vnl_buf_puts(out, types[i].name);
            if (array) {
                vnl_buf_puts(out, "[]");
            }
            return;
        }
    }
}

/* A bare number; the space keeps "- -1" from becoming a comment. */
static void
put_number(vnl_buf *out, const char *text, size_t len)
{
    if (len > 0 && text[0] == '-') {
        vnl_buf_putc(out, ' ');
    }
    vnl_buf_put(out, text, len);
}

static int
put_float(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_buf *out)
{
    double number = PyFloat_AS_DOUBLE(value);
    vnl_buf text = VNL_BUF_INIT;
    uint32_t oid;
    int result = 0;

    if (!isfinite(number)) {
        return vnl_buf_puts(out, isnan(number) ? "'NaN'::float8"
                                 : number > 0  ? "'Infinity'::float8"
                                               : "'-Infinity'::float8");
    }
    result = vnl_dump_text(ctx, cls, value, &text, &oid);
    if (result == 0) {
        put_number(out, text.data ? text.data : "", text.len);
    }
    vnl_buf_free(&text);
    return result;
}

static int
put_scalar(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_buf *out)
{
    vnl_buf text = VNL_BUF_INIT;
    const char *data = NULL;
    uint32_t oid = 0;

    if (vnl_dump_text(ctx, cls, value, &text, &oid) < 0) {
        vnl_buf_free(&text);
        return -1;
    }
    data = text.data ? text.data : "";
    if (cls->kind == VNL_KIND_INT) {
        put_number(out, data, text.len);
    }
    else if (cls->kind == VNL_KIND_DECIMAL &&
             (vnl_is_digit(data[0]) || (text.len > 1 && vnl_is_digit(data[1])))) {
        put_number(out, data, text.len);
    }
    else {
        put_quoted(out, data, text.len);
        put_cast(out, oid);
    }
    vnl_buf_free(&text);
    return 0;
}

static int
put_generic(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *transformer = vnl_row_transformer(ctx);
    PyObject *bytes = transformer ? PyObject_CallMethod(transformer, "as_literal", "(O)", value) : NULL;
    char *data = NULL;
    Py_ssize_t size = 0;
    int result = -1;

    if (bytes != NULL && PyBytes_AsStringAndSize(bytes, &data, &size) == 0) {
        if (memchr(data, '\0', (size_t)size) != NULL) {
            vnl_row_error(ctx, "PostgreSQL text fields cannot contain NUL (0x00) bytes");
        }
        else {
            result = vnl_buf_put(out, data, (size_t)size);
        }
    }
    Py_XDECREF(bytes);
    return result;
}

static int
put_list(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    vnl_buf text = VNL_BUF_INIT;
    uint32_t oid = 0;
    int result = vnl_dump_list(ctx, value, &text, &oid);

    if (result > 0) {
        put_quoted(out, text.data, text.len);
        put_cast(out, oid);
        result = 0;
    }
    else if (result == 0) {
        result = put_generic(ctx, value, out);
    }
    vnl_buf_free(&text);
    return result;
}

static int
put_kind(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    const vnl_class *found = vnl_row_class(ctx, value);
    vnl_class cls;

    if (found == NULL) {
        return -1;
    }
    cls = *found;
    switch (cls.kind) {
    case VNL_KIND_NONE:
        return vnl_buf_puts(out, "NULL");
    case VNL_KIND_BOOL:
        return vnl_buf_puts(out, value == Py_True ? "true" : "false");
    case VNL_KIND_FLOAT:
        return put_float(ctx, &cls, value, out);
    case VNL_KIND_LIST:
        return put_list(ctx, value, out);
    case VNL_KIND_GENERIC:
        return put_generic(ctx, value, out);
    default:
        return put_scalar(ctx, &cls, value, out);
    }
}

int
vnl_bind_literal(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *plain = vnl_row_unlazy(ctx, value);
    int result = plain ? put_kind(ctx, plain, out) : -1;

    Py_XDECREF(plain);
    if (result < 0 && PyErr_Occurred()) {
        return -1;
    }
    return vnl_row_check_buf(out);
}
