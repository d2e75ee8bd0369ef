/* The PostgreSQL driver proper: libpq, Python-free.
 *
 * conn.c   connect, close, look at an idle connection, notices
 * exec.c   send a statement, read its results
 * flight.c statements that travel together, and what goes ahead of one
 * ahead.c  a FETCH that was sent before anybody asked for it
 * stmt.c   which statements a connection has prepared
 * copy.c   COPY, both ways
 * cancel.c cancel on the server, drain
 * shared.c the statements of several tasks on one connection
 * suspect.c which statements may give a bytea
 * sql.c    Django's placeholders -> what may be bound, what must be a literal
 *
 * Functions ending in `_wait` may switch the fiber; VNL_PG_INTERRUPTED means
 * that a Python exception is set (the wait was ended from outside).
 */
#ifndef VNL_PG_H
#define VNL_PG_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>
#include "core_api.h"

/* The core's table; set once when the module is imported. */
extern const vnl_core_api *vnl_pg_core;

typedef enum {
    VNL_PG_OK,
    VNL_PG_SERVER,      /* the server refused: the result holds its error */
    VNL_PG_LOST,        /* the connection is gone; a result may say why */
    VNL_PG_TIMEOUT,     /* the deadline passed; the statement may still run */
    VNL_PG_INTERRUPTED, /* a Python exception is set; the statement may still run */
    VNL_PG_NOMEM,
    VNL_PG_ELSEWHERE, /* not answered here: to be run on another connection */
    VNL_PG_COPY,      /* a COPY was asked for where none can be served; ended */
    VNL_PG_SKIPPED,   /* not run: one that it travelled with has failed before it */
} vnl_pg_status;

/* --- stmt.c ------------------------------------------------------------- */

typedef struct vnl_pg_stmt {
    uint64_t hash;
    char *sql;
    size_t len;
    Oid *oids;
    int noids;
    unsigned uses;
    int prepared;
    int ran;    /* once without an error, as it is now */
    int binary; /* every result column has a binary decoder (-1: not known yet) */
    uint64_t tick;
    char name[40];
} vnl_pg_stmt;

typedef struct vnl_pg_stmts {
    vnl_pg_stmt **list;
    int count;
    int size; /* how many are kept; 0: none */
    uint64_t tick;
    uint64_t serial;
} vnl_pg_stmts;

void vnl_pg_stmts_init(vnl_pg_stmts *stmts, int size);
void vnl_pg_stmts_free(vnl_pg_stmts *stmts);
/* Whether any is prepared. */
int vnl_pg_stmts_any(const vnl_pg_stmts *stmts);
/* Forgets that anything is prepared (after DEALLOCATE ALL or behind a pooler). */
void vnl_pg_stmts_forget(vnl_pg_stmts *stmts);
/* Finds or adds; counts the use.  NULL when nothing is kept, the text is too
 * long to keep, or out of memory.  `evicted` (40 bytes) gets the name of a prepared
 * statement that had to make room, or "". Valid until the next call. */
vnl_pg_stmt *vnl_pg_stmts_use(vnl_pg_stmts *stmts, const char *sql, size_t len, const Oid *oids, int noids,
                              char *evicted);
/* Only finds. */
vnl_pg_stmt *vnl_pg_stmts_find(const vnl_pg_stmts *stmts, const char *sql, size_t len, const Oid *oids,
                               int noids);
/* Gives the statement a name that no other client of the server uses. */
void vnl_pg_stmt_name(vnl_pg_stmts *stmts, vnl_pg_stmt *stmt);

/* --- conn.c ------------------------------------------------------------- */

typedef struct vnl_pg_notice {
    struct vnl_pg_notice *next;
    char *severity, *sqlstate, *message, *detail, *hint;
} vnl_pg_notice;

typedef struct vnl_pg_later {
    struct vnl_pg_later *next;
    char sql[];
} vnl_pg_later;

typedef struct vnl_pg_ahead {
    const void *owner;    /* the cursor it is for, to be compared only; NULL: nobody's */
    int sent;             /* its answer is not read yet */
    vnl_pg_status status; /* VNL_PG_TIMEOUT: it was cancelled, its rows are lost */
    PGresult *result;     /* the answer */
} vnl_pg_ahead;

typedef struct vnl_pg_conn {
    PGconn *pg;
    vnl_watch *watch;
    vnl_pg_stmts stmts;
    vnl_pg_later *later; /* to run before the next statement; errors ignored */
    vnl_pg_notice *notices, **notices_tail;
    int nnotices;
    int farewell;                 /* the server has said why it ends the connection */
    struct vnl_pg_shared *shared; /* or NULL */
    int inflight;                 /* a statement was sent and its results are not all read */
    vnl_pg_ahead ahead;
    char drained[24]; /* the command tag that the last drain ended with; "" after an error */
} vnl_pg_conn;

#define VNL_PG_MAX_NOTICES 100

/* Connects.  `keywords` and `values` as for PQconnectStartParams.  On failure
 * *conn is NULL and *message malloc-ed (or NULL out of memory); after a timeout
 * it is the silent server's "host\nport". */
vnl_pg_status vnl_pg_connect_wait(const char *const *keywords, const char *const *values, int64_t deadline,
                                  vnl_pg_conn **conn, char **message);
/* "host\nport", malloc-ed. */
char *vnl_pg_place(const vnl_pg_conn *conn);
void vnl_pg_close(vnl_pg_conn *conn);
void vnl_pg_abandon(vnl_pg_conn *conn);
int vnl_pg_check(vnl_pg_conn *conn);
/* Queues a statement that is sent ahead of the next one.  -1 out of memory. */
int vnl_pg_later_add(vnl_pg_conn *conn, const char *sql);
void vnl_pg_later_clear(vnl_pg_conn *conn);
vnl_pg_notice *vnl_pg_notices_take(vnl_pg_conn *conn);
void vnl_pg_notices_free(vnl_pg_notice *notices);

/* --- exec.c ------------------------------------------------------------- */

typedef struct vnl_pg_query {
    const char *sql; /* NUL-terminated; NULL: only `begin` is run */
    int nparams;
    const Oid *oids;
    const char *const *values;
    const int *lengths;
    const int *formats;
    int setup;          /* part of opening the connection: not counted */
    int simple;         /* simple protocol: several statements or COPY; no parameters */
    int binary;         /* result format */
    const char *begin;  /* sent ahead, or NULL */
    const char *name;   /* prepared statement to use, or NULL */
    int prepare;        /* prepare it as `name` first */
    const char *portal; /* describe this portal after the statement: the result is its description */
    int describe;       /* only describe it: the result is the description of its columns */
    const void *owner;  /* a FETCH of this cursor's, which may have been sent already */
} vnl_pg_query;

typedef struct vnl_pg_answer {
    PGresult *result; /* the statement's first result, or the error; owned */
    int begun;        /* BEGIN was done */
    int prepared;     /* the statement was prepared */
} vnl_pg_answer;

vnl_pg_status vnl_pg_run_wait(vnl_pg_conn *conn, const vnl_pg_query *query, int64_t deadline,
                              vnl_pg_answer *answer);
/* Reads what is left of an interrupted statement, or of several, and throws it away.  With `runs_on`, that
 * ends early where one behind a Sync does not answer soon, and sets it. */
vnl_pg_status vnl_pg_drain_wait(vnl_pg_conn *conn, int64_t deadline, int *runs_on);

/* Steps that copy.c shares: sends what is unsent and waits for input (or, while
 * something is unsent, for room); sends all; one result, NULL at the end; the
 * results up to that NULL, of which the first, or the first error, is kept. */
vnl_pg_status vnl_pg_readable_wait(vnl_pg_conn *conn, int64_t deadline);
vnl_pg_status vnl_pg_flush_wait(vnl_pg_conn *conn, int64_t deadline);
vnl_pg_status vnl_pg_result_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result);
vnl_pg_status vnl_pg_answer_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **kept);

/* The same for flight.c and shared.c: puts a statement into the buffer (0: vnl_pg_unsent() says why not);
 * keeps the first result, or the first error; the status that takes a result into account. */
int vnl_pg_send(vnl_pg_conn *conn, const vnl_pg_query *query);
vnl_pg_status vnl_pg_unsent(const vnl_pg_conn *conn);
int vnl_pg_is_error(const PGresult *result);
void vnl_pg_keep_result(PGresult *result, PGresult **kept);
vnl_pg_status vnl_pg_fold(const vnl_pg_conn *conn, vnl_pg_status status, const PGresult *result);

/* --- flight.c ----------------------------------------------------------- */

/* One of the statements that are sent together and answered one after the other. */
typedef struct vnl_pg_leg {
    vnl_pg_query query;   /* not simple; `begin` in the first only */
    int sync;             /* a Sync follows: should it fail, it skips nothing behind */
    vnl_pg_status status; /* VNL_PG_OK, _SERVER or _SKIPPED, when the flight is VNL_PG_OK */
    vnl_pg_answer answer; /* filled whatever happens; its result is to be cleared */
} vnl_pg_leg;

/* All in one flush, and what is queued (vnl_pg_later_add) ahead of them; a Sync always follows the last one.
 * The first is answered by the deadline, each of the others within `limit` nanoseconds (0: whenever) of the
 * one before.  VNL_PG_OK when all were answered; else it is what happened to the first leg with this status,
 * those after it were not answered, and conn->inflight is set as after vnl_pg_run_wait. */
vnl_pg_status vnl_pg_flight_wait(vnl_pg_conn *conn, vnl_pg_leg *legs, int n, int64_t deadline, int64_t limit);
/* Whether a statement alone is sent that way, for what goes ahead of it. */
int vnl_pg_flies(const vnl_pg_conn *conn, const vnl_pg_query *query);

/* --- ahead.c ------------------------------------------------------------ */

/* PQtransactionStatus, in which what was sent ahead does not count. */
PGTransactionStatusType vnl_pg_txn(const vnl_pg_conn *conn);
/* Sends the FETCH where that is possible at once.  `sql` is copied. */
void vnl_pg_ahead_send(vnl_pg_conn *conn, const void *owner, const char *sql, int binary);
/* Its rows are not wanted any more. */
void vnl_pg_ahead_forget(vnl_pg_conn *conn, const void *owner);
/* Reads its answer, so that a statement may be sent.  Interrupted it is still outstanding;
 * after the deadline it is what runs, and its rows are lost. */
vnl_pg_status vnl_pg_ahead_settle_wait(vnl_pg_conn *conn, int64_t deadline);
/* The answer, for its cursor; interrupted it is what runs. */
vnl_pg_status vnl_pg_ahead_take_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result);

/* --- copy.c ------------------------------------------------------------- */

vnl_pg_status vnl_pg_copy_start_wait(vnl_pg_conn *conn, const char *sql, int64_t deadline, PGresult **result);
vnl_pg_status vnl_pg_copy_put_wait(vnl_pg_conn *conn, const char *data, int len, int64_t deadline);
/* *len 0 at the end; else *data is to be given to PQfreemem. */
vnl_pg_status vnl_pg_copy_get_wait(vnl_pg_conn *conn, int64_t deadline, char **data, int *len);
/* Ends a COPY FROM, with `error` by making it fail. */
vnl_pg_status vnl_pg_copy_end_wait(vnl_pg_conn *conn, const char *error, int64_t deadline, PGresult **result);
vnl_pg_status vnl_pg_copy_finish_wait(vnl_pg_conn *conn, int64_t deadline, PGresult **result);

/* --- cancel.c ----------------------------------------------------------- */

/* Asks the server to cancel what runs on `conn` and drains, all before the
 * deadline; if it does not end by then, asks again without waiting.  To be called
 * shielded, with no exception set.  VNL_PG_OK when the connection is usable again. */
vnl_pg_status vnl_pg_cancel_wait(vnl_pg_conn *conn, int64_t deadline);
/* Only asks; 0 when it could not be done by the deadline. */
int vnl_pg_cancel_request_wait(vnl_pg_conn *conn, int64_t deadline);

/* --- shared.c ----------------------------------------------------------- */

/* A connection whose owner lets the statements of other tasks run behind its own.  They are such as only
 * read and may as well run twice: what goes wrong for one of them sends the others elsewhere. */
typedef struct vnl_pg_shared vnl_pg_shared;

/* Takes over the slot.  NULL: out of memory, the slot is still the caller's. */
vnl_pg_shared *vnl_pg_shared_new(vnl_pg_conn *conn, vnl_slot *slot);
/* Whoever runs a statement there enters before it and leaves after; the last one gives the slot back. */
void vnl_pg_shared_enter(vnl_pg_shared *shared);
void vnl_pg_shared_leave(vnl_pg_shared *shared);
/* One statement, without parts that go ahead of it.  VNL_PG_ELSEWHERE when one before it has had the server
 * for `patience` (nanoseconds), and when the connection is in trouble.  *took: how long the server had it,
 * 0 where that is not known. */
vnl_pg_status vnl_pg_shared_run_wait(vnl_pg_shared *shared, const vnl_pg_query *query, int64_t patience,
                                     PGresult **result, int64_t *took);

/* --- suspect.c ---------------------------------------------------------- */

typedef struct vnl_pg_names vnl_pg_names;

extern const char *const vnl_pg_names_sql;
/* From the `n` rows of that query; get(from, row, column) is a cell.  NULL out of memory. */
vnl_pg_names *vnl_pg_names_new(int n, const char *(*get)(const void *, int, int), const void *from);
void vnl_pg_names_free(vnl_pg_names *names);
/* Whether the statement may have a bytea in its result; `flags` as vnl_sql's. */
int vnl_pg_may_bytes(const vnl_pg_names *names, const char *text, size_t len, int flags);
/* Whether DDL of this text may change the names. */
int vnl_pg_names_touched(const vnl_pg_names *names, const char *text, size_t len);

/* --- sql.c -------------------------------------------------------------- */

/* How a placeholder may be bound so that the statement means exactly what it
 * means with a literal in its place. */
typedef enum {
    VNL_HOLE_LITERAL, /* only as a literal */
    VNL_HOLE_TYPED,   /* as a parameter when the value has a type of its own */
    VNL_HOLE_ANY,     /* as a parameter, untyped text too */
} vnl_hole_kind;

typedef struct vnl_hole {
    uint32_t at;   /* offset in `text` where the value goes */
    uint32_t name; /* offset of the name in `names` */
    uint32_t namelen;
    uint8_t kind;
} vnl_hole;

#define VNL_SQL_DML 1       /* SELECT, INSERT, UPDATE, DELETE, WITH, VALUES, MERGE */
#define VNL_SQL_MULTI 2     /* several statements */
#define VNL_SQL_COPY 4      /* COPY */
#define VNL_SQL_PINS 8      /* leaves state behind in the server's session */
#define VNL_SQL_DDL 16      /* may change what prepared statements return */
#define VNL_SQL_SHARE 32    /* GROUP BY or DISTINCT: equal parameters share a number */
#define VNL_SQL_DEALLOC 64  /* DEALLOCATE, DISCARD */
#define VNL_SQL_NAMED 128   /* %(name)s */
#define VNL_SQL_SIMPLE 256  /* looks at what the extended protocol would leave a trace in */
#define VNL_SQL_ROWS 512    /* DML that may give rows */
#define VNL_SQL_WRITES 1024 /* INSERT, UPDATE, DELETE, MERGE: its rows are those of RETURNING */
#define VNL_SQL_LOCKS 2048  /* FOR UPDATE and the like */

typedef struct vnl_sql {
    char *text; /* without its placeholders, %% as % */
    size_t len;
    char *names;
    vnl_hole *holes;
    int nholes;
    int flags;
    int force_literal; /* the server refused parameters here once */
    int pace;          /* > 0: its last runs were quick; 0: not known */
} vnl_sql;

/* Reads a statement.  `placeholders` = 0: no parameters, % means %.
 * On failure NULL, and `error` (120 bytes) says why; "" means out of memory. */
vnl_sql *vnl_sql_read(const char *text, size_t len, int placeholders, char *error);
void vnl_sql_free(vnl_sql *sql);

#endif
