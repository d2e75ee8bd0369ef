/* The SQLite driver proper: physical connections, statements, waiting.
 *
 * Free of Python.  Everything that Python must do for it (the GIL, pending
 * exceptions) comes in through `vnl_sqlite_host`; fibers, timers and the helper
 * thread through the core's API.
 *
 * A connection is used by one fiber or thread at a time; the layer above sees
 * to that.  While a statement is suspended inside SQLite (progress handler,
 * busy handler, fsync) its connection still belongs to that fiber.
 */
#ifndef VNL_SQLITE_H
#define VNL_SQLITE_H

#include <stddef.h>
#include <stdint.h>
#include <sqlite3.h>

#include "core_api.h"
#include "gate.h"
#include "queue.h"

/* How placeholders are written in the SQL that Python hands over. */
typedef enum vnl_sqlite_style {
    VNL_STYLE_RAW = 'r',    /* SQLite's own: passed through */
    VNL_STYLE_FORMAT = 'f', /* %s; %% is a percent sign */
    VNL_STYLE_NAMED = 'n',  /* %(name)s; %% is a percent sign */
} vnl_sqlite_style;

typedef enum vnl_sqlite_kind {
    VNL_KIND_OTHER,
    VNL_KIND_INSERT, /* INSERT and REPLACE */
    VNL_KIND_CHANGE, /* UPDATE and DELETE */
    VNL_KIND_COMMIT,
    VNL_KIND_ROLLBACK,
    VNL_KIND_PRAGMA,
    VNL_KIND_ATTACH,
    VNL_KIND_DETACH,
    VNL_KIND_TEMP, /* CREATE TEMP … */
    VNL_KIND_DROP,
    VNL_KIND_WITH, /* whatever follows */
} vnl_sqlite_kind;

typedef struct vnl_sqlite_conn vnl_sqlite_conn;
typedef struct vnl_sqlite_batch vnl_sqlite_batch;

typedef struct vnl_sqlite_stmt {
    struct vnl_sqlite_stmt *newer, *older; /* in the cache's list, or among the loose */
    struct vnl_sqlite_stmt *chain;         /* in the cache's bucket */
    struct vnl_sqlite_stmt *doomed;        /* to be let go of when the connection is free */
    uint64_t hash;
    char *key; /* the SQL as given; NULL for one that is not cached */
    size_t key_len;
    char style;
    char in_use;
    char writes; /* INSERT, REPLACE, UPDATE or DELETE, also behind WITH */
    vnl_sqlite_kind kind;
    sqlite3_stmt *raw; /* NULL for a comment */
    char *pragma;      /* the name of a PRAGMA that sets something, else NULL */
    /* What the layer above keeps with it: see vnl_sqlite_host.forget. */
    void *extra;
} vnl_sqlite_stmt;

/* What the driver needs of Python.  Set once, before the first open. */
typedef struct vnl_sqlite_host {
    const vnl_core_api *core;
    void *(*unlock)(void);       /* releases the GIL; the token for lock */
    void (*lock)(void *token);   /* takes it again */
    int (*error_pending)(void);  /* an exception is set (GIL held) */
    void (*forget)(void *extra); /* frees a statement's `extra` (GIL held) */
} vnl_sqlite_host;

extern vnl_sqlite_host vnl_sqlite_host_calls;

/* Why a connection may not go back to the pool. */
#define VNL_PIN_TEMP 1u   /* temporary tables, views, triggers */
#define VNL_PIN_USER 2u   /* limits, tracing, … set on the live link */
#define VNL_PIN_PRAGMA 4u /* a PRAGMA that cannot be compared with its start */
#define VNL_PIN_BROKEN 8u /* I/O error, corruption: not to be used again */

struct vnl_sqlite_pragma; /* a PRAGMA that was set, and its value before */

struct vnl_sqlite_conn {
    sqlite3 *db;
    int64_t busy_timeout;    /* nanoseconds */
    int64_t command_timeout; /* of one call, waiting for locks included; 0: none */
    char no_switch;          /* shared cache: never switch inside SQLite */
    char memory;             /* lives in memory only */
    unsigned generation;     /* of forks, when it was opened */
    /* The call that is running now. */
    void *unlocked;     /* the GIL's token while it is released, else NULL */
    char suspendable;   /* fiber on a loop: waits suspend */
    int64_t turn_start; /* when this fiber last got its turn */
    int64_t signal_look;
    int64_t busy_since, busy_step;
    int64_t deadline;             /* of this call, when command_timeout is set */
    char overdue;                 /* it was ended because of that */
    uint64_t call;                /* counts the calls of SQLite */
    char write_step;              /* the statement under way writes */
    vnl_sqlite_gate *blocked;     /* the lock that was refused last, or NULL */
    vnl_sqlite_want blocked_want; /* what for */
    vnl_sqlite_request request;   /* its place in a queue */
    vnl_event *bell;              /* ends its wait there */
    /* State that ties it to its user. */
    unsigned pins;
    int attached;
    struct vnl_sqlite_pragma *pragmas;
    /* Statements. */
    vnl_sqlite_stmt *newest, *oldest; /* the cache */
    vnl_sqlite_stmt *loose;           /* those in use that are not cached */
    vnl_sqlite_stmt *buckets[64];
    int cached, cache_max;
    void *above; /* what the layer above keeps with it */
};

/* --- conn.c */
/* NULL when memory ran out; else a connection whose `db` may still be in
 * error: *rc tells, and the message stands in `db` until close. */
vnl_sqlite_conn *vnl_sqlite_open_wait(const char *name, int uri, int64_t busy_timeout, int cache_max,
                                      int *rc);
void vnl_sqlite_close(vnl_sqlite_conn *conn);
/* Whether it was opened by the process that this one was forked from: then
 * nothing may be done with it, for its locks and its journal are the parent's.
 * One that lives in memory is the child's own copy. */
int vnl_sqlite_inherited(const vnl_sqlite_conn *conn);
/* The same of any connection. */
int vnl_sqlite_is_parents(const vnl_sqlite_conn *conn);
/* A forked child's copy: forgets a file's handle without touching its locks. */
void vnl_sqlite_abandon(vnl_sqlite_conn *conn);
/* Brackets around every call that may run long: decides how to wait and
 * releases the GIL in blocking mode. */
void vnl_sqlite_enter(vnl_sqlite_conn *conn);
void vnl_sqlite_leave(vnl_sqlite_conn *conn);
/* Around a call that works on two: either's busy handler may wait. */
void vnl_sqlite_enter_both(vnl_sqlite_conn *conn, vnl_sqlite_conn *other);
void vnl_sqlite_leave_both(vnl_sqlite_conn *conn, vnl_sqlite_conn *other);

/* --- stmt.c */
/* A statement ready to bind, out of the cache or prepared; *rc tells why it
 * is NULL.  VNL_MORE_SQL: something follows the first statement. */
#define VNL_MORE_SQL (-1)
#define VNL_BAD_FORMAT (-2)
vnl_sqlite_stmt *vnl_sqlite_prepare_wait(vnl_sqlite_conn *conn, const char *sql, size_t len,
                                         vnl_sqlite_style style, int *rc);
/* Resets it and gives it back to the cache. */
void vnl_sqlite_stmt_done(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt);
/* All of them, in use or not.  A virtual table has statements of its own. */
void vnl_sqlite_stmts_free(vnl_sqlite_conn *conn);
/* The SQL with SQLite's placeholders, malloc'ed; NULL: *rc VNL_BAD_FORMAT or SQLITE_NOMEM. */
char *vnl_sqlite_convert(const char *sql, size_t len, vnl_sqlite_style style, size_t *out_len, int *rc);
/* Sets kind, writes and pragma of a statement that is yet to be prepared. */
int vnl_sqlite_classify(vnl_sqlite_stmt *stmt, const char *sql);

/* --- batch.c: the rows of one INSERT, as the table sqlite_vinyl_batch(?) */
/* A value; the bytes of a text or a blob belong to whoever filled it in. */
typedef struct vnl_sqlite_cell {
    int type; /* SQLITE_INTEGER, FLOAT, TEXT, BLOB; anything else: NULL */
    int size; /* of the bytes */
    union {
        int64_t integer;
        double real;
        const char *bytes; /* not NULL */
    };
} vnl_sqlite_cell;

#define VNL_BATCH_COLUMNS 100 /* c0 to c99 */

/* Its cells, row by row, are NULLs to be filled in.  NULL: too many, or no memory. */
vnl_sqlite_batch *vnl_sqlite_batch_new(int rows, int columns);
vnl_sqlite_cell *vnl_sqlite_batch_cells(vnl_sqlite_batch *batch);
void vnl_sqlite_batch_free(void *batch);
/* Steals it, on failure too; what its cells point to has to live until the
 * parameter is cleared. */
int vnl_sqlite_batch_bind(sqlite3_stmt *raw, int at, vnl_sqlite_batch *batch);
int vnl_sqlite_batch_install(sqlite3 *db);
/* Before a limit is lowered, which the table might exceed; else its first use does it. */
void vnl_sqlite_batch_connect_wait(vnl_sqlite_conn *conn);

/* --- exec.c */
/* SQLITE_ROW, SQLITE_DONE or an error code.  `first`: no row was read yet, so
 * a locked shared cache may be tried again. */
int vnl_sqlite_step_wait(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, int first);
/* After an error: whether the connection is still to be trusted. */
void vnl_sqlite_note_error(vnl_sqlite_conn *conn, int rc);
/* A statement without rows or parameters: BEGIN, COMMIT, … */
int vnl_sqlite_run_wait(vnl_sqlite_conn *conn, const char *sql);
/* Gives the loop its turn when this one has been long.  -1: exception. */
int vnl_sqlite_turn_wait(vnl_sqlite_conn *conn);
/* One more try after SQLITE_LOCKED or BUSY of a shared cache?  1: try again. */
int vnl_sqlite_again_wait(vnl_sqlite_conn *conn, int rc, int64_t *since, int64_t *pause);

/* --- pin.c: state that a statement leaves on its connection */
/* Before a PRAGMA that sets something is prepared; after any statement. */
void vnl_sqlite_pin_before(vnl_sqlite_conn *conn, const vnl_sqlite_stmt *stmt);
void vnl_sqlite_pin_after(vnl_sqlite_conn *conn, const vnl_sqlite_stmt *stmt);
int vnl_sqlite_pinned(const vnl_sqlite_conn *conn);
/* 1: this PRAGMA sets something that lasts as long as the connection. */
int vnl_sqlite_pragma_sets(const char *name, size_t len);
void vnl_sqlite_pins_free(vnl_sqlite_conn *conn);

/* --- slice.c */
void vnl_sqlite_slice_install(vnl_sqlite_conn *conn);
int64_t vnl_sqlite_now(void);

/* --- vfs.c */
/* The name of the VFS whose fsync leaves the loop free and whose locks are
 * queued for; NULL when the default VFS could not be wrapped. */
const char *vnl_sqlite_vfs(void);
/* The same of databases that live in memory. */
const char *vnl_sqlite_memory_vfs(void);
/* Ties the files of a connection to it: after it was opened, after ATTACH. */
void vnl_sqlite_vfs_tie(vnl_sqlite_conn *conn, const char *schema);
/* While > 0 on this thread, the VFS does not switch the fiber. */
void vnl_sqlite_vfs_direct(int enter);
int vnl_sqlite_vfs_is_direct(void);

#endif
