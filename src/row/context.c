/* A decoding context: an adapters map, and what was looked up in it. */
#include "row/row.h"

#include <stdlib.h>

static void
codec_free(vnl_codec *codec)
{
    if (codec != NULL) {
        Py_XDECREF(codec->arg);
        Py_XDECREF(codec->load[0]);
        Py_XDECREF(codec->load[1]);
        free(codec);
    }
}

vnl_decode_ctx *
vnl_decode_ctx_new(PyObject *module, PyObject *adapters)
{
    vnl_row_state *st = vnl_row_state_of(module);
    vnl_decode_ctx *ctx = NULL;

    if (st == NULL || vnl_row_state_load(st) < 0) {
        return NULL;
    }
    ctx = calloc(1, sizeof(*ctx));
    if (ctx == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    ctx->st = (vnl_row_state *)Py_NewRef(st);
    ctx->adapters = Py_NewRef(adapters ? adapters : st->default_map);
    ctx->server_tz = Py_NewRef(st->dt->TimeZone_UTC);
    ctx->interval_postgres = 1;
    return ctx;
}

void
vnl_decode_ctx_flush(vnl_decode_ctx *ctx)
{
    vnl_codec **codecs = ctx->codecs;
    uint32_t cap = ctx->codecs_cap;

    ctx->codecs = NULL;
    ctx->codecs_cap = ctx->codecs_used = 0;
    for (uint32_t i = 0; i < cap; i++) {
        codec_free(codecs[i]);
    }
    free(codecs);
    for (int i = 0; i < VNL_CLASS_SLOTS; i++) {
        Py_CLEAR(ctx->classes[i].type);
    }
    Py_CLEAR(ctx->transformer);
}

void
vnl_decode_ctx_free(vnl_decode_ctx *ctx)
{
    if (ctx == NULL) {
        return;
    }
    vnl_decode_ctx_flush(ctx);
    Py_CLEAR(ctx->adapters);
    Py_CLEAR(ctx->server_tz);
    free(ctx->tz_name);
    free(ctx->date_style_name);
    Py_DECREF(ctx->st);
    free(ctx);
}

int
vnl_decode_ctx_traverse(vnl_decode_ctx *ctx, visitproc visit, void *arg)
{
    if (ctx == NULL) {
        return 0;
    }
    Py_VISIT(ctx->st);
    Py_VISIT(ctx->adapters);
    Py_VISIT(ctx->transformer);
    Py_VISIT(ctx->server_tz);
    for (uint32_t i = 0; i < ctx->codecs_cap; i++) {
        if (ctx->codecs[i] != NULL) {
            Py_VISIT(ctx->codecs[i]->arg);
            Py_VISIT(ctx->codecs[i]->load[0]);
            Py_VISIT(ctx->codecs[i]->load[1]);
        }
    }
    for (int i = 0; i < VNL_CLASS_SLOTS; i++) {
        Py_VISIT(ctx->classes[i].type);
    }
    return 0;
}

PyObject *
vnl_decode_ctx_adapters(vnl_decode_ctx *ctx)
{
    return ctx->adapters;
}

int
vnl_decode_ctx_set_adapters(vnl_decode_ctx *ctx, PyObject *adapters)
{
    if (adapters == NULL) {
        adapters = ctx->st->default_map;
    }
    if (adapters != ctx->adapters) {
        vnl_decode_ctx_flush(ctx);
        Py_SETREF(ctx->adapters, Py_NewRef(adapters));
    }
    return 0;
}

/* The zone of a server's name for it; UTC where Python does not know it, as
 * psycopg does (e.g. a POSIX name such as "<+03>-03"). */
static PyObject *
zone_of(vnl_row_state *st, const char *name)
{
    PyObject *zone = NULL;

    if (strcmp(name, "UTC") == 0) {
        return Py_NewRef(st->dt->TimeZone_UTC);
    }
    zone = PyDict_GetItemString(st->zones, name); /* borrowed */
    if (zone != NULL) {
        return Py_NewRef(zone);
    }
    zone = PyObject_CallFunction(st->ZoneInfo, "s", name);
    if (zone == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return NULL;
        }
        PyErr_Clear();
        zone = Py_NewRef(st->dt->TimeZone_UTC);
    }
    if (PyDict_SetItemString(st->zones, name, zone) < 0) {
        Py_CLEAR(zone);
    }
    return zone;
}

/* 1 when *kept was replaced, 0 when it is the same, -1 out of memory. */
static int
keep(char **kept, const char *value)
{
    char *copy = NULL;

    if (*kept != NULL && strcmp(*kept, value) == 0) {
        return 0;
    }
    copy = strdup(value);
    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    free(*kept);
    *kept = copy;
    return 1;
}

static int
set_time_zone(vnl_decode_ctx *ctx, const char *value)
{
    int changed = keep(&ctx->tz_name, value);

    if (changed > 0) {
        PyObject *zone = zone_of(ctx->st, value);
        if (zone == NULL) {
            free(ctx->tz_name);
            ctx->tz_name = NULL;
            return -1;
        }
        Py_SETREF(ctx->server_tz, zone);
    }
    return changed < 0 ? -1 : 0;
}

static int
set_date_style(vnl_decode_ctx *ctx, const char *value)
{
    if (keep(&ctx->date_style_name, value) < 0) {
        return -1;
    }
    ctx->date_dmy = strstr(value, "DMY") != NULL;
    switch (value[0]) {
    case 'G':
        ctx->date_style = VNL_STYLE_GERMAN;
        ctx->date_dmy = 1;
        break;
    case 'S':
        ctx->date_style = VNL_STYLE_SQL;
        break;
    case 'P':
        ctx->date_style = VNL_STYLE_POSTGRES;
        break;
    default:
        ctx->date_style = VNL_STYLE_ISO;
    }
    return 0;
}

int
vnl_decode_ctx_set_parameter(vnl_decode_ctx *ctx, const char *name, const char *value)
{
    if (value == NULL) {
        return 0;
    }
    if (strcmp(name, "TimeZone") == 0) {
        return set_time_zone(ctx, value);
    }
    if (strcmp(name, "DateStyle") == 0) {
        return set_date_style(ctx, value);
    }
    if (strcmp(name, "IntervalStyle") == 0) {
        ctx->interval_postgres = strcmp(value, "postgres") == 0;
        ctx->interval_sql = strcmp(value, "sql_standard") == 0;
    }
    return 0;
}

/* --- the table of codecs */
static vnl_codec **
codec_slot(vnl_codec **codecs, uint32_t cap, uint32_t oid)
{
    uint32_t i = (oid * UINT32_C(2654435761)) >> 7;

    while (codecs[i & (cap - 1)] != NULL && codecs[i & (cap - 1)]->oid != oid) {
        i++;
    }
    return &codecs[i & (cap - 1)];
}

static int
codecs_grow(vnl_decode_ctx *ctx)
{
    uint32_t cap = ctx->codecs_cap ? ctx->codecs_cap * 2 : 32;
    vnl_codec **codecs = calloc(cap, sizeof(*codecs));

    if (codecs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < ctx->codecs_cap; i++) {
        if (ctx->codecs[i] != NULL) {
            *codec_slot(codecs, cap, ctx->codecs[i]->oid) = ctx->codecs[i];
        }
    }
    free(ctx->codecs);
    ctx->codecs = codecs;
    ctx->codecs_cap = cap;
    return 0;
}

vnl_codec *
vnl_row_codec(vnl_decode_ctx *ctx, uint32_t oid)
{
    vnl_codec *codec = NULL;
    vnl_codec **slot = NULL;

    if (ctx->codecs_cap != 0) {
        slot = codec_slot(ctx->codecs, ctx->codecs_cap, oid);
        if (*slot != NULL) {
            return *slot;
        }
    }
    codec = calloc(1, sizeof(*codec));
    if (codec == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    codec->oid = oid;
    /* Resolving may call Python, and so look up other oids: insert afterwards. */
    if (vnl_row_codec_resolve(ctx, codec) < 0) {
        goto fail;
    }
    if ((ctx->codecs_used + 1) * 2 > ctx->codecs_cap && codecs_grow(ctx) < 0) {
        goto fail;
    }
    slot = codec_slot(ctx->codecs, ctx->codecs_cap, oid);
    if (*slot != NULL) {
        codec_free(codec);
        return *slot;
    }
    ctx->codecs_used++;
    *slot = codec;
    return codec;

fail:
    codec_free(codec);
    return NULL;
}

vnl_decode_fn
vnl_decode_find(vnl_decode_ctx *ctx, uint32_t oid, int binary)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    return codec ? codec->fn[binary != 0] : NULL;
}

/* --- psycopg's own loaders */
PyObject *
vnl_row_transformer(vnl_decode_ctx *ctx)
{
    if (ctx->transformer == NULL) {
        ctx->transformer = PyObject_CallOneArg(ctx->st->Transformer, ctx->adapters);
    }
    return ctx->transformer;
}

PyObject *
vnl_decode_fallback(vnl_decode_ctx *ctx, uint32_t oid, int binary, const char *data, int len)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);
    PyObject *bytes = NULL;
    PyObject *load = NULL;
    PyObject *result = NULL;

    if (codec == NULL) {
        return NULL;
    }
    binary = binary != 0;
    if (codec->load[binary] == NULL) {
        PyObject *transformer = vnl_row_transformer(ctx);
        PyObject *loader = NULL;
        if (transformer == NULL) {
            return NULL;
        }
        loader = PyObject_CallMethod(transformer, "get_loader", "IO", oid, ctx->st->pq_format[binary]);
        if (loader == NULL) {
            return NULL;
        }
        load = PyObject_GetAttr(loader, ctx->st->str_load);
        Py_DECREF(loader);
        codec = load ? vnl_row_codec(ctx, oid) : NULL; /* Python code may have flushed */
        if (codec == NULL) {
            Py_XDECREF(load);
            return NULL;
        }
        Py_XSETREF(codec->load[binary], load);
    }
    load = Py_NewRef(codec->load[binary]); /* a loader may flush the context */
    bytes = PyBytes_FromStringAndSize(data, len);
    if (bytes != NULL) {
        result = PyObject_CallOneArg(load, bytes);
    }
    Py_XDECREF(bytes);
    Py_DECREF(load);
    return result;
}

PyObject *
vnl_fallback_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    return vnl_decode_fallback(ctx, oid, 0, data, len);
}

PyObject *
vnl_decode_value(vnl_decode_ctx *ctx, uint32_t oid, int binary, const char *data, int len)
{
    vnl_decode_fn fn = vnl_decode_find(ctx, oid, binary);

    if (fn != NULL) {
        return fn(ctx, oid, data, len);
    }
    return PyErr_Occurred() ? NULL : vnl_decode_fallback(ctx, oid, binary, data, len);
}
