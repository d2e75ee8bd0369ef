/* hstore -> dict of str to str or None.
 * Text: "key"=>"value", "k2"=>NULL.  Binary (hstore_send): int32 count, then
 * int32 length and key, int32 length (-1 NULL) and value. */
#include "row/row.h"
#include "row/scan.h"

/* A quoted string with backslash escapes; `buf` is scratch. */
static PyObject *
read_string(vnl_decode_ctx *ctx, uint32_t oid, vnl_scan *s, vnl_buf *buf)
{
    vnl_buf_clear(buf);
    if (!vnl_scan_char(s, '"')) {
        return vnl_row_error(ctx, "malformed hstore: a quote is missing");
    }
    while (!vnl_scan_done(s) && *s->at != '"') {
        if (*s->at == '\\' && ++s->at == s->end) {
            break;
        }
        vnl_buf_putc(buf, *s->at++);
    }
    if (!vnl_scan_char(s, '"')) {
        return vnl_row_error(ctx, "malformed hstore: unterminated string");
    }
    if (vnl_row_check_buf(buf) < 0) {
        return NULL;
    }
    return vnl_text_any(ctx, oid, buf->data ? buf->data : "", (int)buf->len);
}

static int
scan_word(vnl_scan *s, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(s->end - s->at) < size || memcmp(s->at, word, size) != 0) {
        return 0;
    }
    s->at += size;
    return 1;
}

static int
read_pair(vnl_decode_ctx *ctx, uint32_t oid, vnl_scan *s, vnl_buf *buf, PyObject *dict)
{
    PyObject *key = read_string(ctx, oid, s, buf);
    PyObject *value = NULL;
    int result = -1;

    if (key == NULL) {
        return -1;
    }
    if (!scan_word(s, "=>")) {
        vnl_row_error(ctx, "malformed hstore: '=>' is missing");
    }
    else {
        value = scan_word(s, "NULL") ? Py_NewRef(Py_None) : read_string(ctx, oid, s, buf);
    }
    if (value != NULL) {
        result = PyDict_SetItem(dict, key, value);
        Py_DECREF(value);
    }
    Py_DECREF(key);
    return result;
}

PyObject *
vnl_hstore_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    vnl_buf buf = VNL_BUF_INIT;
    PyObject *dict = PyDict_New();

    while (dict != NULL && !vnl_scan_done(&s)) {
        if (read_pair(ctx, oid, &s, &buf, dict) < 0) {
            Py_CLEAR(dict);
        }
        else if (!vnl_scan_done(&s) && (!scan_word(&s, ", ") || vnl_scan_done(&s))) {
            Py_CLEAR(dict);
            vnl_row_bad(ctx, "hstore", 0, data, len);
        }
    }
    vnl_buf_free(&buf);
    return dict;
}

static PyObject *
read_sized(vnl_decode_ctx *ctx, uint32_t oid, vnl_scan *s, int nullable)
{
    const char *data = s->at;
    int32_t size;

    if (s->end - data < 4) {
        return vnl_row_error(ctx, "malformed binary hstore: too short");
    }
    size = (int32_t)vnl_be32(data);
    s->at = data += 4;
    if (size == -1 && nullable) {
        return Py_NewRef(Py_None);
    }
    if (size < 0 || size > s->end - data) {
        return vnl_row_error(ctx, "malformed binary hstore: too short");
    }
    s->at += size;
    return vnl_text_any(ctx, oid, data, size);
}

PyObject *
vnl_hstore_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    PyObject *dict = NULL;
    uint32_t count;

    if (len < 4 || (count = vnl_be32(data)) > (uint32_t)(len - 4) / 8) {
        return vnl_row_bad(ctx, "hstore", 1, data, len);
    }
    s.at += 4;
    dict = PyDict_New();
    for (uint32_t i = 0; dict != NULL && i < count; i++) {
        PyObject *key = read_sized(ctx, oid, &s, 0);
        PyObject *value = key ? read_sized(ctx, oid, &s, 1) : NULL;
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    if (dict != NULL && !vnl_scan_done(&s)) {
        Py_CLEAR(dict);
        vnl_row_bad(ctx, "hstore", 1, data, len);
    }
    return dict;
}
