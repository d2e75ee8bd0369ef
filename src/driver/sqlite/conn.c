/* Physical connections: open, close, the brackets around long calls. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sqlite.h"

vnl_sqlite_host vnl_sqlite_host_calls;

static int
hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether the URI's query has `key=value`, as SQLite would read it. */
static int
uri_has(const char *uri, const char *key, const char *value)
{
    char word[64] = "";
    size_t n = 0;
    const char *p = strchr(uri, '?');
    size_t key_len = strlen(key);

    if (p == NULL) {
        return 0;
    }
    for (p++;; p++) {
        char c = *p;
        if (c == '&' || c == '#' || c == '\0') {
            word[n] = '\0';
            if (strncmp(word, key, key_len) == 0 && word[key_len] == '=' &&
                strcmp(word + key_len + 1, value) == 0) {
                return 1;
            }
            if (c != '&') {
                return 0;
            }
            n = 0;
            continue;
        }
        if (c == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
            c = (char)(hex(p[1]) * 16 + hex(p[2]));
            p += 2;
        }
        if (n < sizeof(word) - 1) {
            word[n++] = c;
        }
    }
}

/* Whether the URI's database lives in memory only. */
static int
names_memory(const char *uri)
{
    const char *vfs = vnl_sqlite_memory_vfs();

    return uri_has(uri, "mode", "memory") || uri_has(uri, "vfs", "memdb") ||
           (vfs != NULL && uri_has(uri, "vfs", vfs)) || strncmp(uri, "file::memory:", 13) == 0;
}

static unsigned generation;
static pthread_once_t fork_watch = PTHREAD_ONCE_INIT;

static void
after_fork(void)
{
    generation++;
    vnl_sqlite_queues_after_fork();
}

static void
watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork);
}

int
vnl_sqlite_inherited(const vnl_sqlite_conn *conn)
{
    return vnl_sqlite_is_parents(conn) && !conn->memory;
}

int
vnl_sqlite_is_parents(const vnl_sqlite_conn *conn)
{
    return conn->generation != generation;
}

static void
ring(vnl_sqlite_request *request)
{
    vnl_sqlite_host_calls.core->event_ring(VNL_CONTAINER(request, vnl_sqlite_conn, request)->bell);
}

static void
free_conn(vnl_sqlite_conn *conn)
{
    vnl_sqlite_host_calls.core->event_free(conn->bell);
    free(conn);
}

vnl_sqlite_conn *
vnl_sqlite_open_wait(const char *name, int uri, int64_t busy_timeout, int cache_max, int *rc)
{
    vnl_sqlite_conn *conn = calloc(1, sizeof(*conn));
    int is_uri = uri && strncmp(name, "file:", 5) == 0;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    const char *vfs = NULL;

    if (conn == NULL || (conn->bell = vnl_sqlite_host_calls.core->event_new()) == NULL) {
        free(conn);
        *rc = SQLITE_NOMEM;
        return NULL;
    }
    conn->request.tell = ring;
    conn->no_switch = (char)(is_uri && uri_has(name, "cache", "shared"));
    conn->memory = (char)(name[0] == '\0' || strcmp(name, ":memory:") == 0 || (is_uri && names_memory(name)));
    pthread_once(&fork_watch, watch_forks);
    conn->generation = generation;
    conn->busy_timeout = busy_timeout;
    conn->cache_max = cache_max;
    /* A URI may name a VFS of its own; SQLite lets it win. */
    if (!conn->no_switch && !conn->memory) {
        vfs = vnl_sqlite_vfs();
    }
    vnl_sqlite_enter(conn);
    *rc = sqlite3_open_v2(name, &conn->db, flags | (uri ? SQLITE_OPEN_URI : 0), vfs);
    vnl_sqlite_leave(conn);
    if (conn->db == NULL) {
        free_conn(conn);
        return NULL;
    }
    vnl_sqlite_vfs_tie(conn, "main");
    sqlite3_extended_result_codes(conn->db, 1);
    if (*rc == SQLITE_OK && (*rc = vnl_sqlite_batch_install(conn->db)) == SQLITE_OK) {
        vnl_sqlite_slice_install(conn);
    }
    return conn;
}

void
vnl_sqlite_close(vnl_sqlite_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    vnl_sqlite_stmts_free(conn);
    vnl_sqlite_pins_free(conn);
    /* Closing never switches: the handlers go, and the VFS syncs in place. */
    sqlite3_progress_handler(conn->db, 0, NULL, NULL);
    sqlite3_busy_handler(conn->db, NULL, NULL);
    vnl_sqlite_vfs_direct(1);
    vnl_sqlite_enter(conn);
    sqlite3_close_v2(conn->db);
    vnl_sqlite_leave(conn);
    vnl_sqlite_vfs_direct(-1);
    free_conn(conn);
}

void
vnl_sqlite_abandon(vnl_sqlite_conn *conn)
{
    /* Closing might roll back the parent's hot journal, or checkpoint and
     * delete its WAL.  So the handle is left as it is: a leak of one
     * connection per fork. */
    (void)conn;
}

/* A call of SQLite begins. */
static void
begin_call(vnl_sqlite_conn *conn, int suspendable)
{
    conn->suspendable = (char)suspendable;
    conn->busy_since = 0;
    conn->blocked = NULL;
    conn->call++;
    conn->overdue = 0;
    conn->deadline = conn->command_timeout > 0 ? vnl_sqlite_now() + conn->command_timeout : INT64_MAX;
}

/* It ends: whoever still has a place in a queue gave up. */
static void
end_call(vnl_sqlite_conn *conn)
{
    if (conn->request.queue != NULL) {
        vnl_sqlite_queue_leave(&conn->request, vnl_sqlite_now());
    }
}

void
vnl_sqlite_enter(vnl_sqlite_conn *conn)
{
    begin_call(conn, vnl_sqlite_host_calls.core->can_suspend());
    if (!conn->suspendable) {
        conn->signal_look = vnl_sqlite_now();
        vnl_sqlite_vfs_direct(1);
        conn->unlocked = vnl_sqlite_host_calls.unlock();
    }
}

void
vnl_sqlite_leave(vnl_sqlite_conn *conn)
{
    end_call(conn);
    if (conn->unlocked != NULL) {
        void *token = conn->unlocked;
        conn->unlocked = NULL;
        vnl_sqlite_host_calls.lock(token);
        vnl_sqlite_vfs_direct(-1);
    }
}

void
vnl_sqlite_enter_both(vnl_sqlite_conn *conn, vnl_sqlite_conn *other)
{
    vnl_sqlite_enter(conn);
    begin_call(other, conn->suspendable);
    other->signal_look = conn->signal_look;
    other->unlocked = conn->unlocked;
}

void
vnl_sqlite_leave_both(vnl_sqlite_conn *conn, vnl_sqlite_conn *other)
{
    end_call(other);
    other->unlocked = NULL;
    vnl_sqlite_leave(conn);
}
