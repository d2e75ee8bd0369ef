/* How a Python class is dumped: the dumper class that the adapters map
 * registers for it in text format, translated to C where it is psycopg's. */
#include "row/row.h"

static const struct {
    const char *dumper;
    vnl_kind kind;
    uint32_t oid;
} by_dumper[] = {
    {"StrDumperUnknown", VNL_KIND_STR, 0},
    {"IntDumper", VNL_KIND_INT, 0},
    {"Int2Dumper", VNL_KIND_INT, VNL_OID_INT2},
    {"Int4Dumper", VNL_KIND_INT, VNL_OID_INT4},
    {"Int8Dumper", VNL_KIND_INT, VNL_OID_INT8},
    {"IntNumericDumper", VNL_KIND_INT, VNL_OID_NUMERIC},
    {"OidDumper", VNL_KIND_INT, VNL_OID_OID},
    {"FloatDumper", VNL_KIND_FLOAT, VNL_OID_FLOAT8},
    {"Float4Dumper", VNL_KIND_FLOAT, VNL_OID_FLOAT4},
    {"DecimalDumper", VNL_KIND_DECIMAL, VNL_OID_NUMERIC},
    {"BoolDumper", VNL_KIND_BOOL, VNL_OID_BOOL},
    {"BytesDumper", VNL_KIND_BYTES, VNL_OID_BYTEA},
    {"DateDumper", VNL_KIND_DATE, VNL_OID_DATE},
    {"TimeDumper", VNL_KIND_TIME, 0},
    {"DatetimeDumper", VNL_KIND_DATETIME, 0},
    {"TimedeltaDumper", VNL_KIND_TIMEDELTA, VNL_OID_INTERVAL},
    {"UUIDDumper", VNL_KIND_UUID, VNL_OID_UUID},
    {"JsonDumper", VNL_KIND_JSON, VNL_OID_JSON},
    {"JsonbDumper", VNL_KIND_JSON, VNL_OID_JSONB},
    {"InterfaceDumper", VNL_KIND_NET, VNL_OID_INET},
    {"NetworkDumper", VNL_KIND_NET, VNL_OID_CIDR},
    {"ListDumper", VNL_KIND_LIST, 0},
    {"NoneDumper", VNL_KIND_NONE, 0},
};

/* The C code reads the struct behind the object: only for true instances. */
static int
kind_fits(vnl_decode_ctx *ctx, vnl_kind kind, PyTypeObject *type)
{
    PyDateTime_CAPI *dt = ctx->st->dt;

    switch (kind) {
    case VNL_KIND_STR:
        return PyType_IsSubtype(type, &PyUnicode_Type);
    case VNL_KIND_INT:
        return PyType_IsSubtype(type, &PyLong_Type);
    case VNL_KIND_FLOAT:
        return PyType_IsSubtype(type, &PyFloat_Type);
    case VNL_KIND_DECIMAL:
        return PyType_IsSubtype(type, (PyTypeObject *)ctx->st->Decimal);
    case VNL_KIND_BOOL:
        return type == &PyBool_Type;
    case VNL_KIND_DATE:
        return PyType_IsSubtype(type, dt->DateType);
    case VNL_KIND_TIME:
        return PyType_IsSubtype(type, dt->TimeType);
    case VNL_KIND_DATETIME:
        return PyType_IsSubtype(type, dt->DateTimeType);
    case VNL_KIND_TIMEDELTA:
        return PyType_IsSubtype(type, dt->DeltaType);
    case VNL_KIND_LIST:
        return PyType_IsSubtype(type, &PyList_Type);
    default:
        return 1;
    }
}

/* 1 when the class attribute is the given string. */
static int
names(PyObject *cls, const char *attribute, const char *prefix, char *out, size_t size)
{
    PyObject *value = PyObject_GetAttrString(cls, attribute);
    const char *text = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    int result = 0;

    if (text != NULL && strlen(text) < size && strncmp(text, prefix, strlen(prefix)) == 0) {
        memcpy(out, text, strlen(text) + 1);
        result = 1;
    }
    Py_XDECREF(value);
    PyErr_Clear();
    return result;
}

static void
classify(vnl_decode_ctx *ctx, PyObject *dumper, vnl_class *cls)
{
    char name[64];
    char module[64];

    cls->kind = VNL_KIND_GENERIC;
    cls->oid = 0;
    if (!names(dumper, "__name__", "", name, sizeof(name)) ||
        !names(dumper, "__module__", "psycopg", module, sizeof(module))) {
        return;
    }
    if (strncmp(module, "psycopg.types.", 14) != 0 && strcmp(module, "psycopg_c._psycopg") != 0 &&
        strcmp(module, "psycopg_binary._psycopg") != 0) {
        return;
    }
    for (size_t i = 0; i < sizeof(by_dumper) / sizeof(by_dumper[0]); i++) {
        if (strcmp(name, by_dumper[i].dumper) != 0) {
            continue;
        }
        if (kind_fits(ctx, by_dumper[i].kind, cls->type)) {
            cls->kind = by_dumper[i].kind;
            cls->oid = by_dumper[i].oid;
        }
        return;
    }
}

const vnl_class *
vnl_row_class(vnl_decode_ctx *ctx, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    vnl_class *slot = &ctx->classes[((uintptr_t)type >> 5 ^ (uintptr_t)type >> 12) % VNL_CLASS_SLOTS];
    vnl_class found = {type, VNL_KIND_GENERIC, 0};
    PyObject *dumper = NULL;

    if (slot->type == type) {
        return slot;
    }
    dumper = PyObject_CallMethod(ctx->adapters, "get_dumper", "OO", type, ctx->st->py_text);
    if (dumper == NULL) {
        return NULL;
    }
    classify(ctx, dumper, &found);
    Py_DECREF(dumper);
    Py_INCREF(type);
    Py_XSETREF(slot->type, type);
    slot->kind = found.kind;
    slot->oid = found.oid;
    return slot;
}

PyObject *
vnl_row_dumper(vnl_decode_ctx *ctx, PyObject *value)
{
    PyObject *transformer = vnl_row_transformer(ctx);

    if (transformer == NULL) {
        return NULL;
    }
    return PyObject_CallMethod(transformer, "get_dumper", "OO", value, ctx->st->py_text);
}

PyObject *
vnl_row_unlazy(vnl_decode_ctx *ctx, PyObject *value)
{
    int lazy;

    if (PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || value == Py_None) {
        return Py_NewRef(value);
    }
    if (Py_TYPE(value) == (PyTypeObject *)ctx->st->Binary) {
        PyObject *content = PyObject_GetAttr(value, ctx->st->str_obj);
        if (content == NULL || PyObject_CheckBuffer(content)) {
            return content;
        }
        Py_DECREF(content); /* psycopg's dumper knows what becomes of it */
        return Py_NewRef(value);
    }
    lazy = PyObject_TypeCheck(value, (PyTypeObject *)ctx->st->Promise);
    return lazy ? PyObject_Str(value) : Py_NewRef(value);
}

int
vnl_row_check_buf(const vnl_buf *buf)
{
    if (vnl_buf_failed(buf)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}
