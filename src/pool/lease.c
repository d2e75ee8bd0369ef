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

/* Whoever waits for room on another's connection is told of it. */
static void
invite(vnl_shard *shard)
{
    vnl_request *request = NULL;
    while ((request = vnl_shard_invite(shard)) != NULL) {
        vnl_pool_wake(request);
    }
}

/* What is to be had without queueing; NULL, maybe with an exception. */
static vnl_slot *
take_now_wait(vnl_pool *self, vnl_shard *shard, vnl_slot_terms *terms)
{
    int shares = *terms == VNL_SLOT_SHARED;
    *terms = VNL_SLOT_ALONE;
    vnl_slot *slot = vnl_shard_take_idle(shard, &self->limits, vnl_now());
    if (slot != NULL) {
        return slot;
    }
    if (shard->owner == NULL && !self->threads) {
        /* A thread's connection is its own: nothing to share or limit. */
        shard->size++;
        shard->opening++;
        return open_slot_wait(self, shard);
    }
    if (vnl_shard_reserve(shard, &self->limits)) {
        return open_slot_wait(self, shard);
    }
    slot = shares ? vnl_shard_find_room(shard) : NULL;
    if (slot != NULL) {
        *terms = VNL_SLOT_SHARED;
        vnl_shard_offer(shard, slot, slot->room - 1, vnl_now());
    }
    return slot;
}

/* Waits in the queue, last or (told in vain that there is room) first.  What vnl_event_wait gives. */
static int
stand_wait(vnl_shard *shard, vnl_request *request, int first, int64_t deadline)
{
    if (first) {
        vnl_list_prepend(&shard->queue, &request->link);
    }
    else {
        vnl_list_append(&shard->queue, &request->link);
    }
    shard->waiting++;
    int ready = vnl_event_wait(request->event, deadline);
    if (request->invited) {
        shard->coming--;
    }
    else if (!request->served) {
        vnl_list_remove(&request->link);
        shard->waiting--;
    }
    return ready;
}

/* Whoever was served and cancelled at once hands it on. */
static void
pass_on(vnl_pool *self, vnl_shard *shard, vnl_slot *slot)
{
    if (slot != NULL) {
        vnl_pool_wake(vnl_shard_give(shard, slot, 1, vnl_now()));
    }
    else {
        vnl_shard_opened(shard, NULL);
    }
    vnl_pool_wake(vnl_shard_pass_room(shard, &self->limits));
}

/* Stands in the queue until there is something to take. */
static vnl_slot *
queued_wait(vnl_pool *self, vnl_shard *shard, vnl_request *request, vnl_slot_terms *terms)
{
    int64_t deadline = vnl_now() + self->limits.timeout;
    for (int turn = 0;; turn++) {
        request->shares = *terms == VNL_SLOT_SHARED;
        int ready = stand_wait(shard, request, turn > 0, deadline);
        if (request->served) {
            if (ready < 0) {
                pass_on(self, shard, request->slot);
                return NULL;
            }
            *terms = VNL_SLOT_ALONE;
            if (request->slot == NULL) {
                return open_slot_wait(self, shard);
            }
            request->slot->since = vnl_now();
            return request->slot;
        }
        if (ready <= 0) {
            if (ready == 0) {
                raise_timeout(self, shard);
            }
            shard->count.errors++;
            return NULL;
        }
        request->invited = 0;
        vnl_event_clear(request->event);
        vnl_slot *slot = take_now_wait(self, shard, terms);
        if (slot != NULL || PyErr_Occurred()) {
            return slot;
        }
        *terms = VNL_SLOT_SHARED;
    }
}

/* Queues until a slot is handed over or room to open one. */
static vnl_slot *
queue_wait(vnl_pool *self, vnl_shard *shard, vnl_slot_terms *terms)
{
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
    shard->count.queued++;
    vnl_slot *slot = queued_wait(self, shard, request, terms);
    shard->count.wait_ns += vnl_now() - began;
    vnl_event_free(request->event);
    PyMem_Free(request);
    invite(shard);
    return slot;
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

/* The next one would have to wait. */
static int
is_last(const vnl_pool *self, const vnl_shard *shard)
{
    return shard->owner != NULL && shard->available == 0 &&
           shard->size + shard->filling >= self->limits.max_size;
}

/* The slot is the caller's, with a reference to the pool. */
static void
lend(vnl_pool *self, vnl_shard *shard, vnl_slot *slot)
{
    PyObject *scope = vnl_can_suspend() ? vnl_here.fiber->scope : NULL;
    slot->holder = scope != NULL ? Py_XNewRef(((vnl_scope *)scope)->task) : NULL;
    note_line(slot);
    slot->pool = self;
    if (vnl_pool_is_short(self, shard)) {
        vnl_filler_start(self, shard);
    }
}

vnl_slot *
vnl_pool_take_wait(PyObject *op, vnl_slot_terms *terms)
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
    vnl_slot_terms asked = terms != NULL ? *terms : VNL_SLOT_ALONE;
    vnl_slot_terms had = asked;
    if (vnl_list_empty(&shard->queue)) {
        if (shard->coming > 0) {
            had = VNL_SLOT_ALONE; /* the room there is, is for those */
        }
        slot = take_now_wait(self, shard, &had);
    }
    int queued = slot == NULL && !PyErr_Occurred();
    if (queued) {
        had = asked;
        slot = queue_wait(self, shard, &had);
    }
    if (slot == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    if (had == VNL_SLOT_SHARED) {
        shard->count.queued += !queued;
        Py_DECREF(self);
    }
    else {
        lend(self, shard, slot);
        had = is_last(self, shard) ? VNL_SLOT_LAST : VNL_SLOT_ALONE;
    }
    if (terms != NULL) {
        *terms = had;
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
    invite(shard);
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

void
vnl_slot_offer(vnl_slot *slot, int room)
{
    if (slot->generation == vnl_fork_generation) {
        vnl_shard_offer(slot->shard, slot, room, vnl_now());
        invite(slot->shard);
    }
}

void
vnl_slot_hand_over(vnl_slot *slot)
{
    PyObject *scope = vnl_can_suspend() ? vnl_here.fiber->scope : NULL;
    int64_t now = vnl_now();
    slot->shard->count.usage_ns += now - slot->since;
    slot->since = now;
    Py_XSETREF(slot->holder, scope != NULL ? Py_XNewRef(((vnl_scope *)scope)->task) : NULL);
    vnl_line_clear(&slot->line);
    note_line(slot);
}

void
vnl_slot_waited(vnl_slot *slot, int64_t nanoseconds)
{
    vnl_core->count.shared++;
    slot->shard->count.wait_ns += nanoseconds;
}
