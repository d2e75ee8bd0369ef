/* PostgreSQL values -> Python objects.
 *
 * What a type decodes to is what psycopg 3's *text* loaders give with the
 * adapters map that Django configures (django.db.backends.postgresql.
 * psycopg_any.get_adapters_template), whichever wire format the value came
 * in: jsonb, inet and cidr are str, timestamptz is in Django's time zone.
 * The adapters map is asked which loader class an oid has; where that is a
 * class of psycopg's or Django's own that C implements, C decodes, else the
 * loader itself is called (vnl_decode_fallback).  So a project's own
 * register_loader(), register_hstore(), register_range() … are honoured.
 *
 * Wire formats: PostgreSQL's src/backend/utils/adt/ the send and out functions of each type.
 * Garbled bytes raise psycopg.DataError, never read out of bounds.
 *
 * A context is used by one thread at a time (GIL), and never suspends.
 */
#ifndef VNL_ROW_DECODE_H
#define VNL_ROW_DECODE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

typedef struct vnl_decode_ctx vnl_decode_ctx;

/* New reference, or NULL with an exception.  `data` is never NULL (SQL NULL
 * is the caller's business), need not be NUL-terminated, and is not kept. */
typedef PyObject *(*vnl_decode_fn)(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len);

/* Once per module, in Py_mod_exec: caches the classes and functions that
 * decoding and binding use in a GC-tracked object kept in the module's dict,
 * and adds the test helper class _Codec.  psycopg is imported by the first
 * context: importing the module works without it.  -1 with an exception. */
int vnl_row_init(PyObject *module);

/* A context costs about a microsecond and holds strong references; one per
 * link, or one per physical connection.  `adapters` is a psycopg AdaptersMap,
 * e.g. AdaptersMap(get_adapters_template(settings.USE_TZ, wrapper.timezone));
 * NULL means psycopg.adapters.  NULL with an exception (ImportError when
 * psycopg is missing). */
vnl_decode_ctx *vnl_decode_ctx_new(PyObject *module, PyObject *adapters);
/* Takes NULL. */
void vnl_decode_ctx_free(vnl_decode_ctx *ctx);
int vnl_decode_ctx_traverse(vnl_decode_ctx *ctx, visitproc visit, void *arg);

/* Borrowed. */
PyObject *vnl_decode_ctx_adapters(vnl_decode_ctx *ctx);
/* Another map; nothing happens when it is the same object. */
int vnl_decode_ctx_set_adapters(vnl_decode_ctx *ctx, PyObject *adapters);
/* Forget what was looked up in the map.  Call it whenever Python code may
 * have changed the map: from the getter of `link.adapters`. */
void vnl_decode_ctx_flush(vnl_decode_ctx *ctx);

/* Tell the context a reported server parameter (PQparameterStatus): it wants
 * "TimeZone", "DateStyle", "IntervalStyle" and ignores all others.  Cheap when
 * the value did not change; value may be NULL.  Call when a physical
 * connection is attached and after SET/RESET/ROLLBACK/function calls may have
 * changed them.  Only the text format depends on the two styles. */
int vnl_decode_ctx_set_parameter(vnl_decode_ctx *ctx, const char *name, const char *value);

/* The decoder of `oid` in text (binary = 0) or binary (1) format, or NULL with
 * no exception set when C cannot decode it in that format: then ask for text,
 * which always works (find never answers NULL for text of an oid that has no
 * registered loader: that is str), or use the fallback.  NULL with an
 * exception set on failure: check PyErr_Occurred() only on NULL. */
vnl_decode_fn vnl_decode_find(vnl_decode_ctx *ctx, uint32_t oid, int binary);

/* Whether it copies a value's bytes as they are (bytea in binary). */
int vnl_decode_is_bytes(vnl_decode_fn decode);

/* Through the registered psycopg loader; str (text) or bytes (binary) where
 * nothing is registered.  New reference or NULL. */
PyObject *vnl_decode_fallback(vnl_decode_ctx *ctx, uint32_t oid, int binary, const char *data, int len);

/* find + fallback in one: always decodes.  For rows, look the functions up
 * once per column instead. */
PyObject *vnl_decode_value(vnl_decode_ctx *ctx, uint32_t oid, int binary, const char *data, int len);

#endif
