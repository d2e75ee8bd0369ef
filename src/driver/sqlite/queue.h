/* Queue: the connections of this process that wait for the lock of one
 * database, first come first served.
 *
 * The lock itself stays SQLite's: nothing is granted here.  The queue says who
 * may ask for it next, and tells those that wait when asking is worth it.  Its
 * functions may be called from any thread, without the GIL.
 */
#ifndef VNL_SQLITE_QUEUE_H
#define VNL_SQLITE_QUEUE_H

#include <stdint.h>

#include "base/list.h"

typedef struct vnl_sqlite_queue vnl_sqlite_queue;

typedef enum vnl_sqlite_want {
    VNL_WANT_READ,  /* a shared lock, which a writer that commits keeps out */
    VNL_WANT_WRITE, /* the write lock, of which there is one */
    VNL_WANT_ALONE, /* has the write lock; the readers have to be gone */
} vnl_sqlite_want;

/* A place in a queue.  Starts as zeros but for `tell`. */
typedef struct vnl_sqlite_request {
    vnl_node link;           /* in the queue's line */
    vnl_sqlite_queue *queue; /* NULL: waits for nothing */
    vnl_sqlite_want want;
    int told;
    int64_t seen; /* when it was told, or last asked by itself */
    /* Ends its wait.  Called with the queue's mutex held, by any thread. */
    void (*tell)(struct vnl_sqlite_request *request);
} vnl_sqlite_request;

/* The queue of a file, or, with a name, of a database in memory.  Counts the
 * reference, which close gives back; NULL when memory is out. */
vnl_sqlite_queue *vnl_sqlite_queue_open(uint64_t device, uint64_t inode, const char *name);
void vnl_sqlite_queue_close(vnl_sqlite_queue *queue);

/* Whether a writer may ask for the lock now.  It may not while it would overtake
 * those who came before it, nor when it is other processes' turn. */
int vnl_sqlite_queue_may_write(vnl_sqlite_queue *queue, const vnl_sqlite_request *request, int64_t now);
/* Takes a place, or keeps the one it has.  Those who came with nothing to wait
 * for find out by asking. */
void vnl_sqlite_queue_join(vnl_sqlite_queue *queue, vnl_sqlite_request *request, vnl_sqlite_want want);
/* Before it waits: for how long, unless it is told.  `step` is the pause of
 * one who must ask again and again, for another process has the lock. */
int64_t vnl_sqlite_queue_pause(vnl_sqlite_request *request, int64_t step, int64_t now);
/* Gives the place up, with the lock or without; harmless without a place. */
void vnl_sqlite_queue_leave(vnl_sqlite_request *request, int64_t now);

/* A connection of this process has got the write lock, or let go of it. */
void vnl_sqlite_queue_took(vnl_sqlite_queue *queue, int64_t now);
void vnl_sqlite_queue_released(vnl_sqlite_queue *queue, int64_t now);
/* A reader of this process has let go of its shared lock. */
void vnl_sqlite_queue_reader_left(vnl_sqlite_queue *queue, int64_t now);

/* In a forked child: the parent's queues are forgotten. */
void vnl_sqlite_queues_after_fork(void);

#endif
