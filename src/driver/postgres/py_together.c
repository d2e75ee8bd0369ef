/* Connection.execute_together(): several statements, each with a cursor of its own. */
#include "py.h"

#include <string.h>

typedef struct {
    pg_link *link;
    PyObject *cursors; /* a list */
    pg_leg *legs;
    int n;
} together;

static void
together_clear(together *self)
{
    for (int i = 0; i < self->n && self->legs != NULL; i++) {
        pg_request_clear(&self->legs[i].request);
        PQclear(self->legs[i].result);
    }
    PyMem_Free(self->legs);
    Py_CLEAR(self->cursors);
}

static pg_cursor *
cursor_of(const together *self, int i)
{
    return (pg_cursor *)PyList_GET_ITEM(self->cursors, i);
}

static pg_binding
binding_of(const pg_cursor *cur)
{
    return cur->server_side ? PG_BIND_SERVER : PG_BIND_AUTO;
}

/* A cursor for each statement: 0, or -1 with an exception. */
static int
prepare(together *self, PyObject *statements)
{
    PyObject *fast = PySequence_Tuple(statements);
    Py_ssize_t n = fast != NULL ? PyTuple_GET_SIZE(fast) : 0;
    self->cursors = fast != NULL && n < INT_MAX ? PyList_New(0) : NULL;
    int rc = self->cursors != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; i < n && rc == 0; i++) {
        PyObject *pair = PyTuple_GET_ITEM(fast, i);
        PyObject *query = NULL, *params = NULL;
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "OO", &query, &params)) {
            PyErr_SetString(PyExc_TypeError,
                            "execute_together() takes pairs of a statement and its parameters");
            rc = -1;
            break;
        }
        PyObject *cursor = pg_cursor_new(self->link, NULL, -1, 0, -1);
        rc = cursor == NULL || pg_cursor_set_statement((pg_cursor *)cursor, query, params) < 0 ||
                     PyList_Append(self->cursors, cursor) < 0
                 ? -1
                 : 0;
        Py_XDECREF(cursor);
    }
    Py_XDECREF(fast);
    return rc;
}

/* Whether all of them may be one flight.  -1 with an exception. */
static int
fits_wait(together *self, int reads)
{
    pg_link *link = self->link;
    int n = (int)PyList_GET_SIZE(self->cursors);
    if (n < 2 || (link->autocommit && !reads)) {
        return 0;
    }
    if ((self->legs = PyMem_Calloc((size_t)n, sizeof(*self->legs))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < n; i++) {
        const pg_cursor *cur = cursor_of(self, i);
        if (pg_request_init(link->state, &self->legs[i].request, pg_link_ctx(link), cur->sql, cur->params,
                            binding_of(cur)) < 0) {
            return -1;
        }
        self->n = i + 1;
        self->legs[i].sync = link->autocommit;
    }
    if (pg_link_attach_wait(link) < 0) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (!pg_flight_fits(link, &self->legs[i].request, i == 0)) {
            return 0;
        }
    }
    return 1;
}

static int
run_alone_wait(pg_cursor *cur)
{
    PGresult *result = NULL;
    return pg_cursor_run_wait(cur, binding_of(cur), &result) < 0 ? -1 : pg_cursor_take(cur, result);
}

static int
run_wait(together *self, int reads)
{
    int fits = fits_wait(self, reads);
    int n = (int)PyList_GET_SIZE(self->cursors);
    if (fits < 0 || (fits && pg_flight_run_wait(self->link, self->legs, self->n, NULL) < 0)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        pg_leg *leg = fits ? &self->legs[i] : NULL;
        int rc = 0;
        if (leg == NULL || leg->again) {
            rc = run_alone_wait(cursor_of(self, i));
        }
        else if (leg->status == VNL_PG_OK) {
            PGresult *result = leg->result;
            leg->result = NULL;
            rc = pg_cursor_take(cursor_of(self, i), result);
        }
        else {
            rc = pg_flight_raise(self->link, leg, n - i);
        }
        if (rc < 0) {
            return -1;
        }
    }
    return pg_link_notices(self->link);
}

PyObject *
pg_link_execute_together(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"statements", "reads", NULL};
    PyObject *statements = NULL, *cursors = NULL;
    int reads = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p", keywords, &statements, &reads)) {
        return NULL;
    }
    together *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL) {
        return PyErr_NoMemory();
    }
    self->link = (pg_link *)op;
    if (prepare(self, statements) == 0 && pg_link_enter_wait(self->link) == 0) {
        if (run_wait(self, reads) == 0) {
            cursors = Py_NewRef(self->cursors);
        }
        pg_link_leave(self->link);
    }
    together_clear(self);
    PyMem_Free(self);
    return cursors;
}
