/* The Python face of the PostgreSQL driver: vinyl._postgres.
 *
 * py_config.c  Config: how connections of one pool are opened; the vnl_driver
 * py_hosts.c   a silent host of several
 * py_errors.c  libpq's errors -> psycopg's exception classes
 * py_request.c a template and values -> what is sent
 * py_link.c    Connection: what Django's wrapper holds; py_txn.c its transactions
 * py_hold.c    which physical connection it holds, who uses it
 * py_run.c     one statement: prepared or not, tried again or not; py_share.c on another task's connection
 * py_flight.c  several statements sent together; py_together.c their Python face, py_park.c those of strands
 * py_held.c    statements that are kept until the next one or COMMIT carries them
 * py_cursor.c  Cursor; py_named.c server-side cursors; py_copy.c COPY; py_info.c connection.info
 */
#ifndef VNL_PG_PY_H
#define VNL_PG_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/buf.h"
#include "base/list.h"
#include "pg.h"
#include "row/bind.h"
#include "row/decode.h"

typedef struct pg_state {
    PyTypeObject *config_type, *link_type, *cursor_type, *info_type, *copy_type;
    PyObject *templates; /* str -> capsule of vnl_sql */
    PyObject *raw;       /* the same without placeholders */
    PyObject *psycopg, *errors, *column;
} pg_state;

extern struct PyModuleDef vnl_pg_module;

/* Borrowed from the module of `type`. */
pg_state *pg_state_of(PyTypeObject *type);
PyObject *pg_module_of(PyTypeObject *type);

/* --- py_errors.c --- */
/* Raise psycopg.<name>; returns NULL. */
PyObject *pg_raise(pg_state *state, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Raises the class of a sqlstate ("08006" …) without a server's result. */
PyObject *pg_raise_state(pg_state *state, const char *sqlstate, const char *message);
PyObject *pg_raise_result(pg_state *state, const PGresult *result);
/* What a failed run means; INTERRUPTED leaves the exception as it is. */
PyObject *pg_raise_status(pg_state *state, vnl_pg_status status, const PGresult *result, PGconn *pg);
/* Emits and frees notices: to the handlers, a list or NULL, and to the logger "vinyl.postgresql". */
int pg_emit_notices(pg_state *state, vnl_pg_notice *notices, PyObject *handlers);

/* --- py_config.c --- */
typedef struct pg_config {
    PyObject_HEAD
    PyObject *params;   /* dict of str */
    PyObject *setup;    /* str: run once per physical connection */
    PyObject *timezone; /* str or None: what setup sets */
    vnl_decode_ctx *ctx;
    int64_t connect_timeout; /* nanoseconds, 0: none */
    int64_t command_timeout; /* the same, for each answer */
    int prepare_threshold;   /* -1: never */
    int prepared_max;
    int server_side_binding;
    int shares; /* statements that only read may share a connection */
    /* Beyond a round trip, in nanoseconds: what takes longer is run alone, so that it holds nobody
     * up; two and a half times of it others wait for one that did not take so long before. */
    int64_t share_below;
    int64_t round_trip;  /* the shortest answer so far, in nanoseconds */
    vnl_pg_names *names; /* by which a bytea can be had; NULL: they could not be read */
    char names_old;      /* a statement may have changed them */
    char pooler;         /* statements of one connection of ours come to several of the server's */
    int server_version;
} pg_config;

extern PyType_Spec pg_config_spec;
extern const vnl_driver pg_driver;
vnl_pg_conn *pg_config_open_wait(pg_config *config);
/* Reads the names by which a bytea can be had, on a connection that is in no transaction. */
vnl_pg_status pg_config_names_wait(pg_config *config, vnl_pg_conn *conn, int64_t deadline);

/* --- py_hosts.c --- */
/* The parameters without this host.  New reference; NULL with no exception when none would be left. */
PyObject *pg_hosts_without(PyObject *params, const char *host, const char *port);

/* --- py_request.c --- */
typedef enum {
    PG_BIND_AUTO,
    PG_BIND_LITERAL,
    PG_BIND_SERVER
} pg_binding;

/* May be moved: nothing points into it. */
typedef struct pg_request {
    vnl_sql *sql;      /* borrowed from `capsule` */
    PyObject *capsule; /* strong */
    vnl_buf text;
    vnl_param *params;
    Oid *oids;
    const char **values;
    int *lengths, *formats;
    int nparams;  /* bound */
    int nliteral; /* interpolated */
    pg_binding binding;
} pg_request;

/* str, bytes or a psycopg.sql.Composable -> str.  New reference. */
PyObject *pg_query_text(pg_state *state, PyObject *query, PyObject *context);
/* 0, or -1 with an exception.  `request` needs no initialisation. */
int pg_request_init(pg_state *state, pg_request *request, vnl_decode_ctx *ctx, PyObject *sql,
                    PyObject *params, pg_binding binding);
/* What it asks of the driver, which points into it. */
vnl_pg_query pg_request_query(const pg_request *request);
void pg_request_clear(pg_request *request);

/* --- py_link.c --- */
struct pg_held;

typedef struct pg_link {
    PyObject_HEAD
    pg_state *state;
    PyObject *pool; /* vinyl._core.Pool, or NULL: a connection of its own */
    pg_config *config;
    vnl_decode_ctx *own_ctx; /* when the link's adapters are not the config's */
    vnl_slot *slot;
    vnl_pg_conn *conn;
    long owner_pid;
    int busy, closed;
    int copying;      /* a COPY runs, from block to block: nobody waits for its end */
    const void *user; /* while busy: the fiber or the thread that uses it */
    vnl_node turns;   /* who waits for it */
    int autocommit;
    /* Of a statement that has failed the transaction and whose own code does not know yet; borrowed. */
    const PGresult *refused;
    int broken;           /* lost inside a transaction, which is gone */
    int pins;             /* server-side cursors held open outside a transaction */
    int strict_commit;    /* a COMMIT that rolled back raises */
    int parks;            /* not 0: in a strand, a SELECT waits for those of the others */
    int parks_writes;     /* not 0: so does every statement */
    int committed;        /* a COMMIT that was interrupted took place; -1: not known */
    int sticky;           /* the server's session holds state of ours: not for others */
    int listening;        /* notifications are kept for notifies() */
    uint64_t txn;         /* counts transactions */
    struct pg_held *held; /* NULL: no statement is kept */
    PyObject *isolation_level, *read_only, *deferrable; /* or None */
    PyObject *notice_handlers;
    PyObject *weakrefs;
} pg_link;

extern PyType_Spec pg_link_spec;
vnl_decode_ctx *pg_link_ctx(pg_link *link);
/* Values are decoded as `conn` sends them. */
void pg_link_sync_parameters(pg_link *link, const vnl_pg_conn *conn);
/* --- py_hold.c */
/* Nobody else uses the link until leave; waits for who does now.  Checks that it is open, and sends what is
 * held. */
int pg_link_enter_wait(pg_link *link);
/* The same for who carries, sends or drops what is held. */
int pg_link_enter_holding_wait(pg_link *link);
/* Gives the slot back when nothing holds it. */
void pg_link_leave(pg_link *link);
/* Makes sure that there is a live physical connection.  Entered only. */
int pg_link_attach_wait(pg_link *link);
/* Lets go of the physical connection. */
void pg_link_detach(pg_link *link, int reusable);
int pg_link_in_txn(pg_link *link);
/* One query on an entered, attached link, with BEGIN in front when one is due.  After an
 * interruption the statement is cancelled and the connection whole or gone.  `answer` is filled
 * whatever happens; clear its result.  VNL_PG_INTERRUPTED: an exception is set; anything else: none is. */
vnl_pg_status pg_link_run_wait(pg_link *link, vnl_pg_query *query, vnl_pg_answer *answer);
/* The whole of it for a statement without parameters or rows: 0, or -1 with an exception. */
int pg_link_command_wait(pg_link *link, const char *sql);
/* Raises what a failed run of the link's means (pg_raise_status).  In a transaction that a parked statement
 * has failed it is that one's error, until it was raised where that belongs. */
void pg_link_raise(pg_link *link, vnl_pg_status status, const PGresult *result);
int pg_link_notices(pg_link *link);
/* What each answer brings along besides: parameters of the server, notifications. */
void pg_link_answered(pg_link *link);
/* A wait was ended from outside: cancels, drains or drops.  Keeps the exception. */
void pg_link_cancel_statement(pg_link *link);
/* The link goes away and was not closed: says so where that costs somebody something. */
void pg_link_warn_dropped(pg_link *link);
/* The connection is gone. */
void pg_link_lost(pg_link *link, int was_in_txn);
/* By when the server has to answer what is sent now. */
int64_t pg_link_deadline(const pg_link *link);
/* It has not: cancels, drains or drops, as when a wait is ended from outside, and raises. */
void pg_link_overdue(pg_link *link);
/* Sends a BEGIN that is due, alone.  0, or -1 with an exception. */
int pg_link_begin_wait(pg_link *link);

/* --- py_txn.c --- */
PyObject *pg_link_commit(pg_link *link, PyObject *unused);
PyObject *pg_link_rollback(pg_link *link, PyObject *unused);
int pg_link_set_autocommit(pg_link *link, int value);
/* BEGIN with the link's characteristics, into `buf` (at least 128 bytes). */
int pg_link_begin_sql(pg_link *link, char *buf, size_t size);
/* A COMMIT or ROLLBACK was sent and its answer not read to the end: reads it, or has the server cancel first
 * what it waits behind.  link->committed says what took place; the connection is whole or gone.  Keeps a
 * raised exception; without one a cancel that came meanwhile is raised. */
void pg_link_end_cut(pg_link *link, int cancel);
/* The server has not answered it in time: the connection goes.  Raises. */
void pg_link_end_overdue(pg_link *link, const char *sql);
/* COMMIT was answered with ROLLBACK: 0, or -1 with an exception. */
int pg_link_rolled_back(pg_link *link);

/* --- py_notify.c --- */

/* LISTEN on a sequence of channel names.  None, or NULL. */
PyObject *pg_link_listen(pg_link *link, PyObject *channels);
/* Waits for notifications: a list of (channel, payload, pid), empty after `timeout` (seconds or None). */
PyObject *pg_link_notifies(pg_link *link, PyObject *timeout);

/* --- py_cursor.c --- */
typedef struct pg_cursor {
    PyObject_HEAD
    pg_link *link;
    PyObject *sql, *params; /* of the last execute */
    PGresult *result;
    struct pg_column {
        Oid oid;
        vnl_decode_fn decode; /* NULL: vnl_decode_fallback() */
    } *columns;
    int binary, ncols, pos, nrows;
    Py_ssize_t rowcount;
    PyObject *description;
    PyObject *statusmessage;
    Py_ssize_t arraysize, itersize;
    int closed, server_side;
    char reads; /* what it executes only reads, depends on nothing in its session, and may run twice */
    /* server-side */
    PyObject *name;
    int scrollable; /* -1: not said */
    int withhold, declared, exhausted, pinned, portal_binary;
    int reads_ahead;       /* the next rows are asked for as soon as some have come */
    Py_ssize_t ahead_want; /* how many were */
    uint64_t txn;
    PyObject *weakrefs;
    PyObject *dict;
} pg_cursor;

extern PyType_Spec pg_cursor_spec;
PyObject *pg_cursor_new(pg_link *link, PyObject *name, int scrollable, int withhold, int server_side);
/* The cursor's rows are those of `result` (stolen). */
int pg_cursor_take(pg_cursor *cursor, PGresult *result);
void pg_cursor_reset(pg_cursor *cursor);
/* py_run.c: runs cursor->sql / params; 0 or -1.  *result: new. */
int pg_cursor_run_wait(pg_cursor *cursor, pg_binding binding, PGresult **result);
/* The statement among those that the connection knows; counts a use, and has the one that makes room
 * deallocated.  NULL: it is not kept. */
vnl_pg_stmt *pg_use_stmt(vnl_pg_conn *conn, const pg_request *request);
/* Whether it is to be prepared by now. */
int pg_prepares(const pg_config *config, const vnl_pg_stmt *stmt);
/* Whether the statement (not a `simple` one) is described before it runs (suspect.c): its columns are not
 * known yet and one may be large.  -1 with an exception. */
int pg_is_suspect_wait(pg_link *link, const pg_request *request, const vnl_pg_stmt *stmt);
/* Whether C reads all columns of a result or a description in binary; else text is asked for.  -1 with an
 * exception. */
int pg_learn_binary(pg_link *link, vnl_pg_stmt *stmt, const PGresult *result);
/* What the answer to a statement that went well teaches: 0, or -1 with an exception. */
int pg_learn(pg_link *link, const pg_request *request, vnl_pg_stmt *stmt, const PGresult *result);
/* Whether a refused statement may be tried again with literals. */
int pg_is_binding_error(const char *state);
/* A prepared statement was refused: whether because it is not what it was; it is forgotten then. */
int pg_forget_prepared(pg_config *config, vnl_pg_conn *conn, vnl_pg_stmt *stmt, const char *state);
int pg_cursor_check_open(pg_cursor *cursor);
/* Keeps the statement for cursor.query and the like. */
int pg_cursor_set_statement(pg_cursor *cursor, PyObject *query, PyObject *params);
/* Whether it has rows to be read: 0, or -1 with an exception. */
int pg_cursor_check_rows(pg_cursor *cursor);
/* Each row once: its large values are gone then. */
PyObject *pg_cursor_row(pg_cursor *cursor, int row);
/* New references to its values: how many, or -1 with an exception and none filled in. */
int pg_cursor_cells(pg_cursor *cursor, int row, PyObject **cells);
extern const vnl_row_source pg_cursor_source;

/* --- py_flight.c --- */
/* One of several statements that are sent together. */
typedef struct pg_leg {
    pg_request request;   /* the caller's to clear, as is the result */
    int sync;             /* in autocommit, for what only reads: should it fail, it skips nothing behind */
    vnl_pg_status status; /* VNL_PG_OK, _SERVER or _SKIPPED */
    PGresult *result;
    int again;         /* refused, `sync`: pg_cursor_run_wait() may do better */
    int binary;        /* the result format */
    vnl_pg_stmt *stmt; /* borrowed from the connection, during the flight */
} pg_leg;

/* Whether the statement may be one of several, the first or not, on an attached link. */
int pg_flight_fits(const pg_link *link, const pg_request *request, int first);
/* Runs statements that fit, on an entered link; then `end` (COMMIT) if not NULL, which a failure skips.
 * 0: each leg has its status, without `end` refused ones too.  -1 with an exception: with `end` the one of
 * the first that was refused; link->committed is exact when the exception is one from outside. */
int pg_flight_run_wait(pg_link *link, pg_leg *legs, int n, const char *end);
/* Raises the error of the first leg that was refused: -1; 0 without one. */
int pg_flight_raise(pg_link *link, const pg_leg *legs, int n);

/* --- py_held.c --- */
/* Connection.hold(beginnings), Connection.release(send) */
PyObject *pg_link_hold(PyObject *link, PyObject *beginnings);
PyObject *pg_link_release(PyObject *link, PyObject *send);
int pg_held_any(const pg_link *link);
/* Keeps the cursor's statement, or sends it with those that are kept.  1 when that was done, *result NULL
 * when it is kept; 0: it is to be run in the usual way; -1 with an exception.  link->held is not NULL. */
int pg_held_execute_wait(pg_cursor *cursor, pg_binding binding, PGresult **result);
/* Sends what is held, then `end` if not NULL: 0, or -1 with an exception.  Nothing is held afterwards. */
int pg_held_send_wait(pg_link *link, const char *end);
void pg_held_drop(pg_link *link);
/* The same, and none is kept any more. */
void pg_held_end(pg_link *link);

/* --- py_together.c --- */
/* Connection.execute_together(statements, *, reads=False) */
PyObject *pg_link_execute_together(PyObject *link, PyObject *args, PyObject *kwargs);

/* --- py_share.c --- */
/* Runs the request on a connection in use where it may and would have to wait for one.  1 with a result;
 * 0: to be run in the usual way, for which a connection may have been taken; -1 with an exception. */
int pg_share_run_wait(pg_cursor *cursor, pg_request *request, PGresult **result);
/* How long a statement has had the server. */
void pg_share_note(const pg_config *config, vnl_sql *sql, int64_t took);

/* --- py_park.c --- */
/* Where the link's SELECTs wait for those of other strands: 1 with a result, 0: it is to be run in the usual
 * way, -1 with an exception. */
int pg_park_run_wait(pg_cursor *cursor, PyObject *query, PyObject *params, PGresult **result);

/* --- py_named.c --- */
int pg_named_execute_wait(pg_cursor *cursor);
/* Makes sure that the next row is in cursor->result; 1 yes, 0 at the end, -1. */
int pg_named_fill_wait(pg_cursor *cursor, Py_ssize_t want);
int pg_named_close_wait(pg_cursor *cursor);
/* Without waiting, for a cursor that is dropped. */
void pg_named_drop(pg_cursor *cursor);

/* --- py_copy.c --- */
typedef struct pg_copy {
    PyObject_HEAD
    pg_cursor *cursor;
    PyObject *sql; /* with literals; NULL once started */
    int running, out, binary;
    int was_in_txn;
    int drained; /* libpq has said that there is no more data */
    /* rows */
    int begun;      /* the binary format's signature was written or read */
    int by_rows;    /* write_row() was used */
    vnl_buf unsent; /* of write_row() */
    PyObject *tx;   /* psycopg's Transformer, where C does not dump; or NULL */
    Oid *types;     /* of set_types() */
    Py_ssize_t ntypes;
} pg_copy;

/* The next block, to be given to PQfreemem.  1, 0 at the end, -1 with an exception.  `wait` 0: also
 * 0 when none is here yet. */
int pg_copy_next_wait(pg_copy *copy, int wait, char **data, int *len);
/* Sends what write_row() has kept.  0, or -1 with an exception. */
int pg_copy_flush_wait(pg_copy *copy);
int pg_copy_check(pg_copy *copy, int out);

/* --- py_copy_rows.c --- */
/* Keeps a row to be sent.  0, or -1 with an exception and nothing kept. */
int pg_copy_add_row(pg_copy *copy, PyObject *row);
/* A binary COPY's end, after rows and after nothing. */
int pg_copy_end_rows(pg_copy *copy);
/* The next row, new; NULL with no exception at the end, and, with `wait` 0, when none is here. */
PyObject *pg_copy_read_wait(pg_copy *copy, int wait);
int pg_copy_set_types(pg_copy *copy, PyObject *types);

extern PyType_Spec pg_copy_spec;
/* Cursor.copy(query, params=None) */
PyObject *pg_cursor_copy(pg_cursor *cursor, PyObject *args);

/* --- py_info.c --- */
extern PyType_Spec pg_info_spec;
PyObject *pg_info_new(pg_link *link);

#endif
