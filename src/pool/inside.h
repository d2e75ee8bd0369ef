/* What the files of this room share. */
#ifndef VNL_POOL_INSIDE_H
#define VNL_POOL_INSIDE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "pool/shard.h"

typedef struct {
    PyObject_HEAD
    const vnl_driver *driver;
    PyObject *capsule;          /* owned: keeps the driver */
    PyObject *config;           /* owned: what the driver opens connections with */
    PyObject *name;             /* owned: the alias, for messages */
    PyObject *reconnect_failed; /* owned: called when fillers give up, or NULL */
    int threads;                /* threads without a loop share connections too */
    vnl_pool_limits limits;
    vnl_node shards;
} vnl_pool;

/* --- pool.c --- */
/* The shard of where we are, made on first use.  Borrowed; NULL with an exception. */
vnl_shard *vnl_pool_shard(vnl_pool *pool);
/* The shard with this address (an int), or NULL: its loop has ended. */
vnl_shard *vnl_pool_shard_at(vnl_pool *pool, PyObject *address);
/* `def` with self = (pool, address of shard): a callback that outlives neither.  New reference. */
PyObject *vnl_pool_bind(vnl_pool *pool, vnl_shard *shard, PyMethodDef *def);
/* A closed shard goes with its last connection. */
void vnl_pool_free_when_unused(vnl_shard *shard);

/* --- lease.c --- */
void vnl_pool_wake(vnl_request *request);
/* Opens a connection and counts it.  The slot is in no list yet; NULL with an exception. */
vnl_slot *vnl_pool_connect_wait(vnl_pool *pool, vnl_shard *shard);

/* --- filler.c --- */
/* Starts what opens connections in the background, where fewer than min_size are open and
 * nobody does so yet.  Keeps a raised exception. */
void vnl_filler_start(vnl_pool *pool, vnl_shard *shard);
/* The shard's loop ends. */
void vnl_filler_stop_all(vnl_shard *shard);
int vnl_filler_setup(PyObject *module);

static inline int
vnl_pool_is_short(const vnl_pool *pool, const vnl_shard *shard)
{
    return shard->size < pool->limits.min_size && shard->fillers == 0;
}

/* --- janitor.c --- */
/* Has it come when max_idle is over.  Keeps a raised exception. */
void vnl_janitor_call_later(vnl_pool *pool, vnl_shard *shard);

/* --- holders.c --- */
/* The holders of all used slots, the longest first, five at most.  New reference. */
PyObject *vnl_pool_describe_holders(const vnl_shard *shard);
/* Seconds as people write them: "30", "0.05".  New reference. */
PyObject *vnl_pool_seconds(int64_t nanoseconds);

#endif
