/* Shard: the connections of a pool that belong to one event loop (or to the
 * threads that have none).  Python-free: lists and counts. */
#ifndef VNL_POOL_SHARD_H
#define VNL_POOL_SHARD_H

#include <stdint.h>
#include "base/list.h"
#include "core_api.h"
#include "fiber/line.h"

typedef struct {
    int min_size, max_size, max_waiting, num_workers;
    int64_t timeout, max_lifetime, max_idle, reconnect_timeout; /* nanoseconds */
} vnl_pool_limits;

typedef struct {
    uint64_t requests, queued, errors, returns_bad;
    uint64_t connections, connections_errors, connections_lost;
    int64_t usage_ns, wait_ns, connect_ns;
} vnl_pool_counts;

typedef struct vnl_shard {
    vnl_node link; /* in its pool's shards */
    void *owner;   /* the reactor, or NULL for threads */
    const vnl_driver *driver;
    vnl_node idle;  /* vnl_slot.link, the freshest first */
    vnl_node used;  /* vnl_slot.link */
    vnl_node queue; /* vnl_request.link, first come first served */
    int waiting;    /* length of queue */
    int available;  /* length of idle */
    int size;       /* idle + used + being opened */
    int opening;
    int filling;          /* being opened in the background; not in size yet */
    int fillers;          /* length of filler_list */
    vnl_node filler_list; /* vnl_filler.link */
    void *failing;        /* the filler that tries again and again, or NULL */
    unsigned round;       /* of fillers: those of an earlier one have given up */
    unsigned generation;  /* of forks */
    unsigned epoch;       /* slots of earlier epochs are closed when given */
    int room;             /* what the connections in use would take in of others: the sum of vnl_slot.room */
    int coming;           /* told that there is room, and not here yet */
    int closed;           /* its loop is gone */
    int janitor;          /* a call that closes idle connections is due */
    vnl_pool_counts count;
} vnl_shard;

struct vnl_slot {
    vnl_node link;
    vnl_shard *shard;
    void *pool;   /* the pool object, referenced while used */
    void *holder; /* weak reference to the task that uses it, or NULL; the pool's */
    void *conn;
    vnl_line line; /* where it was taken; the pool's */
    int64_t expires;
    int64_t since; /* idle or used since */
    unsigned generation, epoch;
    int room; /* how many more may share it */
};

/* Somebody in the queue. */
typedef struct {
    vnl_node link;
    vnl_event *event;
    vnl_slot *slot; /* what was handed over, or NULL: may open one */
    int served;
    int shares;  /* a connection with room will do */
    int invited; /* there is room: it is to come and look, and has left the queue meanwhile */
} vnl_request;

vnl_shard *vnl_shard_new(void *owner, const vnl_driver *driver, unsigned generation);
/* A connection that was opened now, in no list yet.  NULL: out of memory. */
vnl_slot *vnl_slot_new(vnl_shard *shard, void *conn, const vnl_pool_limits *limits, int64_t now);
/* The freshest idle connection that is still good, moved to used, or NULL. */
vnl_slot *vnl_shard_take_idle(vnl_shard *shard, const vnl_pool_limits *limits, int64_t now);
/* Room for one more is counted as being opened: 1, or 0 when full. */
int vnl_shard_reserve(vnl_shard *shard, const vnl_pool_limits *limits);
/* The end of a reservation. */
void vnl_shard_opened(vnl_shard *shard, vnl_slot *slot);
/* A connection that was opened in the background: as vnl_shard_give. */
vnl_request *vnl_shard_add(vnl_shard *shard, vnl_slot *slot, int64_t now);
/* What a slot that comes back is good for: moves it to idle, or hands it to
 * the first in the queue (returned, to be woken), or closes and frees it. */
vnl_request *vnl_shard_give(vnl_shard *shard, vnl_slot *slot, int reusable, int64_t now);
/* After room has become free: the first in the queue, now allowed to open. */
vnl_request *vnl_shard_pass_room(vnl_shard *shard, const vnl_pool_limits *limits);
/* How many more may share a connection in use: none where it is to be closed when it comes back. */
void vnl_shard_offer(vnl_shard *shard, vnl_slot *slot, int room, int64_t now);
/* The connection with most room, or NULL. */
vnl_slot *vnl_shard_find_room(const vnl_shard *shard);
/* The first in the queue, if it would share and there is room that nobody comes for yet. */
vnl_request *vnl_shard_invite(vnl_shard *shard);
/* Closes what has been idle for max_idle, down to min_size.  What is left
 * beyond min_size. */
int vnl_shard_drop_stale(vnl_shard *shard, const vnl_pool_limits *limits, int64_t now);
void vnl_shard_close_idle(vnl_shard *shard);
/* A forked child: forgets the parent's connections without a word. */
void vnl_shard_abandon(vnl_shard *shard, unsigned generation);

#endif
