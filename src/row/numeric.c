/* numeric -> decimal.Decimal.
 * Binary (numeric_send): uint16 ndigits, int16 weight, uint16 sign, uint16
 * dscale, then ndigits base-10000 digits; the value is the sum of
 * digit[i] * 10000^(weight - i), shown with dscale decimals. */
#include "row/row.h"

#include <stdlib.h>

enum {
    SIGN_POSITIVE = 0x0000,
    SIGN_NEGATIVE = 0x4000,
    SIGN_NAN = 0xC000,
    SIGN_INF = 0xD000,
    SIGN_NEG_INF = 0xF000
};

static PyObject *
make_decimal(vnl_decode_ctx *ctx, const char *text, Py_ssize_t len)
{
    PyObject *value = NULL;
    PyObject *str = PyUnicode_New(len, 127);

    if (str != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(str), text, (size_t)len);
        value = PyObject_CallOneArg(ctx->st->Decimal, str);
        Py_DECREF(str);
    }
    return value;
}

PyObject *
vnl_numeric_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    PyObject *value = NULL;

    if (len < 1) {
        return vnl_row_bad(ctx, "numeric", 0, data, len);
    }
    for (int i = 0; i < len; i++) {
        if ((unsigned char)data[i] <= ' ' || (unsigned char)data[i] > 126 || data[i] == '_') {
            return vnl_row_bad(ctx, "numeric", 0, data, len);
        }
    }
    value = make_decimal(ctx, data, len);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_ArithmeticError)) {
        PyErr_Clear();
        return vnl_row_bad(ctx, "numeric", 0, data, len);
    }
    return value;
}

static void
put_digit(char *out, unsigned value4)
{
    out[0] = (char)('0' + value4 / 1000);
    out[1] = (char)('0' + value4 / 100 % 10);
    out[2] = (char)('0' + value4 / 10 % 10);
    out[3] = (char)('0' + value4 % 10);
}

/* Writes the number; returns the end.  `out` has room for sign, 4 characters
 * for each of the weight + 1 integer groups, the point and dscale + 4 decimals. */
static char *
format_numeric(char *out, const char *digits, int ndigits, int weight, int negative, int dscale)
{
    int i = 0;
    int decimals = 0;

    if (negative) {
        *out++ = '-';
    }
    if (weight < 0) {
        *out++ = '0';
    }
    for (; i <= weight; i++) {
        put_digit(out, i < ndigits ? vnl_be16(digits + 2 * i) : 0);
        out += 4;
    }
    if (dscale == 0) {
        return out;
    }
    *out++ = '.';
    for (i = weight + 1; decimals < dscale; i++, decimals += 4) {
        put_digit(out, i >= 0 && i < ndigits ? vnl_be16(digits + 2 * i) : 0);
        out += 4;
    }
    return out - (decimals - dscale);
}

static PyObject *
decode_binary(vnl_decode_ctx *ctx, const char *data, int len)
{
    char small[160];
    char *text = small;
    char *end = NULL;
    int ndigits, weight, sign, dscale;
    size_t room;
    PyObject *value = NULL;

    if (len < 8) {
        return vnl_row_bad(ctx, "numeric", 1, data, len);
    }
    ndigits = vnl_be16(data);
    weight = (int16_t)vnl_be16(data + 2);
    sign = vnl_be16(data + 4);
    dscale = vnl_be16(data + 6);
    if (sign == SIGN_NAN) {
        return make_decimal(ctx, "NaN", 3);
    }
    if (sign == SIGN_INF || sign == SIGN_NEG_INF) {
        return sign == SIGN_INF ? make_decimal(ctx, "Infinity", 8) : make_decimal(ctx, "-Infinity", 9);
    }
    if ((sign != SIGN_POSITIVE && sign != SIGN_NEGATIVE) || len != 8 + 2 * ndigits || dscale > 0x3FFF) {
        return vnl_row_bad(ctx, "numeric", 1, data, len);
    }
    for (int i = 0; i < ndigits; i++) {
        if (vnl_be16(data + 8 + 2 * i) > 9999) {
            return vnl_row_bad(ctx, "numeric", 1, data, len);
        }
    }
    room = 16 + (weight < 0 ? 0 : (size_t)(weight + 1) * 4) + (size_t)dscale + 4;
    if (room > sizeof(small)) {
        text = malloc(room);
        if (text == NULL) {
            return PyErr_NoMemory();
        }
    }
    end = format_numeric(text, data + 8, ndigits, weight, sign == SIGN_NEGATIVE, dscale);
    value = make_decimal(ctx, text, end - text);
    if (text != small) {
        free(text);
    }
    return value;
}

PyObject *
vnl_numeric_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_numeric *entry = NULL;
    PyObject *value = NULL;
    uint64_t words[2] = {0, 0};

    if (len < 8 || len > VNL_NUMERIC_KEY || len != 8 + 2 * vnl_be16(data) || ctx->st->numerics == NULL) {
        return decode_binary(ctx, data, len);
    }
    memcpy(words, data, (size_t)len);
    entry = &ctx->st->numerics[((words[0] * UINT64_C(0x9E3779B97F4A7C15)) ^
                                (words[1] * UINT64_C(0xC2B2AE3D27D4EB4F))) >>
                                   56 &
                               (VNL_NUMERICS - 1)];
    if (entry->value != NULL && memcmp(entry->key, words, sizeof(words)) == 0) {
        return Py_NewRef(entry->value);
    }
    value = decode_binary(ctx, data, len);
    if (value != NULL) {
        memcpy(entry->key, words, sizeof(words));
        Py_XSETREF(entry->value, Py_NewRef(value));
    }
    return value;
}
