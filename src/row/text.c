/* text and everything whose value is its text; the client encoding is UTF-8. */
#include "row/row.h"

PyObject *
vnl_text_any(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    PyObject *text = vnl_text_new(data, len);

    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return vnl_row_bad(ctx, "text (not UTF-8)", 0, data, len);
    }
    return text;
}
