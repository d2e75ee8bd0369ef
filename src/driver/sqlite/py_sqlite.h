/* The Python side of the SQLite engine: what its files share. */
#ifndef VNL_PY_SQLITE_H
#define VNL_PY_SQLITE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/list.h"
#include "base/values.h"
#include "sqlite.h"

/* Keys of the C decoders for Django's own converters. */
typedef enum vnl_sqlite_decoder {
    VNL_DECODE_PLAIN = 0,
    VNL_DECODE_CALL, /* a registered converter, called with bytes */
    VNL_DECODE_BOOL,
    VNL_DECODE_DATE,
    VNL_DECODE_TIME,
    VNL_DECODE_DATETIME,
} vnl_sqlite_decoder;

typedef struct vnl_sqlite_state {
    PyTypeObject *connection_type, *cursor_type, *batch_type;
    /* sqlite3's error classes, in the order of vnl_sqlite_error_kind. */
    PyObject *errors[9];
    PyObject *adapt, *adapters, *converters, *prepare_protocol;
    PyObject *bool_key, *bytes_key, *decimal_key; /* (type, PrepareProtocol) */
    PyObject *django_converters;                  /* name → Django's own converter, decoded in C */
    vnl_uuids uuids;
    PyObject *decimal; /* decimal.Decimal */
    PyObject *str_use_tz, *str_connection, *str_timezone, *str_hex;
    struct vnl_sqlite_decimals *decimals;
    const vnl_core_api *core;
} vnl_sqlite_state;

typedef enum vnl_sqlite_error_kind {
    VNL_E_WARNING,
    VNL_E_ERROR,
    VNL_E_INTERFACE,
    VNL_E_DATABASE,
    VNL_E_INTERNAL,
    VNL_E_OPERATIONAL,
    VNL_E_PROGRAMMING,
    VNL_E_INTEGRITY,
    VNL_E_DATA,
} vnl_sqlite_error_kind;

/* The columns of a statement, kept with it in the cache (stmt->extra). */
typedef struct vnl_sqlite_columns {
    int count;
    int reprepared;        /* SQLITE_STMTSTATUS_REPREPARE when it was looked at */
    int detect_types;      /* that it was made for */
    Py_ssize_t converters; /* how many were registered then */
    PyObject *description; /* DB-API's tuple of 7-tuples */
    struct vnl_sqlite_column {
        vnl_sqlite_decoder decoder;
        PyObject *key;     /* of the converter, or NULL */
        PyObject *convert; /* the one that was registered */
    } column[];
} vnl_sqlite_columns;

struct vnl_cursor;

/* What Django's wrapper holds as `connection`: it borrows a physical
 * connection from the pool for as long as it needs one. */
typedef struct vnl_link {
    PyObject_HEAD
    vnl_sqlite_state *state; /* of the module, which the type keeps alive */
    PyObject *pool;          /* NULL: opens a connection of its own */
    PyObject *config;
    PyObject *isolation_level; /* str or None, as sqlite3's */
    PyObject *trace;
    PyObject *functions;   /* dict of what was created on this link, or NULL */
    PyObject *row_factory; /* what new cursors get */
    PyObject *weakrefs;
    vnl_slot *slot;
    vnl_sqlite_conn *conn;
    struct vnl_cursor *open; /* cursors with a statement under way */
    int closed;
    int borrowed; /* conn belongs to someone else: open_wait's set-up */
    int detect_types;
    const char *begin;  /* a BEGIN that travels with the next statement */
    int committed;      /* a COMMIT that was interrupted took place */
    int lost;           /* SQLite rolled the transaction back by itself */
    int64_t turn_start; /* when its fiber last gave the loop a turn here; 0: never yet */
    /* Exclusive use. */
    PyThread_type_lock lock;
    unsigned long owner; /* the thread */
    const void *user;    /* the fiber of it, or the thread itself */
    vnl_node turns;      /* fibers of that thread that wait for their turn */
    int depth;
    int by_fiber;
    vnl_sqlite_stmt *doomed;
} vnl_link;

typedef struct vnl_cursor {
    PyObject_HEAD
    vnl_link *link;                /* strong */
    struct vnl_cursor *next, **at; /* in link->open */
    vnl_sqlite_stmt *stmt;         /* under way; a row is waiting */
    PyObject *bound;               /* keeps bound values alive */
    PyObject *description;
    PyObject *lastrowid;
    PyObject *row_factory; /* None, or called with the cursor and each row */
    PyObject *weakrefs;
    Py_ssize_t rowcount;
    Py_ssize_t arraysize;
    int closed;
    int busy;   /* in a call of its own */
    int format; /* Django's %s and %(name)s */
} vnl_cursor;

/* --- py_module.c */
/* The state of vinyl._sqlite3; borrowed, NULL with an exception. */
vnl_sqlite_state *vnl_sqlite_state_find(void);
vnl_sqlite_state *vnl_sqlite_state_of(PyTypeObject *type);

/* --- py_errors.c */
int vnl_sqlite_errors_init(vnl_sqlite_state *state);
/* Sets the exception for `rc`, with the connection's message.  Leaves one
 * that is already set (cancel, Ctrl-C).  Returns NULL. */
PyObject *vnl_sqlite_raise(vnl_sqlite_state *state, vnl_sqlite_conn *conn, int rc);
PyObject *vnl_sqlite_fail(vnl_sqlite_state *state, vnl_sqlite_error_kind kind, const char *format, ...);
/* The exception that is set, taken away; and put back. */
PyObject *vnl_sqlite_take_error(void);      /* new or NULL */
void vnl_sqlite_put_error(PyObject *error); /* steals; NULL does nothing */

/* --- py_bind.c */
/* Binds a sequence or mapping; *keep gets what must outlive the statement.
 * -1 with an exception. */
int vnl_sqlite_bind_wait(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt,
                         PyObject *params, PyObject **keep);
/* Parameter `at` as a cell, by way of the registered adapters.  Its bytes are the
 * value's own, or those of what *keep (NULL before) then holds, a new reference.
 * 0, or -1 with an exception. */
int vnl_sqlite_cell_of(vnl_sqlite_state *state, PyObject *value, int at, vnl_sqlite_cell *cell,
                       PyObject **keep);

/* --- py_batch.c */
extern PyType_Spec vnl_batch_spec;
/* Binds a Batch, which the caller holds for as long as it is bound: 0, SQLite's
 * code, or -1 with an exception. */
int vnl_sqlite_batch_bind_wait(vnl_sqlite_state *state, vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, int at,
                               PyObject *batch);

/* --- py_row.c */
/* The columns of a statement that has been stepped; borrowed from it. */
vnl_sqlite_columns *vnl_sqlite_columns_of(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, int detect_types);
/* Before a cached statement runs: forgets its columns when a converter of
 * theirs is no longer the registered one. */
int vnl_sqlite_columns_hold(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt);
void vnl_sqlite_columns_free(void *columns);
/* The row the statement stands on, as a new tuple. */
PyObject *vnl_sqlite_row(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, const vnl_sqlite_columns *columns);
/* New references to its values: 0, or -1 with an exception and none filled in. */
int vnl_sqlite_cells(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, const vnl_sqlite_columns *columns,
                     PyObject **cells);

/* --- py_temporal.c: the text of Django's temporal fields; NULL without an
 * exception when it is not in the usual form. */
PyObject *vnl_sqlite_decode_date(const char *text, int len);
PyObject *vnl_sqlite_decode_time(const char *text, int len);
PyObject *vnl_sqlite_decode_datetime(const char *text, int len);
int vnl_sqlite_temporal_init(void);

/* --- py_func.c: as sqlite3_create_function and its kin; None removes */
int vnl_sqlite_create_function(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name, int narg,
                               PyObject *callable, int flags);
int vnl_sqlite_create_aggregate(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name, int narg,
                                PyObject *cls, int window);
int vnl_sqlite_create_collation(vnl_sqlite_state *state, vnl_sqlite_conn *conn, const char *name,
                                PyObject *callable);
/* *handle keeps it; let go of it with free_trace, which takes NULL. */
int vnl_sqlite_set_trace(vnl_sqlite_state *state, vnl_sqlite_conn *conn, PyObject *callable, void **handle);
void vnl_sqlite_free_trace(void *handle);

/* --- py_registry.c: which functions, aggregates and collations a physical
 * connection has, so that each link finds its own and nobody else's */
typedef enum vnl_registered {
    VNL_REG_FUNCTION,
    VNL_REG_AGGREGATE,
    VNL_REG_WINDOW,
    VNL_REG_COLLATION,
} vnl_registered;

/* Creates on the link: now if it holds a connection, and on every one that it
 * takes later. */
int vnl_link_register(vnl_link *link, vnl_registered kind, const char *name, int narg, PyObject *callable,
                      int flags);
/* The link has taken a connection: makes its functions the link's. */
int vnl_link_sync_functions(vnl_link *link);
int vnl_link_trace(vnl_link *link, PyObject *callable);
/* Before the connection is closed. */
void vnl_sqlite_free_above(vnl_sqlite_conn *conn);

/* --- py_link.c: taking and giving back, transactions */
/* Exclusive use of the link; with a connection in hand when `take`.  0 or -1. */
int vnl_link_enter_wait(vnl_link *link, int take);
/* Ends it; gives the connection back when nothing holds it.  An exception that
 * is set stays set. */
void vnl_link_leave(vnl_link *link);
/* The BEGIN that has to go before this statement; NULL: only one that waits. */
int vnl_link_begin_wait(vnl_link *link, const vnl_sqlite_stmt *stmt);
/* Inside enter and leave. */
int vnl_link_commit_wait(vnl_link *link);
int vnl_link_rollback_wait(vnl_link *link);
int vnl_link_close_wait(vnl_link *link);
int vnl_link_in_transaction(const vnl_link *link);
/* For dealloc: drops the connection without a wait. */
void vnl_link_drop(vnl_link *link);
extern const vnl_driver vnl_sqlite_driver;

/* --- py_connection.c, py_cursor.c: the types */
extern PyType_Spec vnl_connection_spec;
extern PyType_Spec vnl_cursor_spec;
extern const vnl_row_source vnl_cursor_source;
vnl_link *vnl_link_new(vnl_sqlite_state *state, PyObject *config, PyObject *pool);
PyObject *vnl_cursor_new(vnl_link *link, int format);
/* Lets go of the statement under way, if any.  Does not switch. */
void vnl_cursor_reset(vnl_cursor *cursor);
/* The same outside enter and leave, when the connection may be in the middle
 * of something else: then it is left to whoever is using it. */
void vnl_cursor_let_go(vnl_cursor *cursor);
/* Into the link's open cursors. */
void vnl_cursor_link(vnl_cursor *cursor);
/* vnl_link_enter_wait for a cursor's own calls, which must not nest. */
int vnl_cursor_enter_wait(vnl_cursor *cursor, int take);
void vnl_cursor_leave(vnl_cursor *cursor);

/* --- py_execute.c */
/* One step; 1: a row stands ready, 0: done, -1: failed, the statement gone. */
int vnl_cursor_step_wait(vnl_cursor *cursor, int first);
PyObject *vnl_cursor_execute_wait(vnl_cursor *cursor, PyObject *sql, PyObject *params);
PyObject *vnl_cursor_executemany_wait(vnl_cursor *cursor, PyObject *sql, PyObject *rows);

/* --- py_connection_more.c: what is set on a live connection, backup */
extern PyMethodDef vnl_connection_more[];

/* --- py_adapt.c */
int vnl_sqlite_adapt_init(vnl_sqlite_state *state);
/* adapter(kind, function, settings); METH_O: what `uuid.hex` gives */
PyObject *vnl_sqlite_adapter(PyObject *module, PyObject *args);
PyObject *vnl_sqlite_uuid_hex(PyObject *module, PyObject *uuid);

/* --- py_convert.c */
int vnl_sqlite_convert_init(vnl_sqlite_state *state);
/* converter(kind, function, zone=None, places=0, digits=0) */
PyObject *vnl_sqlite_converter(PyObject *module, PyObject *args);
void vnl_sqlite_decimals_free(struct vnl_sqlite_decimals *decimals); /* takes NULL */

#endif
