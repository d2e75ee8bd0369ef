/* libFuzzer: whatever order the calls come in, the pool's lists and its counts agree, everybody in
 * the queue is served once, and no connection is closed twice or lost.  Each byte is a call. */
#include "must.h"
#include "pool/shard.h"

#define MOST 12 /* requests and slots in hand */

typedef struct {
    int open; /* 0 after close() */
} fake_conn;

typedef struct {
    vnl_shard *shard;
    vnl_pool_limits limits;
    int64_t now;
    vnl_slot *held[MOST];
    vnl_request *waiting[MOST];
    int nheld, nwaiting;
} model;

static int alive, dead_idle;

static void
fake_close(void *conn)
{
    fake_conn *fake = conn;
    MUST(fake->open);
    fake->open = 0;
    alive--;
    free(fake);
}

static int
fake_check(void *conn)
{
    MUST(((fake_conn *)conn)->open);
    return !dead_idle;
}

static const vnl_driver driver = {
    .abi = VNL_CORE_ABI, .name = "fake", .close = fake_close, .check = fake_check, .abandon = fake_close};

static int
length(const vnl_node *head)
{
    int count = 0;
    for (const vnl_node *node = head->next; node != head; node = node->next) {
        MUST(node->next->prev == node);
        count++;
    }
    return count;
}

static void
check_counts(const model *m)
{
    const vnl_shard *shard = m->shard;
    MUST(length(&shard->idle) == shard->available);
    MUST(length(&shard->used) == m->nheld);
    MUST(length(&shard->queue) == shard->waiting && shard->waiting == m->nwaiting);
    MUST(shard->size == shard->available + m->nheld + shard->opening);
    MUST(shard->size <= m->limits.max_size);
    MUST(alive == shard->available + m->nheld);
}

/* The reservation of `room` ends: in a connection, or in none. */
static void
open_one(model *m, int works)
{
    fake_conn *fake = works && m->nheld < MOST ? calloc(1, sizeof(*fake)) : NULL;
    vnl_slot *slot = NULL;
    if (fake != NULL) {
        fake->open = 1;
        alive++;
        slot = vnl_slot_new(m->shard, fake, &m->limits, m->now);
        MUST(slot != NULL);
        m->held[m->nheld++] = slot;
    }
    vnl_shard_opened(m->shard, slot);
}

/* What vnl_pool_wake() would do to the one who was served. */
static void
serve(model *m, vnl_request *request, int works)
{
    if (request == NULL) {
        return;
    }
    MUST(request->served && request == m->waiting[0]); /* first come, first served */
    for (int i = 1; i < m->nwaiting; i++) {
        m->waiting[i - 1] = m->waiting[i];
    }
    m->nwaiting--;
    if (request->slot != NULL) {
        MUST(m->nheld < MOST);
        m->held[m->nheld++] = request->slot;
    }
    else {
        open_one(m, works);
    }
    free(request);
}

static void
take(model *m, int works)
{
    if (m->nheld == MOST || m->nwaiting == MOST) {
        return;
    }
    vnl_slot *slot = m->nwaiting == 0 ? vnl_shard_take_idle(m->shard, &m->limits, m->now) : NULL;
    if (slot != NULL) {
        m->held[m->nheld++] = slot;
    }
    else if (m->nwaiting == 0 && vnl_shard_reserve(m->shard, &m->limits)) {
        open_one(m, works);
    }
    else {
        vnl_request *request = calloc(1, sizeof(*request));
        MUST(request != NULL);
        vnl_list_append(&m->shard->queue, &request->link);
        m->shard->waiting++;
        m->waiting[m->nwaiting++] = request;
    }
}

static void
give(model *m, int which, int reusable)
{
    if (m->nheld == 0) {
        return;
    }
    which %= m->nheld;
    vnl_slot *slot = m->held[which];
    m->nheld--;
    m->held[which] = m->held[m->nheld];
    serve(m, vnl_shard_give(m->shard, slot, reusable, m->now), 1);
    serve(m, vnl_shard_pass_room(m->shard, &m->limits), 1);
}

/* One who waits gives up. */
static void
leave(model *m, int which)
{
    if (m->nwaiting == 0) {
        return;
    }
    which %= m->nwaiting;
    vnl_request *request = m->waiting[which];
    for (int i = which + 1; i < m->nwaiting; i++) {
        m->waiting[i - 1] = m->waiting[i];
    }
    m->nwaiting--;
    vnl_list_remove(&request->link);
    m->shard->waiting--;
    free(request);
}

static void
step(model *m, uint8_t byte)
{
    int argument = byte >> 3;
    switch (byte & 7) {
    case 0:
    case 1:
        take(m, argument != 0);
        break;
    case 2:
        give(m, argument, 1);
        break;
    case 3:
        give(m, argument, 0);
        break;
    case 4:
        leave(m, argument);
        break;
    case 5:
        m->now += argument * 10;
        MUST(vnl_shard_drop_stale(m->shard, &m->limits, m->now) >= 0);
        break;
    case 6:
        dead_idle = argument & 1;
        break;
    default:
        vnl_shard_close_idle(m->shard);
        serve(m, vnl_shard_pass_room(m->shard, &m->limits), 1);
        break;
    }
    check_counts(m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    model m = {.limits = {.min_size = data[0] & 3,
                          .max_size = 1 + ((data[0] >> 2) & 3),
                          .max_idle = 100,
                          .max_lifetime = 1000}};
    alive = dead_idle = 0;
    m.shard = vnl_shard_new(NULL, &driver, 0);
    MUST(m.shard != NULL);
    for (size_t i = 1; i < size; i++) {
        step(&m, data[i]);
    }
    while (m.nwaiting > 0) {
        leave(&m, 0);
    }
    while (m.nheld > 0) {
        give(&m, 0, 1);
    }
    vnl_shard_close_idle(m.shard);
    check_counts(&m);
    MUST(alive == 0 && m.shard->size == 0);
    free(m.shard);
    return 0;
}
