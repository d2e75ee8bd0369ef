/* COPY, both ways.  While it runs the connection does nothing else. */
#include "pg.h"

#include <string.h>

/* The statement's answer: COPY_IN or COPY_OUT on success. */
vnl_pg_status
vnl_pg_copy_start_wait(vnl_pg_conn *conn, const char *sql, int64_t deadline, PGresult **result)
{
    *result = NULL;
    if (PQstatus(conn->pg) != CONNECTION_OK || conn->inflight) {
        return VNL_PG_LOST;
    }
    vnl_pg_status status = vnl_pg_ahead_settle_wait(conn, deadline);
    if (status != VNL_PG_OK) {
        return status;
    }
    vnl_pg_core->count_statement();
    if (!PQsendQuery(conn->pg, sql)) {
        return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_NOMEM : VNL_PG_LOST;
    }
    conn->inflight = 1;
    status = vnl_pg_result_wait(conn, deadline, result);
    if (status != VNL_PG_OK) {
        return status;
    }
    ExecStatusType kind = PQresultStatus(*result);
    if (kind == PGRES_COPY_IN || kind == PGRES_COPY_OUT) {
        return VNL_PG_OK;
    }
    /* Not a COPY that can be served, or refused: read it to its end. */
    PGresult *more = NULL;
    status = vnl_pg_copy_finish_wait(conn, deadline, &more);
    if (status == VNL_PG_SERVER) {
        PQclear(*result);
        *result = more;
        return status;
    }
    PQclear(more);
    if (status != VNL_PG_OK) {
        return status;
    }
    return kind == PGRES_FATAL_ERROR ? VNL_PG_SERVER : VNL_PG_COPY;
}

vnl_pg_status
vnl_pg_copy_put_wait(vnl_pg_conn *conn, const char *data, int len, int64_t deadline)
{
    for (;;) {
        int sent = PQputCopyData(conn->pg, data, len);
        if (sent < 0) {
            return VNL_PG_LOST;
        }
        /* Written or not, do not let what is unsent grow without bound. */
        vnl_pg_status status = vnl_pg_flush_wait(conn, deadline);
        if (status != VNL_PG_OK || sent > 0) {
            return status;
        }
    }
}

vnl_pg_status
vnl_pg_copy_get_wait(vnl_pg_conn *conn, int64_t deadline, char **data, int *len)
{
    *data = NULL;
    for (;;) {
        *len = PQgetCopyData(conn->pg, data, 1);
        if (*len > 0) {
            return VNL_PG_OK;
        }
        if (*len < 0) {
            *len = 0;
            return VNL_PG_OK; /* the end, or an error that the next result tells */
        }
        vnl_pg_status status = vnl_pg_readable_wait(conn, deadline);
        if (status != VNL_PG_OK) {
            return status;
        }
    }
}

vnl_pg_status
vnl_pg_copy_end_wait(vnl_pg_conn *conn, const char *error, int64_t deadline, PGresult **result)
{
    *result = NULL;
    while (PQputCopyEnd(conn->pg, error) == 0) {
        vnl_pg_status status = vnl_pg_flush_wait(conn, deadline);
        if (status != VNL_PG_OK) {
            return status;
        }
    }
    return vnl_pg_copy_finish_wait(conn, deadline, result);
}

vnl_pg_status
vnl_pg_copy_finish_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result)
{
    vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, result);
    if (status == VNL_PG_OK || status == VNL_PG_COPY) {
        conn->inflight = 0;
    }
    if (status == VNL_PG_OK && *result != NULL && PQresultStatus(*result) == PGRES_FATAL_ERROR) {
        return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_SERVER : VNL_PG_LOST;
    }
    return status;
}
