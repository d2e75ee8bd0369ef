/* The rows of a COPY: write_row(), rows() and set_types(), with psycopg's meaning.
 *
 * Text is written and read in C.  Values in the binary format, or of types that
 * set_types() names, are dumped by psycopg's own Transformer; C makes rows of them.
 */
#include "py.h"
#include "row/copy.h"

#include <string.h>

static const char signature[19] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";
#define MAX_FIELDS 32767

/* psycopg's Transformer of this copy; borrowed. */
static PyObject *
transformer(pg_copy *copy)
{
    if (copy->tx == NULL) {
        PyObject *adapt = PyImport_ImportModule("psycopg.adapt");
        copy->tx = adapt != NULL ? PyObject_CallMethod(adapt, "Transformer", "O", copy->cursor->link) : NULL;
        Py_XDECREF(adapt);
    }
    return copy->tx;
}

/* module.<enumeration>.<TEXT or BINARY>; new reference. */
static PyObject *
format_of(const pg_copy *copy, const char *module, const char *enumeration)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *formats = imported != NULL ? PyObject_GetAttrString(imported, enumeration) : NULL;
    PyObject *format =
        formats != NULL ? PyObject_GetAttrString(formats, copy->binary ? "BINARY" : "TEXT") : NULL;
    Py_XDECREF(formats);
    Py_XDECREF(imported);
    return format;
}

int
pg_copy_set_types(pg_copy *copy, PyObject *types)
{
    vnl_decode_ctx *ctx = pg_link_ctx(copy->cursor->link);
    PyObject *registry = PyObject_GetAttrString(vnl_decode_ctx_adapters(ctx), "types");
    PyObject *oids = registry != NULL ? PySequence_List(types) : NULL;
    Py_ssize_t n = oids != NULL ? PyList_GET_SIZE(oids) : 0;
    Oid *list = oids != NULL ? PyMem_Calloc((size_t)n + 1, sizeof(Oid)) : NULL;
    PyObject *format = NULL, *set = NULL;
    int rc = -1;
    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *type = PyList_GET_ITEM(oids, i);
        PyObject *oid =
            PyLong_Check(type) ? Py_NewRef(type) : PyObject_CallMethod(registry, "get_oid", "O", type);
        if (oid == NULL || PyList_SetItem(oids, i, oid) < 0) {
            goto done;
        }
        list[i] = (Oid)PyLong_AsUnsignedLong(oid);
        if (PyErr_Occurred()) {
            goto done;
        }
    }
    if (list == NULL) {
        goto done;
    }
    if (!copy->out) {
        format = format_of(copy, "psycopg.pq", "Format");
        set = format != NULL && transformer(copy) != NULL
                  ? PyObject_CallMethod(copy->tx, "set_dumper_types", "OO", oids, format)
                  : NULL;
        if (set == NULL) {
            goto done;
        }
    }
    PyMem_Free(copy->types);
    copy->types = list;
    copy->ntypes = n;
    list = NULL;
    rc = 0;

done:
    PyMem_Free(list);
    Py_XDECREF(set);
    Py_XDECREF(format);
    Py_XDECREF(oids);
    Py_XDECREF(registry);
    return rc;
}

/* --- writing -------------------------------------------------------------- */

/* The values as psycopg dumps them: a sequence of bytes and None.  New reference. */
static PyObject *
dump(pg_copy *copy, PyObject *row)
{
    PyObject *format = format_of(copy, "psycopg.adapt", "PyFormat");
    PyObject *formats = format != NULL ? PyList_New(PyTuple_GET_SIZE(row)) : NULL;
    for (Py_ssize_t i = 0; formats != NULL && i < PyTuple_GET_SIZE(row); i++) {
        PyList_SET_ITEM(formats, i, Py_NewRef(format));
    }
    PyObject *dumped = formats != NULL && transformer(copy) != NULL
                           ? PyObject_CallMethod(copy->tx, "dump_sequence", "OO", row, formats)
                           : NULL;
    Py_XDECREF(formats);
    Py_XDECREF(format);
    Py_XSETREF(dumped, dumped != NULL ? PySequence_Tuple(dumped) : NULL);
    if (dumped != NULL && PyTuple_GET_SIZE(dumped) != PyTuple_GET_SIZE(row)) {
        Py_CLEAR(dumped);
        pg_raise(copy->cursor->link->state, "DataError", "a row was dumped to another number of values");
    }
    return dumped;
}

static int
put_dumped(pg_copy *copy, PyObject *data, vnl_buf *out)
{
    vnl_buf text = VNL_BUF_INIT;
    int rc = 0;
    if (data == Py_None) {
        return copy->binary ? vnl_buf_put_u32(out, UINT32_MAX) : vnl_buf_puts(out, "\\N");
    }
    rc = vnl_copy_put_bytes(data, &text);
    if (rc == 0 && text.len > INT32_MAX) {
        pg_raise(copy->cursor->link->state, "DataError", "a value is longer than 2 GiB");
        rc = -1;
    }
    if (rc == 0 && copy->binary) {
        vnl_buf_put_u32(out, (uint32_t)text.len);
        vnl_buf_put(out, text.data, text.len);
    }
    else if (rc == 0) {
        vnl_copy_escape(text.data != NULL ? text.data : "", text.len, out);
    }
    vnl_buf_free(&text);
    return rc;
}

static int
put_row(pg_copy *copy, PyObject *row, vnl_buf *out)
{
    Py_ssize_t n = PyTuple_GET_SIZE(row);
    int by_psycopg = copy->binary || copy->tx != NULL;
    PyObject *dumped = by_psycopg ? dump(copy, row) : NULL;
    int rc = by_psycopg && dumped == NULL ? -1 : 0;
    if (copy->binary) {
        vnl_buf_put_u16(out, (uint16_t)n);
    }
    for (Py_ssize_t i = 0; rc == 0 && i < n; i++) {
        if (i > 0 && !copy->binary) {
            vnl_buf_putc(out, '\t');
        }
        rc = dumped != NULL ? put_dumped(copy, PyTuple_GET_ITEM(dumped, i), out)
                            : vnl_copy_dump(pg_link_ctx(copy->cursor->link), PyTuple_GET_ITEM(row, i), out);
    }
    if (!copy->binary) {
        vnl_buf_putc(out, '\n');
    }
    Py_XDECREF(dumped);
    if (rc < 0 && PyErr_Occurred()) {
        return -1;
    }
    if (vnl_buf_failed(out)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int
pg_copy_add_row(pg_copy *copy, PyObject *sequence)
{
    vnl_buf out = VNL_BUF_INIT; /* dumpers are Python code: what is kept may change meanwhile */
    if (PyUnicode_Check(sequence) || PyBytes_Check(sequence)) {
        PyErr_Format(PyExc_TypeError, "write_row() takes a sequence of values, not %.100s",
                     Py_TYPE(sequence)->tp_name);
        return -1;
    }
    PyObject *row = PySequence_Tuple(sequence);
    int rc = row != NULL ? 0 : -1;
    if (rc == 0 && PyTuple_GET_SIZE(row) > MAX_FIELDS) {
        pg_raise(copy->cursor->link->state, "DataError", "a row of more than %d values", MAX_FIELDS);
        rc = -1;
    }
    if (rc == 0) {
        rc = put_row(copy, row, &out);
    }
    if (rc == 0) {
        rc = pg_copy_check(copy, 0);
    }
    if (rc == 0 && copy->binary && !copy->begun) {
        vnl_buf_put(&copy->unsent, signature, sizeof(signature));
    }
    if (rc == 0 && vnl_buf_put(&copy->unsent, out.data, out.len) < 0) {
        PyErr_NoMemory();
        rc = -1;
    }
    if (rc == 0) {
        copy->begun = copy->by_rows = 1;
    }
    vnl_buf_free(&out);
    Py_XDECREF(row);
    return rc;
}

int
pg_copy_end_rows(pg_copy *copy)
{
    if (!copy->binary || (copy->begun && !copy->by_rows)) {
        return 0;
    }
    if (!copy->begun) {
        vnl_buf_put(&copy->unsent, signature, sizeof(signature));
    }
    if (vnl_buf_put_u16(&copy->unsent, 0xffff) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* --- reading -------------------------------------------------------------- */

static PyObject *
bad_data(const pg_copy *copy, const char *what)
{
    return pg_raise(copy->cursor->link->state, "DataError", "bad copy data: %s", what);
}

/* The value of column `i`; new reference. */
static PyObject *
load(pg_copy *copy, Py_ssize_t i, const char *data, size_t len)
{
    vnl_decode_ctx *ctx = pg_link_ctx(copy->cursor->link);
    if (copy->types != NULL) {
        if (i >= copy->ntypes) {
            return pg_raise(copy->cursor->link->state, "DataError",
                            "set_types() has named %zd columns, but the row has more", copy->ntypes);
        }
        return vnl_decode_value(ctx, copy->types[i], copy->binary, data, (int)len);
    }
    return copy->binary ? PyBytes_FromStringAndSize(data, (Py_ssize_t)len)
                        : vnl_decode_value(ctx, 0, 0, data, (int)len);
}

/* Appends the value, stolen, or fails. */
static int
append(PyObject *row, PyObject *value)
{
    int rc = value != NULL ? PyList_Append(row, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static int
parse_text(pg_copy *copy, const char *data, size_t len, PyObject *row)
{
    if (len == 0 || data[len - 1] != '\n') {
        bad_data(copy, "a row without its end");
        return -1;
    }
    const char *end = data + len - 1;
    for (Py_ssize_t i = 0;; i++) {
        const char *tab = memchr(data, '\t', (size_t)(end - data));
        size_t n = (size_t)((tab != NULL ? tab : end) - data);
        vnl_buf plain = VNL_BUF_INIT;
        int rc = -1;
        if (n == 2 && memcmp(data, "\\N", 2) == 0) {
            rc = PyList_Append(row, Py_None);
        }
        else if (memchr(data, '\\', n) == NULL) {
            rc = append(row, load(copy, i, data, n));
        }
        else {
            vnl_copy_unescape(data, n, &plain);
            rc =
                append(row, vnl_buf_failed(&plain) ? PyErr_NoMemory() : load(copy, i, plain.data, plain.len));
        }
        vnl_buf_free(&plain);
        if (rc < 0 || tab == NULL) {
            return rc;
        }
        data = tab + 1;
    }
}

static uint32_t
read_u32(const char *data)
{
    uint32_t wire = 0;
    memcpy(&wire, data, 4);
    return __builtin_bswap32(wire);
}

/* Skips the signature.  1 when data is left, 0 when not, -1 with an exception. */
static int
skip_signature(pg_copy *copy, const char **data, size_t *len)
{
    if (copy->begun) {
        return 1;
    }
    if (*len < sizeof(signature) || memcmp(*data, signature, 11) != 0) {
        bad_data(copy, "it does not begin with the signature of the binary format");
        return -1;
    }
    size_t more = read_u32(*data + 15);
    if (more > *len - sizeof(signature)) {
        bad_data(copy, "truncated");
        return -1;
    }
    *data += sizeof(signature) + more;
    *len -= sizeof(signature) + more;
    copy->begun = 1;
    return *len > 0;
}

/* 1 a row, 0 none in this block, -1 with an exception. */
static int
parse_binary(pg_copy *copy, const char *data, size_t len, PyObject *row)
{
    int left = skip_signature(copy, &data, &len);
    if (left <= 0) {
        return left;
    }
    if (len < 2) {
        bad_data(copy, "truncated");
        return -1;
    }
    int n = (unsigned char)data[0] << 8 | (unsigned char)data[1];
    if (n == 0xffff) {
        return 0; /* the trailer */
    }
    size_t at = 2;
    for (int i = 0; i < n; i++) {
        if (len - at < 4) {
            bad_data(copy, "truncated");
            return -1;
        }
        uint32_t size = read_u32(data + at);
        at += 4;
        if (size == UINT32_MAX) {
            if (PyList_Append(row, Py_None) < 0) {
                return -1;
            }
            continue;
        }
        if (size > len - at) {
            bad_data(copy, "truncated");
            return -1;
        }
        if (append(row, load(copy, i, data + at, size)) < 0) {
            return -1;
        }
        at += size;
    }
    return 1;
}

PyObject *
pg_copy_read_wait(pg_copy *copy, int wait)
{
    for (;;) {
        char *data = NULL;
        int len = 0;
        if (pg_copy_next_wait(copy, wait, &data, &len) <= 0) {
            return NULL;
        }
        PyObject *row = PyList_New(0);
        int rc = row == NULL                                    ? -1
                 : copy->binary                                 ? parse_binary(copy, data, (size_t)len, row)
                 : parse_text(copy, data, (size_t)len, row) < 0 ? -1
                                                                : 1;
        PQfreemem(data);
        if (rc > 0) {
            Py_SETREF(row, PyList_AsTuple(row));
            return row;
        }
        Py_XDECREF(row);
        if (rc < 0) {
            return NULL;
        }
    }
}
