/* The rows that a loop goes over, one at a time. */
#ifndef VNL_MODEL_ROWS_H
#define VNL_MODEL_ROWS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "core_api.h"

typedef struct {
    PyObject *rows;               /* owned: a cursor, or an iterator of tuples or lists */
    const vnl_row_source *source; /* of the cursor; NULL for an iterator */
    PyObject **cells;             /* of the row under way: `count` owned references */
    Py_ssize_t count;
    PyObject **block; /* the row under way and those that were read with it */
    Py_ssize_t room;  /* of the block, in cells */
    int at, filled;   /* rows of the block */
    Py_ssize_t left;  /* rows that may still be asked for */
    int columns;
} vnl_rows;

/* The engines' way to say how a cursor is read (core_api.h). */
void vnl_rows_register(PyObject *cursor_type, const vnl_row_source *source);

/* Whether they are a cursor that is read without a tuple for each row. */
int vnl_rows_are_a_source(PyObject *rows);

/* `most` rows, -1: all.  0, or -1 with an exception; vnl_rows_close in any case. */
int vnl_rows_open(vnl_rows *self, PyObject *rows, Py_ssize_t most);
/* 1 with a row's cells, 0 at the end, -1 with an exception.  The cells are
 * the caller's to change, until the next call. */
int vnl_rows_next_wait(vnl_rows *self);
void vnl_rows_close(vnl_rows *self);

#endif
