/* uuid -> uuid.UUID, made without its slow __init__. */
#include "row/row.h"

/* `bytes`: 16, big-endian. */
static PyObject *
make_int(vnl_decode_ctx *ctx, const char *bytes)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromUnsignedNativeBytes(bytes, 16, Py_ASNATIVEBYTES_BIG_ENDIAN);
#else
    PyObject *high = PyLong_FromUnsignedLongLong(vnl_be64(bytes));
    PyObject *low = PyLong_FromUnsignedLongLong(vnl_be64(bytes + 8));
    PyObject *shifted = high ? PyNumber_Lshift(high, ctx->st->int64) : NULL;
    PyObject *value = shifted && low ? PyNumber_Or(shifted, low) : NULL;

    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(shifted);
    return value;
#endif
}

static PyObject *
make_uuid(vnl_decode_ctx *ctx, const char *bytes)
{
    vnl_row_state *st = ctx->st;
    PyTypeObject *type = (PyTypeObject *)st->UUID;
    PyObject *value = make_int(ctx, bytes);
    PyObject *uuid = value ? type->tp_alloc(type, 0) : NULL;

    /* UUID.__setattr__ refuses; its slots are set as its __init__ does. */
    if (uuid != NULL && (PyObject_GenericSetAttr(uuid, st->str_int, value) < 0 ||
                         PyObject_GenericSetAttr(uuid, st->str_is_safe, st->uuid_unknown) < 0)) {
        Py_CLEAR(uuid);
    }
    Py_XDECREF(value);
    return uuid;
}

PyObject *
vnl_uuid_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    char bytes[16] = {0};
    int digits = 0;

    for (int i = 0; i < len; i++) {
        char c = data[i];
        int value;
        if (c == '-') {
            continue;
        }
        value = vnl_hex_value(c);
        if (value < 0 || digits == 32) {
            return vnl_row_bad(ctx, "uuid", 0, data, len);
        }
        bytes[digits / 2] = (char)((unsigned char)bytes[digits / 2] << 4 | value);
        digits++;
    }
    return digits == 32 ? make_uuid(ctx, bytes) : vnl_row_bad(ctx, "uuid", 0, data, len);
}

PyObject *
vnl_uuid_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    return len == 16 ? make_uuid(ctx, data) : vnl_row_bad(ctx, "uuid", 1, data, len);
}
