/* json, jsonb: str where Django registers a text loader (it parses by itself),
 * else the registered loads() is called.  Binary jsonb: version 1, then text. */
#include "row/row.h"

PyObject *
vnl_json_any(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    PyObject *loads = NULL;
    PyObject *text = NULL;
    PyObject *value = NULL;

    if (codec == NULL) {
        return NULL;
    }
    loads = Py_NewRef(codec->arg ? codec->arg : ctx->st->json_loads);
    /* json.loads takes str and bytes alike; another one is given what psycopg gives it. */
    text = loads == ctx->st->json_loads ? vnl_text_any(ctx, oid, data, len)
                                        : PyBytes_FromStringAndSize(data, len);
    if (text != NULL) {
        value = PyObject_CallOneArg(loads, text);
        if (value == NULL && loads == ctx->st->json_loads && PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            vnl_row_bad(ctx, "json", 0, data, len);
        }
    }
    Py_XDECREF(text);
    Py_DECREF(loads);
    return value;
}

PyObject *
vnl_jsonb_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len < 1 || data[0] != 1) {
        return vnl_row_bad(ctx, "jsonb", 1, data, len);
    }
    return vnl_json_any(ctx, oid, data + 1, len - 1);
}

PyObject *
vnl_jsonb_str_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    if (len < 1 || data[0] != 1) {
        return vnl_row_bad(ctx, "jsonb", 1, data, len);
    }
    return vnl_text_any(ctx, oid, data + 1, len - 1);
}
