/* Python objects -> PostgreSQL parameters and literals.
 *
 * The meaning is that of psycopg's ClientCursor, which Django uses by default:
 * a value has the type that its literal has in SQL.  An int is int4, int8 or
 * numeric by magnitude, a finite float is numeric, str is unknown (oid 0), a
 * list has the array type of its elements.  Which dumper a class has is asked
 * from the context's adapters map, as in decode.h; classes that C does not
 * know go through the registered dumper.
 */
#ifndef VNL_ROW_BIND_H
#define VNL_ROW_BIND_H

#include "row/decode.h"
#include "base/buf.h"

/* A parameter for PQsendQueryParams / PQsendQueryPrepared.  `data` may point
 * into `small` or into memory of `owner` or `heap`: the struct must stay where
 * it is until it is cleared.  data == NULL is SQL NULL.  Text data (format 0)
 * is NUL-terminated, as libpq wants; len is exact in both formats. */
typedef struct vnl_param {
    uint32_t oid; /* 0: the server decides (unknown) */
    int format;   /* 0 text, 1 binary */
    const char *data;
    int len;
    PyObject *owner; /* strong, or NULL */
    char *heap;      /* malloc-ed, or NULL */
    char small[40];
} vnl_param;

/* 0, or -1 with an exception: psycopg.ProgrammingError for a class that cannot
 * be adapted, psycopg.DataError for NUL in text, mixed lists and the like;
 * ValueError never.  `out` needs no initialisation and is left cleared on
 * failure. */
int vnl_bind_value(vnl_decode_ctx *ctx, PyObject *value, vnl_param *out);
void vnl_param_clear(vnl_param *param);

/* Appends the value as a SQL literal in UTF-8, cast where psycopg casts it
 * ('…'::date).  Safe whatever standard_conforming_strings is: text with a
 * backslash becomes E'…'. 0, or -1 with an exception as above. */
int vnl_bind_literal(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out);

#endif
