/* One statement, and what travels with it: sent in one flush, read to the end.
 *
 * What goes ahead (BEGIN, PREPARE, deferred CLOSE and DEALLOCATE) is sent in
 * libpq's pipeline mode, so that it costs no round trip of its own.
 */
#include "pg.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* How often more of a large answer is read before others run again; 16 KB mostly. */
#define EAGER 16

typedef enum {
    STEP_LATER,
    STEP_SYNC,
    STEP_BEGIN,
    STEP_PREPARE,
    STEP_PARSE,
    STEP_DESCRIBE,
    STEP_EXEC,
    STEP_PORTAL
} step_kind;

static vnl_pg_status
lost(vnl_pg_conn *conn)
{
    return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_NOMEM : VNL_PG_LOST;
}

/* libpq has closed the socket: its number may soon be somebody else's. */
static vnl_pg_status
gone(vnl_pg_conn *conn)
{
    if (PQsocket(conn->pg) < 0 && conn->watch != NULL) {
        vnl_pg_core->watch_free(conn->watch);
        conn->watch = NULL;
    }
    return VNL_PG_LOST;
}

/* Waits for one of the events and takes in what came. */
static vnl_pg_status
io_wait(vnl_pg_conn *conn, int events, int64_t deadline)
{
    if (conn->watch == NULL) {
        return VNL_PG_LOST;
    }
    int ready = vnl_pg_core->watch_wait(conn->watch, events, deadline);
    if (ready <= 0) {
        return ready < 0 ? VNL_PG_INTERRUPTED : VNL_PG_TIMEOUT;
    }
    if ((ready & VNL_READ) && PQconsumeInput(conn->pg) == 0) {
        return gone(conn);
    }
    return VNL_PG_OK;
}

vnl_pg_status
vnl_pg_readable_wait(vnl_pg_conn *conn, int64_t deadline)
{
    int more = PQflush(conn->pg);
    if (more < 0) {
        return gone(conn);
    }
    return io_wait(conn, more > 0 ? VNL_READ | VNL_WRITE : VNL_READ, deadline);
}

vnl_pg_status
vnl_pg_flush_wait(vnl_pg_conn *conn, int64_t deadline)
{
    int more = 0;
    while ((more = PQflush(conn->pg)) > 0) {
        /* Reading too: the server may be blocked until we take what it says. */
        vnl_pg_status status = io_wait(conn, VNL_READ | VNL_WRITE, deadline);
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    return more < 0 ? gone(conn) : VNL_PG_OK;
}

static int
has_input(const vnl_pg_conn *conn)
{
    struct pollfd look = {.fd = PQsocket(conn->pg), .events = POLLIN};
    return look.fd >= 0 && poll(&look, 1, 0) > 0;
}

vnl_pg_status
vnl_pg_result_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result)
{
    *result = NULL;
    for (int eager = 0; PQisBusy(conn->pg);) {
        vnl_pg_status status = VNL_PG_OK;
        if (eager > 0 && has_input(conn)) {
            eager--;
            status = PQconsumeInput(conn->pg) != 0 ? VNL_PG_OK : gone(conn);
        }
        else {
            status = vnl_pg_readable_wait(conn, deadline);
            eager = EAGER;
        }
        /* After a loss libpq still gives the server's last words. */
        if (status == VNL_PG_LOST) {
            break;
        }
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    *result = PQgetResult(conn->pg);
    return VNL_PG_OK;
}

/* Ends a COPY that nobody serves.  The caller reads on to the error. */
static vnl_pg_status
refuse_copy(vnl_pg_conn *conn, ExecStatusType kind, int64_t deadline)
{
    if (kind == PGRES_COPY_IN) {
        while (PQputCopyEnd(conn->pg, "COPY needs cursor.copy()") == 0) {
            vnl_pg_status status = vnl_pg_flush_wait(conn, deadline);
            if (status != VNL_PG_OK) {
                return status;
            }
        }
        return VNL_PG_OK;
    }
    for (;;) {
        char *data = NULL;
        int n = PQgetCopyData(conn->pg, &data, 1);
        if (n > 0) {
            PQfreemem(data);
        }
        else if (n == 0) {
            vnl_pg_status status = vnl_pg_readable_wait(conn, deadline);
            if (status != VNL_PG_OK) {
                return status;
            }
        }
        else {
            return VNL_PG_OK;
        }
    }
}

static int
is_error(const PGresult *result)
{
    ExecStatusType kind = PQresultStatus(result);
    return kind == PGRES_FATAL_ERROR || kind == PGRES_BAD_RESPONSE || kind == PGRES_NONFATAL_ERROR;
}

/* Keeps the first result, or the first error when there is one. */
static void
keep_result(PGresult *result, PGresult **kept)
{
    if (*kept == NULL) {
        *kept = result;
    }
    else if (is_error(result) && !is_error(*kept)) {
        PQclear(*kept);
        *kept = result;
    }
    else {
        PQclear(result);
    }
}

/* Reads the results of one step up to the NULL that ends them. */
vnl_pg_status
vnl_pg_answer_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **kept)
{
    int copied = 0;
    for (;;) {
        PGresult *result = NULL;
        vnl_pg_status status = vnl_pg_result_wait(conn, deadline, &result);
        if (status != VNL_PG_OK) {
            return status;
        }
        if (result == NULL) {
            break;
        }
        ExecStatusType kind = PQresultStatus(result);
        if (kind == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            return VNL_PG_OK; /* a sync has no NULL after it */
        }
        if (kind == PGRES_COPY_IN || kind == PGRES_COPY_OUT || kind == PGRES_COPY_BOTH) {
            PQclear(result);
            copied = 1;
            status = refuse_copy(conn, kind, deadline);
            if (status != VNL_PG_OK) {
                return status;
            }
            continue;
        }
        keep_result(result, kept);
        if (PQstatus(conn->pg) != CONNECTION_OK) {
            return VNL_PG_LOST;
        }
    }
    if (PQstatus(conn->pg) != CONNECTION_OK) {
        return VNL_PG_LOST;
    }
    return copied ? VNL_PG_COPY : VNL_PG_OK;
}

static int
send_statement(vnl_pg_conn *conn, const vnl_pg_query *query)
{
    if (query->simple) {
        return PQsendQuery(conn->pg, query->sql);
    }
    if (query->name != NULL) {
        return PQsendQueryPrepared(conn->pg, query->name, query->nparams, query->values, query->lengths,
                                   query->formats, query->binary);
    }
    return PQsendQueryParams(conn->pg, query->sql, query->nparams, query->oids, query->values, query->lengths,
                             query->formats, query->binary);
}

static int
send_step(vnl_pg_conn *conn, const vnl_pg_query *query, step_kind kind)
{
    switch (kind) {
    case STEP_BEGIN:
        return PQsendQueryParams(conn->pg, query->begin, 0, NULL, NULL, NULL, NULL, 0);
    case STEP_PREPARE:
        return PQsendPrepare(conn->pg, query->name, query->sql, query->nparams, query->oids);
    case STEP_PARSE:
        return PQsendPrepare(conn->pg, "", query->sql, query->nparams, query->oids);
    case STEP_DESCRIBE:
        return PQsendDescribePrepared(conn->pg, "");
    case STEP_EXEC:
        return send_statement(conn, query);
    case STEP_PORTAL:
        return PQsendDescribePortal(conn->pg, query->portal);
    default:
        return 0;
    }
}

static vnl_pg_status
fold(vnl_pg_conn *conn, vnl_pg_status status, const PGresult *result)
{
    if (status == VNL_PG_OK && result != NULL && is_error(result)) {
        return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_SERVER : VNL_PG_LOST;
    }
    return status;
}

/* In a failed transaction they would fail too, and be forgotten. */
static int
sends_later(const vnl_pg_conn *conn)
{
    return conn->later != NULL && PQtransactionStatus(conn->pg) != PQTRANS_INERROR;
}

/* Sends the deferred statements, each with a sync of its own so that its
 * failure stops nothing else.  The number of them, or -1. */
static int
send_later(vnl_pg_conn *conn)
{
    int count = 0;
    if (!sends_later(conn)) {
        return 0;
    }
    for (vnl_pg_later *later = conn->later; later != NULL; later = later->next) {
        if (!PQsendQueryParams(conn->pg, later->sql, 0, NULL, NULL, NULL, NULL, 0) ||
            !PQpipelineSync(conn->pg)) {
            return -1;
        }
        count++;
    }
    vnl_pg_later_clear(conn);
    return count;
}

static vnl_pg_status
read_later_wait(vnl_pg_conn *conn, int count, int64_t deadline)
{
    for (int i = 0; i < 2 * count; i++) {
        PGresult *ignored = NULL;
        vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &ignored);
        PQclear(ignored);
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    return VNL_PG_OK;
}

static vnl_pg_status
run_pipeline_wait(vnl_pg_conn *conn, const vnl_pg_query *query, const step_kind *steps, int nsteps,
                  int64_t deadline, vnl_pg_answer *answer)
{
    if (!PQenterPipelineMode(conn->pg)) {
        return lost(conn);
    }
    conn->inflight = 1;
    int later = send_later(conn);
    if (later < 0) {
        return VNL_PG_LOST;
    }
    for (int i = 0; i < nsteps; i++) {
        if (!send_step(conn, query, steps[i])) {
            return VNL_PG_LOST;
        }
    }
    if (!PQpipelineSync(conn->pg)) {
        return VNL_PG_LOST;
    }
    vnl_pg_status status = read_later_wait(conn, later, deadline);
    for (int i = 0; i < nsteps && status == VNL_PG_OK; i++) {
        PGresult *result = NULL;
        status = vnl_pg_answer_wait(conn, deadline, &result);
        int good = status == VNL_PG_OK && result != NULL && !is_error(result) &&
                   PQresultStatus(result) != PGRES_PIPELINE_ABORTED;
        answer->begun |= good && steps[i] == STEP_BEGIN;
        answer->prepared |= good && steps[i] == STEP_PREPARE;
        int wanted = i == nsteps - 1 && steps[i] != STEP_BEGIN;
        if (result != NULL && (is_error(result) || wanted)) {
            keep_result(result, &answer->result);
        }
        else {
            PQclear(result);
        }
    }
    if (status == VNL_PG_OK) {
        PGresult *none = NULL;
        status = vnl_pg_answer_wait(conn, deadline, &none); /* the sync */
        PQclear(none);
    }
    if (status == VNL_PG_OK) {
        conn->inflight = 0;
        if (!PQexitPipelineMode(conn->pg)) {
            return VNL_PG_LOST;
        }
    }
    return fold(conn, status, answer->result);
}

static vnl_pg_status
run_single_wait(vnl_pg_conn *conn, const vnl_pg_query *query, int64_t deadline, vnl_pg_answer *answer)
{
    if (!send_statement(conn, query)) {
        return lost(conn);
    }
    conn->inflight = 1;
    vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &answer->result);
    if (status == VNL_PG_OK || status == VNL_PG_COPY) {
        conn->inflight = 0;
    }
    return fold(conn, status, answer->result);
}

vnl_pg_status
vnl_pg_run_wait(vnl_pg_conn *conn, const vnl_pg_query *query, int64_t deadline, vnl_pg_answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    if (PQstatus(conn->pg) != CONNECTION_OK || conn->inflight) {
        return VNL_PG_LOST;
    }
    if (query->owner != NULL && conn->ahead.owner == query->owner && vnl_pg_txn(conn) != PQTRANS_INERROR) {
        vnl_pg_core->count_statement();
        vnl_pg_status status = vnl_pg_ahead_take_wait(conn, deadline, &answer->result);
        return fold(conn, status, answer->result);
    }
    vnl_pg_status settled = vnl_pg_ahead_settle_wait(conn, deadline);
    if (settled != VNL_PG_OK) {
        return settled;
    }
    if (!query->setup && !query->describe) {
        vnl_pg_core->count_statement();
    }
    step_kind steps[4];
    int nsteps = 0;
    if (query->begin != NULL) {
        steps[nsteps++] = STEP_BEGIN;
    }
    int alone = query->simple || query->sql == NULL;
    if (!alone && query->describe) {
        steps[nsteps++] = STEP_PARSE;
        steps[nsteps++] = STEP_DESCRIBE;
    }
    else if (!alone) {
        if (query->prepare) {
            steps[nsteps++] = STEP_PREPARE;
        }
        steps[nsteps++] = STEP_EXEC;
        if (query->portal != NULL) {
            steps[nsteps++] = STEP_PORTAL;
        }
    }
    if (nsteps + sends_later(conn) > (alone ? 0 : 1)) {
        vnl_pg_status status = run_pipeline_wait(conn, query, steps, nsteps, deadline, answer);
        if (status != VNL_PG_OK || !query->simple) {
            return status;
        }
        PQclear(answer->result);
        answer->result = NULL;
    }
    return run_single_wait(conn, query, deadline, answer);
}

vnl_pg_status
vnl_pg_drain_wait(vnl_pg_conn *conn, int64_t deadline)
{
    /* In pipeline mode a NULL ends one step only: read until two follow each
     * other with nothing between, which libpq gives when its queue is empty. */
    int nulls = 0;
    conn->drained[0] = 0;
    while (nulls < 2) {
        PGresult *result = NULL;
        vnl_pg_status status = vnl_pg_result_wait(conn, deadline, &result);
        if (status != VNL_PG_OK) {
            return status;
        }
        ExecStatusType kind = result != NULL ? PQresultStatus(result) : PGRES_EMPTY_QUERY;
        nulls = result != NULL ? 0 : nulls + 1;
        if (result != NULL && kind != PGRES_PIPELINE_SYNC) {
            snprintf(conn->drained, sizeof(conn->drained), "%s", PQcmdStatus(result));
        }
        PQclear(result);
        if (PQstatus(conn->pg) != CONNECTION_OK) {
            return VNL_PG_LOST;
        }
        if (kind == PGRES_COPY_IN || kind == PGRES_COPY_OUT || kind == PGRES_COPY_BOTH) {
            status = refuse_copy(conn, kind, deadline);
            if (status != VNL_PG_OK) {
                return status;
            }
        }
    }
    if (PQpipelineStatus(conn->pg) != PQ_PIPELINE_OFF && !PQexitPipelineMode(conn->pg)) {
        return VNL_PG_LOST;
    }
    conn->inflight = 0;
    return VNL_PG_OK;
}
