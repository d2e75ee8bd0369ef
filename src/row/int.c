/* bool, int2, int4, int8, oid */
#include "row/row.h"

PyObject *
vnl_bool_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 1 || (data[0] != 't' && data[0] != 'f')) {
        return vnl_row_bad(ctx, "bool", 0, data, len);
    }
    return PyBool_FromLong(data[0] == 't');
}

PyObject *
vnl_bool_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 1) {
        return vnl_row_bad(ctx, "bool", 1, data, len);
    }
    return PyBool_FromLong(data[0] != 0);
}

PyObject *
vnl_int_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    int negative = len > 0 && data[0] == '-';
    int i = negative;
    uint64_t value = 0;

    if (i == len || len - i > 19) {
        return vnl_row_bad(ctx, "integer", 0, data, len);
    }
    for (; i < len; i++) {
        unsigned one = (unsigned char)data[i] - '0';
        if (one > 9) {
            return vnl_row_bad(ctx, "integer", 0, data, len);
        }
        value = value * 10 + one; /* 19 digits cannot overflow 64 bits */
    }
    if (value > (uint64_t)INT64_MAX + (unsigned)negative) {
        return vnl_row_bad(ctx, "integer", 0, data, len);
    }
    return PyLong_FromLongLong((long long)(negative ? 0 - value : value));
}

PyObject *
vnl_int2_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 2) {
        return vnl_row_bad(ctx, "int2", 1, data, len);
    }
    return PyLong_FromLong((int16_t)vnl_be16(data));
}

PyObject *
vnl_int4_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 4) {
        return vnl_row_bad(ctx, "int4", 1, data, len);
    }
    return PyLong_FromLong((int32_t)vnl_be32(data));
}

PyObject *
vnl_int8_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 8) {
        return vnl_row_bad(ctx, "int8", 1, data, len);
    }
    return PyLong_FromLongLong((int64_t)vnl_be64(data));
}

PyObject *
vnl_oid_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 4) {
        return vnl_row_bad(ctx, "oid", 1, data, len);
    }
    return PyLong_FromUnsignedLong(vnl_be32(data));
}
