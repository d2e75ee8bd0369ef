/* A statement that would have to wait for a connection, run on one that is in use (shared.c). */
#include "py.h"

#include <string.h>

/* So many slow runs one after the other make a quick statement a slow one: the loop may have been late. */
#define QUICK 2

void
pg_share_note(const pg_config *config, vnl_sql *sql, int64_t took)
{
    if (took - config->round_trip < config->share_below) {
        sql->pace = QUICK;
    }
    else {
        sql->pace = sql->pace > 0 ? sql->pace - 1 : -1;
    }
}

/* It only reads, leaves nothing behind, wants nothing of its connection, and is quick. */
static int
may_share(const pg_cursor *cur, const pg_request *request)
{
    const pg_link *link = cur->link;
    const vnl_sql *sql = request->sql;
    return cur->reads && link->config->shares && sql->pace > 0 && link->pool != NULL && link->conn == NULL &&
           link->autocommit && !link->broken && link->own_ctx == NULL && link->notice_handlers == NULL &&
           link->config->command_timeout == 0 && request->nliteral == 0 &&
           (sql->flags & ~(VNL_SQL_SHARE | VNL_SQL_NAMED)) == (VNL_SQL_DML | VNL_SQL_ROWS) &&
           request->text.len > 6 && memcmp(request->text.data, "SELECT", 6) == 0 &&
           vnl_pg_core->can_suspend();
}

/* Nothing has to go ahead of the statement, nor is to be learned of it. */
static int
is_settled(const pg_config *config, const vnl_pg_conn *conn, const vnl_pg_stmt *stmt)
{
    if (stmt == NULL || stmt->binary < 0 || conn->later != NULL || conn->ahead.sent) {
        return 0;
    }
    int prepares = config->prepare_threshold >= 0 && !config->pooler;
    return !prepares || stmt->prepared || stmt->uses < (unsigned)config->prepare_threshold;
}

/* The server refused: whether the usual way may do better. */
static int
is_retried(pg_config *config, const pg_request *request, vnl_pg_conn *conn, int prepared,
           const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    vnl_pg_stmt *stmt = vnl_pg_stmts_find(&conn->stmts, request->text.data, request->text.len, request->oids,
                                          request->nparams);
    if (state == NULL) {
        return 0;
    }
    return (prepared && stmt != NULL && pg_forget_prepared(config, conn, stmt, state)) ||
           pg_is_binding_error(state);
}

/* Runs it on `shared`, which is entered.  1 with the result, 0: it is to be run in the usual way, -1. */
static int
run_wait(pg_link *link, pg_request *request, vnl_pg_shared *shared, vnl_pg_conn *conn, vnl_pg_stmt *stmt,
         PGresult **result)
{
    pg_config *config = link->config;
    vnl_pg_query query = pg_request_query(request);
    query.binary = stmt != NULL && stmt->binary == 1;
    query.name = stmt != NULL && stmt->prepared && !config->pooler ? stmt->name : NULL;
    if (stmt != NULL) {
        stmt->uses++;
    }
    int64_t took = 0;
    vnl_pg_status status = vnl_pg_shared_run_wait(
        shared, &query, config->round_trip + config->share_below / 2 * 5, result, &took);
    if (status == VNL_PG_ELSEWHERE) {
        pg_share_note(config, request->sql, VNL_FOREVER); /* what it waits for may be itself, run before */
        return 0;
    }
    vnl_pg_core->count_statement();
    if (status != VNL_PG_OK) {
        pg_raise_status(link->state, status, *result, conn->pg);
        return -1;
    }
    if (took > 0) {
        pg_share_note(config, request->sql, took);
    }
    if (PQresultStatus(*result) != PGRES_TUPLES_OK) {
        if (is_retried(config, request, conn, query.name != NULL, *result)) {
            return 0;
        }
        pg_raise_status(link->state, VNL_PG_SERVER, *result, conn->pg);
        return -1;
    }
    pg_link_sync_parameters(link, conn);
    return pg_emit_notices(link->state, vnl_pg_notices_take(conn), NULL) < 0 ? -1 : 1;
}

int
pg_share_run_wait(pg_cursor *cur, pg_request *request, PGresult **result)
{
    pg_link *link = cur->link;
    vnl_slot_terms terms = VNL_SLOT_SHARED;
    *result = NULL;
    if (!may_share(cur, request)) {
        return 0;
    }
    vnl_slot *slot = vnl_pg_core->pool_take_wait(link->pool, &terms);
    if (slot == NULL) {
        return -1;
    }
    vnl_pg_conn *conn = vnl_pg_core->slot_conn(slot);
    vnl_pg_stmt *stmt = vnl_pg_stmts_find(&conn->stmts, request->text.data, request->text.len, request->oids,
                                          request->nparams);
    vnl_pg_shared *shared = terms == VNL_SLOT_SHARED ? conn->shared : NULL;
    if (terms == VNL_SLOT_LAST && is_settled(link->config, conn, stmt)) {
        shared = vnl_pg_shared_new(conn, slot);
    }
    if (shared == NULL) {
        link->slot = slot;
        link->conn = conn;
        return 0;
    }
    vnl_pg_shared_enter(shared);
    int rc = run_wait(link, request, shared, conn, stmt, result);
    vnl_pg_shared_leave(shared);
    if (rc <= 0) {
        PQclear(*result);
        *result = NULL;
    }
    return rc;
}
