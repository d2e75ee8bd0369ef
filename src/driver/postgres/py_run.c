/* One statement of a cursor: how it goes out, what its answer teaches, and
 * whether a refused one is tried again. */
#include "py.h"

#include <stdio.h>
#include <string.h>

int
pg_is_binding_error(const char *state)
{
    static const char *const states[] = {"42P18", "42P08", "42804", "42803", "42883",
                                         "42725", "42601", "42P10", NULL};
    for (int i = 0; states[i] != NULL; i++) {
        if (strcmp(state, states[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

vnl_pg_stmt *
pg_use_stmt(vnl_pg_conn *conn, const pg_request *request)
{
    char evicted[40];
    vnl_pg_stmt *stmt = vnl_pg_stmts_use(&conn->stmts, request->text.data, request->text.len, request->oids,
                                         request->nparams, evicted);
    if (evicted[0]) {
        char drop[64];
        snprintf(drop, sizeof(drop), "DEALLOCATE \"%s\"", evicted);
        vnl_pg_later_add(conn, drop);
    }
    return stmt;
}

int
pg_prepares(const pg_config *config, const vnl_pg_stmt *stmt)
{
    int threshold = config->prepare_threshold;
    return threshold >= 0 && !config->pooler && stmt->uses > (unsigned)threshold;
}

/* How the statement goes out: prepared or not, text or binary. */
static vnl_pg_stmt *
plan_query(pg_cursor *cur, const pg_request *request, vnl_pg_query *query)
{
    pg_link *link = cur->link;
    const vnl_sql *sql = request->sql;
    vnl_pg_conn *conn = link->conn;
    *query = pg_request_query(request);
    query->simple =
        (sql->flags & (VNL_SQL_MULTI | VNL_SQL_COPY | VNL_SQL_SIMPLE)) != 0 && request->nparams == 0;
    if (!(sql->flags & VNL_SQL_DML) || query->simple || request->nliteral > 0) {
        return NULL;
    }
    vnl_pg_stmt *stmt = pg_use_stmt(conn, request);
    if (stmt == NULL) {
        return NULL;
    }
    query->binary = stmt->binary == 1;
    if (pg_prepares(link->config, stmt)) {
        if (!stmt->prepared) {
            vnl_pg_stmt_name(&conn->stmts, stmt);
            query->prepare = 1;
        }
        query->name = stmt->name;
    }
    return stmt;
}

int
pg_learn_binary(pg_link *link, vnl_pg_stmt *stmt, const PGresult *result)
{
    int binary = 1;
    for (int i = 0; i < PQnfields(result) && binary; i++) {
        binary = vnl_decode_find(pg_link_ctx(link), PQftype(result, i), 1) != NULL;
        if (!binary && PyErr_Occurred()) {
            return -1;
        }
    }
    if (stmt != NULL) {
        stmt->binary = binary;
    }
    return binary;
}

int
pg_is_suspect_wait(pg_link *link, const pg_request *request, const vnl_pg_stmt *stmt)
{
    pg_config *config = link->config;
    int flags = request->sql->flags;
    if ((stmt != NULL && stmt->binary >= 0) || !(flags & VNL_SQL_ROWS)) {
        return 0;
    }
    if (config->names != NULL && config->names_old && link->autocommit && !pg_link_in_txn(link)) {
        vnl_pg_status status = pg_config_names_wait(config, link->conn, pg_link_deadline(link));
        if (status == VNL_PG_TIMEOUT) {
            pg_link_overdue(link);
            return -1;
        }
        if (status == VNL_PG_INTERRUPTED) {
            pg_link_cancel_statement(link);
            return -1;
        }
    }
    return config->names == NULL || config->names_old ||
           vnl_pg_may_bytes(config->names, request->text.data, request->text.len, flags);
}

/* Runs the query; a suspect is described first, and its format chosen by that. */
static vnl_pg_status
run_wait(pg_link *link, const pg_request *request, vnl_pg_stmt *stmt, vnl_pg_query *query,
         vnl_pg_answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    int suspect = query->simple ? 0 : pg_is_suspect_wait(link, request, stmt);
    if (suspect < 0) {
        return VNL_PG_INTERRUPTED;
    }
    if (suspect) {
        vnl_pg_query question = *query;
        question.describe = 1;
        question.name = NULL;
        question.prepare = 0;
        vnl_pg_status status = pg_link_run_wait(link, &question, answer);
        if (status != VNL_PG_OK) {
            return status;
        }
        int binary = pg_learn_binary(link, stmt, answer->result);
        PQclear(answer->result);
        answer->result = NULL;
        if (binary < 0) {
            return VNL_PG_INTERRUPTED;
        }
        query->binary = binary;
    }
    return pg_link_run_wait(link, query, answer);
}

int
pg_learn(pg_link *link, const pg_request *request, vnl_pg_stmt *stmt, const PGresult *result)
{
    vnl_pg_conn *conn = link->conn;
    int flags = request->sql->flags;
    if (conn == NULL) {
        return 0;
    }
    if (flags & VNL_SQL_PINS) {
        link->sticky = 1;
    }
    if (flags & VNL_SQL_DDL) {
        link->config->names_old |=
            link->config->names != NULL &&
            vnl_pg_names_touched(link->config->names, request->text.data, request->text.len);
    }
    if (flags & (VNL_SQL_DDL | VNL_SQL_DEALLOC)) {
        if (!(flags & VNL_SQL_DEALLOC) && vnl_pg_stmts_any(&conn->stmts)) {
            vnl_pg_later_add(conn, "DEALLOCATE ALL");
        }
        vnl_pg_stmts_forget(&conn->stmts);
    }
    if (stmt != NULL) {
        stmt->ran = 1;
    }
    if (stmt != NULL && stmt->binary < 0 && PQresultStatus(result) == PGRES_TUPLES_OK) {
        return pg_learn_binary(link, stmt, result) < 0 ? -1 : 0;
    }
    return 0;
}

int
pg_forget_prepared(pg_config *config, vnl_pg_conn *conn, vnl_pg_stmt *stmt, const char *state)
{
    if (strcmp(state, "26000") == 0) {
        /* Somebody shuffles the server's sessions under us: a pooler. */
        config->pooler = 1;
        vnl_pg_stmts_forget(&conn->stmts);
        return 1;
    }
    if (strcmp(state, "0A000") == 0) {
        char drop[64];
        snprintf(drop, sizeof(drop), "DEALLOCATE \"%s\"", stmt->name);
        vnl_pg_later_add(conn, drop);
        stmt->prepared = stmt->ran = 0;
        stmt->binary = -1;
        stmt->uses = 0;
        return 1;
    }
    return 0;
}

/* The server refused.  1: try again, 0: raise, -1: an exception is set. */
static int
may_retry(pg_link *link, pg_request *request, vnl_pg_stmt *stmt, const vnl_pg_query *query,
          const vnl_pg_answer *answer, pg_binding binding, int was_in_txn)
{
    const char *state = PQresultErrorField(answer->result, PG_DIAG_SQLSTATE);
    if (state == NULL) {
        return 0;
    }
    int retry =
        query->name != NULL && !query->prepare && pg_forget_prepared(link->config, link->conn, stmt, state);
    if (!retry && request->nparams > 0 && binding == PG_BIND_AUTO && pg_is_binding_error(state)) {
        request->sql->force_literal = 1;
        retry = 1;
    }
    if (!retry || was_in_txn) {
        return 0;
    }
    if (PQtransactionStatus(link->conn->pg) != PQTRANS_IDLE && pg_link_command_wait(link, "ROLLBACK") < 0) {
        return -1;
    }
    return 1;
}

int
pg_cursor_run_wait(pg_cursor *cur, pg_binding binding, PGresult **result)
{
    pg_link *link = cur->link;
    for (int attempt = 0;; attempt++) {
        pg_request request;
        vnl_pg_query query;
        vnl_pg_answer answer;
        if (pg_request_init(link->state, &request, pg_link_ctx(link), cur->sql, cur->params, binding) < 0) {
            return -1;
        }
        int shared = attempt == 0 && cur->reads ? pg_share_run_wait(cur, &request, result) : 0;
        if (shared != 0 || pg_link_attach_wait(link) < 0) {
            pg_request_clear(&request);
            return shared > 0 ? 0 : -1;
        }
        int was_in_txn = pg_link_in_txn(link);
        vnl_pg_stmt *stmt = plan_query(cur, &request, &query);
        int64_t began = cur->reads ? vnl_pg_core->now() : 0;
        vnl_pg_status status = run_wait(link, &request, stmt, &query, &answer);
        if (cur->reads) {
            int64_t took = vnl_pg_core->now() - began;
            link->config->round_trip = took < link->config->round_trip ? took : link->config->round_trip;
            pg_share_note(link->config, request.sql, took);
        }
        int rc = status == VNL_PG_OK ? 0 : -1;
        int again = 0;
        if (link->conn != NULL && stmt != NULL && answer.prepared) {
            stmt->prepared = 1;
        }
        if (rc == 0) {
            rc = pg_learn(link, &request, stmt, answer.result);
        }
        else if (status == VNL_PG_SERVER && attempt < 3 && link->conn != NULL) {
            again = may_retry(link, &request, stmt, &query, &answer, binding, was_in_txn);
        }
        if (rc < 0 && again == 0) {
            if (attempt > 0 && request.sql->force_literal) {
                request.sql->force_literal = 0; /* literals did not help */
            }
            if (status != VNL_PG_OK) {
                pg_link_raise(link, status, answer.result);
            }
        }
        pg_request_clear(&request);
        if (rc == 0) {
            *result = answer.result;
            return 0;
        }
        PQclear(answer.result);
        if (again <= 0) {
            return -1;
        }
    }
}
