/* Shared: the statements of several tasks on one connection, in libpq's pipeline mode.
 *
 * Each is closed by a sync of its own, so that its error is its own.  Answers come in the order of
 * sending.  One fiber reads, that of the first statement not answered; it hands out what else has come and
 * then makes the next one the reader.  Whoever goes away leaves its turn, whose answer is thrown away.
 *
 * When the reader is cancelled or the connection is lost, the others are sent elsewhere, so that nothing of
 * theirs is left to be cancelled by mistake.
 */
#include "pg.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"

/* How many are under way on one connection. */
#define DEPTH 8
/* For what nobody waits for any more, read by one who has its answer already. */
#define REST_BOUND 5000000 /* 5 ms */
/* As for a statement that runs alone (py_hold.c). */
#define CANCEL_BOUND 50000000 /* 50 ms */

typedef enum {
    TURN_WAITS,
    TURN_READS,    /* its fiber reads what comes */
    TURN_ANSWERED, /* out of the list, as is the next */
    TURN_ELSEWHERE,
    TURN_LEFT /* nobody waits for it: freed with its answer */
} turn_state;

typedef struct {
    vnl_node node;
    vnl_event *event;
    turn_state state;
    PGresult *result;
    int64_t took;
} shared_turn;

struct vnl_pg_shared {
    vnl_pg_conn *conn;
    vnl_slot *slot;
    vnl_node turns; /* shared_turn.node: sent, the answer not read */
    int length;     /* of turns */
    int users;      /* have entered */
    int ended;      /* takes nobody in any more */
    int broken;     /* the connection is of no use */
    int64_t since;  /* the first in the list has the server from then on */
};

static shared_turn *
first_turn(const vnl_pg_shared *shared)
{
    vnl_node *node = vnl_list_first(&shared->turns);
    return node != NULL ? VNL_CONTAINER(node, shared_turn, node) : NULL;
}

static void
turn_free(shared_turn *turn)
{
    if (turn != NULL) {
        PQclear(turn->result);
        vnl_pg_core->event_free(turn->event);
        free(turn);
    }
}

/* Out of the list; told, if somebody waits for it. */
static void
turn_end(vnl_pg_shared *shared, shared_turn *turn, turn_state state)
{
    vnl_list_remove(&turn->node);
    shared->length--;
    if (turn->state == TURN_LEFT) {
        turn_free(turn);
        return;
    }
    int waits = turn->state == TURN_WAITS;
    turn->state = state;
    if (waits) {
        vnl_pg_core->event_set(turn->event);
    }
}

static void
offer(vnl_pg_shared *shared)
{
    int room = shared->ended || shared->broken ? 0 : DEPTH - shared->length;
    vnl_pg_core->slot_offer(shared->slot, room > 0 ? room : 0);
}

/* Sends all but `mine` elsewhere, and takes nobody in any more. */
static void
break_up(vnl_pg_shared *shared, shared_turn *mine)
{
    vnl_node *node = shared->turns.next;
    shared->ended = 1;
    offer(shared);
    while (node != &shared->turns) {
        shared_turn *turn = VNL_CONTAINER(node, shared_turn, node);
        node = node->next;
        if (turn != mine) {
            turn_end(shared, turn, TURN_ELSEWHERE);
        }
    }
    if (mine != NULL) {
        turn_end(shared, mine, TURN_ELSEWHERE);
    }
}

vnl_pg_shared *
vnl_pg_shared_new(vnl_pg_conn *conn, vnl_slot *slot)
{
    vnl_pg_shared *shared = calloc(1, sizeof(*shared));
    if (shared == NULL || !PQenterPipelineMode(conn->pg)) {
        free(shared);
        return NULL;
    }
    vnl_list_init(&shared->turns);
    shared->conn = conn;
    shared->slot = slot;
    conn->shared = shared;
    conn->inflight = 1;
    return shared;
}

void
vnl_pg_shared_enter(vnl_pg_shared *shared)
{
    shared->users++;
}

void
vnl_pg_shared_leave(vnl_pg_shared *shared)
{
    vnl_pg_conn *conn = shared->conn;
    if (--shared->users > 0) {
        return;
    }
    int good = !shared->broken && shared->length == 0;
    break_up(shared, NULL);
    if (good && conn->inflight) {
        conn->inflight = 0;
        good = PQexitPipelineMode(conn->pg);
    }
    good = good && PQstatus(conn->pg) == CONNECTION_OK && PQtransactionStatus(conn->pg) == PQTRANS_IDLE;
    conn->shared = NULL;
    vnl_pg_core->pool_give(shared->slot, good);
    free(shared);
}

/* Sending may find the connection closed, and libpq then gives its descriptor away: the reader, who waits
 * for that, has to learn of it. */
static void
look_at_socket(vnl_pg_conn *conn)
{
    if (PQsocket(conn->pg) < 0 && conn->watch != NULL) {
        vnl_pg_core->watch_ring(conn->watch);
        vnl_pg_core->watch_free(conn->watch);
        conn->watch = NULL;
    }
}

static int
send_turn(vnl_pg_conn *conn, const vnl_pg_query *query)
{
    return vnl_pg_send(conn, query) && PQpipelineSync(conn->pg) && PQflush(conn->pg) >= 0;
}

/* Takes what has come of the first turn's answer: 1 all of it, 0 not yet, -1 the connection is lost. */
static int
take_answer(vnl_pg_shared *shared, shared_turn *turn)
{
    PGconn *pg = shared->conn->pg;
    int nulls = 0;
    while (!PQisBusy(pg)) {
        PGresult *result = PQgetResult(pg);
        if (result == NULL) {
            if (PQstatus(pg) != CONNECTION_OK || ++nulls > 1) {
                return -1; /* libpq knows of nothing that is to come */
            }
            continue;
        }
        nulls = 0;
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            return 1;
        }
        vnl_pg_keep_result(result, &turn->result);
    }
    return 0;
}

/* Hands out what has come.  1 when nothing is left to come, 0, or -1 when the connection is lost. */
static int
hand_out(vnl_pg_shared *shared)
{
    shared_turn *turn = NULL;
    while ((turn = first_turn(shared)) != NULL) {
        int whole = take_answer(shared, turn);
        if (whole <= 0) {
            return whole;
        }
        int64_t now = vnl_pg_core->now();
        turn->took = now - shared->since;
        shared->since = now;
        turn_end(shared, turn, TURN_ANSWERED);
    }
    return 1;
}

/* The reader has its answer: the next one reads.  What nobody waits for is read here. */
static void
pass_on_wait(vnl_pg_shared *shared)
{
    for (vnl_node *node = shared->turns.next; node != &shared->turns; node = node->next) {
        shared_turn *turn = VNL_CONTAINER(node, shared_turn, node);
        if (turn->state == TURN_WAITS) {
            turn->state = TURN_READS;
            vnl_pg_core->event_set(turn->event);
            offer(shared);
            return;
        }
    }
    if (shared->length == 0) {
        offer(shared);
        return;
    }
    break_up(shared, NULL);
    vnl_pg_core->shield_enter();
    if (vnl_pg_drain_wait(shared->conn, vnl_pg_core->now() + REST_BOUND, NULL) != VNL_PG_OK &&
        vnl_pg_cancel_wait(shared->conn, vnl_pg_core->now() + CANCEL_BOUND) != VNL_PG_OK) {
        shared->broken = 1;
    }
    vnl_pg_core->shield_leave();
}

/* The reader was told to end: nothing of its statement is left on the connection, or that is closed. */
static void
stop_wait(vnl_pg_shared *shared, shared_turn *turn)
{
    break_up(shared, turn);
    vnl_pg_core->shield_enter();
    if (vnl_pg_cancel_wait(shared->conn, vnl_pg_core->now() + CANCEL_BOUND) != VNL_PG_OK) {
        shared->broken = 1;
    }
    vnl_pg_core->shield_leave();
}

static vnl_pg_status
read_wait(vnl_pg_shared *shared, shared_turn *turn)
{
    int lost = 0;
    for (;;) {
        int rest = hand_out(shared);
        if (turn->state == TURN_ANSWERED) {
            pass_on_wait(shared);
            return VNL_PG_OK;
        }
        if (rest < 0 || lost) {
            /* Only who had the server loses by it. */
            int mine = first_turn(shared) == turn;
            shared->broken = 1;
            break_up(shared, turn);
            return mine ? VNL_PG_LOST : VNL_PG_ELSEWHERE;
        }
        vnl_pg_status status = vnl_pg_readable_wait(shared->conn, VNL_FOREVER);
        if (status == VNL_PG_INTERRUPTED) {
            stop_wait(shared, turn);
            return status;
        }
        lost = status != VNL_PG_OK; /* libpq still gives the server's last words */
    }
}

/* Until it has an answer or is the one to read. */
static vnl_pg_status
turn_wait(vnl_pg_shared *shared, shared_turn *turn, int64_t patience)
{
    int ready = 0;
    do {
        ready = vnl_pg_core->event_wait(turn->event, shared->since + patience);
        if (ready == 0) {
            ready = vnl_pg_core->turn_wait(); /* a loop that comes late has the answer too, perhaps */
        }
    } while (ready == 0 && (turn->state != TURN_WAITS || vnl_pg_core->now() - shared->since < patience));
    if (ready > 0) {
        return turn->state == TURN_ELSEWHERE ? VNL_PG_ELSEWHERE : VNL_PG_OK;
    }
    if (turn->state == TURN_READS) {
        stop_wait(shared, turn); /* became it together with the cancel */
    }
    else if (turn->state == TURN_WAITS) {
        turn->state = TURN_LEFT;
    }
    return ready < 0 ? VNL_PG_INTERRUPTED : VNL_PG_ELSEWHERE;
}

vnl_pg_status
vnl_pg_shared_run_wait(vnl_pg_shared *shared, const vnl_pg_query *query, int64_t patience, PGresult **result,
                       int64_t *took)
{
    *result = NULL;
    *took = 0;
    shared_turn *turn = calloc(1, sizeof(*turn));
    if (turn == NULL || (turn->event = vnl_pg_core->event_new()) == NULL) {
        free(turn);
        return turn == NULL ? VNL_PG_NOMEM : VNL_PG_INTERRUPTED;
    }
    int sent = send_turn(shared->conn, query);
    look_at_socket(shared->conn);
    if (!sent) {
        shared->broken = 1; /* those before it have what they need */
        turn_free(turn);
        offer(shared);
        return VNL_PG_ELSEWHERE;
    }
    int64_t began = vnl_pg_core->now();
    int first = shared->length == 0;
    turn->state = first ? TURN_READS : TURN_WAITS;
    shared->since = first ? began : shared->since;
    vnl_list_append(&shared->turns, &turn->node);
    shared->length++;
    offer(shared);
    vnl_pg_status status = VNL_PG_OK;
    if (!first) {
        status = turn_wait(shared, turn, patience);
        vnl_pg_core->slot_waited(shared->slot, vnl_pg_core->now() - began);
    }
    if (status == VNL_PG_OK && turn->state == TURN_READS) {
        vnl_pg_core->slot_hand_over(shared->slot);
        status = read_wait(shared, turn);
    }
    if (turn->state != TURN_LEFT) {
        *result = turn->result;
        *took = turn->took;
        turn->result = NULL;
        turn_free(turn);
    }
    return status;
}
