/* One statement, alone or with what goes ahead of it (flight.c): sent, read to the end. */
#include "pg.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* How often more of a large answer is read before others run again; 16 KB mostly. */
#define EAGER 16

/* What is not answered that long after the statement before it is to be cancelled by itself. */
#define RUNS_ON_AFTER 1000000 /* 1 ms */

vnl_pg_status
vnl_pg_unsent(const vnl_pg_conn *conn)
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

int
vnl_pg_is_error(const PGresult *result)
{
    ExecStatusType kind = PQresultStatus(result);
    return kind == PGRES_FATAL_ERROR || kind == PGRES_BAD_RESPONSE || kind == PGRES_NONFATAL_ERROR;
}

void
vnl_pg_keep_result(PGresult *result, PGresult **kept)
{
    if (*kept == NULL) {
        *kept = result;
    }
    else if (vnl_pg_is_error(result) && !vnl_pg_is_error(*kept)) {
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
        vnl_pg_keep_result(result, kept);
        if (PQstatus(conn->pg) != CONNECTION_OK) {
            return VNL_PG_LOST;
        }
    }
    if (PQstatus(conn->pg) != CONNECTION_OK) {
        return VNL_PG_LOST;
    }
    return copied ? VNL_PG_COPY : VNL_PG_OK;
}

int
vnl_pg_send(vnl_pg_conn *conn, const vnl_pg_query *query)
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

vnl_pg_status
vnl_pg_fold(const vnl_pg_conn *conn, vnl_pg_status status, const PGresult *result)
{
    if (status == VNL_PG_OK && result != NULL && vnl_pg_is_error(result)) {
        return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_SERVER : VNL_PG_LOST;
    }
    return status;
}

static vnl_pg_status
run_single_wait(vnl_pg_conn *conn, const vnl_pg_query *query, int64_t deadline, vnl_pg_answer *answer)
{
    if (!vnl_pg_send(conn, query)) {
        return vnl_pg_unsent(conn);
    }
    conn->inflight = 1;
    vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &answer->result);
    if (status == VNL_PG_OK || status == VNL_PG_COPY) {
        conn->inflight = 0;
    }
    return vnl_pg_fold(conn, status, answer->result);
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
        return vnl_pg_fold(conn, status, answer->result);
    }
    if (vnl_pg_flies(conn, query)) {
        vnl_pg_leg leg = {.query = *query};
        if (query->simple) {
            leg.query.sql = NULL; /* it follows what goes ahead of it */
            leg.query.setup = 1;
        }
        vnl_pg_status status = vnl_pg_flight_wait(conn, &leg, 1, deadline, 0);
        *answer = leg.answer;
        status = status == VNL_PG_OK ? leg.status : status;
        if (status != VNL_PG_OK || !query->simple) {
            return status;
        }
        PQclear(answer->result);
        answer->result = NULL;
    }
    vnl_pg_status settled = vnl_pg_ahead_settle_wait(conn, deadline);
    if (settled != VNL_PG_OK) {
        return settled;
    }
    if (!query->setup) {
        vnl_pg_core->count_statement();
    }
    return run_single_wait(conn, query, deadline, answer);
}

/* Whether what was sent behind a Sync, if anything was, has not answered after a moment. */
static vnl_pg_status
look_behind_wait(vnl_pg_conn *conn, int64_t deadline, int *runs_on)
{
    int64_t moment = vnl_pg_core->now() + RUNS_ON_AFTER;
    while (PQisBusy(conn->pg)) {
        vnl_pg_status status = vnl_pg_readable_wait(conn, moment < deadline ? moment : deadline);
        if (status == VNL_PG_TIMEOUT && moment < deadline) {
            *runs_on = 1;
            return VNL_PG_OK;
        }
        if (status == VNL_PG_LOST) {
            break; /* libpq still gives the server's last words */
        }
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    return VNL_PG_OK;
}

vnl_pg_status
vnl_pg_drain_wait(vnl_pg_conn *conn, int64_t deadline, int *runs_on)
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
        if (kind == PGRES_PIPELINE_SYNC && runs_on != NULL) {
            status = look_behind_wait(conn, deadline, runs_on);
            if (status != VNL_PG_OK || *runs_on) {
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
