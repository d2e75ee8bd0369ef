/* Statements that are sent together, in libpq's pipeline mode, and answered one after the other.
 *
 * What goes ahead of a statement (BEGIN, PREPARE, deferred CLOSE and DEALLOCATE) travels this way too, so
 * that it costs no round trip of its own.
 */
#include "pg.h"

#include <string.h>

typedef enum {
    STEP_BEGIN,
    STEP_PREPARE,
    STEP_PARSE,
    STEP_DESCRIBE,
    STEP_EXEC,
    STEP_PORTAL
} step_kind;

#define MAX_STEPS 4

/* What a leg consists of: how many steps. */
static int
steps_of(const vnl_pg_query *query, step_kind *steps)
{
    int n = 0;
    if (query->begin != NULL) {
        steps[n++] = STEP_BEGIN;
    }
    if (query->simple || query->sql == NULL) {
        return n;
    }
    if (query->describe) {
        steps[n++] = STEP_PARSE;
        steps[n++] = STEP_DESCRIBE;
        return n;
    }
    if (query->prepare) {
        steps[n++] = STEP_PREPARE;
    }
    steps[n++] = STEP_EXEC;
    if (query->portal != NULL) {
        steps[n++] = STEP_PORTAL;
    }
    return n;
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
        return vnl_pg_send(conn, query);
    case STEP_PORTAL:
        return PQsendDescribePortal(conn->pg, query->portal);
    }
    return 0;
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

/* Their answers and syncs. */
static vnl_pg_status
skip_wait(vnl_pg_conn *conn, int count, int64_t deadline)
{
    for (int i = 0; i < count; i++) {
        PGresult *ignored = NULL;
        vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &ignored);
        PQclear(ignored);
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    return VNL_PG_OK;
}

/* The sync after a leg.  Outside a transaction the server commits there, and says what a deferred constraint
 * refuses: libpq gives that before the sync, and ends it with a NULL or not. */
static vnl_pg_status
sync_wait(vnl_pg_conn *conn, vnl_pg_leg *leg, int64_t deadline)
{
    PGresult *refused = NULL;
    vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &refused);
    if (status == VNL_PG_OK && refused != NULL && PQpipelineStatus(conn->pg) == PQ_PIPELINE_ABORTED) {
        status = skip_wait(conn, 1, deadline);
    }
    if (refused != NULL && vnl_pg_is_error(refused) && leg->status == VNL_PG_OK) {
        vnl_pg_keep_result(refused, &leg->answer.result);
        leg->status = vnl_pg_fold(conn, VNL_PG_OK, leg->answer.result);
        return status;
    }
    PQclear(refused);
    return status;
}

/* How many of the deferred statements were sent with the legs, or -1.  `flush`: the server is to answer each
 * when it is done, which it would not before a Sync. */
static int
send_all(vnl_pg_conn *conn, const vnl_pg_leg *legs, int n, int flush)
{
    int later = send_later(conn);
    for (int i = 0; i < n && later >= 0; i++) {
        step_kind steps[MAX_STEPS];
        int nsteps = steps_of(&legs[i].query, steps);
        for (int k = 0; k < nsteps; k++) {
            if (!send_step(conn, &legs[i].query, steps[k])) {
                return -1;
            }
        }
        int syncs = legs[i].sync || i == n - 1;
        if ((syncs && !PQpipelineSync(conn->pg)) || (!syncs && flush && !PQsendFlushRequest(conn->pg))) {
            return -1;
        }
    }
    return later;
}

static vnl_pg_status
read_leg_wait(vnl_pg_conn *conn, vnl_pg_leg *leg, int64_t deadline)
{
    step_kind steps[MAX_STEPS];
    int nsteps = steps_of(&leg->query, steps);
    int skipped = 0;
    vnl_pg_answer *answer = &leg->answer;
    for (int i = 0; i < nsteps; i++) {
        PGresult *result = NULL;
        vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &result);
        if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED) {
            PQclear(result);
            result = NULL;
            skipped = 1;
        }
        int failed = result != NULL && vnl_pg_is_error(result);
        int good = status == VNL_PG_OK && result != NULL && !failed;
        answer->begun |= good && steps[i] == STEP_BEGIN;
        answer->prepared |= good && steps[i] == STEP_PREPARE;
        if (failed || (i == nsteps - 1 && steps[i] != STEP_BEGIN && result != NULL)) {
            vnl_pg_keep_result(result, &answer->result);
        }
        else {
            PQclear(result);
        }
        if (status != VNL_PG_OK) {
            return vnl_pg_fold(conn, status, answer->result);
        }
    }
    vnl_pg_status status = vnl_pg_fold(conn, VNL_PG_OK, answer->result);
    return status == VNL_PG_OK && skipped ? VNL_PG_SKIPPED : status;
}

int
vnl_pg_flies(const vnl_pg_conn *conn, const vnl_pg_query *query)
{
    step_kind steps[MAX_STEPS];
    int alone = query->simple || query->sql == NULL;
    return steps_of(query, steps) + sends_later(conn) > (alone ? 0 : 1);
}

/* One that was not answered has the status of the flight. */
static vnl_pg_status
ended(vnl_pg_leg *legs, int n, vnl_pg_status status)
{
    for (int i = 0; i < n; i++) {
        legs[i].status = status;
    }
    return status;
}

static vnl_pg_status
read_all_wait(vnl_pg_conn *conn, vnl_pg_leg *legs, int n, int later, int64_t deadline, int64_t limit)
{
    vnl_pg_status status = skip_wait(conn, 2 * later, deadline);
    for (int i = 0; i < n; i++) {
        if (status == VNL_PG_OK) {
            status = read_leg_wait(conn, &legs[i], deadline);
        }
        if (status != VNL_PG_OK && status != VNL_PG_SERVER && status != VNL_PG_SKIPPED) {
            return ended(legs + i, n - i, status);
        }
        legs[i].status = status;
        status = legs[i].sync || i == n - 1 ? sync_wait(conn, &legs[i], deadline) : VNL_PG_OK;
        deadline = limit > 0 ? vnl_pg_core->now() + limit : VNL_FOREVER;
    }
    return status;
}

vnl_pg_status
vnl_pg_flight_wait(vnl_pg_conn *conn, vnl_pg_leg *legs, int n, int64_t deadline, int64_t limit)
{
    for (int i = 0; i < n; i++) {
        memset(&legs[i].answer, 0, sizeof(legs[i].answer));
    }
    if (PQstatus(conn->pg) != CONNECTION_OK || conn->inflight) {
        return ended(legs, n, VNL_PG_LOST);
    }
    vnl_pg_status status = vnl_pg_ahead_settle_wait(conn, deadline);
    if (status != VNL_PG_OK) {
        return ended(legs, n, status);
    }
    if (!PQenterPipelineMode(conn->pg)) {
        return ended(legs, n, vnl_pg_unsent(conn));
    }
    conn->inflight = 1;
    int later = send_all(conn, legs, n, limit > 0);
    if (later < 0) {
        return ended(legs, n, VNL_PG_LOST);
    }
    int flown = 0;
    for (int i = 0; i < n; i++) {
        if (!legs[i].query.setup && !legs[i].query.describe) {
            vnl_pg_core->count_statement();
            flown++;
        }
    }
    if (flown > 1) {
        vnl_pg_core->count_flight(flown);
    }
    status = read_all_wait(conn, legs, n, later, deadline, limit);
    if (status == VNL_PG_OK) {
        conn->inflight = 0;
        if (!PQexitPipelineMode(conn->pg)) {
            return VNL_PG_LOST;
        }
    }
    return status;
}
