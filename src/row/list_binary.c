/* Lists -> arrays in binary, for elements whose binary form means just what
 * their text means: the server reads a column of many rows in a fraction of the
 * time that its text takes.
 * array_recv: int32 dimensions, int32 has nulls, uint32 element type, int32
 * length and lower bound of each dimension, then int32 length (-1: NULL) and
 * bytes of each element. */
#include "row/row.h"

typedef struct {
    vnl_decode_ctx *ctx;
    vnl_buf *out;
    vnl_class cls; /* a copy: the cache's slot may be taken meanwhile */
    uint32_t oid;  /* of the elements */
} array_writer;

/* An answer of the functions here. */
enum {
    FAILED = -1,
    BY_TEXT, /* this is to go as text */
    DONE
};

static int
put_u32_value(array_writer *w, uint32_t value)
{
    vnl_buf_put_u32(w->out, sizeof(value));
    vnl_buf_put_u32(w->out, value);
    return DONE;
}

static int
put_u64_value(array_writer *w, uint64_t value)
{
    vnl_buf_put_u32(w->out, sizeof(value));
    vnl_buf_put_u64(w->out, value);
    return DONE;
}

/* The least type of int2, int4 and int8 that holds it. */
static uint32_t
int_oid(long long number)
{
    return number >= INT16_MIN && number <= INT16_MAX   ? VNL_OID_INT2
           : number >= INT32_MIN && number <= INT32_MAX ? VNL_OID_INT4
                                                        : VNL_OID_INT8;
}

static int
put_int(array_writer *w, PyObject *value)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && !overflow && PyErr_Occurred()) {
        return FAILED;
    }
    uint32_t least = int_oid(number);
    if (overflow || (w->oid != VNL_OID_INT8 &&
                     (least == VNL_OID_INT8 || (w->oid == VNL_OID_INT2 && least == VNL_OID_INT4)))) {
        return BY_TEXT;
    }
    if (w->oid == VNL_OID_INT2) {
        vnl_buf_put_u32(w->out, 2);
        vnl_buf_put_u16(w->out, (uint16_t)number);
        return DONE;
    }
    return w->oid == VNL_OID_INT4 ? put_u32_value(w, (uint32_t)number) : put_u64_value(w, (uint64_t)number);
}

static int
put_float(array_writer *w, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits = 0;
    memcpy(&bits, &number, sizeof(bits));
    return put_u64_value(w, number != number ? UINT64_C(0x7FF8000000000000) : bits);
}

static int
put_date(array_writer *w, PyObject *value)
{
    return put_u32_value(
        w, (uint32_t)vnl_days_from_civil(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                                         PyDateTime_GET_DAY(value)));
}

static int
put_datetime(array_writer *w, PyObject *value)
{
    int64_t offset = 0;
    int known = 0;
    int aware = !Py_IsNone(PyDateTime_DATE_GET_TZINFO(value));
    if (aware != (w->oid == VNL_OID_TIMESTAMPTZ)) {
        return BY_TEXT;
    }
    if (aware && PyDateTime_DATE_GET_TZINFO(value) != w->ctx->st->dt->TimeZone_UTC) {
        if (vnl_utcoffset(w->ctx, value, &offset, &known) < 0) {
            return FAILED;
        }
        if (!known) {
            return BY_TEXT; /* the server's zone applies */
        }
    }
    int64_t seconds = PyDateTime_DATE_GET_HOUR(value) * 3600 + PyDateTime_DATE_GET_MINUTE(value) * 60 +
                      PyDateTime_DATE_GET_SECOND(value);
    int64_t days = vnl_days_from_civil(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                                       PyDateTime_GET_DAY(value));
    return put_u64_value(w, (uint64_t)(days * VNL_DAY_US + seconds * 1000000 +
                                       PyDateTime_DATE_GET_MICROSECOND(value) - offset));
}

static int
put_uuid(array_writer *w, PyObject *value)
{
    unsigned char bytes[16];
    if (!vnl_uuid_bytes(&w->ctx->st->uuids, value, bytes)) {
        return BY_TEXT;
    }
    vnl_buf_put_u32(w->out, sizeof(bytes));
    vnl_buf_put(w->out, bytes, sizeof(bytes));
    return DONE;
}

enum {
    MOST_DIGITS = 120, /* of a number that goes in binary, with its zeros */
    GROUP = 4
};

/* The digits of a plain number, [-]ddd[.ddd]: how many stand before the point,
 * or -1.  *count: all of them. */
static int
read_digits(const char *text, char *digits, int *count)
{
    int point = -1;
    *count = 0;
    for (; *text != '\0'; text++) {
        if (*text == '.' && point < 0) {
            point = *count;
        }
        else if (!vnl_is_digit(*text) || *count == MOST_DIGITS) {
            return -1;
        }
        else {
            digits[(*count)++] = (char)(*text - '0');
        }
    }
    if (*count == 0) {
        return -1;
    }
    return point < 0 ? *count : point;
}

/* numeric_recv: uint16 groups of four digits, int16 weight, uint16 sign, uint16
 * decimals; the groups are aligned to the point. */
static void
put_groups(array_writer *w, const char *digits, int count, int before, int negative)
{
    uint16_t groups[MOST_DIGITS / GROUP + 2];
    int ngroups = 0;
    int skip = (GROUP - before % GROUP) % GROUP; /* zeros before the first digit */
    for (int at = -skip; at < count; at += GROUP) {
        unsigned group = 0;
        for (int i = at; i < at + GROUP; i++) {
            group = group * 10 + (unsigned)(i >= 0 && i < count ? digits[i] : 0);
        }
        groups[ngroups++] = (uint16_t)group;
    }
    int first = 0, last = ngroups;
    while (first < last && groups[first] == 0) {
        first++;
    }
    while (last > first && groups[last - 1] == 0) {
        last--;
    }
    int weight = first < last ? (before + GROUP - 1) / GROUP - 1 - first : 0;
    vnl_buf_put_u32(w->out, (uint32_t)(8 + 2 * (last - first)));
    vnl_buf_put_u16(w->out, (uint16_t)(last - first));
    vnl_buf_put_u16(w->out, (uint16_t)(int16_t)weight);
    vnl_buf_put_u16(w->out, negative && first < last ? 0x4000 : 0);
    vnl_buf_put_u16(w->out, (uint16_t)(count - before));
    for (int i = first; i < last; i++) {
        vnl_buf_put_u16(w->out, groups[i]);
    }
}

static int
put_decimal(array_writer *w, PyObject *value)
{
    PyObject *str = PyObject_Str(value);
    const char *text = str != NULL ? PyUnicode_AsUTF8(str) : NULL;
    int result = FAILED;
    if (text != NULL) {
        char digits[MOST_DIGITS];
        int count = 0;
        int before = read_digits(text + (text[0] == '-'), digits, &count);
        result = before < 0 ? BY_TEXT : DONE;
        if (result == DONE) {
            put_groups(w, digits, count, before, text[0] == '-');
        }
    }
    Py_XDECREF(str);
    return result;
}

static int
put_element(array_writer *w, PyObject *value)
{
    switch (w->cls.kind) {
    case VNL_KIND_INT:
        return put_int(w, value);
    case VNL_KIND_FLOAT:
        return put_float(w, value);
    case VNL_KIND_BOOL:
        vnl_buf_put_u32(w->out, 1);
        vnl_buf_putc(w->out, value == Py_True);
        return DONE;
    case VNL_KIND_DATE:
        return put_date(w, value);
    case VNL_KIND_DATETIME:
        return put_datetime(w, value);
    case VNL_KIND_UUID:
        return put_uuid(w, value);
    case VNL_KIND_DECIMAL:
        return put_decimal(w, value);
    default:
        return BY_TEXT;
    }
}

/* For ints without a type of their own the least that holds them all; 0 where
 * there is none. */
static uint32_t
widest_int(PyObject *list, PyTypeObject *type)
{
    uint32_t oid = VNL_OID_INT2;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *value = PyList_GET_ITEM(list, i);
        int overflow = 0;
        long long number = 0;
        if (Py_IS_TYPE(value, type)) {
            number = PyLong_AsLongLongAndOverflow(value, &overflow);
        }
        uint32_t least = int_oid(number);
        if (overflow) {
            return 0;
        }
        oid = least == VNL_OID_INT8 || (least == VNL_OID_INT4 && oid == VNL_OID_INT2) ? least : oid;
    }
    return oid;
}

/* The elements' type, which is the one that the text has; 0 for text. */
static uint32_t
element_oid(const array_writer *w, PyObject *list, PyObject *first)
{
    uint32_t own = w->cls.oid;
    switch (w->cls.kind) {
    case VNL_KIND_INT:
        return own == 0 ? widest_int(list, Py_TYPE(first))
               : own == VNL_OID_INT2 || own == VNL_OID_INT4 || own == VNL_OID_INT8 ? own
                                                                                   : 0;
    case VNL_KIND_DATETIME:
        return Py_IsNone(PyDateTime_DATE_GET_TZINFO(first)) ? VNL_OID_TIMESTAMP : VNL_OID_TIMESTAMPTZ;
    case VNL_KIND_FLOAT:
        return own == VNL_OID_FLOAT8 ? own : 0;
    case VNL_KIND_BOOL:
        return own == VNL_OID_BOOL ? own : 0;
    case VNL_KIND_DATE:
        return own == VNL_OID_DATE ? own : 0;
    case VNL_KIND_UUID:
        return own == VNL_OID_UUID ? own : 0;
    case VNL_KIND_DECIMAL:
        return own == VNL_OID_NUMERIC ? own : 0;
    default:
        return 0;
    }
}

static int
write_array(array_writer *w, PyObject *list, PyTypeObject *type)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    size_t nulls = w->out->len + 4;
    int result = DONE;
    vnl_buf_put_u32(w->out, 1);
    vnl_buf_put_u32(w->out, 0);
    vnl_buf_put_u32(w->out, w->oid);
    vnl_buf_put_u32(w->out, (uint32_t)count);
    vnl_buf_put_u32(w->out, 1);
    /* Dumping an element may run Python code that changes the list. */
    for (Py_ssize_t i = 0; result == DONE && i < count; i++) {
        if (PyList_GET_SIZE(list) != count) {
            return BY_TEXT;
        }
        PyObject *value = Py_NewRef(PyList_GET_ITEM(list, i));
        if (Py_IsNone(value)) {
            vnl_buf_put_u32(w->out, UINT32_MAX);
            if (!vnl_buf_failed(w->out)) {
                w->out->data[nulls + 3] = 1;
            }
        }
        else {
            result = Py_IS_TYPE(value, type) ? put_element(w, value) : BY_TEXT;
        }
        Py_DECREF(value);
    }
    return result;
}

int
vnl_dump_list_binary(vnl_decode_ctx *ctx, PyObject *list, vnl_buf *out, uint32_t *oid)
{
    array_writer w = {.ctx = ctx, .out = out};
    size_t start = out->len;
    PyObject *first = NULL;
    for (Py_ssize_t i = 0; first == NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *value = PyList_GET_ITEM(list, i);
        first = Py_IsNone(value) ? NULL : Py_NewRef(value);
    }
    if (first == NULL || PyList_GET_SIZE(list) > INT32_MAX) {
        Py_XDECREF(first);
        return BY_TEXT;
    }
    int result = FAILED;
    PyObject *plain = vnl_row_unlazy(ctx, first);
    const vnl_class *cls = plain == first ? vnl_row_class(ctx, first) : NULL;
    if (cls != NULL) {
        w.cls = *cls;
        w.oid = element_oid(&w, list, first);
        result = w.oid != 0 && vnl_array_oid(w.oid) != 0 ? write_array(&w, list, Py_TYPE(first)) : BY_TEXT;
    }
    else if (plain != NULL && plain != first) {
        result = BY_TEXT;
    }
    Py_XDECREF(plain);
    Py_DECREF(first);
    if (result == DONE && vnl_row_check_buf(out) < 0) {
        result = FAILED;
    }
    *oid = result == DONE ? vnl_array_oid(w.oid) : 0;
    if (result != DONE) {
        out->len = start;
    }
    return result;
}
