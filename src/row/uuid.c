/* uuid -> uuid.UUID, made without its slow __init__. */
#include "row/row.h"

static PyObject *
make_uuid(vnl_decode_ctx *ctx, uint64_t high, uint64_t low)
{
    vnl_row_state *st = ctx->st;
    PyTypeObject *type = (PyTypeObject *)st->UUID;
    PyObject *uuid = NULL;
    PyObject *value = NULL;
    PyObject *part = PyLong_FromUnsignedLongLong(high);
    PyObject *shifted = part ? PyNumber_Lshift(part, st->int64) : NULL;

    Py_XSETREF(part, PyLong_FromUnsignedLongLong(low));
    if (shifted == NULL || part == NULL || (value = PyNumber_Or(shifted, part)) == NULL) {
        goto fail;
    }
    uuid = type->tp_alloc(type, 0);
    /* UUID.__setattr__ refuses; its slots are set as its __init__ does. */
    if (uuid == NULL || PyObject_GenericSetAttr(uuid, st->str_int, value) < 0 ||
        PyObject_GenericSetAttr(uuid, st->str_is_safe, st->uuid_unknown) < 0) {
        Py_CLEAR(uuid);
    }
fail:
    Py_XDECREF(value);
    Py_XDECREF(part);
    Py_XDECREF(shifted);
    return uuid;
}

PyObject *
vnl_uuid_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    uint64_t half[2] = {0, 0};
    int digits = 0;

    for (int i = 0; i < len; i++) {
        char c = data[i];
        unsigned value;
        if (c == '-') {
            continue;
        }
        if (vnl_is_digit(c)) {
            value = (unsigned)(c - '0');
        }
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            value = (unsigned)((c | 0x20) - 'a' + 10);
        }
        else {
            digits = -1;
            break;
        }
        if (digits == 32) {
            digits = -1;
            break;
        }
        half[digits / 16] = half[digits / 16] << 4 | value;
        digits++;
    }
    return digits == 32 ? make_uuid(ctx, half[0], half[1]) : vnl_row_bad(ctx, "uuid", 0, data, len);
}

PyObject *
vnl_uuid_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len != 16) {
        return vnl_row_bad(ctx, "uuid", 1, data, len);
    }
    return make_uuid(ctx, vnl_be64(data), vnl_be64(data + 8));
}
