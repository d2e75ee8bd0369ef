/* Taking a connection and giving it back. */
#include "pool/pool.h"

#include <stdlib.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/wait.h"
#include "pool/inside.h"
#include "reactor/reactor.h"
#include "session/scope.h"

void
vnl_pool_wake(vnl_request *request)
{
    if (request != NULL) {
        vnl_event_set(request->event);
    }
}

vnl_slot *
vnl_pool_connect_wait(vnl_pool *self, vnl_shard *shard)
{
    int64_t began = vnl_now();
    void *conn = self->driver->open_wait(self->config);
    int64_t now = vnl_now();
    vnl_slot *slot = conn == NULL ? NULL : vnl_slot_new(shard, conn, &self->limits, now);
    shard->count.connections++;
    shard->count.connect_ns += now - began;
    if (slot == NULL) {
        shard->count.connections_errors++;
        if (conn != NULL) {
            self->driver->close(conn);
            PyErr_NoMemory();
        }
    }
    return slot;
}

/* Room is reserved: opens a connection. */
static vnl_slot *
open_slot_wait(vnl_pool *self, vnl_shard *shard)
{
    vnl_slot *slot = vnl_pool_connect_wait(self, shard);
    vnl_shard_opened(shard, slot);
    if (slot == NULL) {
        vnl_pool_wake(vnl_shard_pass_room(shard, &self->limits));
        vnl_pool_free_when_unused(shard);
    }
    return slot;
}

static void
raise_timeout(vnl_pool *self, vnl_shard *shard)
{
    PyObject *seconds = vnl_pool_seconds(self->limits.timeout);
    PyObject *holders = seconds != NULL ? vnl_pool_describe_holders(shard) : NULL;
    if (holders != NULL) {
        vnl_raise("PoolTimeout",
                  "No connection of database '%U' became free within %U s: %d of "
                  "OPTIONS['pool']['max_size'] = %d are in use, by %U, and %d others wait.",
                  self->name, seconds, shard->size - shard->available, self->limits.max_size, holders,
                  shard->waiting);
    }
    Py_XDECREF(seconds);
    Py_XDECREF(holders);
}

/* Queues until a slot is handed over or room to open one. */
static vnl_slot *
queue_wait(vnl_pool *self, vnl_shard *shard)
{
    vnl_slot *slot = NULL;
    if (self->limits.max_waiting > 0 && shard->waiting >= self->limits.max_waiting) {
        shard->count.errors++;
        vnl_raise("PoolTimeout",
                  "%d operations wait for a connection of database '%U' already "
                  "(OPTIONS['pool']['max_waiting']).",
                  shard->waiting, self->name);
        return NULL;
    }
    vnl_request *request = PyMem_Calloc(1, sizeof(*request));
    if (request == NULL || (request->event = vnl_event_new()) == NULL) {
        PyMem_Free(request);
        return PyErr_Occurred() ? NULL : (vnl_slot *)PyErr_NoMemory();
    }
    int64_t began = vnl_now();
    vnl_list_append(&shard->queue, &request->link);
    shard->waiting++;
    shard->count.queued++;
    int ready = vnl_event_wait(request->event, began + self->limits.timeout);
    shard->count.wait_ns += vnl_now() - began;
    slot = request->slot;
    int served = request->served;
    if (!served) {
        vnl_list_remove(&request->link);
        shard->waiting--;
    }
    vnl_event_free(request->event);
    PyMem_Free(request);
    if (!served) {
        if (ready == 0) {
            raise_timeout(self, shard);
        }
        shard->count.errors++;
        return NULL;
    }
    if (ready < 0) { /* served and cancelled at once */
        if (slot != NULL) {
            vnl_pool_wake(vnl_shard_give(shard, slot, 1, vnl_now()));
        }
        else {
            vnl_shard_opened(shard, NULL);
        }
        vnl_pool_wake(vnl_shard_pass_room(shard, &self->limits));
        return NULL;
    }
    if (slot != NULL) {
        slot->since = vnl_now();
        return slot;
    }
    return open_slot_wait(self, shard);
}

/* On a loop: the line that awaits the operation, known already.  Elsewhere a connection is taken for
 * longer than one statement, and a look at the stack costs little beside it. */
static void
note_line(vnl_slot *slot)
{
    if (vnl_can_suspend()) {
        vnl_line_copy(&slot->line, &vnl_here.fiber->line);
    }
    else {
        vnl_line_find(&slot->line);
    }
}

vnl_slot *
vnl_pool_take_wait(PyObject *op)
{
    if (!PyObject_TypeCheck(op, vnl_core->pool_type)) {
        PyErr_SetString(PyExc_TypeError, "a vinyl Pool is needed");
        return NULL;
    }
    vnl_pool *self = (vnl_pool *)op;
    vnl_shard *shard = vnl_pool_shard(self);
    vnl_slot *slot = NULL;
    if (shard == NULL) {
        return NULL;
    }
    Py_INCREF(self);
    shard->count.requests++;
    if (vnl_list_empty(&shard->queue)) {
        slot = vnl_shard_take_idle(shard, &self->limits, vnl_now());
        if (slot == NULL) {
            if (shard->owner == NULL && !self->threads) {
                /* A thread's connection is its own: nothing to share or limit. */
                shard->size++;
                shard->opening++;
                slot = open_slot_wait(self, shard);
            }
            else {
                slot = vnl_shard_reserve(shard, &self->limits) ? open_slot_wait(self, shard)
                                                               : queue_wait(self, shard);
            }
        }
    }
    else {
        slot = queue_wait(self, shard);
    }
    if (slot == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    PyObject *scope = vnl_can_suspend() ? vnl_here.fiber->scope : NULL;
    slot->holder = scope != NULL ? Py_XNewRef(((vnl_scope *)scope)->task) : NULL;
    note_line(slot);
    slot->pool = self; /* the reference goes with the slot */
    if (vnl_pool_is_short(self, shard)) {
        vnl_filler_start(self, shard);
    }
    return slot;
}

void
vnl_pool_give(vnl_slot *slot, int reusable)
{
    vnl_pool *self = slot->pool;
    vnl_shard *shard = slot->shard;
    PyObject *holder = slot->holder;
    slot->pool = slot->holder = NULL;
    Py_XDECREF(holder);
    vnl_line_clear(&slot->line);
    if (slot->generation != vnl_fork_generation) {
        self->driver->abandon(slot->conn);
        vnl_list_remove(&slot->link);
        free(slot);
        Py_DECREF(self);
        return;
    }
    if (shard->owner == NULL && !self->threads) {
        reusable = reusable ? 2 : 0;
        slot->epoch = shard->epoch - 1; /* closed, and not counted as bad */
    }
    vnl_pool_wake(vnl_shard_give(shard, slot, reusable, vnl_now()));
    vnl_pool_wake(vnl_shard_pass_room(shard, &self->limits));
    if (shard->available > 0 && shard->size > self->limits.min_size && shard->owner != NULL &&
        !shard->janitor) {
        vnl_janitor_call_later(self, shard);
    }
    if (vnl_pool_is_short(self, shard)) {
        vnl_filler_start(self, shard);
    }
    vnl_pool_free_when_unused(shard);
    Py_DECREF(self);
}

void *
vnl_slot_conn(vnl_slot *slot)
{
    return slot->conn;
}
