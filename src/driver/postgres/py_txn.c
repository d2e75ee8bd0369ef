/* Transactions of a link: BEGIN's text, COMMIT, ROLLBACK, autocommit. */
#include "py.h"

#include <stdio.h>
#include <string.h>

#define END_BOUND 75000000    /* 75 ms for a COMMIT or ROLLBACK that was interrupted: its outcome matters */
#define CANCEL_BOUND 50000000 /* 50 ms to cancel what it waits behind, as for any statement (py_hold.c) */

static int
flag_sql(PyObject *value, const char *yes, const char *no, char *buf, size_t size)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    size_t at = strlen(buf);
    snprintf(buf + at, size - at, " %s", truth ? yes : no);
    return 0;
}

int
pg_link_begin_sql(pg_link *link, char *buf, size_t size)
{
    /* psycopg.IsolationLevel's values */
    static const char *const levels[] = {NULL, "READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ",
                                         "SERIALIZABLE"};
    snprintf(buf, size, "BEGIN");
    if (link->isolation_level != NULL && link->isolation_level != Py_None) {
        long level = PyLong_AsLong(link->isolation_level);
        if (level < 1 || level > 4) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_ValueError, "unknown isolation level %ld", level);
            }
            return -1;
        }
        snprintf(buf, size, "BEGIN ISOLATION LEVEL %s", levels[level]);
    }
    if (flag_sql(link->read_only, "READ ONLY", "READ WRITE", buf, size) < 0) {
        return -1;
    }
    return flag_sql(link->deferrable, "DEFERRABLE", "NOT DEFERRABLE", buf, size);
}

int
pg_link_begin_wait(pg_link *link)
{
    if (link->autocommit || vnl_pg_txn(link->conn) != PQTRANS_IDLE) {
        return 0;
    }
    vnl_pg_query query = {.sql = NULL};
    vnl_pg_answer answer;
    vnl_pg_status status = pg_link_run_wait(link, &query, &answer);
    if (status != VNL_PG_OK) {
        pg_link_raise(link, status, answer.result);
    }
    PQclear(answer.result);
    return status == VNL_PG_OK ? 0 : -1;
}

void
pg_link_end_cut(pg_link *link, int cancel)
{
    vnl_pg_conn *conn = link->conn;
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    PyErr_Fetch(&type, &value, &trace);
    int sent = conn->inflight;
    int64_t now = vnl_pg_core->now();
    conn->drained[0] = 0;
    vnl_pg_core->shield_enter();
    vnl_pg_status drained = cancel || !sent ? vnl_pg_cancel_wait(conn, now + CANCEL_BOUND)
                                            : vnl_pg_drain_wait(conn, now + END_BOUND, NULL);
    PyErr_Clear();
    link->committed = !sent ? 0 : drained == VNL_PG_OK ? strcmp(conn->drained, "COMMIT") == 0 : -1;
    if (drained == VNL_PG_OK && vnl_pg_txn(conn) != PQTRANS_IDLE) {
        /* The end was skipped or never sent, and nobody will ask for another. */
        vnl_pg_query query = {.sql = "ROLLBACK"};
        vnl_pg_answer answer;
        drained = vnl_pg_run_wait(conn, &query, now + END_BOUND, &answer);
        PQclear(answer.result);
        PyErr_Clear();
    }
    vnl_pg_core->shield_leave();
    if (type != NULL) {
        PyErr_Restore(type, value, trace);
    }
    if (drained != VNL_PG_OK) {
        pg_link_detach(link, 0);
    }
}

void
pg_link_end_overdue(pg_link *link, const char *sql)
{
    char text[200];
    snprintf(text, sizeof(text),
             "the server did not answer %s within OPTIONS['command_timeout'] (%g s): whether it took "
             "place is not known; the connection was closed",
             sql, (double)link->config->command_timeout / 1e9);
    link->committed = -1;
    pg_link_detach(link, 0);
    pg_raise_state(link->state, "57014", text);
}

/* COMMIT and ROLLBACK are seen to their end: a task that is cancelled while it
 * commits must not leave the outcome open while the server can still say it. */
static vnl_pg_status
end_wait(pg_link *link, const char *sql, vnl_pg_answer *answer)
{
    vnl_pg_query query = {.sql = sql};
    vnl_pg_status status = vnl_pg_run_wait(link->conn, &query, pg_link_deadline(link), answer);
    if (status == VNL_PG_TIMEOUT) {
        pg_link_end_overdue(link, sql);
        return VNL_PG_INTERRUPTED;
    }
    if (status == VNL_PG_INTERRUPTED) {
        pg_link_end_cut(link, 0);
    }
    return status;
}

/* A statement of the transaction had failed. */
int
pg_link_rolled_back(pg_link *link)
{
    static const char text[] =
        "COMMIT was answered with ROLLBACK: a statement of the transaction had failed, "
        "nothing was saved";
    if (link->strict_commit) {
        pg_raise_state(link->state, "25P02", text);
        return -1;
    }
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger =
        logging != NULL ? PyObject_CallMethod(logging, "getLogger", "s", "vinyl.postgresql") : NULL;
    PyObject *done = logger != NULL ? PyObject_CallMethod(logger, "warning", "s", text) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(logger);
    Py_XDECREF(logging);
    return done != NULL ? 0 : -1;
}

static int
end_transaction(pg_link *link, const char *sql)
{
    vnl_pg_answer answer;
    vnl_pg_status status = end_wait(link, sql, &answer);
    int rc = status == VNL_PG_OK ? 0 : -1;
    if (rc < 0) {
        pg_link_raise(link, status, answer.result);
        if (link->conn != NULL && (status == VNL_PG_LOST || link->conn->inflight)) {
            pg_link_detach(link, 0);
        }
    }
    else if (strcmp(sql, "COMMIT") == 0 && strcmp(PQcmdStatus(answer.result), "COMMIT") != 0) {
        rc = pg_link_rolled_back(link);
    }
    PQclear(answer.result);
    if (rc == 0) {
        rc = pg_link_notices(link);
    }
    return rc;
}

PyObject *
pg_link_commit(pg_link *link, PyObject *unused)
{
    if (pg_link_enter_holding_wait(link) < 0) {
        return NULL;
    }
    int rc = 0;
    link->committed = 0;
    if (link->broken) {
        pg_held_drop(link);
        pg_raise(link->state, "OperationalError",
                 "the connection was lost inside the transaction: nothing was committed");
        rc = -1;
    }
    else if (pg_held_any(link)) {
        rc = pg_held_send_wait(link, "COMMIT");
    }
    else if (pg_link_in_txn(link)) {
        rc = end_transaction(link, "COMMIT");
    }
    pg_link_leave(link);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
pg_link_rollback(pg_link *link, PyObject *unused)
{
    if (pg_link_enter_holding_wait(link) < 0) {
        return NULL;
    }
    int rc = 0;
    pg_held_drop(link);
    if (link->broken) {
        link->broken = 0; /* the server rolled back when it lost us */
    }
    else if (pg_link_in_txn(link)) {
        rc = end_transaction(link, "ROLLBACK");
    }
    pg_link_leave(link);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

int
pg_link_set_autocommit(pg_link *link, int value)
{
    if (link->autocommit == value && !link->closed) {
        return 0;
    }
    if (pg_link_enter_holding_wait(link) < 0) {
        return -1;
    }
    int rc = 0;
    if (link->broken) {
        link->broken = 0;
    }
    else if (pg_link_in_txn(link)) {
        pg_raise(link->state, "ProgrammingError", "autocommit cannot change now: a transaction is open");
        rc = -1;
    }
    if (rc == 0) {
        link->autocommit = value;
    }
    pg_link_leave(link);
    return rc;
}
