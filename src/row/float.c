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

/* 1 when `precision` digits are enough to tell `value` from its neighbours;
 * `out` then holds them. */
static int
shortest_fits(float value, int boundary, int precision, char *out, size_t size)
{
    long digits = 0;
    char *exponent = NULL;

    snprintf(out, size, "%.*e", precision - 1, (double)value);
    if (strtof(out, NULL) == value) {
        return 1;
    }
    if (!boundary) {
        return 0;
    }
    /* Above a power of two floats are twice as far apart as below it: the next
     * decimal away from zero may be right where the nearest one is not. */
    exponent = strchr(out, 'e');
    for (const char *p = out; p < exponent; p++) {
        digits = vnl_is_digit(*p) ? digits * 10 + (*p - '0') : digits;
    }
    snprintf(out, size, "%s%lde%ld", value < 0 ? "-" : "", digits + 1,
             strtol(exponent + 1, NULL, 10) - (precision - 1));
    return strtof(out, NULL) == value;
}

PyObject *
vnl_float4_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    uint32_t bits;
    float value;
    char text[48];
    int precision;
    int boundary;

    if (len != 4) {
        return vnl_row_bad(ctx, "float4", 1, data, len);
    }
    bits = vnl_be32(data);
    memcpy(&value, &bits, sizeof(value));
    if (!isfinite(value) || (value == truncf(value) && fabsf(value) < 1e6f)) {
        return PyFloat_FromDouble((double)value);
    }
    boundary = (bits & 0x7FFFFF) == 0;
    /* Six digits always survive, except in the denormal range. */
    precision = (bits & 0x7F800000) == 0 ? 1 : 6;
    while (precision < 9 && !shortest_fits(value, boundary, precision, text, sizeof(text))) {
        precision++;
    }
    if (precision == 9) {
        snprintf(text, sizeof(text), "%.8e", (double)value);
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
