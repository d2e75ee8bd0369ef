/* The handlers in which a running statement waits.
 *
 * The progress handler, called every few hundred steps of SQLite's virtual
 * machine, gives the loop its turn from inside the statement; the busy handler
 * waits there for another connection's lock.  Both may switch the fiber: the
 * whole C stack of sqlite3_step is kept by greenlet meanwhile.
 */
#include <time.h>

#include "sqlite.h"

#define STEPS_PER_LOOK 400
#define TURN_NS 500000   /* longest stretch of one statement on the loop */
#define TURNS_NS 1000000 /* of all that are under way, each once */
#define TURN_SHORTEST_NS 50000
#define SIGNAL_NS 50000000 /* how often blocking mode looks for Ctrl-C */
#define BUSY_FIRST_NS 1000000
#define BUSY_LONGEST_NS 25000000

/* Statements of this thread that wait for their next turn. */
static _Thread_local int in_line;

/* How long this one may go on. */
static int64_t
turn_length(void)
{
    int64_t share = TURNS_NS / (in_line + 1);

    return share > TURN_NS ? TURN_NS : share < TURN_SHORTEST_NS ? TURN_SHORTEST_NS : share;
}

int64_t
vnl_sqlite_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* One look at the loop or at signals.  -1: an exception is set. */
static int
look_wait(vnl_sqlite_conn *conn)
{
    const vnl_sqlite_host *host = &vnl_sqlite_host_calls;
    void *token = conn->unlocked;
    int rc;

    conn->unlocked = NULL;
    if (token != NULL) {
        host->lock(token);
    }
    in_line++;
    rc = host->error_pending() ? -1 : host->core->turn_wait();
    in_line--;
    conn->turn_start = vnl_sqlite_now();
    conn->signal_look = conn->turn_start;
    if (token != NULL) {
        conn->unlocked = host->unlock();
    }
    return rc;
}

/* Whether the call has taken longer than command_timeout. */
static int
is_overdue(vnl_sqlite_conn *conn, int64_t now)
{
    conn->overdue |= now >= conn->deadline;
    return conn->overdue;
}

static int
on_progress(void *arg)
{
    vnl_sqlite_conn *conn = arg;
    int64_t now;

    if (conn->suspendable && vnl_sqlite_host_calls.error_pending()) {
        return 1;
    }
    now = vnl_sqlite_now();
    if (is_overdue(conn, now)) {
        return 1;
    }
    if (conn->suspendable && (conn->no_switch || vnl_sqlite_vfs_is_direct())) {
        return 0;
    }
    if (conn->suspendable ? now - conn->turn_start < turn_length() : now - conn->signal_look < SIGNAL_NS) {
        return 0;
    }
    return look_wait(conn) < 0;
}

/* At most `length`; less when `bell` (NULL: none) is rung.  -1: an exception. */
static int
pause_wait(vnl_sqlite_conn *conn, int64_t length, vnl_event *bell)
{
    const vnl_sqlite_host *host = &vnl_sqlite_host_calls;
    void *token = conn->unlocked;
    int rc;

    conn->unlocked = NULL;
    if (token != NULL) {
        host->lock(token);
    }
    rc = host->error_pending() ? -1
         : bell != NULL        ? host->core->event_wait(bell, vnl_sqlite_now() + length)
                               : host->core->sleep_wait(length);
    conn->turn_start = vnl_sqlite_now();
    if (token != NULL) {
        conn->unlocked = host->unlock();
    }
    return rc;
}

/* In the queue of the lock that was refused. */
static int
queue_wait(vnl_sqlite_conn *conn, int64_t left)
{
    int64_t pause;

    vnl_sqlite_queue_join(conn->blocked->queue, &conn->request, conn->blocked_want);
    conn->blocked = NULL;
    vnl_sqlite_host_calls.core->event_clear(conn->bell);
    pause = vnl_sqlite_queue_pause(&conn->request, conn->busy_step, vnl_sqlite_now());
    return pause_wait(conn, pause < left ? pause : left, conn->bell);
}

/* SQLite calls it only where waiting can help: never on BUSY_SNAPSHOT or on a
 * deadlock of two upgrading readers. */
static int
on_busy(void *arg, int tries)
{
    vnl_sqlite_conn *conn = arg;
    int64_t now = vnl_sqlite_now();
    int64_t left;

    if (conn->suspendable && (conn->no_switch || vnl_sqlite_vfs_is_direct())) {
        return 0; /* tried again from outside: vnl_sqlite_again_wait */
    }
    if (tries == 0 || conn->busy_since == 0) {
        conn->busy_since = now;
        conn->busy_step = BUSY_FIRST_NS;
    }
    left = conn->busy_timeout - (now - conn->busy_since);
    if (left <= 0 || is_overdue(conn, now)) {
        return 0;
    }
    left = conn->deadline - now < left ? conn->deadline - now : left;
    if ((conn->blocked != NULL
             ? queue_wait(conn, left)
             : pause_wait(conn, conn->busy_step < left ? conn->busy_step : left, NULL)) < 0) {
        return 0;
    }
    conn->busy_step = conn->busy_step * 2 < BUSY_LONGEST_NS ? conn->busy_step * 2 : BUSY_LONGEST_NS;
    return 1;
}

void
vnl_sqlite_slice_install(vnl_sqlite_conn *conn)
{
    conn->turn_start = vnl_sqlite_now();
    sqlite3_progress_handler(conn->db, STEPS_PER_LOOK, on_progress, conn);
    sqlite3_busy_handler(conn->db, on_busy, conn);
}

int
vnl_sqlite_turn_wait(vnl_sqlite_conn *conn)
{
    if (!vnl_sqlite_host_calls.core->can_suspend() || vnl_sqlite_now() - conn->turn_start < turn_length()) {
        return 0;
    }
    return look_wait(conn);
}

int
vnl_sqlite_again_wait(vnl_sqlite_conn *conn, int rc, int64_t *since, int64_t *pause)
{
    int64_t now = vnl_sqlite_now();
    int locked = rc == SQLITE_LOCKED_SHAREDCACHE;

    if (!locked && !((rc & 0xff) == SQLITE_BUSY && conn->no_switch && conn->suspendable)) {
        return 0;
    }
    if (*since == 0) {
        *since = now;
        *pause = BUSY_FIRST_NS;
    }
    if (conn->command_timeout > 0 && now - *since >= conn->command_timeout) {
        conn->overdue = 1;
        return 0;
    }
    if (now - *since >= conn->busy_timeout || pause_wait(conn, *pause, NULL) < 0) {
        return 0;
    }
    *pause = *pause * 2 < BUSY_LONGEST_NS ? *pause * 2 : BUSY_LONGEST_NS;
    return 1;
}
