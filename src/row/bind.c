/* Server-side parameters: the type is the one that the value's literal has. */
#include "row/row.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

void
vnl_param_clear(vnl_param *param)
{
    Py_CLEAR(param->owner);
    free(param->heap);
    param->heap = NULL;
    param->data = NULL;
    param->len = 0;
}

static int
too_long(vnl_decode_ctx *ctx)
{
    vnl_row_error(ctx, "a parameter is longer than 1 GB");
    return -1;
}

/* Takes over the buffer's content, NUL-terminated. */
static int
set_buffer(vnl_decode_ctx *ctx, vnl_param *out, vnl_buf *buf)
{
    if (vnl_buf_cstr(buf) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (buf->len > INT_MAX) {
        return too_long(ctx);
    }
    out->len = (int)buf->len;
    out->heap = vnl_buf_steal(buf, NULL);
    out->data = out->heap;
    return 0;
}

static void
set_small(vnl_param *out, uint32_t oid, const void *data, int len)
{
    memcpy(out->small, data, (size_t)len);
    out->data = out->small;
    out->len = len;
    out->oid = oid;
    out->format = 1;
}

static int
bind_str(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    Py_ssize_t size = 0;
    const char *data = PyUnicode_AsUTF8AndSize(value, &size);

    if (data == NULL) {
        return -1;
    }
    if (memchr(data, '\0', (size_t)size) != NULL) {
        vnl_row_error(ctx, "PostgreSQL text fields cannot contain NUL (0x00) bytes");
        return -1;
    }
    if (size > INT_MAX) {
        return too_long(ctx);
    }
    out->owner = Py_NewRef(value);
    out->data = data;
    out->len = (int)size;
    return 0;
}

static int
bind_bytes(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    out->oid = VNL_OID_BYTEA;
    out->format = 1;
    /* A bytearray or memoryview may change while the statement waits: copied. */
    out->owner = PyBytes_CheckExact(value) ? Py_NewRef(value) : PyBytes_FromObject(value);
    if (out->owner == NULL) {
        return -1;
    }
    if (PyBytes_GET_SIZE(out->owner) > INT_MAX) {
        return too_long(ctx);
    }
    out->data = PyBytes_AS_STRING(out->owner);
    out->len = (int)PyBytes_GET_SIZE(out->owner);
    return 0;
}

/* Text by vnl_dump_text; `oid` 0 takes the dumper's. */
static int
bind_text(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, uint32_t oid, vnl_param *out)
{
    vnl_buf buf = VNL_BUF_INIT;
    uint32_t dumped = 0;
    int result = -1;

    if (vnl_dump_text(ctx, cls, value, &buf, &dumped) == 0) {
        out->oid = oid ? oid : dumped;
        result = set_buffer(ctx, out, &buf);
    }
    vnl_buf_free(&buf);
    return result;
}

static int
bind_int(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_param *out)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);

    if (number == -1 && !overflow && PyErr_Occurred()) {
        return -1;
    }
    if (overflow) {
        return bind_text(ctx, cls, value, VNL_OID_NUMERIC, out);
    }
    if (number >= INT32_MIN && number <= INT32_MAX) {
        uint32_t wire = __builtin_bswap32((uint32_t)number);
        set_small(out, VNL_OID_INT4, &wire, sizeof(wire));
    }
    else {
        uint64_t wire = __builtin_bswap64((uint64_t)number);
        set_small(out, VNL_OID_INT8, &wire, sizeof(wire));
    }
    return 0;
}

static int
bind_date(PyObject *value, vnl_param *out)
{
    int64_t days = vnl_days_from_civil(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                                       PyDateTime_GET_DAY(value));
    uint32_t wire = __builtin_bswap32((uint32_t)days);

    set_small(out, VNL_OID_DATE, &wire, sizeof(wire));
    return 0;
}

static int
bind_datetime(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_param *out)
{
    int aware = !Py_IsNone(PyDateTime_DATE_GET_TZINFO(value));
    int64_t offset = 0;
    int known = 0;
    int64_t micros;
    uint64_t wire;

    if (aware && vnl_utcoffset(ctx, value, &offset, &known) < 0) {
        return -1;
    }
    if (aware && !known) {
        return bind_text(ctx, cls, value, 0, out); /* the server's zone applies */
    }
    micros = vnl_days_from_civil(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                                 PyDateTime_GET_DAY(value)) *
                 VNL_DAY_US +
             ((int64_t)PyDateTime_DATE_GET_HOUR(value) * 3600 + PyDateTime_DATE_GET_MINUTE(value) * 60 +
              PyDateTime_DATE_GET_SECOND(value)) *
                 1000000 +
             PyDateTime_DATE_GET_MICROSECOND(value) - offset;
    wire = __builtin_bswap64((uint64_t)micros);
    set_small(out, aware ? VNL_OID_TIMESTAMPTZ : VNL_OID_TIMESTAMP, &wire, sizeof(wire));
    return 0;
}

static int
bind_timedelta(PyObject *value, vnl_param *out)
{
    char wire[16];
    int64_t micros =
        (int64_t)PyDateTime_DELTA_GET_SECONDS(value) * 1000000 + PyDateTime_DELTA_GET_MICROSECONDS(value);
    uint64_t time = __builtin_bswap64((uint64_t)micros);
    uint32_t days = __builtin_bswap32((uint32_t)PyDateTime_DELTA_GET_DAYS(value));

    memcpy(wire, &time, 8);
    memcpy(wire + 8, &days, 4);
    memset(wire + 12, 0, 4);
    set_small(out, VNL_OID_INTERVAL, wire, sizeof(wire));
    return 0;
}

/* A whole number's literal is an integer's, even from a Decimal: 7 / 2 is 3. */
static int
bind_decimal(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_param *out)
{
    int64_t bound = 0;
    int start;

    if (bind_text(ctx, cls, value, VNL_OID_NUMERIC, out) < 0) {
        return -1;
    }
    start = out->data[0] == '-';
    for (int i = start; i < out->len; i++) {
        if (!vnl_is_digit(out->data[i]) || __builtin_mul_overflow(bound, 10, &bound) ||
            __builtin_sub_overflow(bound, out->data[i] - '0', &bound)) {
            return 0;
        }
    }
    /* `bound` is minus the absolute value, which reaches one further. */
    if (start || bound != INT64_MIN) {
        out->oid = bound >= (start ? INT32_MIN : -INT32_MAX) ? VNL_OID_INT4 : VNL_OID_INT8;
    }
    return 0;
}

/* What a registered dumper gives; its bytes are copied. */
static int
bind_generic(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    PyObject *dumper = vnl_row_dumper(ctx, value);
    PyObject *data = dumper ? PyObject_CallMethod(dumper, "dump", "(O)", value) : NULL;
    PyObject *oid = data ? PyObject_GetAttrString(dumper, "oid") : NULL;
    PyObject *format = oid ? PyObject_GetAttrString(dumper, "format") : NULL;
    int result = -1;

    if (format == NULL) {
        goto done;
    }
    out->oid = (uint32_t)PyLong_AsUnsignedLong(oid);
    out->format = PyObject_IsTrue(format);
    if (PyErr_Occurred()) {
        goto done;
    }
    if (out->oid == VNL_OID_TEXT && out->format == 0) {
        out->oid = 0; /* a text literal carries no cast either */
    }
    if (Py_IsNone(data)) {
        result = 0;
        goto done;
    }
    out->owner = PyBytes_FromObject(data);
    if (out->owner == NULL) {
        goto done;
    }
    out->data = PyBytes_AS_STRING(out->owner);
    if (PyBytes_GET_SIZE(out->owner) > INT_MAX) {
        too_long(ctx);
        goto done;
    }
    out->len = (int)PyBytes_GET_SIZE(out->owner);
    if (out->format == 0 && memchr(out->data, '\0', (size_t)out->len) != NULL) {
        vnl_row_error(ctx, "PostgreSQL text fields cannot contain NUL (0x00) bytes");
        goto done;
    }
    result = 0;

done:
    Py_XDECREF(format);
    Py_XDECREF(oid);
    Py_XDECREF(data);
    Py_XDECREF(dumper);
    return result;
}

static int
bind_list(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    vnl_buf buf = VNL_BUF_INIT;
    int result = vnl_dump_list_binary(ctx, value, &buf, &out->oid);

    out->format = result > 0;
    if (result == 0) {
        result = vnl_dump_list(ctx, value, &buf, &out->oid);
    }
    if (result > 0) {
        result = set_buffer(ctx, out, &buf);
    }
    else if (result == 0) {
        result = bind_generic(ctx, value, out);
    }
    vnl_buf_free(&buf);
    return result;
}

static int
bind_kind(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    const vnl_class *found = vnl_row_class(ctx, value);
    vnl_class cls;

    if (found == NULL) {
        return -1;
    }
    cls = *found;
    switch (cls.kind) {
    case VNL_KIND_NONE:
        return 0;
    case VNL_KIND_STR:
        return bind_str(ctx, value, out);
    case VNL_KIND_INT:
        return bind_int(ctx, &cls, value, out);
    case VNL_KIND_BOOL: {
        char wire = value == Py_True;
        set_small(out, VNL_OID_BOOL, &wire, 1);
        return 0;
    }
    case VNL_KIND_FLOAT:
        return bind_text(ctx, &cls, value,
                         isfinite(PyFloat_AS_DOUBLE(value)) ? VNL_OID_NUMERIC : VNL_OID_FLOAT8, out);
    case VNL_KIND_DECIMAL:
        return bind_decimal(ctx, &cls, value, out);
    case VNL_KIND_BYTES:
        return bind_bytes(ctx, value, out);
    case VNL_KIND_DATE:
        return bind_date(value, out);
    case VNL_KIND_DATETIME:
        return bind_datetime(ctx, &cls, value, out);
    case VNL_KIND_TIMEDELTA:
        return bind_timedelta(value, out);
    case VNL_KIND_LIST:
        return bind_list(ctx, value, out);
    case VNL_KIND_GENERIC:
        return bind_generic(ctx, value, out);
    default:
        return bind_text(ctx, &cls, value, 0, out);
    }
}

int
vnl_bind_value(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out)
{
    PyObject *plain = NULL;
    int result = -1;

    out->oid = 0;
    out->format = 0;
    out->data = NULL;
    out->len = 0;
    out->owner = NULL;
    out->heap = NULL;
    plain = vnl_row_unlazy(ctx, value);
    if (plain != NULL) {
        result = bind_kind(ctx, plain, out);
        Py_DECREF(plain);
    }
    if (result < 0) {
        vnl_param_clear(out);
    }
    return result;
}
