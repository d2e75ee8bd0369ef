/* Values <-> the fields of COPY's text format. */
#include "row/copy.h"

#include "row/row.h"

int
vnl_copy_put_bytes(PyObject *data, vnl_buf *out)
{
    Py_buffer view;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    vnl_buf_put(out, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return vnl_row_check_buf(out);
}

/* What the registered text dumper gives. */
static int
dump_generic(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    PyObject *adapt = PyImport_ImportModule("psycopg.adapt");
    PyObject *format = adapt ? PyObject_GetAttrString(adapt, "PyFormat") : NULL;
    PyObject *text = format ? PyObject_GetAttrString(format, "TEXT") : NULL;
    PyObject *transformer = text ? vnl_row_transformer(ctx) : NULL; /* borrowed */
    PyObject *dumped =
        transformer ? PyObject_CallMethod(transformer, "dump_sequence", "[O][O]", value, text) : NULL;
    PyObject *data = dumped ? PySequence_GetItem(dumped, 0) : NULL;
    int result = -1;

    if (data != NULL && Py_IsNone(data)) {
        result = 0;
    }
    else if (data != NULL) {
        result = vnl_copy_put_bytes(data, out) < 0 ? -1 : 1;
    }
    Py_XDECREF(data);
    Py_XDECREF(dumped);
    Py_XDECREF(text);
    Py_XDECREF(format);
    Py_XDECREF(adapt);
    return result;
}

/* 1, 0 for None, -1 with an exception. */
static int
dump_kind(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    const vnl_class *found = vnl_row_class(ctx, value);
    vnl_class cls;
    uint32_t oid = 0;
    int result;

    if (found == NULL) {
        return -1;
    }
    cls = *found;
    switch (cls.kind) {
    case VNL_KIND_NONE:
        return 0;
    case VNL_KIND_LIST:
        result = vnl_dump_list(ctx, value, out, &oid);
        return result == 0 ? dump_generic(ctx, value, out) : result;
    case VNL_KIND_GENERIC:
        return dump_generic(ctx, value, out);
    default:
        return vnl_dump_text(ctx, &cls, value, out, &oid) < 0 ? -1 : 1;
    }
}

void
vnl_copy_escape(const char *data, size_t len, vnl_buf *out)
{
    static const char signs[] = "\b\t\n\v\f\r\\", names[] = "btnvfr\\";
    size_t from = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        const char *sign = c == '\\' || (c >= '\b' && c <= '\r') ? strchr(signs, c) : NULL;
        if (sign != NULL) {
            char pair[2] = {'\\', names[sign - signs]};
            vnl_buf_put(out, data + from, i - from);
            vnl_buf_put(out, pair, 2);
            from = i + 1;
        }
    }
    vnl_buf_put(out, data + from, len - from);
}

int
vnl_copy_dump(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    vnl_buf text = VNL_BUF_INIT;
    PyObject *plain = vnl_row_unlazy(ctx, value);
    int kind = plain ? dump_kind(ctx, plain, &text) : -1;

    Py_XDECREF(plain);
    if (kind == 0) {
        vnl_buf_puts(out, "\\N");
    }
    else if (kind > 0) {
        vnl_copy_escape(text.data ? text.data : "", text.len, out);
    }
    vnl_buf_free(&text);
    return kind < 0 ? -1 : vnl_row_check_buf(out);
}

void
vnl_copy_unescape(const char *data, size_t len, vnl_buf *out)
{
    static const char signs[] = "\b\t\n\v\f\r", names[] = "btnvfr";

    for (size_t at = 0; at < len;) {
        const char *slash = memchr(data + at, '\\', len - at);
        size_t run = slash ? (size_t)(slash - data) - at : len - at;
        vnl_buf_put(out, data + at, run);
        at += run + 1;
        if (slash == NULL || at >= len) {
            break;
        }
        const char *name = data[at] ? strchr(names, data[at]) : NULL;
        vnl_buf_putc(out, name ? signs[name - names] : data[at]);
        at++;
    }
}
