#include "pool/shard.h"

#include <stdlib.h>

vnl_shard *
vnl_shard_new(void *owner, const vnl_driver *driver, unsigned generation)
{
    vnl_shard *shard = calloc(1, sizeof(*shard));
    if (shard == NULL) {
        return NULL;
    }
    vnl_list_init(&shard->link);
    vnl_list_init(&shard->idle);
    vnl_list_init(&shard->used);
    vnl_list_init(&shard->queue);
    vnl_list_init(&shard->filler_list);
    shard->owner = owner;
    shard->driver = driver;
    shard->generation = generation;
    return shard;
}

vnl_slot *
vnl_slot_new(vnl_shard *shard, void *conn, const vnl_pool_limits *limits, int64_t now)
{
    vnl_slot *slot = calloc(1, sizeof(*slot));
    if (slot != NULL) {
        vnl_list_init(&slot->link);
        slot->shard = shard;
        slot->conn = conn;
        /* Up to 5 % earlier, so that connections of one burst do not all end at once. */
        slot->expires = now + limits->max_lifetime - limits->max_lifetime / 2000 * (rand() % 101);
        slot->since = now;
        slot->generation = shard->generation;
        slot->epoch = shard->epoch;
    }
    return slot;
}

static void
slot_close(vnl_shard *shard, vnl_slot *slot)
{
    vnl_list_remove(&slot->link);
    shard->size--;
    shard->driver->close(slot->conn);
    free(slot);
}

static void
drop_idle(vnl_shard *shard, vnl_slot *slot)
{
    shard->available--;
    slot_close(shard, slot);
}

int
vnl_shard_drop_stale(vnl_shard *shard, const vnl_pool_limits *limits, int64_t now)
{
    vnl_node *node = NULL;
    while (shard->size > limits->min_size && (node = vnl_list_last(&shard->idle)) != NULL) {
        vnl_slot *slot = VNL_CONTAINER(node, vnl_slot, link);
        if (now - slot->since < limits->max_idle) {
            break;
        }
        drop_idle(shard, slot);
    }
    int beyond = shard->size - limits->min_size;
    return beyond < 0 ? 0 : beyond;
}

vnl_slot *
vnl_shard_take_idle(vnl_shard *shard, const vnl_pool_limits *limits, int64_t now)
{
    vnl_node *node = NULL;
    (void)vnl_shard_drop_stale(shard, limits, now);
    while ((node = vnl_list_first(&shard->idle)) != NULL) {
        vnl_slot *slot = VNL_CONTAINER(node, vnl_slot, link);
        if (now >= slot->expires) {
            drop_idle(shard, slot);
            continue;
        }
        if (!shard->driver->check(slot->conn)) {
            shard->count.connections_lost++;
            drop_idle(shard, slot);
            continue;
        }
        shard->available--;
        vnl_list_remove(node);
        vnl_list_append(&shard->used, node);
        slot->since = now;
        return slot;
    }
    return NULL;
}

int
vnl_shard_reserve(vnl_shard *shard, const vnl_pool_limits *limits)
{
    if (shard->size + shard->filling >= limits->max_size) {
        return 0;
    }
    shard->size++;
    shard->opening++;
    return 1;
}

void
vnl_shard_opened(vnl_shard *shard, vnl_slot *slot)
{
    shard->opening--;
    if (slot == NULL) {
        shard->size--;
        return;
    }
    vnl_list_append(&shard->used, &slot->link);
}

vnl_request *
vnl_shard_pass_room(vnl_shard *shard, const vnl_pool_limits *limits)
{
    vnl_node *node = vnl_list_first(&shard->queue);
    if (node == NULL || !vnl_shard_reserve(shard, limits)) {
        return NULL;
    }
    vnl_list_remove(node);
    shard->waiting--;
    vnl_request *request = VNL_CONTAINER(node, vnl_request, link);
    request->served = 1;
    return request;
}

vnl_request *
vnl_shard_add(vnl_shard *shard, vnl_slot *slot, int64_t now)
{
    shard->size++;
    vnl_list_append(&shard->used, &slot->link);
    slot->since = now;
    return vnl_shard_give(shard, slot, 1, now);
}

vnl_request *
vnl_shard_give(vnl_shard *shard, vnl_slot *slot, int reusable, int64_t now)
{
    shard->count.usage_ns += now - slot->since;
    vnl_shard_offer(shard, slot, 0, now);
    if (!reusable || shard->closed || slot->epoch != shard->epoch || now >= slot->expires) {
        shard->count.returns_bad += !reusable;
        slot_close(shard, slot);
        return NULL;
    }
    slot->since = now;
    vnl_node *node = vnl_list_first(&shard->queue);
    if (node != NULL) {
        vnl_request *request = VNL_CONTAINER(node, vnl_request, link);
        vnl_list_remove(node);
        shard->waiting--;
        request->served = 1;
        request->slot = slot;
        vnl_list_remove(&slot->link);
        vnl_list_append(&shard->used, &slot->link); /* the longest used is the first */
        return request;
    }
    vnl_list_remove(&slot->link);
    vnl_list_prepend(&shard->idle, &slot->link);
    shard->available++;
    return NULL;
}

void
vnl_shard_offer(vnl_shard *shard, vnl_slot *slot, int room, int64_t now)
{
    if (shard->closed || slot->epoch != shard->epoch || now >= slot->expires) {
        room = 0;
    }
    shard->room += room - slot->room;
    slot->room = room;
}

vnl_slot *
vnl_shard_find_room(const vnl_shard *shard)
{
    vnl_slot *best = NULL;
    if (shard->room <= 0) {
        return NULL;
    }
    for (vnl_node *node = shard->used.next; node != &shard->used; node = node->next) {
        vnl_slot *slot = VNL_CONTAINER(node, vnl_slot, link);
        if (slot->room > (best != NULL ? best->room : 0)) {
            best = slot;
        }
    }
    return best;
}

vnl_request *
vnl_shard_invite(vnl_shard *shard)
{
    vnl_node *node = vnl_list_first(&shard->queue);
    if (node == NULL || shard->room <= shard->coming) {
        return NULL;
    }
    vnl_request *request = VNL_CONTAINER(node, vnl_request, link);
    if (!request->shares) {
        return NULL; /* first come, first served */
    }
    vnl_list_remove(node);
    shard->waiting--;
    shard->coming++;
    request->invited = 1;
    return request;
}

void
vnl_shard_close_idle(vnl_shard *shard)
{
    vnl_node *node = NULL;
    for (node = shard->used.next; node != &shard->used; node = node->next) {
        vnl_shard_offer(shard, VNL_CONTAINER(node, vnl_slot, link), 0, 0);
    }
    while ((node = vnl_list_first(&shard->idle)) != NULL) {
        drop_idle(shard, VNL_CONTAINER(node, vnl_slot, link));
    }
    shard->epoch++;
}

void
vnl_shard_abandon(vnl_shard *shard, unsigned generation)
{
    vnl_node *node = NULL;
    while ((node = vnl_list_first(&shard->idle)) != NULL) {
        vnl_slot *slot = VNL_CONTAINER(node, vnl_slot, link);
        vnl_list_remove(node);
        shard->driver->abandon(slot->conn);
        free(slot);
    }
    /* Used slots are abandoned one by one when their holders give them. */
    while ((node = vnl_list_first(&shard->used)) != NULL) {
        vnl_list_remove(node);
    }
    while ((node = vnl_list_first(&shard->filler_list)) != NULL) {
        vnl_list_remove(node);
    }
    vnl_list_init(&shard->queue);
    shard->waiting = shard->available = shard->size = shard->opening = shard->filling = shard->fillers = 0;
    shard->room = shard->coming = 0;
    shard->failing = NULL;
    shard->generation = generation;
}
