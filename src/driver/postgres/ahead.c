/* A FETCH that was sent before anybody asked for its rows, so that the server
 * works while those before are used.
 *
 * Outside of a transaction, of a cursor WITH HOLD, and one at a time: there it changes
 * nothing that others see, and if it fails it fails alone.  Whoever sends the next
 * statement reads its answer first and leaves it for the cursor.
 */
#include "pg.h"

#include <string.h>

PGTransactionStatusType
vnl_pg_txn(const vnl_pg_conn *conn)
{
    PGTransactionStatusType status = PQtransactionStatus(conn->pg);
    return conn->ahead.sent && status == PQTRANS_ACTIVE ? PQTRANS_IDLE : status;
}

void
vnl_pg_ahead_send(vnl_pg_conn *conn, const void *owner, const char *sql, int binary)
{
    vnl_pg_ahead *ahead = &conn->ahead;
    if (conn->inflight || ahead->sent || ahead->owner != NULL ||
        PQtransactionStatus(conn->pg) != PQTRANS_IDLE ||
        !PQsendQueryParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, binary)) {
        return;
    }
    ahead->owner = owner;
    ahead->sent = 1;
    ahead->status = VNL_PG_OK;
    (void)PQflush(conn->pg); /* what is left of it, and an error, show when its answer is read */
}

void
vnl_pg_ahead_forget(vnl_pg_conn *conn, const void *owner)
{
    if (conn->ahead.owner == owner) {
        conn->ahead.owner = NULL;
        PQclear(conn->ahead.result);
        conn->ahead.result = NULL;
    }
}

vnl_pg_status
vnl_pg_ahead_settle_wait(vnl_pg_conn *conn, int64_t deadline)
{
    vnl_pg_ahead *ahead = &conn->ahead;
    if (!ahead->sent) {
        return VNL_PG_OK;
    }
    vnl_pg_status status = vnl_pg_answer_wait(conn, deadline, &ahead->result);
    if (status == VNL_PG_INTERRUPTED) {
        return status; /* to be gone on with */
    }
    ahead->sent = 0;
    ahead->status = status;
    if (status == VNL_PG_TIMEOUT) {
        conn->inflight = 1; /* what is to be cancelled */
    }
    if (status == VNL_PG_OK && ahead->owner != NULL) {
        return VNL_PG_OK;
    }
    PQclear(ahead->result);
    ahead->result = NULL;
    return status;
}

vnl_pg_status
vnl_pg_ahead_take_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result)
{
    vnl_pg_ahead *ahead = &conn->ahead;
    vnl_pg_status status = vnl_pg_ahead_settle_wait(conn, deadline);
    if (status == VNL_PG_INTERRUPTED) {
        /* From here on a statement like any other. */
        conn->inflight = 1;
        ahead->sent = 0;
    }
    *result = status == VNL_PG_OK ? ahead->result : NULL;
    if (*result != NULL) {
        ahead->result = NULL;
    }
    vnl_pg_ahead_forget(conn, ahead->owner);
    return status;
}
