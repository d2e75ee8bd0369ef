/* Server-side cursors: DECLARE, FETCH, CLOSE.
 *
 * DECLARE takes its statement with literals, unless server_side_binding is on, as
 * a utility statement must mean what Django's default means.  One WITHOUT HOLD lives as long as its
 * transaction; one WITH HOLD outlives it and pins the link's slot.
 */
#include "py.h"

#include <string.h>

#define FETCH_ALL 10000 /* rows per round trip when everything is wanted */

static int
put_name(vnl_buf *buf, PyObject *name)
{
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(name, &len);
    if (text == NULL) {
        return -1;
    }
    vnl_buf_putc(buf, '"');
    for (Py_ssize_t i = 0; i < len; i++) {
        if (text[i] == '"') {
            vnl_buf_putc(buf, '"');
        }
        vnl_buf_putc(buf, text[i]);
    }
    vnl_buf_putc(buf, '"');
    return 0;
}

static int
finish_text(vnl_buf *buf)
{
    if (vnl_buf_cstr(buf) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int
declare_text(pg_cursor *cur, pg_request *request, vnl_buf *buf)
{
    pg_link *link = cur->link;
    pg_binding binding = cur->server_side ? PG_BIND_SERVER : PG_BIND_LITERAL;
    if (pg_request_init(link->state, request, pg_link_ctx(link), cur->sql, cur->params, binding) < 0) {
        return -1;
    }
    vnl_buf_puts(buf, "DECLARE ");
    int rc = put_name(buf, cur->name);
    vnl_buf_puts(buf, cur->scrollable < 0 ? "" : cur->scrollable ? " SCROLL" : " NO SCROLL");
    vnl_buf_puts(buf, cur->withhold ? " CURSOR WITH HOLD FOR " : " CURSOR FOR ");
    vnl_buf_put(buf, request->text.data, request->text.len);
    return rc < 0 ? -1 : finish_text(buf);
}

static int
learn_format(pg_cursor *cur, const PGresult *description)
{
    cur->portal_binary = 1;
    for (int i = 0; i < PQnfields(description) && cur->portal_binary; i++) {
        cur->portal_binary = vnl_decode_find(pg_link_ctx(cur->link), PQftype(description, i), 1) != NULL;
        if (!cur->portal_binary && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

/* Closed ahead of the connection's next statement, whoever sends it.  Keeps a raised exception. */
static void
close_later(pg_cursor *cur)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    PyErr_Fetch(&type, &value, &trace);
    vnl_buf buf = VNL_BUF_INIT;
    vnl_buf_puts(&buf, "CLOSE ");
    if (put_name(&buf, cur->name) < 0 || finish_text(&buf) < 0 ||
        vnl_pg_later_add(cur->link->conn, buf.data) < 0) {
        PyErr_Clear();
    }
    vnl_buf_free(&buf);
    PyErr_Restore(type, value, trace);
}

static int
declare_wait(pg_cursor *cur, const pg_request *request, const char *sql)
{
    pg_link *link = cur->link;
    if (pg_link_attach_wait(link) < 0) {
        return -1;
    }
    vnl_pg_query query = {
        .sql = sql,
        .nparams = request->nparams,
        .oids = request->oids,
        .values = request->values,
        .lengths = request->lengths,
        .formats = request->formats,
        .portal = PyUnicode_AsUTF8(cur->name),
    };
    vnl_pg_answer answer;
    vnl_pg_status status = pg_link_run_wait(link, &query, &answer);
    if (status != VNL_PG_OK) {
        pg_link_raise(link, status, answer.result);
        PQclear(answer.result);
        if (status == VNL_PG_INTERRUPTED && cur->withhold && link->conn != NULL &&
            vnl_pg_txn(link->conn) == PQTRANS_IDLE) {
            close_later(cur); /* the server may have made it before it heard of the cancel */
        }
        return -1;
    }
    int rc = learn_format(cur, answer.result);
    cur->declared = 1;
    cur->exhausted = 0;
    cur->txn = link->txn;
    cur->pinned = cur->withhold && vnl_pg_txn(link->conn) == PQTRANS_IDLE;
    link->pins += cur->pinned;
    pg_cursor_reset(cur);
    cur->result = answer.result; /* its description; no rows yet */
    return rc < 0 ? -1 : pg_link_notices(link);
}

int
pg_named_execute_wait(pg_cursor *cur)
{
    if (cur->declared && pg_named_close_wait(cur) < 0) {
        return -1;
    }
    if (pg_link_enter_wait(cur->link) < 0) {
        return -1;
    }
    vnl_buf buf = VNL_BUF_INIT;
    pg_request request = {0};
    int rc = declare_text(cur, &request, &buf);
    if (rc == 0) {
        rc = declare_wait(cur, &request, buf.data);
    }
    pg_request_clear(&request);
    vnl_buf_free(&buf);
    pg_link_leave(cur->link);
    return rc;
}

/* Whether the server still has the cursor. */
static int
is_alive(const pg_cursor *cur)
{
    const pg_link *link = cur->link;
    if (!cur->declared || link->closed || link->broken || link->conn == NULL ||
        PQstatus(link->conn->pg) != CONNECTION_OK) {
        return 0;
    }
    if (cur->pinned) {
        return link->pins > 0;
    }
    return cur->withhold || (cur->txn == link->txn && vnl_pg_txn(link->conn) != PQTRANS_IDLE);
}

/* The cursor's rows were asked for ahead, and that was cancelled. */
static int
rows_are_lost(pg_cursor *cur)
{
    vnl_pg_conn *conn = cur->link->conn;
    if (conn->ahead.owner != cur || conn->ahead.status == VNL_PG_OK) {
        return 0;
    }
    vnl_pg_ahead_forget(conn, cur);
    cur->exhausted = 1;
    pg_raise_state(cur->link->state, "57014",
                   "the rows of this server-side cursor were lost: they were under way when another "
                   "statement of its connection was cancelled");
    return 1;
}

/* The next FETCH, where nobody can see that it is early: a cursor WITH HOLD has all its rows, and
 * outside of a transaction an error ends nothing but the FETCH itself. */
static void
send_ahead(pg_cursor *cur, Py_ssize_t want, const char *sql)
{
    if (cur->reads_ahead && cur->pinned && !cur->exhausted && cur->link->autocommit) {
        cur->ahead_want = want;
        vnl_pg_ahead_send(cur->link->conn, cur, sql, cur->portal_binary);
    }
}

static int
run_fetch_wait(pg_cursor *cur, Py_ssize_t want, const char *sql)
{
    pg_link *link = cur->link;
    vnl_pg_query query = {.sql = sql, .binary = cur->portal_binary, .owner = cur};
    vnl_pg_answer answer;
    Py_ssize_t wanted = link->conn->ahead.owner == cur ? cur->ahead_want : want;
    vnl_pg_status status = pg_link_run_wait(link, &query, &answer);
    if (status != VNL_PG_OK) {
        pg_link_raise(link, status, answer.result);
        PQclear(answer.result);
        return -1;
    }
    cur->exhausted = PQntuples(answer.result) < wanted;
    send_ahead(cur, want, sql);
    if (pg_cursor_take(cur, answer.result) < 0) {
        return -1;
    }
    return cur->nrows > 0;
}

static int
fetch_wait(pg_cursor *cur, Py_ssize_t want)
{
    if (rows_are_lost(cur)) {
        return -1;
    }
    vnl_buf buf = VNL_BUF_INIT;
    vnl_buf_printf(&buf, "FETCH FORWARD %zd FROM ", want);
    int rc =
        put_name(&buf, cur->name) < 0 || finish_text(&buf) < 0 ? -1 : run_fetch_wait(cur, want, buf.data);
    vnl_buf_free(&buf);
    return rc;
}

int
pg_named_fill_wait(pg_cursor *cur, Py_ssize_t want)
{
    if (cur->exhausted) {
        return 0;
    }
    if (pg_link_enter_wait(cur->link) < 0) {
        return -1;
    }
    int rc = -1;
    if (is_alive(cur)) {
        rc = fetch_wait(cur, want < 0 ? FETCH_ALL : want);
    }
    else {
        pg_raise(cur->link->state, "OperationalError",
                 "server-side cursor %s is gone: its transaction or connection has ended",
                 PyUnicode_AsUTF8(cur->name));
    }
    pg_link_leave(cur->link);
    return rc;
}

static void
unpin(pg_cursor *cur)
{
    if (cur->link->conn != NULL) {
        vnl_pg_ahead_forget(cur->link->conn, cur);
    }
    if (cur->pinned && cur->link->pins > 0) {
        cur->link->pins--;
    }
    cur->pinned = 0;
    cur->declared = 0;
}

void
pg_named_drop(pg_cursor *cur)
{
    if (cur->pinned && is_alive(cur)) {
        close_later(cur); /* no I/O here */
    }
    unpin(cur);
}

int
pg_named_close_wait(pg_cursor *cur)
{
    pg_link *link = cur->link;
    if (!is_alive(cur) || vnl_pg_txn(link->conn) == PQTRANS_INERROR) {
        pg_named_drop(cur);
        return 0;
    }
    if (pg_link_enter_wait(link) < 0) {
        pg_named_drop(cur);
        return vnl_pg_core->put_off() ? 0 : -1;
    }
    if (!is_alive(cur)) { /* while it waited */
        unpin(cur);
        pg_link_leave(link);
        return 0;
    }
    vnl_pg_ahead_forget(link->conn, cur);
    vnl_buf buf = VNL_BUF_INIT;
    vnl_buf_puts(&buf, "CLOSE ");
    int rc = put_name(&buf, cur->name) < 0 || finish_text(&buf) < 0 ? -1 : 0;
    int autocommit = link->autocommit;
    if (rc == 0) {
        /* A held cursor is closed without opening a transaction for it. */
        link->autocommit = 1;
        rc = pg_link_command_wait(link, buf.data);
        link->autocommit = autocommit;
    }
    vnl_buf_free(&buf);
    if (rc < 0) {
        pg_named_drop(cur); /* it may be there still */
        /* Whoever closes may be a generator's finalizer, out of which no cancel comes. */
        rc = vnl_pg_core->put_off() ? 0 : -1;
    }
    unpin(cur);
    pg_link_leave(link);
    return rc;
}
