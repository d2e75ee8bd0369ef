#include "queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Everybody asks again after this long, told or not: one tellable reason more
 * or less must not cost anybody his whole timeout. */
#define LOOK_NS 100000000
/* How long the one who asks for all others goes without asking, when another
 * process has the lock: that process may let go of it for moments only. */
#define ASK_NS 4000000
/* Handed on from one to the next the lock would never be free when another
 * process asks: after so long it is left alone for longer than ASK_NS. */
#define RUN_NS 250000000
#define REST_NS 6000000
/* One who has been told and does not ask (its loop is held up by something
 * else) keeps its place, but others need not wait for it. */
#define STUCK_NS 250000000

struct vnl_sqlite_queue {
    vnl_node link; /* in queues */
    int refs;      /* under the registry's lock */
    uint64_t device, inode;
    char *name;
    pthread_mutex_t lock;
    vnl_node line;             /* vnl_sqlite_request.link: readers and writers */
    vnl_sqlite_request *alone; /* who waits for the readers */
    int held;                  /* how many of this process have the write lock: 0 or 1 */
    int64_t run;               /* since when it is handed on without a rest */
    int64_t released;          /* when it was let go of last */
    int64_t rest;              /* until when nobody is to ask for it */
};

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static vnl_node queues = {&queues, &queues};

static vnl_sqlite_queue *
find(uint64_t device, uint64_t inode, const char *name)
{
    for (vnl_node *node = queues.next; node != &queues; node = node->next) {
        vnl_sqlite_queue *queue = VNL_CONTAINER(node, vnl_sqlite_queue, link);
        if (name == NULL ? queue->name == NULL && queue->device == device && queue->inode == inode
                         : queue->name != NULL && strcmp(queue->name, name) == 0) {
            return queue;
        }
    }
    return NULL;
}

static vnl_sqlite_queue *
make(uint64_t device, uint64_t inode, const char *name)
{
    vnl_sqlite_queue *queue = calloc(1, sizeof(*queue));

    if (queue == NULL || (name != NULL && (queue->name = strdup(name)) == NULL)) {
        free(queue);
        return NULL;
    }
    queue->device = device;
    queue->inode = inode;
    pthread_mutex_init(&queue->lock, NULL);
    vnl_list_init(&queue->line);
    vnl_list_append(&queues, &queue->link);
    return queue;
}

vnl_sqlite_queue *
vnl_sqlite_queue_open(uint64_t device, uint64_t inode, const char *name)
{
    vnl_sqlite_queue *queue;

    pthread_mutex_lock(&registry);
    queue = find(device, inode, name);
    if (queue == NULL) {
        queue = make(device, inode, name);
    }
    if (queue != NULL) {
        queue->refs++;
    }
    pthread_mutex_unlock(&registry);
    return queue;
}

void
vnl_sqlite_queue_close(vnl_sqlite_queue *queue)
{
    int left;

    if (queue == NULL) {
        return;
    }
    pthread_mutex_lock(&registry);
    left = --queue->refs;
    if (left == 0) {
        vnl_list_remove(&queue->link);
    }
    pthread_mutex_unlock(&registry);
    if (left == 0) {
        pthread_mutex_destroy(&queue->lock);
        free(queue->name);
        free(queue);
    }
}

static void
tell(vnl_sqlite_request *request, int64_t now)
{
    if (!request->told) {
        request->told = 1;
        request->seen = now;
        request->tell(request);
    }
}

/* The first writer, when the lock is free; with it all `readers`. */
static void
tell_line(vnl_sqlite_queue *queue, int readers, int64_t now)
{
    int writers = queue->held;

    for (vnl_node *node = queue->line.next; node != &queue->line; node = node->next) {
        vnl_sqlite_request *request = VNL_CONTAINER(node, vnl_sqlite_request, link);
        if (request->want == VNL_WANT_READ ? readers : writers++ == 0) {
            tell(request, now);
        }
    }
}

static int
is_stuck(const vnl_sqlite_request *request, int64_t now)
{
    return now - request->seen > STUCK_NS;
}

int
vnl_sqlite_queue_may_write(vnl_sqlite_queue *queue, const vnl_sqlite_request *request, int64_t now)
{
    int placed = request->queue == queue && request->want == VNL_WANT_WRITE;
    int may;

    pthread_mutex_lock(&queue->lock);
    may = now >= queue->rest;
    for (vnl_node *node = queue->line.next; node != &queue->line; node = node->next) {
        const vnl_sqlite_request *other = VNL_CONTAINER(node, vnl_sqlite_request, link);
        if (other == request) {
            break;
        }
        /* A newcomer lets readers go first too: they could not get in while
         * the last writer committed, nor will they while it does. */
        if ((other->want == VNL_WANT_WRITE || !placed) && !is_stuck(other, now)) {
            may = 0;
            break;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return may;
}

void
vnl_sqlite_queue_join(vnl_sqlite_queue *queue, vnl_sqlite_request *request, vnl_sqlite_want want)
{
    if (request->queue == queue && request->want == want) {
        return;
    }
    vnl_sqlite_queue_leave(request, request->seen);
    pthread_mutex_lock(&queue->lock);
    request->queue = queue;
    request->want = want;
    request->told = 0;
    if (want == VNL_WANT_ALONE) {
        vnl_list_init(&request->link);
        queue->alone = request;
    }
    else {
        vnl_list_append(&queue->line, &request->link);
    }
    pthread_mutex_unlock(&queue->lock);
}

/* The first writer in line. */
static int
is_first_writer(const vnl_sqlite_queue *queue, const vnl_sqlite_request *request)
{
    const vnl_node *node = queue->line.next;

    while (node != &queue->line && VNL_CONTAINER(node, vnl_sqlite_request, link)->want != VNL_WANT_WRITE) {
        node = node->next;
    }
    return node == &request->link;
}

int64_t
vnl_sqlite_queue_pause(vnl_sqlite_request *request, int64_t step, int64_t now)
{
    vnl_sqlite_queue *queue = request->queue;
    int64_t pause = step < LOOK_NS ? step : LOOK_NS;

    pthread_mutex_lock(&queue->lock);
    request->told = 0;
    request->seen = now;
    if (request->want == VNL_WANT_READ
            ? queue->held
            : request->want == VNL_WANT_WRITE && (queue->held || !is_first_writer(queue, request))) {
        pause = LOOK_NS; /* it will be told */
    }
    pthread_mutex_unlock(&queue->lock);
    return pause;
}

void
vnl_sqlite_queue_leave(vnl_sqlite_request *request, int64_t now)
{
    vnl_sqlite_queue *queue = request->queue;

    if (queue == NULL) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    if (queue->alone == request) {
        queue->alone = NULL;
    }
    vnl_list_remove(&request->link);
    request->queue = NULL;
    if (request->want == VNL_WANT_WRITE) {
        tell_line(queue, 0, now);
    }
    pthread_mutex_unlock(&queue->lock);
}

void
vnl_sqlite_queue_took(vnl_sqlite_queue *queue, int64_t now)
{
    pthread_mutex_lock(&queue->lock);
    queue->held++;
    if (now - queue->released > ASK_NS) {
        queue->run = now;
    }
    pthread_mutex_unlock(&queue->lock);
}

void
vnl_sqlite_queue_released(vnl_sqlite_queue *queue, int64_t now)
{
    pthread_mutex_lock(&queue->lock);
    queue->held--;
    queue->released = now;
    if (now - queue->run > RUN_NS && !vnl_list_empty(&queue->line)) {
        queue->rest = now + REST_NS;
    }
    tell_line(queue, 1, now);
    pthread_mutex_unlock(&queue->lock);
}

void
vnl_sqlite_queue_reader_left(vnl_sqlite_queue *queue, int64_t now)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->alone != NULL) {
        tell(queue->alone, now);
    }
    pthread_mutex_unlock(&queue->lock);
}

void
vnl_sqlite_queues_after_fork(void)
{
    /* Another thread may have held any of the locks. */
    pthread_mutex_init(&registry, NULL);
    vnl_list_init(&queues);
}
