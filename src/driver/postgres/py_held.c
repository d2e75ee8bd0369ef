/* Statements that are kept inside a transaction, and sent with the next one or with COMMIT.
 *
 * Only while somebody has said that nobody looks at what they answer (Connection.hold()), only those of the
 * fiber that has said so, and only what has run well on this connection before: what is wrong with a
 * statement itself is raised where it is executed.  An error that remains, of a constraint, is raised by what
 * carries it.
 */
#include "py.h"

#include <string.h>

#define MAX_HELD 16 /* then the next one carries them */

typedef struct pg_held {
    const void *who;      /* whose statements are kept */
    PyObject *beginnings; /* a tuple of str: how those statements begin */
    int count;
    pg_leg legs[MAX_HELD + 1]; /* one more for who carries them */
} pg_held;

int
pg_held_any(const pg_link *link)
{
    return link->held != NULL && link->held->count > 0;
}

static void
legs_clear(pg_leg *legs, int n)
{
    for (int i = 0; i < n; i++) {
        pg_request_clear(&legs[i].request);
        PQclear(legs[i].result);
    }
}

void
pg_held_drop(pg_link *link)
{
    if (pg_held_any(link)) {
        int n = link->held->count;
        link->held->count = 0;
        legs_clear(link->held->legs, n);
    }
}

void
pg_held_end(pg_link *link)
{
    pg_held *held = link->held;
    pg_held_drop(link);
    link->held = NULL;
    if (held != NULL) {
        Py_CLEAR(held->beginnings);
        PyMem_Free(held);
    }
}

/* Whether the cursor's statement begins as those do that are kept.  -1 with an exception. */
static int
is_wanted(const pg_held *held, PyObject *sql)
{
    int wanted = 0;
    if (held->who != vnl_pg_core->who()) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(held->beginnings) && wanted == 0; i++) {
        wanted = (int)PyUnicode_Tailmatch(sql, PyTuple_GET_ITEM(held->beginnings, i), 0, PY_SSIZE_T_MAX, -1);
    }
    return wanted;
}

/* Whether it may be kept: it gives no rows, and ran well here before. */
static int
may_be_kept(const pg_link *link, const pg_request *request)
{
    int flags = request->sql->flags;
    PGTransactionStatusType txn = vnl_pg_txn(link->conn);
    if (link->autocommit || link->held->count == MAX_HELD ||
        (txn != PQTRANS_IDLE && txn != PQTRANS_INTRANS) || !(flags & VNL_SQL_WRITES) ||
        (flags & VNL_SQL_ROWS) || !pg_flight_fits(link, request, 1)) {
        return 0;
    }
    const vnl_pg_stmt *stmt = vnl_pg_stmts_find(&link->conn->stmts, request->text.data, request->text.len,
                                                request->oids, request->nparams);
    return stmt != NULL && stmt->ran;
}

/* Moves the request behind those that are held. */
static void
add(pg_held *held, pg_request *request)
{
    held->legs[held->count++] = (pg_leg){.request = *request};
    memset(request, 0, sizeof(*request));
}

/* The flight has failed, which whoever had them kept may not hear of: should they not have been sent while
 * their transaction is whole, it is given up.  Keeps the exception. */
static void
lose_unsent(pg_link *link, const pg_leg *legs)
{
    int told = link->broken || (link->conn != NULL && vnl_pg_txn(link->conn) == PQTRANS_INERROR);
    if (legs[0].result == NULL && !told) {
        PyObject *type = NULL, *value = NULL, *trace = NULL;
        PyErr_Fetch(&type, &value, &trace);
        pg_link_lost(link, 1);
        PyErr_Restore(type, value, trace);
    }
}

/* Sends them with `end`, and gives the last one's result where `result` is not NULL.  They are taken out
 * before, so that what is held may change meanwhile. */
static int
send_wait(pg_link *link, const char *end, PGresult **result)
{
    int n = link->held->count;
    int own = link->held->who == vnl_pg_core->who();
    pg_leg *legs = PyMem_Malloc((size_t)n * sizeof(*legs));
    if (legs == NULL) {
        pg_held_drop(link);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(legs, link->held->legs, (size_t)n * sizeof(*legs));
    link->held->count = 0;
    int rc = pg_flight_run_wait(link, legs, n, end);
    if (rc < 0 && end == NULL && !own) {
        lose_unsent(link, legs);
    }
    if (rc == 0 && end == NULL) {
        rc = pg_flight_raise(link, legs, n);
    }
    if (rc == 0 && result != NULL) {
        *result = legs[n - 1].result;
        legs[n - 1].result = NULL;
    }
    legs_clear(legs, n);
    PyMem_Free(legs);
    return rc;
}

int
pg_held_send_wait(pg_link *link, const char *end)
{
    return send_wait(link, end, NULL);
}

/* The statement may go last in a flight: what fits, and what ends a savepoint or begins one. */
static int
may_carry(const pg_link *link, const pg_request *request)
{
    static const char *const others[] = {"SAVEPOINT ", "RELEASE SAVEPOINT ", NULL};
    for (int i = 0; others[i] != NULL; i++) {
        if (request->sql->nholes == 0 && !(request->sql->flags & VNL_SQL_MULTI) &&
            strncmp(request->text.data, others[i], strlen(others[i])) == 0) {
            return 1;
        }
    }
    return pg_flight_fits(link, request, 0);
}

/* What it goes back to is where the first of those that are held stands, or before. */
static int
is_rollback(const pg_request *request)
{
    static const char text[] = "ROLLBACK TO SAVEPOINT ";
    return strncmp(request->text.data, text, sizeof(text) - 1) == 0;
}

/* The same as pg_held_execute_wait(); takes the request's content over, or leaves it. */
static int
execute_wait(pg_link *link, pg_request *request, int wanted, PGresult **result)
{
    if (pg_link_attach_wait(link) < 0) {
        return -1;
    }
    if (link->held == NULL) {
        return 0; /* it was ended meanwhile */
    }
    if (wanted && may_be_kept(link, request)) {
        add(link->held, request);
        return 1;
    }
    if (!pg_held_any(link)) {
        return 0;
    }
    if (is_rollback(request)) {
        pg_held_drop(link);
        return 0;
    }
    if (!may_carry(link, request)) {
        return send_wait(link, NULL, NULL);
    }
    add(link->held, request);
    return send_wait(link, NULL, result) < 0 ? -1 : 1;
}

int
pg_held_execute_wait(pg_cursor *cur, pg_binding binding, PGresult **result)
{
    pg_link *link = cur->link;
    int wanted = is_wanted(link->held, cur->sql);
    if (wanted < 0 || (!wanted && !pg_held_any(link))) {
        return wanted;
    }
    pg_request *request = PyMem_Malloc(sizeof(*request));
    if (request == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = pg_request_init(link->state, request, pg_link_ctx(link), cur->sql, cur->params, binding);
    if (rc == 0) {
        rc = execute_wait(link, request, wanted, result);
        pg_request_clear(request);
    }
    PyMem_Free(request);
    return rc;
}

PyObject *
pg_link_hold(PyObject *op, PyObject *beginnings)
{
    pg_link *link = (pg_link *)op;
    if (!PyTuple_Check(beginnings)) {
        PyErr_SetString(PyExc_TypeError, "hold() takes a tuple of str");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(beginnings); i++) {
        if (!PyUnicode_Check(PyTuple_GET_ITEM(beginnings, i))) {
            PyErr_SetString(PyExc_TypeError, "hold() takes a tuple of str");
            return NULL;
        }
    }
    if (link->held != NULL || link->closed || link->broken || link->config == NULL) {
        Py_RETURN_FALSE;
    }
    pg_held *held = PyMem_Calloc(1, sizeof(*held));
    if (held == NULL) {
        return PyErr_NoMemory();
    }
    held->who = vnl_pg_core->who();
    held->beginnings = Py_NewRef(beginnings);
    link->held = held;
    Py_RETURN_TRUE;
}

PyObject *
pg_link_release(PyObject *op, PyObject *send)
{
    pg_link *link = (pg_link *)op;
    int sends = PyObject_IsTrue(send);
    if (sends < 0) {
        return NULL;
    }
    if (!sends || !pg_held_any(link)) {
        pg_held_end(link);
        Py_RETURN_NONE;
    }
    Py_INCREF(link);
    int rc = pg_link_enter_wait(link); /* which sends it */
    if (rc == 0) {
        pg_link_leave(link);
    }
    pg_held_end(link);
    Py_DECREF(link);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}
