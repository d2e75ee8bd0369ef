/* float4, float8.  The value is that of the server's text, in which a float4
 * is its shortest decimal: 1.1 and not 1.10000002384185791015625. */
#include "row/row.h"

#include <math.h>
#include <stdlib.h>

PyObject *
vnl_float_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    char text[64];
    char *end = NULL;
    double value;

    if (len < 1 || len >= (int)sizeof(text) || memchr(data, '\0', (size_t)len) != NULL) {
        return vnl_row_bad(ctx, "float", 0, data, len);
    }
    memcpy(text, data, (size_t)len);
    text[len] = '\0';
    value = PyOS_string_to_double(text, &end, NULL);
    if (value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return vnl_row_bad(ctx, "float", 0, data, len);
    }
    if (end != text + len) {
        return vnl_row_bad(ctx, "float", 0, data, len);
    }
    return PyFloat_FromDouble(value);
}

PyObject *
vnl_float4_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    uint32_t bits;
    float value;
    char text[32];

    if (len != 4) {
        return vnl_row_bad(ctx, "float4", 1, data, len);
    }
    bits = vnl_be32(data);
    memcpy(&value, &bits, sizeof(value));
    if (!isfinite(value) || (value == truncf(value) && fabsf(value) < 1e6f)) {
        return PyFloat_FromDouble((double)value);
    }
    for (int precision = 6; precision <= 9; precision++) {
        snprintf(text, sizeof(text), "%.*g", precision, (double)value);
        if (strtof(text, NULL) == value) {
            break;
        }
    }
    return vnl_float_text(ctx, oid, text, (int)strlen(text));
}

PyObject *
vnl_float8_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    uint64_t bits;
    double value;

    if (len != 8) {
        return vnl_row_bad(ctx, "float8", 1, data, len);
    }
    bits = vnl_be64(data);
    memcpy(&value, &bits, sizeof(value));
    return PyFloat_FromDouble(value);
}
