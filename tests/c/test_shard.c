/* The pool's lists. */
#include <stdlib.h>

#include "check.h"
#include "pool/shard.h"

static int closed, dead;

static void
fake_close(void *conn)
{
    closed++;
}

static int
fake_check(void *conn)
{
    return !dead;
}

static const vnl_driver driver = {
    .abi = VNL_CORE_ABI, .name = "fake", .close = fake_close, .check = fake_check, .abandon = fake_close};
static const vnl_pool_limits limits = {.min_size = 1, .max_size = 2, .max_idle = 100, .max_lifetime = 1000};

static vnl_slot *
open_one(vnl_shard *shard)
{
    CHECK(vnl_shard_reserve(shard, &limits));
    vnl_slot *slot = vnl_slot_new(shard, NULL, &limits, 0);
    if (slot == NULL) {
        abort();
    }
    vnl_shard_opened(shard, slot);
    return slot;
}

static void
test_reuse_and_limit(void)
{
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    vnl_slot *first = open_one(shard);
    vnl_slot *second = open_one(shard);
    CHECK(!vnl_shard_reserve(shard, &limits));
    CHECK(vnl_shard_give(shard, first, 1, 10) == NULL);
    CHECK(vnl_shard_give(shard, second, 1, 11) == NULL);
    CHECK(shard->available == 2 && shard->size == 2);
    CHECK(vnl_shard_take_idle(shard, &limits, 12) == second); /* the freshest */
    CHECK(vnl_shard_give(shard, second, 0, 13) == NULL);
    CHECK(closed == 1 && shard->size == 1 && shard->count.returns_bad == 1);
    CHECK(vnl_shard_take_idle(shard, &limits, 14) == first);
    CHECK(vnl_shard_give(shard, first, 1, 2000) == NULL); /* past its life */
    CHECK(closed == 2 && shard->size == 0 && shard->available == 0);
    free(shard);
}

static void
test_queue_is_first_come_first_served(void)
{
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    vnl_slot *slot = open_one(shard);
    vnl_request one = {.slot = NULL}, two = {.slot = NULL};
    vnl_list_append(&shard->queue, &one.link);
    vnl_list_append(&shard->queue, &two.link);
    shard->waiting = 2;
    CHECK(vnl_shard_give(shard, slot, 1, 1) == &one);
    CHECK(one.slot == slot && one.served && shard->waiting == 1 && shard->available == 0);
    CHECK(vnl_shard_give(shard, slot, 0, 2) == NULL); /* broken: nothing to hand over */
    CHECK(vnl_shard_pass_room(shard, &limits) == &two);
    CHECK(two.slot == NULL && two.served && shard->opening == 1);
    vnl_shard_opened(shard, NULL); /* could not be opened */
    CHECK(shard->size == 0 && shard->waiting == 0);
    free(shard);
}

static void
test_dead_and_stale_ones_are_not_handed_out(void)
{
    closed = 0;
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    vnl_slot *first = open_one(shard);
    vnl_slot *second = open_one(shard);
    (void)vnl_shard_give(shard, first, 1, 1);
    (void)vnl_shard_give(shard, second, 1, 50);
    CHECK(vnl_shard_drop_stale(shard, &limits, 120) == 0); /* one too old, one is min_size */
    CHECK(closed == 1 && shard->available == 1);
    dead = 1;
    CHECK(vnl_shard_take_idle(shard, &limits, 121) == NULL);
    dead = 0;
    CHECK(closed == 2 && shard->count.connections_lost == 1 && shard->size == 0);
    free(shard);
}

static void
test_close_and_epochs(void)
{
    closed = 0;
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    vnl_slot *first = open_one(shard);
    vnl_slot *second = open_one(shard);
    (void)vnl_shard_give(shard, first, 1, 1);
    vnl_shard_close_idle(shard);
    CHECK(closed == 1);
    (void)vnl_shard_give(shard, second, 1, 2); /* of the closed epoch */
    CHECK(closed == 2 && shard->size == 0 && shard->count.returns_bad == 0);
    first = open_one(shard);
    (void)vnl_shard_give(shard, first, 1, 3);
    vnl_shard_abandon(shard, 7);
    CHECK(closed == 3 && shard->size == 0 && shard->generation == 7);
    free(shard);
}

static void
test_lifetimes_differ_by_up_to_5_percent(void)
{
    static const vnl_pool_limits hour = {.max_lifetime = 3600000};
    int64_t least = hour.max_lifetime, most = 0;
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    for (int i = 0; i < 1000; i++) {
        vnl_slot *slot = vnl_slot_new(shard, NULL, &hour, 50);
        int64_t life = slot->expires - 50;
        least = life < least ? life : least;
        most = life > most ? life : most;
        free(slot);
    }
    CHECK(most <= 3600000 && most > 3550000);
    CHECK(least >= 3420000 && least < 3470000);
    free(shard);
}

static void
test_opened_in_the_background(void)
{
    vnl_shard *shard = vnl_shard_new(NULL, &driver, 0);
    vnl_request waiting = {.slot = NULL};
    vnl_slot *used = open_one(shard);
    shard->filling = 1;
    CHECK(!vnl_shard_reserve(shard, &limits)); /* it has its place already */
    shard->filling = 0;
    vnl_list_append(&shard->queue, &waiting.link);
    shard->waiting = 1;
    vnl_slot *slot = vnl_slot_new(shard, NULL, &limits, 0);
    CHECK(vnl_shard_add(shard, slot, 5) == &waiting); /* who waits comes before the idle list */
    CHECK(waiting.slot == slot && shard->size == 2 && shard->available == 0);
    CHECK(vnl_shard_give(shard, slot, 1, 6) == NULL);
    CHECK(vnl_shard_give(shard, used, 1, 7) == NULL);
    CHECK(shard->available == 2);
    slot = vnl_slot_new(shard, NULL, &limits, 0);
    vnl_shard_close_idle(shard);
    closed = 0;
    CHECK(vnl_shard_add(shard, slot, 8) == NULL); /* the pool was closed meanwhile */
    CHECK(closed == 1 && shard->size == 0);
    free(shard);
}

int
main(void)
{
    test_reuse_and_limit();
    test_queue_is_first_come_first_served();
    test_dead_and_stale_ones_are_not_handed_out();
    test_close_and_epochs();
    test_lifetimes_differ_by_up_to_5_percent();
    test_opened_in_the_background();
    return checked();
}
