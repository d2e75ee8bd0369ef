/* The SELECTs of several strands, or the INSERTs of a bulk_create(), sent together (py_flight.c). */
#include "py.h"

#include <string.h>

/* On the heap: the hub reads it while its strand is switched out. */
typedef struct {
    vnl_park park;     /* first, so that one pointer is both */
    pg_cursor *cursor; /* borrowed: its execute() is parked */
    pg_leg leg;
    int flown;
} pg_parked;

/* It reads, locks and leaves nothing, so that nobody can tell when it ran.  Where what writes is parked, all
 * is, and keeps its order. */
static int
may_park(const pg_link *link, const pg_request *request)
{
    int reads = request->nliteral == 0 &&
                (request->sql->flags & ~(VNL_SQL_SHARE | VNL_SQL_NAMED)) == (VNL_SQL_DML | VNL_SQL_ROWS) &&
                request->text.len > 6 && memcmp(request->text.data, "SELECT", 6) == 0;
    return !link->closed && !link->broken && !link->copying && (link->parks_writes || reads);
}

/* One that was refused has failed the transaction: until its own code hears of that, others that meet it are
 * told why (pg_link_raise). */
static void
note_refusal(pg_link *link, const pg_leg *leg)
{
    if (link->refused == NULL && leg->status == VNL_PG_SERVER && !leg->sync) {
        link->refused = leg->result;
    }
}

/* Sends those that fit.  0, or -1 with an exception. */
static int
send_wait(pg_link *link, pg_parked **parked, int n)
{
    int rc = 0, count = 0;
    int sync = link->autocommit && vnl_pg_txn(link->conn) == PQTRANS_IDLE;
    pg_leg *legs = PyMem_Calloc((size_t)n, sizeof(*legs));
    pg_parked **of = PyMem_Calloc((size_t)n, sizeof(*of));
    if (legs == NULL || of == NULL) {
        PyErr_NoMemory();
        rc = -1;
        goto done;
    }
    for (int i = 0; i < n; i++) {
        if (pg_flight_fits(link, &parked[i]->leg.request, count == 0)) {
            parked[i]->leg.sync = sync;
            legs[count] = parked[i]->leg;
            of[count++] = parked[i];
        }
        else if (link->parks_writes) {
            goto done;
        }
    }
    if (count < 2) {
        goto done;
    }
    rc = pg_flight_run_wait(link, legs, count, NULL);
    for (int i = 0; i < count; i++) {
        of[i]->leg = legs[i];
        of[i]->flown = rc == 0;
        if (rc == 0) {
            note_refusal(link, &of[i]->leg);
        }
    }
done:
    PyMem_Free(legs);
    PyMem_Free(of);
    return rc;
}

static int
fly_wait(vnl_park **parks, int n)
{
    pg_parked **parked = (pg_parked **)parks;
    pg_link *link = parked[0]->cursor->link;
    if (pg_link_enter_wait(link) < 0) {
        return -1;
    }
    int rc = pg_link_attach_wait(link);
    if (rc == 0) {
        rc = send_wait(link, parked, n);
    }
    if (rc == 0) {
        rc = pg_link_notices(link);
    }
    pg_link_leave(link);
    return rc;
}

/* What came of it: 1 with a result, 0: it is to be run in the usual way, -1 with an exception. */
static int
outcome(pg_parked *parked, PGresult **result)
{
    pg_leg *leg = &parked->leg;
    if (!parked->flown || leg->status == VNL_PG_SKIPPED || leg->again) {
        return 0;
    }
    if (leg->status != VNL_PG_OK) {
        pg_link_raise(parked->cursor->link, leg->status, leg->result);
        return -1;
    }
    *result = leg->result;
    leg->result = NULL;
    return 1;
}

int
pg_park_run_wait(pg_cursor *cur, PyObject *query, PyObject *params, PGresult **result)
{
    pg_link *link = cur->link;
    pg_binding binding = cur->server_side ? PG_BIND_SERVER : PG_BIND_AUTO;
    int rc = 0;
    if (link == NULL || !(link->parks || link->parks_writes) || !vnl_pg_core->strand_parks()) {
        return 0;
    }
    if (pg_cursor_set_statement(cur, query, params) < 0) {
        return -1;
    }
    pg_parked *parked = PyMem_Calloc(1, sizeof(*parked));
    if (parked == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    parked->park = (vnl_park){fly_wait, link};
    parked->cursor = cur;
    if (pg_request_init(link->state, &parked->leg.request, pg_link_ctx(link), cur->sql, cur->params,
                        binding) < 0) {
        PyMem_Free(parked);
        return -1;
    }
    if (may_park(link, &parked->leg.request)) {
        rc = vnl_pg_core->strand_park_wait(&parked->park);
        rc = rc < 0 ? -1 : outcome(parked, result);
    }
    if (link->refused == parked->leg.result) {
        link->refused = NULL;
    }
    pg_request_clear(&parked->leg.request);
    PQclear(parked->leg.result);
    PyMem_Free(parked);
    return rc;
}
