/* Module-wide references of src/row. */
#include "row/row.h"

#include <stdarg.h>

static const char state_name[] = "_row";

static int
state_traverse(PyObject *self, visitproc visit, void *arg)
{
    vnl_row_state *st = (vnl_row_state *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(st->codec_type);
    Py_VISIT(st->Decimal);
    Py_VISIT(st->json_loads);
    Py_VISIT(st->json_dumps);
    Py_VISIT(st->ZoneInfo);
    Py_VISIT(st->zones);
    Py_VISIT(st->DataError);
    Py_VISIT(st->Transformer);
    Py_VISIT(st->Range);
    Py_VISIT(st->Multirange);
    Py_VISIT(st->Promise);
    Py_VISIT(st->Binary);
    Py_VISIT(st->default_map);
    Py_VISIT(st->pq_format[0]);
    Py_VISIT(st->pq_format[1]);
    Py_VISIT(st->py_text);
    return vnl_uuids_traverse(&st->uuids, visit, arg);
}

static int
state_clear(PyObject *self)
{
    vnl_row_state *st = (vnl_row_state *)self;
    vnl_numeric *numerics = st->numerics;

    st->numerics = NULL;
    for (int i = 0; numerics != NULL && i < VNL_NUMERICS; i++) {
        Py_CLEAR(numerics[i].value);
    }
    PyMem_Free(numerics);
    Py_CLEAR(st->codec_type);
    Py_CLEAR(st->Decimal);
    vnl_uuids_clear(&st->uuids);
    Py_CLEAR(st->json_loads);
    Py_CLEAR(st->json_dumps);
    Py_CLEAR(st->ZoneInfo);
    Py_CLEAR(st->zones);
    Py_CLEAR(st->str_utcoffset);
    Py_CLEAR(st->str_fromutc);
    Py_CLEAR(st->str_obj);
    Py_CLEAR(st->str_dumps);
    Py_CLEAR(st->str_load);
    Py_CLEAR(st->str_days);
    Py_CLEAR(st->str_seconds);
    Py_CLEAR(st->str_microseconds);
    Py_CLEAR(st->DataError);
    Py_CLEAR(st->Transformer);
    Py_CLEAR(st->Range);
    Py_CLEAR(st->Multirange);
    Py_CLEAR(st->Promise);
    Py_CLEAR(st->Binary);
    Py_CLEAR(st->default_map);
    Py_CLEAR(st->pq_format[0]);
    Py_CLEAR(st->pq_format[1]);
    Py_CLEAR(st->py_text);
    return 0;
}

static void
state_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    state_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot state_slots[] = {
    {Py_tp_dealloc, state_dealloc},
    {Py_tp_traverse, state_traverse},
    {Py_tp_clear, state_clear},
    {0, NULL},
};

static PyType_Spec state_spec = {
    .name = "vinyl._postgres._RowState",
    .basicsize = sizeof(vnl_row_state),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = state_slots,
};

/* New reference: module.name. */
static PyObject *
import_attr(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = NULL;

    if (module != NULL) {
        value = PyObject_GetAttrString(module, name);
        Py_DECREF(module);
    }
    return value;
}

static int
state_fill(vnl_row_state *st)
{
    st->dt = PyCapsule_Import(PyDateTime_CAPSULE_NAME, 0);
    if (st->dt == NULL || (st->Decimal = import_attr("decimal", "Decimal")) == NULL ||
        vnl_uuids_init(&st->uuids) < 0 || (st->json_loads = import_attr("json", "loads")) == NULL ||
        (st->json_dumps = import_attr("json", "dumps")) == NULL ||
        (st->ZoneInfo = import_attr("zoneinfo", "ZoneInfo")) == NULL || (st->zones = PyDict_New()) == NULL) {
        return -1;
    }
    st->str_utcoffset = PyUnicode_InternFromString("utcoffset");
    st->str_fromutc = PyUnicode_InternFromString("fromutc");
    st->str_obj = PyUnicode_InternFromString("obj");
    st->str_dumps = PyUnicode_InternFromString("dumps");
    st->str_load = PyUnicode_InternFromString("load");
    st->str_days = PyUnicode_InternFromString("days");
    st->str_seconds = PyUnicode_InternFromString("seconds");
    st->str_microseconds = PyUnicode_InternFromString("microseconds");
    if (st->str_utcoffset == NULL || st->str_fromutc == NULL || st->str_obj == NULL ||
        st->str_dumps == NULL || st->str_load == NULL || st->str_days == NULL || st->str_seconds == NULL ||
        st->str_microseconds == NULL) {
        return -1;
    }
    st->numerics = PyMem_Calloc(VNL_NUMERICS, sizeof(*st->numerics));
    if (st->numerics == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int
vnl_row_init(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &state_spec, NULL);
    vnl_row_state *st = NULL;
    int result = -1;

    if (type == NULL) {
        return -1;
    }
    st = (vnl_row_state *)((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    if (st == NULL || state_fill(st) < 0) {
        goto done;
    }
    st->codec_type = vnl_row_codec_type(module);
    if (st->codec_type == NULL || PyModule_AddObjectRef(module, "_Codec", (PyObject *)st->codec_type) < 0 ||
        PyModule_AddObjectRef(module, state_name, (PyObject *)st) < 0) {
        goto done;
    }
    result = 0;

done:
    Py_XDECREF(st);
    Py_DECREF(type);
    return result;
}

vnl_row_state *
vnl_row_state_of(PyObject *module)
{
    PyObject *dict = PyModule_GetDict(module); /* borrowed */
    PyObject *st = PyDict_GetItemString(dict, state_name);

    if (st == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_SystemError, "vnl_row_init() was not called for this module");
    }
    return (vnl_row_state *)st;
}

int
vnl_row_state_load(vnl_row_state *st)
{
    PyObject *format = NULL;
    PyObject *py_format = NULL;
    int result = -1;

    if (st->DataError != NULL) {
        return 0;
    }
    if ((format = import_attr("psycopg.pq", "Format")) == NULL ||
        (py_format = import_attr("psycopg.adapt", "PyFormat")) == NULL) {
        goto done;
    }
    Py_XSETREF(st->pq_format[0], PyObject_GetAttrString(format, "TEXT"));
    Py_XSETREF(st->pq_format[1], PyObject_GetAttrString(format, "BINARY"));
    Py_XSETREF(st->py_text, PyObject_GetAttrString(py_format, "TEXT"));
    if (st->pq_format[0] == NULL || st->pq_format[1] == NULL || st->py_text == NULL) {
        goto done;
    }
    Py_XSETREF(st->Transformer, import_attr("psycopg.adapt", "Transformer"));
    Py_XSETREF(st->Range, st->Transformer ? import_attr("psycopg.types.range", "Range") : NULL);
    Py_XSETREF(st->Multirange, st->Range ? import_attr("psycopg.types.multirange", "Multirange") : NULL);
    Py_XSETREF(st->default_map, st->Multirange ? import_attr("psycopg", "adapters") : NULL);
    Py_XSETREF(st->Promise, st->default_map ? import_attr("django.utils.functional", "Promise") : NULL);
    Py_XSETREF(st->Binary, st->Promise ? import_attr("psycopg", "Binary") : NULL);
    if (st->Binary == NULL) {
        goto done;
    }
    st->DataError = import_attr("psycopg", "DataError");
    result = st->DataError == NULL ? -1 : 0;

done:
    Py_XDECREF(format);
    Py_XDECREF(py_format);
    return result;
}

PyObject *
vnl_row_error(vnl_decode_ctx *ctx, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PyErr_FormatV(ctx->st->DataError, format, args);
    va_end(args);
    return NULL;
}

PyObject *
vnl_row_bad(vnl_decode_ctx *ctx, const char *type, int binary, const char *data, int len)
{
    int shown = len > 60 ? 60 : len;
    PyObject *value = NULL;
    PyObject *bytes = NULL;

    if (binary) {
        bytes = PyBytes_FromStringAndSize(data, shown);
        value = bytes ? PyObject_CallMethod(bytes, "hex", NULL) : NULL;
    }
    else {
        value = PyUnicode_DecodeUTF8(data, shown, "replace");
    }
    if (value != NULL) {
        PyErr_Format(ctx->st->DataError, "can't decode %s: %R%s (%s format, %d bytes)", type, value,
                     shown < len ? "..." : "", binary ? "binary" : "text", len);
    }
    Py_XDECREF(value);
    Py_XDECREF(bytes);
    return NULL;
}
