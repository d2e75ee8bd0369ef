/* Lists -> array literals, with the type psycopg's ListDumper gives them: the
 * array of the elements' type, for ints the smallest one that holds all, and
 * unknown for strings and for lists with nothing but None. */
#include "row/row.h"

static const struct {
    uint32_t oid, array;
} arrays[] = {
    {VNL_OID_BOOL, 1000},        {VNL_OID_BYTEA, 1001},     {VNL_OID_INT2, 1005},   {VNL_OID_INT4, 1007},
    {VNL_OID_INT8, 1016},        {VNL_OID_FLOAT4, 1021},    {VNL_OID_FLOAT8, 1022}, {VNL_OID_OID, 1028},
    {VNL_OID_INET, 1041},        {VNL_OID_TIMESTAMP, 1115}, {VNL_OID_DATE, 1182},   {VNL_OID_TIME, 1183},
    {VNL_OID_TIMESTAMPTZ, 1185}, {VNL_OID_INTERVAL, 1187},  {VNL_OID_JSON, 199},    {VNL_OID_NUMERIC, 1231},
    {VNL_OID_TIMETZ, 1270},      {VNL_OID_UUID, 2951},      {VNL_OID_JSONB, 3807},  {VNL_OID_CIDR, 651},
};

uint32_t
vnl_array_oid(uint32_t oid)
{
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        if (arrays[i].oid == oid) {
            return arrays[i].array;
        }
    }
    return 0;
}

typedef struct list_writer {
    vnl_decode_ctx *ctx;
    vnl_buf *out;
    vnl_buf item;       /* scratch */
    PyTypeObject *type; /* of all elements; borrowed from one of them */
    vnl_class cls;      /* a copy: the cache's slot may be taken meanwhile */
    uint32_t oid;       /* of the elements so far */
    int elements;
} list_writer;

static int
needs_quotes(const char *data, size_t len)
{
    if (len == 0 || (len == 4 && strncasecmp(data, "null", 4) == 0)) {
        return 1;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c <= ' ' || c >= 0x80 || c == '"' || c == '\\' || c == '{' || c == '}' || c == ',') {
            return 1;
        }
    }
    return 0;
}

static void
put_item(list_writer *w)
{
    const char *data = w->item.data ? w->item.data : "";

    if (!needs_quotes(data, w->item.len)) {
        vnl_buf_put(w->out, data, w->item.len);
        return;
    }
    vnl_buf_putc(w->out, '"');
    for (size_t i = 0; i < w->item.len; i++) {
        if (data[i] == '"' || data[i] == '\\') {
            vnl_buf_putc(w->out, '\\');
        }
        vnl_buf_putc(w->out, data[i]);
    }
    vnl_buf_putc(w->out, '"');
}

/* The widest integer type wins; of other types, the last element's. */
static void
merge_oid(list_writer *w, uint32_t oid)
{
    static const uint32_t widths[] = {VNL_OID_INT2, VNL_OID_INT4, VNL_OID_INT8, VNL_OID_NUMERIC};
    int old = -1;
    int new = -1;

    if (w->cls.kind == VNL_KIND_INT && w->cls.oid == 0 && w->elements > 0) {
        for (int i = 0; i < 4; i++) {
            old = widths[i] == w->oid ? i : old;
            new = widths[i] == oid ? i : new;
        }
        oid = old > new ? w->oid : oid;
    }
    w->oid = oid;
    w->elements++;
}

/* 1, 0 for the generic way, -1 exception. */
static int
write_element(list_writer *w, PyObject *value)
{
    uint32_t oid = 0;

    if (w->type == NULL) {
        const vnl_class *cls = vnl_row_class(w->ctx, value);
        if (cls == NULL) {
            return -1;
        }
        w->cls = *cls;
        w->type = Py_TYPE(value);
    }
    if (Py_TYPE(value) != w->type || w->cls.kind == VNL_KIND_GENERIC || w->cls.kind == VNL_KIND_LIST ||
        w->cls.kind == VNL_KIND_NONE) {
        return 0;
    }
    vnl_buf_clear(&w->item);
    if (vnl_dump_text(w->ctx, &w->cls, value, &w->item, &oid) < 0) {
        return -1;
    }
    merge_oid(w, oid);
    put_item(w);
    return 1;
}

static int
write_list(list_writer *w, PyObject *list, int depth)
{
    if (depth > VNL_MAX_DEPTH) {
        vnl_row_error(w->ctx, "cannot dump a recursive list");
        return -1;
    }
    vnl_buf_putc(w->out, '{');
    /* Dumping an element may run Python code that changes the list. */
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *kept = Py_NewRef(PyList_GET_ITEM(list, i));
        PyObject *item = vnl_row_unlazy(w->ctx, kept);
        int result = 1;

        Py_DECREF(kept);
        if (item == NULL) {
            return -1;
        }
        if (i > 0) {
            vnl_buf_putc(w->out, ',');
        }
        if (Py_IsNone(item)) {
            vnl_buf_puts(w->out, "NULL");
        }
        else if (PyList_Check(item)) {
            result = write_list(w, item, depth + 1);
        }
        else {
            result = write_element(w, item);
        }
        Py_DECREF(item);
        if (result <= 0) {
            return result;
        }
    }
    vnl_buf_putc(w->out, '}');
    return 1;
}

int
vnl_dump_list(vnl_decode_ctx *ctx, PyObject *list, vnl_buf *out, uint32_t *oid)
{
    list_writer w = {.ctx = ctx, .out = out, .item = VNL_BUF_INIT};
    size_t start = out->len;
    int result = write_list(&w, list, 0);

    vnl_buf_free(&w.item);
    if (result > 0 && vnl_row_check_buf(out) < 0) {
        result = -1;
    }
    if (result > 0 && w.oid != 0) {
        *oid = vnl_array_oid(w.oid);
        return *oid != 0;
    }
    *oid = 0;
    if (result <= 0) {
        out->len = start;
    }
    return result;
}
