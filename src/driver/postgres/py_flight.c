/* Several statements of one link, sent together (flight.c), with BEGIN ahead and COMMIT behind where those
 * are due. */
#include "py.h"

#include <string.h>

#define ATTEMPTS 3

typedef struct {
    pg_link *link;
    vnl_pg_leg *sent;
    pg_leg **of; /* whose each of `sent` is; NULL: the end's */
    int count;
    int was_in_txn; /* before what is under way */
    char begin[128];
} flight;

int
pg_flight_fits(const pg_link *link, const pg_request *request, int first)
{
    static const int others =
        VNL_SQL_MULTI | VNL_SQL_COPY | VNL_SQL_SIMPLE | VNL_SQL_PINS | VNL_SQL_DDL | VNL_SQL_DEALLOC;
    int flags = request->sql->flags;
    if (!(flags & VNL_SQL_DML) || (flags & others)) {
        return 0;
    }
    if (request->nliteral > 0 && (flags & VNL_SQL_ROWS)) {
        return 0; /* its text is of these values alone: nothing is known of its columns */
    }
    if (!first || link->autocommit || request->nparams == 0 || vnl_pg_txn(link->conn) != PQTRANS_IDLE) {
        return 1;
    }
    /* What begins a transaction is tried again with literals where the server wants those. */
    const vnl_pg_stmt *stmt = vnl_pg_stmts_find(&link->conn->stmts, request->text.data, request->text.len,
                                                request->oids, request->nparams);
    return stmt != NULL && stmt->ran;
}

int
pg_flight_raise(pg_link *link, const pg_leg *legs, int n)
{
    for (int i = 0; i < n; i++) {
        if (legs[i].status == VNL_PG_SERVER) {
            pg_link_raise(link, VNL_PG_SERVER, legs[i].result);
            return -1;
        }
    }
    return 0;
}

/* --- what is sent ----------------------------------------------------------- */

static void
flight_free(flight *self)
{
    if (self != NULL) {
        for (int i = 0; i < self->count; i++) {
            PQclear(self->sent[i].answer.result);
        }
        PyMem_Free(self->sent);
        PyMem_Free(self->of);
        PyMem_Free(self);
    }
}

/* With room for `n` legs and an end. */
static flight *
flight_new(pg_link *link, int n)
{
    flight *self = PyMem_Calloc(1, sizeof(*self));
    if (self != NULL) {
        self->link = link;
        self->sent = PyMem_Calloc((size_t)n + 1, sizeof(*self->sent));
        self->of = PyMem_Calloc((size_t)n + 1, sizeof(*self->of));
    }
    if (self == NULL || self->sent == NULL || self->of == NULL) {
        flight_free(self);
        PyErr_NoMemory();
        return NULL;
    }
    return self;
}

static void
flight_add(flight *self, pg_leg *leg, vnl_pg_query query)
{
    self->sent[self->count] = (vnl_pg_leg){.query = query, .sync = leg != NULL && leg->sync};
    self->of[self->count++] = leg;
}

static void
find_stmts(pg_link *link, pg_leg *legs, int n)
{
    vnl_pg_stmts *stmts = &link->conn->stmts;
    int have_room = stmts->count + n <= stmts->size;
    for (int i = 0; i < n; i++) {
        const pg_request *request = &legs[i].request;
        int kept = (request->sql->flags & VNL_SQL_DML) && request->nliteral == 0; /* else it comes once */
        legs[i].stmt = kept ? pg_use_stmt(link->conn, &legs[i].request) : NULL;
    }
    for (int i = 0; i < n; i++) {
        const pg_request *request = &legs[i].request;
        if (!have_room && request->nliteral == 0) { /* one may have made room for another */
            legs[i].stmt = vnl_pg_stmts_find(stmts, request->text.data, request->text.len, request->oids,
                                             request->nparams);
        }
        legs[i].binary = legs[i].stmt != NULL && legs[i].stmt->binary == 1;
    }
}

/* The one in the flight that prepares this statement, or NULL. */
static const vnl_pg_leg *
preparer_of(const flight *self, const vnl_pg_stmt *stmt)
{
    for (int i = 0; i < self->count; i++) {
        if (self->sent[i].query.prepare && self->of[i]->stmt == stmt) {
            return &self->sent[i];
        }
    }
    return NULL;
}

static vnl_pg_query
query_of(const flight *self, const pg_leg *leg)
{
    vnl_pg_query query = pg_request_query(&leg->request);
    vnl_pg_stmt *stmt = leg->stmt;
    query.binary = leg->binary;
    if (stmt == NULL || !pg_prepares(self->link->config, stmt)) {
        return query;
    }
    if (stmt->prepared) {
        query.name = stmt->name;
        return query;
    }
    const vnl_pg_leg *first = preparer_of(self, stmt);
    if (first == NULL) {
        vnl_pg_stmt_name(&self->link->conn->stmts, stmt);
        query.prepare = 1;
    }
    /* Behind a Sync nobody knows whether it was prepared. */
    if (first == NULL || !first->sync) {
        query.name = stmt->name;
    }
    return query;
}

/* --- what came of it ---------------------------------------------------------- */

static int
is_answered(const vnl_pg_leg *leg)
{
    return leg->status == VNL_PG_OK || leg->status == VNL_PG_SERVER || leg->status == VNL_PG_SKIPPED;
}

/* The connection is gone, or of no use.  Raises. */
static int
lose(flight *self, vnl_pg_status status, int was_in_txn)
{
    pg_link *link = self->link;
    PGresult *words = NULL;
    for (int i = 0; i < self->count && words == NULL; i++) {
        if (!is_answered(&self->sent[i])) {
            words = self->sent[i].answer.result;
            self->sent[i].answer.result = NULL;
        }
    }
    if (status == VNL_PG_LOST && words == NULL) {
        words = PQmakeEmptyPGresult(link->conn->pg, PGRES_FATAL_ERROR);
    }
    if (status == VNL_PG_LOST || link->conn->inflight) {
        pg_link_lost(link, was_in_txn);
    }
    pg_link_raise(link, status, words);
    PQclear(words);
    return -1;
}

/* Not all of it was answered.  Raises. */
static int
cut_off(flight *self, vnl_pg_status status)
{
    if (status == VNL_PG_TIMEOUT) {
        pg_link_overdue(self->link);
        return -1;
    }
    if (status == VNL_PG_INTERRUPTED) {
        pg_link_cancel_statement(self->link);
        return -1;
    }
    /* Also one that has begun only now: what went ahead of the others may be taken for done. */
    return lose(self, status, self->was_in_txn || (self->count > 1 && !self->link->autocommit));
}

static int
has_committed(const vnl_pg_leg *leg)
{
    return leg->status == VNL_PG_OK && strcmp(PQcmdStatus(leg->answer.result), "COMMIT") == 0;
}

/* The same with an end behind.  0: it took place; or -1. */
static int
end_cut_off(flight *self, vnl_pg_status status, const char *end)
{
    pg_link *link = self->link;
    const vnl_pg_leg *last = &self->sent[self->count - 1];
    int committed = has_committed(last);
    int alone =
        self->count < 2 || is_answered(&self->sent[self->count - 2]); /* nothing else is outstanding */
    if (status == VNL_PG_TIMEOUT && alone && !committed) {
        pg_link_end_overdue(link, end);
        return -1;
    }
    if (status == VNL_PG_TIMEOUT || status == VNL_PG_INTERRUPTED) {
        pg_link_end_cut(link, !alone);
        link->committed = committed ? 1 : link->committed;
    }
    if (PyErr_Occurred()) {
        return -1; /* a cancel may have come meanwhile */
    }
    if (status == VNL_PG_TIMEOUT && link->committed <= 0) {
        pg_raise_state(
            link->state, "57014",
            link->committed == 0
                ? "a statement was cancelled: the server did not answer within "
                  "OPTIONS['command_timeout']; nothing was committed"
                : "the server did not answer within OPTIONS['command_timeout']: whether COMMIT took "
                  "place is not known; the connection was closed");
        return -1;
    }
    if (status != VNL_PG_TIMEOUT && !committed) {
        return lose(self, status, 0); /* the transaction is over in any case */
    }
    if (status != VNL_PG_TIMEOUT) {
        pg_link_detach(link, 0);
    }
    return 0;
}

/* Sends it all.  0 when it was answered (an end may have taken place without), or -1 with an exception. */
static int
send_wait(flight *self, const char *end)
{
    pg_link *link = self->link;
    int64_t limit = link->config->command_timeout;
    self->was_in_txn = vnl_pg_txn(link->conn) != PQTRANS_IDLE;
    if (!link->autocommit && !self->was_in_txn) {
        if (pg_link_begin_sql(link, self->begin, sizeof(self->begin)) < 0) {
            return -1;
        }
        self->sent[0].query.begin = self->begin;
        link->txn++;
    }
    vnl_pg_status status =
        vnl_pg_flight_wait(link->conn, self->sent, self->count, pg_link_deadline(link), limit);
    if (status != VNL_PG_OK) {
        return end != NULL ? end_cut_off(self, status, end) : cut_off(self, status);
    }
    pg_link_answered(link);
    return 0;
}

/* The server refused: whether it may do better, and what it does better next time. */
static void
learn_refusal(flight *self, int i)
{
    pg_leg *leg = self->of[i];
    const vnl_pg_query *query = &self->sent[i].query;
    pg_config *config = self->link->config;
    const char *state = PQresultErrorField(leg->result, PG_DIAG_SQLSTATE);
    if (state == NULL) {
        return;
    }
    leg->again = query->name != NULL && !query->prepare &&
                 pg_forget_prepared(config, self->link->conn, leg->stmt, state);
    if (!leg->again && leg->request.nparams > 0 && leg->request.binding == PG_BIND_AUTO &&
        pg_is_binding_error(state)) {
        leg->again = leg->sync;
        leg->request.sql->force_literal |= !leg->sync;
    }
}

/* Gives the legs their answers: 0, or -1 with an exception. */
static int
hand_out(flight *self)
{
    int rc = 0;
    for (int i = 0; i < self->count; i++) {
        pg_leg *leg = self->of[i];
        if (leg == NULL) {
            continue;
        }
        leg->status = self->sent[i].status;
        leg->result = self->sent[i].answer.result;
        self->sent[i].answer.result = NULL;
        if (self->link->conn == NULL) {
            continue;
        }
        if (leg->stmt != NULL && self->sent[i].answer.prepared) {
            leg->stmt->prepared = 1;
        }
        if (leg->status == VNL_PG_SERVER) {
            learn_refusal(self, i);
        }
        if (leg->status == VNL_PG_OK && rc == 0) {
            rc = pg_learn(self->link, &leg->request, leg->stmt, leg->result);
        }
    }
    return rc;
}

/* --- the whole of it ------------------------------------------------------------ */

/* The suspects are described first (suspect.c), all at once: 0, or -1 with an exception. */
static int
describe_wait(pg_link *link, pg_leg *legs, int n)
{
    int rc = 0;
    flight *self = flight_new(link, n);
    for (int i = 0; i < n && self != NULL && rc == 0; i++) {
        int suspect = pg_is_suspect_wait(link, &legs[i].request, legs[i].stmt);
        if (suspect > 0) {
            vnl_pg_query question = pg_request_query(&legs[i].request);
            question.describe = 1;
            flight_add(self, &legs[i], question);
        }
        rc = suspect < 0 ? -1 : 0;
    }
    if (self == NULL || rc < 0 || self->count == 0) {
        flight_free(self);
        return self != NULL ? rc : -1;
    }
    rc = send_wait(self, NULL);
    int refused = 0;
    for (int i = 0; i < self->count && rc == 0; i++) {
        pg_leg *leg = self->of[i];
        PGresult *result = self->sent[i].answer.result;
        leg->status = self->sent[i].status;
        if (leg->status == VNL_PG_OK) {
            leg->binary = pg_learn_binary(link, leg->stmt, result);
            rc = leg->binary < 0 ? -1 : 0;
        }
        else if (leg->status == VNL_PG_SERVER) {
            leg->result = result;
            self->sent[i].answer.result = NULL;
            learn_refusal(self, i);
            refused |= !leg->sync;
        }
    }
    for (int i = 0; i < n && refused; i++) {
        legs[i].status = legs[i].status == VNL_PG_OK ? VNL_PG_SKIPPED : legs[i].status;
    }
    flight_free(self);
    return rc;
}

/* The end's answer: 0, or -1 with an exception. */
static int
check_end(flight *self, const pg_leg *legs, int n)
{
    pg_link *link = self->link;
    const vnl_pg_leg *last = &self->sent[self->count - 1];
    if (link->committed > 0 || has_committed(last)) {
        return 0;
    }
    if (pg_flight_raise(link, legs, n) < 0) {
        return -1;
    }
    if (last->status == VNL_PG_OK) {
        return pg_link_rolled_back(link);
    }
    pg_link_raise(link, last->status, last->answer.result);
    return -1;
}

static int
fly_wait(pg_link *link, pg_leg *legs, int n, const char *end)
{
    find_stmts(link, legs, n);
    if (describe_wait(link, legs, n) < 0) {
        return -1;
    }
    flight *self = flight_new(link, n);
    if (self == NULL) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (legs[i].status == VNL_PG_OK) {
            flight_add(self, &legs[i], query_of(self, &legs[i]));
        }
    }
    int rc = 0;
    if (end != NULL && self->count == n) {
        flight_add(self, NULL, (vnl_pg_query){.sql = end});
    }
    else if (end != NULL) {
        rc = pg_flight_raise(link, legs, n);
    }
    if (rc == 0 && self->count > 0) {
        rc = send_wait(self, end) < 0 || hand_out(self) < 0 ? -1 : 0;
    }
    if (rc == 0 && end != NULL) {
        rc = check_end(self, legs, n);
    }
    flight_free(self);
    return rc;
}

/* Whether all is to be sent again: it was refused as what was prepared is gone, and nothing went before. */
static int
is_retried(const pg_leg *legs, int n)
{
    for (int i = 0; i < n; i++) {
        if (legs[i].status == VNL_PG_SERVER) {
            return legs[i].again && !legs[i].sync;
        }
    }
    return 0;
}

int
pg_flight_run_wait(pg_link *link, pg_leg *legs, int n, const char *end)
{
    for (int attempt = 1;; attempt++) {
        if (pg_link_attach_wait(link) < 0) {
            return -1;
        }
        link->committed = end != NULL ? 0 : link->committed;
        int first = vnl_pg_txn(link->conn) == PQTRANS_IDLE;
        for (int i = 0; i < n; i++) {
            legs[i].status = VNL_PG_OK;
            legs[i].result = NULL;
            legs[i].again = 0;
        }
        int rc = fly_wait(link, legs, n, end);
        int again = first && attempt < ATTEMPTS && link->conn != NULL && is_retried(legs, n);
        if (again) {
            PyErr_Clear();
            rc = PQtransactionStatus(link->conn->pg) != PQTRANS_IDLE ? pg_link_command_wait(link, "ROLLBACK")
                                                                     : 0;
        }
        for (int i = 0; i < n && !again; i++) {
            legs[i].again = legs[i].again && legs[i].sync; /* else its transaction has failed */
        }
        if (!again || rc < 0) {
            return rc < 0 ? -1 : pg_link_notices(link);
        }
        for (int i = 0; i < n; i++) {
            PQclear(legs[i].result);
        }
    }
}
