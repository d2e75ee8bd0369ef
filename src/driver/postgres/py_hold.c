/* Which physical connection a link holds, and who uses the link. */
#include "py.h"

#include <stdio.h>
#include <unistd.h>

/* A task is told of its cancel within 0.1 s, also where the server says nothing any
 * more: the rest is the loop's. */
#define CANCEL_BOUND 50000000 /* 50 ms */

int
pg_link_in_txn(pg_link *link)
{
    if (link->broken || pg_held_any(link)) {
        return 1;
    }
    if (link->conn == NULL) {
        return 0;
    }
    PGTransactionStatusType status = vnl_pg_txn(link->conn);
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR || status == PQTRANS_ACTIVE;
}

void
pg_link_detach(pg_link *link, int reusable)
{
    vnl_slot *slot = link->slot;
    vnl_pg_conn *conn = link->conn;
    link->slot = NULL;
    link->conn = NULL;
    link->pins = 0;
    reusable = reusable && !link->sticky;
    link->sticky = link->listening = 0;
    if (slot != NULL) {
        vnl_pg_core->pool_give(slot, reusable);
    }
    else if (conn != NULL) {
        if (link->owner_pid == (long)getpid()) {
            vnl_pg_close(conn);
        }
        else {
            vnl_pg_abandon(conn);
        }
    }
}

/* In the queue for a busy link: first come, first served. */
typedef struct {
    vnl_node node;
    vnl_event *event;
    const void *who;
    int has_turn;
} link_turn;

/* The link goes to the first who waits for it, or is free. */
static void
pass_turn(pg_link *link)
{
    vnl_node *node = vnl_list_first(&link->turns);
    link->busy = node != NULL;
    link->user = NULL;
    if (node != NULL) {
        link_turn *turn = VNL_CONTAINER(node, link_turn, node);
        vnl_list_remove(node);
        turn->has_turn = 1;
        link->user = turn->who;
        vnl_pg_core->event_set(turn->event);
    }
}

/* 0 with the turn, or -1. */
static int
turn_wait(pg_link *link)
{
    link_turn *turn = PyMem_Calloc(1, sizeof(*turn));
    if (turn == NULL || (turn->event = vnl_pg_core->event_new()) == NULL) {
        PyMem_Free(turn);
        PyErr_NoMemory();
        return -1;
    }
    turn->who = vnl_pg_core->who();
    vnl_list_append(&link->turns, &turn->node);
    int ready = vnl_pg_core->event_wait(turn->event, VNL_FOREVER);
    vnl_list_remove(&turn->node);
    int has_turn = turn->has_turn;
    vnl_pg_core->event_free(turn->event);
    PyMem_Free(turn);
    if (ready < 0 && has_turn) {
        pass_turn(link); /* the turn came together with the cancel */
    }
    return ready < 0 ? -1 : 0;
}

static int
raise_busy(const pg_link *link)
{
    pg_raise(link->state, "InterfaceError", "%s",
             link->copying
                 ? "another statement is running on this connection: a COPY, which keeps it until its block "
                   "ends; use a cursor of another vinyl.cursor() outside of the transaction, or wait"
             : link->user == vnl_pg_core->who()
                 ? "another statement is running on this connection, which has called this code"
                 : "another statement is running on this connection: use it from one thread at a time");
    return -1;
}

int
pg_link_enter_wait(pg_link *link)
{
    if (pg_link_enter_holding_wait(link) < 0) {
        return -1;
    }
    if (pg_held_any(link) && pg_held_send_wait(link, NULL) < 0) {
        pg_link_leave(link);
        return -1;
    }
    return 0;
}

int
pg_link_enter_holding_wait(pg_link *link)
{
    int has_turn = 0;
    Py_INCREF(link);
    if (link->busy && !link->closed) {
        if (link->copying || link->user == vnl_pg_core->who() || !vnl_pg_core->can_suspend()) {
            Py_DECREF(link);
            return raise_busy(link);
        }
        if (turn_wait(link) < 0) {
            Py_DECREF(link);
            return -1;
        }
        has_turn = 1;
    }
    else if (!link->closed) {
        link->busy = 1;
        link->user = vnl_pg_core->who();
    }
    if (link->closed) {
        pg_raise(link->state, "OperationalError", "the connection is closed");
        if (has_turn) {
            pass_turn(link);
        }
        Py_DECREF(link);
        return -1;
    }
    return 0;
}

void
pg_link_leave(pg_link *link)
{
    if (link->conn != NULL && link->slot != NULL && PQstatus(link->conn->pg) == CONNECTION_OK &&
        PQtransactionStatus(link->conn->pg) == PQTRANS_UNKNOWN) {
        /* The byte that says it was damaged: nobody knows what state the server is in. */
        pg_link_lost(link, !link->autocommit);
    }
    if (link->conn != NULL && link->slot != NULL && link->autocommit && link->pins == 0 && !link->sticky &&
        PQtransactionStatus(link->conn->pg) == PQTRANS_IDLE && vnl_pg_core->can_suspend()) {
        pg_link_detach(link, 1);
    }
    pass_turn(link);
    Py_DECREF(link);
}

int
pg_link_attach_wait(pg_link *link)
{
    if (link->broken) {
        pg_raise(link->state, "OperationalError", "the connection was lost and its transaction with it");
        return -1;
    }
    if (link->conn != NULL && PQstatus(link->conn->pg) == CONNECTION_OK) {
        return 0;
    }
    pg_link_detach(link, 0); /* a dead one */
    if (link->pool == NULL) {
        vnl_pg_conn *conn = pg_config_open_wait(link->config);
        link->conn = conn;
        link->owner_pid = (long)getpid();
        return conn != NULL ? 0 : -1;
    }
    vnl_slot *slot = vnl_pg_core->pool_take_wait(link->pool, NULL);
    if (slot == NULL) {
        return -1;
    }
    link->slot = slot;
    link->conn = vnl_pg_core->slot_conn(slot);
    if (!link->autocommit) {
        vnl_pg_core->slot_note_line(slot);
    }
    return 0;
}

/* The statement must not run on, and what is left of it must not be read by
 * the next one. */
void
pg_link_cancel_statement(pg_link *link)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    PyErr_Fetch(&type, &value, &trace);
    vnl_pg_core->shield_enter();
    vnl_pg_status status = vnl_pg_cancel_wait(link->conn, vnl_pg_core->now() + CANCEL_BOUND);
    PyErr_Clear();
    vnl_pg_core->shield_leave();
    PyErr_Clear();
    if (status != VNL_PG_OK) {
        link->broken = !link->autocommit || PQtransactionStatus(link->conn->pg) == PQTRANS_INTRANS;
        pg_link_detach(link, 0);
    }
    PyErr_Restore(type, value, trace);
}

int64_t
pg_link_deadline(const pg_link *link)
{
    int64_t limit = link->config->command_timeout;
    return limit > 0 ? vnl_pg_core->now() + limit : VNL_FOREVER;
}

void
pg_link_overdue(pg_link *link)
{
    char text[200];
    pg_link_cancel_statement(link);
    snprintf(text, sizeof(text),
             "the statement was cancelled: the server did not answer within OPTIONS['command_timeout'] "
             "(%g s)%s",
             (double)link->config->command_timeout / 1e9,
             link->conn != NULL ? "" : ", nor the request to cancel; the connection was closed");
    pg_raise_state(link->state, "57014", text);
}

void
pg_link_lost(pg_link *link, int was_in_txn)
{
    link->broken = was_in_txn;
    pg_link_detach(link, 0);
}

void
pg_link_warn_dropped(pg_link *link)
{
    if (link->slot == NULL || link->closed || link->conn == NULL ||
        PQstatus(link->conn->pg) != CONNECTION_OK) {
        return;
    }
    const char *state = link->listening        ? "while it listens"
                        : pg_link_in_txn(link) ? "inside a transaction, which is rolled back"
                        : link->pins > 0       ? "with an open server-side cursor"
                                               : NULL;
    if (state != NULL) {
        vnl_pg_core->slot_warn_dropped(link->slot, state);
    }
}
