/* Which decoder an oid has: the loader class that the adapters map registers
 * for the text format, translated to C. */
#include "row/row.h"

/* Loader classes that are plain functions of the value, by name.  Binary
 * decoders are found by oid below, because a loader class may be registered
 * for several wire formats (TextLoader for jsonb). */
static const struct {
    const char *name;
    vnl_decode_fn text;
} by_class[] = {
    {"TextLoader", vnl_text_any},          {"IntLoader", vnl_int_text},
    {"BoolLoader", vnl_bool_text},         {"FloatLoader", vnl_float_text},
    {"NumericLoader", vnl_numeric_text},   {"ByteaLoader", vnl_bytea_text},
    {"DateLoader", vnl_date_text},         {"TimeLoader", vnl_time_text},
    {"TimetzLoader", vnl_timetz_text},     {"TimestampLoader", vnl_timestamp_text},
    {"IntervalLoader", vnl_interval_text}, {"TimestamptzLoader", vnl_timestamptz_text},
    {"UUIDLoader", vnl_uuid_text},         {"HstoreLoader", vnl_hstore_text},
    {"JsonLoader", vnl_json_any},          {"JsonbLoader", vnl_json_any},
};

static const struct {
    uint32_t oid;
    vnl_decode_fn text, binary;
} by_oid[] = {
    {VNL_OID_BOOL, vnl_bool_text, vnl_bool_binary},
    {VNL_OID_INT2, vnl_int_text, vnl_int2_binary},
    {VNL_OID_INT4, vnl_int_text, vnl_int4_binary},
    {VNL_OID_INT8, vnl_int_text, vnl_int8_binary},
    {VNL_OID_OID, vnl_int_text, vnl_oid_binary},
    {VNL_OID_FLOAT4, vnl_float_text, vnl_float4_binary},
    {VNL_OID_FLOAT8, vnl_float_text, vnl_float8_binary},
    {VNL_OID_NUMERIC, vnl_numeric_text, vnl_numeric_binary},
    {VNL_OID_BYTEA, vnl_bytea_text, vnl_bytea_binary},
    {VNL_OID_TEXT, vnl_text_any, vnl_text_any},
    {VNL_OID_VARCHAR, vnl_text_any, vnl_text_any},
    {VNL_OID_BPCHAR, vnl_text_any, vnl_text_any},
    {VNL_OID_NAME, vnl_text_any, vnl_text_any},
    {VNL_OID_UNKNOWN, vnl_text_any, vnl_text_any},
    {VNL_OID_CSTRING, vnl_text_any, vnl_text_any},
    {VNL_OID_VOID, vnl_text_any, vnl_text_any},
    {VNL_OID_JSON, vnl_text_any, vnl_text_any},
    {VNL_OID_JSONB, vnl_text_any, vnl_jsonb_str_binary},
    {VNL_OID_INET, vnl_text_any, vnl_inet_str_binary},
    {VNL_OID_CIDR, vnl_text_any, vnl_inet_str_binary},
    {VNL_OID_JSON, vnl_json_any, vnl_json_any},
    {VNL_OID_JSONB, vnl_json_any, vnl_jsonb_binary},
    {VNL_OID_DATE, vnl_date_text, vnl_date_binary},
    {VNL_OID_TIME, vnl_time_text, vnl_time_binary},
    {VNL_OID_TIMETZ, vnl_timetz_text, vnl_timetz_binary},
    {VNL_OID_TIMESTAMP, vnl_timestamp_text, vnl_timestamp_binary},
    {VNL_OID_TIMESTAMPTZ, vnl_timestamptz_text, vnl_timestamptz_binary},
    {VNL_OID_INTERVAL, vnl_interval_text, vnl_interval_binary},
    {VNL_OID_UUID, vnl_uuid_text, vnl_uuid_binary},
};

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Attribute `name` of a class as a borrowed-size UTF-8 copy; "" when absent. */
static int
class_text(PyObject *cls, const char *name, char *out, size_t size)
{
    PyObject *value = PyObject_GetAttrString(cls, name);
    const char *text = NULL;

    out[0] = '\0';
    if (value == NULL) {
        return -1;
    }
    text = PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : "";
    if (text != NULL && strlen(text) < size) {
        memcpy(out, text, strlen(text) + 1);
    }
    Py_DECREF(value);
    return text == NULL ? -1 : 0;
}

/* 1 when the module is one of psycopg's own. */
static int
of_psycopg(const char *module)
{
    return strncmp(module, "psycopg.types.", 14) == 0 || strcmp(module, "psycopg_c._psycopg") == 0 ||
           strcmp(module, "psycopg_binary._psycopg") == 0;
}

/* 1 when `cls` derives from psycopg's class of this name and loads as it does,
 * 0 when not, -1 with an exception.  Where the class itself was made says
 * nothing: psycopg makes one per type with type(), and in its pure Python form
 * that gives them the module of ABCMeta. */
static int
loads_as(PyObject *cls, const char *name)
{
    PyObject *mro = PyType_Check(cls) ? ((PyTypeObject *)cls)->tp_mro : NULL;

    for (Py_ssize_t i = 0; mro != NULL && i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *base = PyTuple_GET_ITEM(mro, i); /* borrowed */
        PyObject *load = NULL, *own = NULL;
        char text[80];
        int same = 0;

        if (class_text(base, "__name__", text, sizeof(text)) < 0) {
            return -1;
        }
        if (strcmp(text, name) != 0) {
            continue;
        }
        if (class_text(base, "__module__", text, sizeof(text)) < 0) {
            return -1;
        }
        if (!of_psycopg(text)) {
            continue;
        }
        load = PyObject_GetAttrString(base, "load");
        own = load == NULL ? NULL : PyObject_GetAttrString(cls, "load");
        same = own == NULL ? -1 : own == load;
        Py_XDECREF(load);
        Py_XDECREF(own);
        return same;
    }
    return 0;
}

/* *out = an oid attribute of the class.  1 found, 0 absent, -1 exception. */
static int
class_oid(PyObject *cls, const char *name, uint32_t *out)
{
    PyObject *value = PyObject_GetAttrString(cls, name);
    unsigned long oid;

    if (value == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    oid = PyLong_AsUnsignedLong(value);
    Py_DECREF(value);
    if (PyErr_Occurred()) {
        return -1;
    }
    *out = (uint32_t)oid;
    return 1;
}

static int
resolve_array(vnl_codec *codec, PyObject *cls)
{
    PyObject *delimiter = NULL;
    int found = class_oid(cls, "base_oid", &codec->sub);

    if (found <= 0) {
        return found;
    }
    delimiter = PyObject_GetAttrString(cls, "delimiter");
    if (delimiter == NULL) {
        return -1;
    }
    if (PyBytes_Check(delimiter) && PyBytes_GET_SIZE(delimiter) == 1) {
        codec->delimiter = PyBytes_AS_STRING(delimiter)[0];
        codec->fn[0] = vnl_array_text;
    }
    Py_DECREF(delimiter);
    return 0;
}

static int
resolve_range(vnl_codec *codec, PyObject *cls, vnl_decode_fn text)
{
    int found = class_oid(cls, "subtype_oid", &codec->sub);

    if (found > 0) {
        codec->fn[0] = text;
    }
    return found < 0 ? -1 : 0;
}

/* json loaders may carry another loads(); Django's time zone loader a zone. */
static int
resolve_arg(vnl_decode_ctx *ctx, vnl_codec *codec, PyObject *cls)
{
    if (codec->fn[0] == vnl_json_any) {
        codec->arg = PyObject_GetAttrString(cls, "_loads");
        return codec->arg == NULL ? -1 : 0;
    }
    return 0;
}

/* Arrays, ranges and multiranges: psycopg makes a class for each type. */
static int
resolve_container(vnl_codec *codec, PyObject *cls)
{
    int found = loads_as(cls, "ArrayLoader");

    if (found != 0) {
        return found < 0 ? -1 : resolve_array(codec, cls);
    }
    found = loads_as(cls, "RangeLoader");
    if (found != 0) {
        return found < 0 ? -1 : resolve_range(codec, cls, vnl_range_text);
    }
    found = loads_as(cls, "MultirangeLoader");
    if (found != 0) {
        return found < 0 ? -1 : resolve_range(codec, cls, vnl_multirange_text);
    }
    return 0;
}

static int
resolve_class(vnl_decode_ctx *ctx, vnl_codec *codec, PyObject *cls)
{
    char name[80];
    char module[80];

    if (class_text(cls, "__name__", name, sizeof(name)) < 0 ||
        class_text(cls, "__module__", module, sizeof(module)) < 0) {
        return -1;
    }
    if (strcmp(module, "django.db.backends.postgresql.psycopg_any") == 0 &&
        strcmp(name, "SpecificTzLoader") == 0 && codec->oid == VNL_OID_TIMESTAMPTZ) {
        codec->fn[0] = vnl_timestamptz_text;
        codec->arg = PyObject_GetAttrString(cls, "timezone");
        return codec->arg == NULL ? -1 : 0;
    }
    if (of_psycopg(module)) {
        for (size_t i = 0; i < LEN(by_class); i++) {
            if (strcmp(name, by_class[i].name) == 0) {
                codec->fn[0] = by_class[i].text;
                return resolve_arg(ctx, codec, cls);
            }
        }
    }
    return resolve_container(codec, cls);
}

/* A container can be decoded from binary when its elements can. */
static int
resolve_binary(vnl_decode_ctx *ctx, vnl_codec *codec)
{
    vnl_decode_fn text = codec->fn[0];
    vnl_codec *sub = NULL;

    for (size_t i = 0; i < LEN(by_oid); i++) {
        if (by_oid[i].oid == codec->oid && by_oid[i].text == text) {
            codec->fn[1] = by_oid[i].binary;
            return 0;
        }
    }
    if (text == vnl_hstore_text) {
        codec->fn[1] = vnl_hstore_binary;
        return 0;
    }
    if (text != vnl_array_text && text != vnl_range_text && text != vnl_multirange_text) {
        return 0;
    }
    if (codec->sub == codec->oid) {
        codec->fn[0] = vnl_fallback_text;
        return 0;
    }
    sub = vnl_row_codec(ctx, codec->sub);
    if (sub == NULL) {
        return -1;
    }
    if (sub->fn[1] != NULL) {
        codec->fn[1] = text == vnl_array_text   ? vnl_array_binary
                       : text == vnl_range_text ? vnl_range_binary
                                                : vnl_multirange_binary;
    }
    return 0;
}

int
vnl_row_codec_resolve(vnl_decode_ctx *ctx, vnl_codec *codec)
{
    PyObject *cls = PyObject_CallMethod(ctx->adapters, "get_loader", "IO", codec->oid, ctx->st->pq_format[0]);
    int result = -1;

    if (cls == NULL) {
        return -1;
    }
    if (cls == Py_None && codec->oid != 0) {
        /* What is not registered goes by the loader of oid 0. */
        vnl_codec *unknown = vnl_row_codec(ctx, 0);
        if (unknown == NULL) {
            goto done;
        }
        codec->fn[0] = unknown->fn[0];
    }
    else {
        codec->fn[0] = vnl_fallback_text;
        if (cls != Py_None && resolve_class(ctx, codec, cls) < 0) {
            goto done;
        }
    }
    result = resolve_binary(ctx, codec);

done:
    Py_DECREF(cls);
    return result;
}
