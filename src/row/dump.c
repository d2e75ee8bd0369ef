/* The text representation of Python values, as psycopg's text dumpers give it. */
#include "row/row.h"

#include <math.h>

/* Appends str or bytes; NUL is refused, for libpq would cut the text there. */
static int
put_text(vnl_decode_ctx *ctx, PyObject *text, vnl_buf *out)
{
    Py_ssize_t size = 0;
    const char *data = NULL;
    char *bytes = NULL;

    if (PyUnicode_Check(text)) {
        data = PyUnicode_AsUTF8AndSize(text, &size);
    }
    else if (PyBytes_AsStringAndSize(text, &bytes, &size) == 0) {
        data = bytes;
    }
    if (data == NULL) {
        return -1;
    }
    if (memchr(data, '\0', (size_t)size) != NULL) {
        vnl_row_error(ctx, "PostgreSQL text fields cannot contain NUL (0x00) bytes");
        return -1;
    }
    return vnl_buf_put(out, data, (size_t)size);
}

/* Steals `text`, which may be NULL with an exception set. */
static int
put_steal(vnl_decode_ctx *ctx, PyObject *text, vnl_buf *out)
{
    int result = text ? put_text(ctx, text, out) : -1;

    Py_XDECREF(text);
    return result;
}

static int
dump_int(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_buf *out, uint32_t *oid)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    PyObject *plain = NULL;

    if (number == -1 && !overflow && PyErr_Occurred()) {
        return -1;
    }
    if (cls->oid != 0) {
        *oid = cls->oid;
    }
    else if (overflow) {
        *oid = VNL_OID_NUMERIC;
    }
    else {
        *oid = number >= INT16_MIN && number <= INT16_MAX   ? VNL_OID_INT2
               : number >= INT32_MIN && number <= INT32_MAX ? VNL_OID_INT4
                                                            : VNL_OID_INT8;
    }
    if (!overflow) {
        return vnl_buf_printf(out, "%lld", number);
    }
    plain = PyLong_Type.tp_repr(value); /* an IntEnum's own str() is its name */
    return put_steal(ctx, plain, out);
}

static int
dump_float(PyObject *value, vnl_buf *out)
{
    double number = PyFloat_AS_DOUBLE(value);
    char *text = NULL;
    int result;

    if (!isfinite(number)) {
        return vnl_buf_puts(out, isnan(number) ? "nan" : number > 0 ? "inf" : "-inf");
    }
    text = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL) {
        return -1;
    }
    result = vnl_buf_puts(out, text);
    PyMem_Free(text);
    return result;
}

static int
dump_decimal(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *text = PyObject_Str(value);
    const char *data = text ? PyUnicode_AsUTF8(text) : NULL;
    int result = -1;

    if (data != NULL) {
        /* NaN, sNaN and their payloads are all the server's NaN. */
        result = strstr(data, "NaN") ? vnl_buf_puts(out, "NaN") : put_text(ctx, text, out);
    }
    Py_XDECREF(text);
    return result;
}

static int
dump_bytes(PyObject *value, vnl_buf *out)
{
    static const char hex[] = "0123456789abcdef";
    Py_buffer view;
    const unsigned char *data = NULL;

    if (PyObject_GetBuffer(value, &view, PyBUF_CONTIG_RO) < 0) {
        return -1;
    }
    data = view.buf;
    if (vnl_buf_puts(out, "\\x") == 0 && vnl_buf_reserve(out, (size_t)view.len * 2) == 0) {
        for (Py_ssize_t i = 0; i < view.len; i++) {
            out->data[out->len++] = hex[data[i] >> 4];
            out->data[out->len++] = hex[data[i] & 15];
        }
    }
    PyBuffer_Release(&view);
    return 0;
}

static int
dump_uuid(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *number = PyObject_GetAttr(value, ctx->st->uuids.str_int);
    PyObject *hex = number ? PyNumber_ToBase(number, 16) : NULL; /* "0x…" */
    const char *text = hex ? PyUnicode_AsUTF8(hex) : NULL;
    int result = -1;

    if (text != NULL && strncmp(text, "0x", 2) == 0 && strlen(text) <= 34) {
        static const char zeros[] = "00000000000000000000000000000000";
        vnl_buf_put(out, zeros, 34 - strlen(text));
        result = vnl_buf_puts(out, text + 2);
    }
    else if (text != NULL) {
        vnl_row_error(ctx, "UUID out of range");
    }
    Py_XDECREF(hex);
    Py_XDECREF(number);
    return result;
}

/* A psycopg Json / Jsonb wrapper: its own dumps(), else the dumper's. */
static int
dump_json(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *dumps = PyObject_GetAttr(value, ctx->st->str_dumps);
    PyObject *obj = dumps ? PyObject_GetAttr(value, ctx->st->str_obj) : NULL;
    PyObject *text = NULL;

    if (obj != NULL && !Py_IsNone(dumps)) {
        text = PyObject_CallOneArg(dumps, obj);
    }
    else if (obj != NULL) {
        /* psycopg.types.json.set_json_dumps() may have replaced it globally. */
        PyObject *dumper = vnl_row_dumper(ctx, value);
        text = dumper ? PyObject_CallMethod(dumper, "dump", "(O)", value) : NULL;
        Py_XDECREF(dumper);
    }
    Py_XDECREF(dumps);
    Py_XDECREF(obj);
    return put_steal(ctx, text, out);
}

int
vnl_dump_text(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_buf *out, uint32_t *oid)
{
    int result = -1;

    *oid = cls->oid;
    switch (cls->kind) {
    case VNL_KIND_STR:
        result = put_text(ctx, value, out);
        break;
    case VNL_KIND_INT:
        result = dump_int(ctx, cls, value, out, oid);
        break;
    case VNL_KIND_FLOAT:
        result = dump_float(value, out);
        break;
    case VNL_KIND_DECIMAL:
        result = dump_decimal(ctx, value, out);
        break;
    case VNL_KIND_BOOL:
        result = vnl_buf_putc(out, value == Py_True ? 't' : 'f');
        break;
    case VNL_KIND_BYTES:
        result = dump_bytes(value, out);
        break;
    case VNL_KIND_DATE:
        result = vnl_dump_date(value, out);
        break;
    case VNL_KIND_TIME:
        result = vnl_dump_time(ctx, value, out, oid);
        break;
    case VNL_KIND_DATETIME:
        result = vnl_dump_datetime(ctx, value, out, oid);
        break;
    case VNL_KIND_TIMEDELTA:
        result = vnl_dump_timedelta(ctx, value, out);
        break;
    case VNL_KIND_UUID:
        result = dump_uuid(ctx, value, out);
        break;
    case VNL_KIND_JSON:
        result = dump_json(ctx, value, out);
        break;
    case VNL_KIND_NET:
        result = put_steal(ctx, PyObject_Str(value), out);
        break;
    case VNL_KIND_GENERIC:
    case VNL_KIND_NONE:
    case VNL_KIND_LIST:
        PyErr_SetString(PyExc_SystemError, "vnl_dump_text: not a scalar of C's");
        return -1;
    }
    if (result < 0 && PyErr_Occurred()) {
        return -1;
    }
    return vnl_row_check_buf(out);
}
