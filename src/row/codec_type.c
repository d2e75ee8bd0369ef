/* vinyl._postgres._Codec: decoding and binding for the tests and the benchmark,
 * with no connection.  Not a public name. */
#include "row/row.h"

#include <time.h>

typedef struct codec_object {
    PyObject_HEAD
    vnl_decode_ctx *ctx;
} codec_object;

static PyObject *
codec_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"adapters", NULL};
    PyObject *adapters = Py_None;
    PyObject *module = PyType_GetModule(type);
    codec_object *self = NULL;

    if (module == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &adapters)) {
        return NULL;
    }
    self = (codec_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->ctx = vnl_decode_ctx_new(module, Py_IsNone(adapters) ? NULL : adapters);
    if (self->ctx == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
codec_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return vnl_decode_ctx_traverse(((codec_object *)self)->ctx, visit, arg);
}

static void
codec_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    vnl_decode_ctx_free(((codec_object *)self)->ctx);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The bytes in a block of their very size, so that ASan sees one read past it. */
static char *
exact_copy(const char *data, Py_ssize_t len)
{
    char *copy = PyMem_RawMalloc(len > 0 ? (size_t)len : 1);

    if (copy == NULL) {
        PyErr_NoMemory();
    }
    else if (len > 0) {
        memcpy(copy, data, (size_t)len);
    }
    return copy;
}

static PyObject *
codec_decode(PyObject *self, PyObject *args)
{
    vnl_decode_ctx *ctx = ((codec_object *)self)->ctx;
    unsigned int oid;
    int binary;
    const char *data = NULL;
    Py_ssize_t len = 0;
    char *copy = NULL;
    PyObject *value = NULL;

    if (!PyArg_ParseTuple(args, "Ipy#", &oid, &binary, &data, &len)) {
        return NULL;
    }
    copy = exact_copy(data, len);
    if (copy != NULL) {
        value = vnl_decode_value(ctx, oid, binary, copy, (int)len);
        PyMem_RawFree(copy);
    }
    return value;
}

static PyObject *
codec_fallback(PyObject *self, PyObject *args)
{
    unsigned int oid;
    int binary;
    const char *data = NULL;
    Py_ssize_t len = 0;

    if (!PyArg_ParseTuple(args, "Ipy#", &oid, &binary, &data, &len)) {
        return NULL;
    }
    return vnl_decode_fallback(((codec_object *)self)->ctx, oid, binary, data, (int)len);
}

static PyObject *
codec_in_c(PyObject *self, PyObject *args)
{
    unsigned int oid;
    int binary;
    vnl_decode_fn fn = NULL;

    if (!PyArg_ParseTuple(args, "Ip", &oid, &binary)) {
        return NULL;
    }
    fn = vnl_decode_find(((codec_object *)self)->ctx, oid, binary);
    if (fn == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(fn != NULL && fn != vnl_fallback_text);
}

static PyObject *
codec_bind(PyObject *self, PyObject *value)
{
    vnl_param param;
    PyObject *result = NULL;

    if (vnl_bind_value(((codec_object *)self)->ctx, value, &param) < 0) {
        return NULL;
    }
    if (param.data != NULL && param.format == 0 && param.data[param.len] != '\0') {
        PyErr_SetString(PyExc_SystemError, "a text parameter is not NUL-terminated");
    }
    else {
        result =
            Py_BuildValue("Iiy#", (unsigned int)param.oid, param.format, param.data, (Py_ssize_t)param.len);
    }
    vnl_param_clear(&param);
    return result;
}

static PyObject *
codec_literal(PyObject *self, PyObject *value)
{
    vnl_buf buf = VNL_BUF_INIT;
    PyObject *bytes = NULL;

    if (vnl_bind_literal(((codec_object *)self)->ctx, value, &buf) == 0) {
        bytes = PyBytes_FromStringAndSize(buf.data, (Py_ssize_t)buf.len);
    }
    vnl_buf_free(&buf);
    return bytes;
}

static PyObject *
codec_set_parameter(PyObject *self, PyObject *args)
{
    const char *name = NULL;
    const char *value = NULL;

    if (!PyArg_ParseTuple(args, "sz", &name, &value) ||
        vnl_decode_ctx_set_parameter(((codec_object *)self)->ctx, name, value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
codec_flush(PyObject *self, PyObject *unused)
{
    vnl_decode_ctx_flush(((codec_object *)self)->ctx);
    Py_RETURN_NONE;
}

static PyObject *
codec_bench(PyObject *self, PyObject *args)
{
    vnl_decode_ctx *ctx = ((codec_object *)self)->ctx;
    unsigned int oid;
    int binary;
    const char *data = NULL;
    Py_ssize_t len = 0;
    int rounds;
    vnl_decode_fn fn = NULL;
    struct timespec start, end;

    if (!PyArg_ParseTuple(args, "Ipy#i", &oid, &binary, &data, &len, &rounds)) {
        return NULL;
    }
    fn = vnl_decode_find(ctx, oid, binary);
    if (fn == NULL) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_LookupError, "no decoder for oid %u", oid);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < rounds; i++) {
        PyObject *value = fn(ctx, oid, data, (int)len);
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return PyFloat_FromDouble(
        ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) /
        (rounds > 0 ? rounds : 1));
}

static PyMethodDef codec_methods[] = {
    {"decode", codec_decode, METH_VARARGS, "decode(oid, binary, data) -> value"},
    {"fallback", codec_fallback, METH_VARARGS, "fallback(oid, binary, data) -> value, by psycopg's loader"},
    {"in_c", codec_in_c, METH_VARARGS, "in_c(oid, binary) -> whether C decodes it"},
    {"bind", codec_bind, METH_O, "bind(value) -> (oid, format, bytes or None)"},
    {"literal", codec_literal, METH_O, "literal(value) -> bytes of SQL"},
    {"set_parameter", codec_set_parameter, METH_VARARGS, "set_parameter(name, value): a server parameter"},
    {"flush", codec_flush, METH_NOARGS, "forget what was looked up in the adapters map"},
    {"bench", codec_bench, METH_VARARGS, "bench(oid, binary, data, rounds) -> nanoseconds per value"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot codec_slots[] = {
    {Py_tp_new, codec_new},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_methods, codec_methods},
    {Py_tp_doc, "_Codec(adapters=None): PostgreSQL values to Python and back, for tests."},
    {0, NULL},
};

static PyType_Spec codec_spec = {
    .name = "vinyl._postgres._Codec",
    .basicsize = sizeof(codec_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = codec_slots,
};

PyTypeObject *
vnl_row_codec_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &codec_spec, NULL);
}
