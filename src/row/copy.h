/* Values <-> the fields of COPY's text format; loading is decode.h's. */
#ifndef VNL_ROW_COPY_H
#define VNL_ROW_COPY_H

#include "base/buf.h"
#include "row/decode.h"

/* Appends a field, as psycopg's text dumpers give it and escaped; \N for None.
 * 0, or -1 with an exception. */
int vnl_copy_dump(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out);
/* Appends the bytes of an object with a buffer.  0, or -1 with an exception. */
int vnl_copy_put_bytes(PyObject *data, vnl_buf *out);
/* Check the buffer afterwards. */
void vnl_copy_escape(const char *data, size_t len, vnl_buf *out);
/* What the server escapes. */
void vnl_copy_unescape(const char *data, size_t len, vnl_buf *out);

#endif
