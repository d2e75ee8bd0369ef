/* A row of a PGresult, decoded. */
#include "py.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE (4 << 20)
#define STEP ((size_t)1 << 20)

/* The bytes of a large value.  libpq has them twice already, in its input
 * buffer and in the result.  A row is read once, so that the result's pages go
 * back to the system as they are copied: the third copy takes the second's place. */
static PyObject *
take_large(char *data, size_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (bytes == NULL) {
        return NULL;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *out = PyBytes_AS_STRING(bytes);
    char *whole = (char *)(((uintptr_t)data + page - 1) / page * page); /* the first page that is all ours */
    for (size_t at = 0; at < len; at += STEP) {
        size_t n = len - at < STEP ? len - at : STEP;
        memcpy(out + at, data + at, n);
        char *end = (char *)((uintptr_t)(data + at + n) / page * page);
        if (end > whole) {
            (void)madvise(whole, (size_t)(end - whole), MADV_DONTNEED);
            whole = end;
        }
    }
    return bytes;
}

/* New reference.  Each call of libpq checks its arguments: no more of them than needed. */
static PyObject *
decode_cell(pg_cursor *cur, vnl_decode_ctx *ctx, int row, int i)
{
    int len = PQgetlength(cur->result, row, i); /* 0 for NULL too */
    if (len == 0 && PQgetisnull(cur->result, row, i)) {
        Py_RETURN_NONE;
    }
    char *data = PQgetvalue(cur->result, row, i);
    vnl_decode_fn decode = cur->columns[i].decode;
    if (len >= LARGE && vnl_decode_is_bytes(decode)) {
        return take_large(data, (size_t)len);
    }
    return decode != NULL ? decode(ctx, cur->columns[i].oid, data, len)
                          : vnl_decode_fallback(ctx, cur->columns[i].oid, cur->binary, data, len);
}

int
pg_cursor_cells(pg_cursor *cur, int row, PyObject **cells)
{
    vnl_decode_ctx *ctx = pg_link_ctx(cur->link);
    int count = cur->ncols;
    for (int i = 0; i < count; i++) {
        cells[i] = decode_cell(cur, ctx, row, i);
        if (cells[i] == NULL) {
            while (--i >= 0) {
                Py_CLEAR(cells[i]);
            }
            return -1;
        }
    }
    return count;
}

PyObject *
pg_cursor_row(pg_cursor *cur, int row)
{
    PyObject *tuple = PyTuple_New(cur->ncols);
    if (tuple != NULL && pg_cursor_cells(cur, row, ((PyTupleObject *)tuple)->ob_item) < 0) {
        Py_CLEAR(tuple);
    }
    return tuple;
}

/* --- rows for the core's loops */

static int
source_columns(PyObject *op)
{
    const pg_cursor *cur = (pg_cursor *)op;
    if (cur->link == NULL || cur->closed || cur->result == NULL) {
        return 0;
    }
    if (cur->name != NULL) {
        return cur->declared ? PQnfields(cur->result) : 0;
    }
    return PQresultStatus(cur->result) == PGRES_TUPLES_OK ? cur->ncols : 0;
}

/* Waits for a server-side cursor alone: else all rows are here. */
static int
source_next_wait(PyObject *op, PyObject **cells, int columns, int rows)
{
    pg_cursor *cur = (pg_cursor *)op;
    int n = 0;
    if (cur->closed || cur->pos >= cur->nrows) {
        int rc = pg_cursor_check_rows(cur);
        if (rc < 0 || cur->name == NULL) {
            return rc;
        }
        rc = pg_named_fill_wait(cur, cur->itersize);
        if (rc <= 0) {
            return rc;
        }
    }
    if (cur->ncols != columns) {
        pg_raise(cur->link->state, "ProgrammingError", "the cursor was executed while its rows were read");
        return -1;
    }
    /* A loader registered by a project may do anything to the cursor. */
    for (; n < rows && cur->pos < cur->nrows && cur->ncols == columns; n++) {
        if (pg_cursor_cells(cur, cur->pos++, cells + (Py_ssize_t)n * columns) < 0) {
            for (int i = 0; i < n * columns; i++) {
                Py_CLEAR(cells[i]);
            }
            return -1;
        }
    }
    return n;
}

const vnl_row_source pg_cursor_source = {source_columns, source_next_wait};
