/* bytea: binary is the bytes; text is hex ("\x…") or escape ("a\\b\001"). */
#include "row/row.h"

static PyObject *
decode_hex(vnl_decode_ctx *ctx, const char *data, int len)
{
    PyObject *bytes = NULL;
    char *out = NULL;

    if (len % 2 != 0) {
        return vnl_row_bad(ctx, "bytea", 0, data, len);
    }
    bytes = PyBytes_FromStringAndSize(NULL, (len - 2) / 2);
    if (bytes == NULL) {
        return NULL;
    }
    out = PyBytes_AS_STRING(bytes);
    for (int i = 2; i < len; i += 2) {
        int high = vnl_hex_value(data[i]);
        int low = vnl_hex_value(data[i + 1]);
        if (high < 0 || low < 0) {
            Py_DECREF(bytes);
            return vnl_row_bad(ctx, "bytea", 0, data, len);
        }
        *out++ = (char)(high << 4 | low);
    }
    return bytes;
}

/* Reads one escape at data[i], a backslash: the number of characters it took, 0 when malformed. */
static int
read_escape(const char *data, int left, char *out)
{
    if (left >= 2 && data[1] == '\\') {
        *out = '\\';
        return 2;
    }
    if (left >= 4 && data[1] >= '0' && data[1] <= '3' && data[2] >= '0' && data[2] <= '7' && data[3] >= '0' &&
        data[3] <= '7') {
        *out = (char)((data[1] - '0') << 6 | (data[2] - '0') << 3 | (data[3] - '0'));
        return 4;
    }
    return 0;
}

static PyObject *
decode_escape(vnl_decode_ctx *ctx, const char *data, int len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, len);
    Py_ssize_t size = 0;

    if (bytes == NULL) {
        return NULL;
    }
    for (int i = 0; i < len;) {
        char *out = PyBytes_AS_STRING(bytes) + size++;
        if (data[i] == '\\') {
            int taken = read_escape(data + i, len - i, out);
            if (taken == 0) {
                Py_DECREF(bytes);
                return vnl_row_bad(ctx, "bytea", 0, data, len);
            }
            i += taken;
        }
        else {
            *out = data[i++];
        }
    }
    _PyBytes_Resize(&bytes, size); /* NULL with an exception on failure */
    return bytes;
}

PyObject *
vnl_bytea_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len >= 2 && data[0] == '\\' && data[1] == 'x') {
        return decode_hex(ctx, data, len);
    }
    return decode_escape(ctx, data, len);
}

PyObject *
vnl_bytea_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    return PyBytes_FromStringAndSize(data, len);
}

int
vnl_decode_is_bytes(vnl_decode_fn decode)
{
    return decode == vnl_bytea_binary;
}
