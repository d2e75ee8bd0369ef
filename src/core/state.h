/* What the core module keeps for all its parts.  There is one interpreter with
 * one core (greenlet refuses subinterpreters too), so the parts that C calls
 * reach without a Python object find it through vnl_core. */
#ifndef VNL_CORE_STATE_H
#define VNL_CORE_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include "base/compat.h"

typedef struct {
    uint64_t fibers_created;
    uint64_t fibers_live; /* running or suspended in an operation */
    uint64_t fibers_idle; /* kept for reuse */
    uint64_t operations;
    uint64_t suspends;
    uint64_t statements;
    uint64_t shared;  /* of these, behind another on a connection in use */
    uint64_t flights; /* statements sent together, and how many flew so */
    uint64_t flown;
    uint64_t jobs;
} vnl_counters;

typedef struct {
    /* types (owned) */
    PyTypeObject *operation_type;
    PyTypeObject *waiter_type;
    PyTypeObject *reactor_type;
    PyTypeObject *reader_type;
    PyTypeObject *scope_type;
    PyTypeObject *session_map_type;
    PyTypeObject *pool_type;
    PyTypeObject *filler_type;
    PyTypeObject *fiber_type;
    PyTypeObject *strand_type;
    PyTypeObject *block_type;
    PyTypeObject *pin_type;
    PyObject *block_variable; /* ContextVar: the innermost open block */
    /* from asyncio (owned) */
    PyObject *get_running_loop; /* _get_running_loop() -> loop or None */
    PyObject *set_running_loop;
    PyObject *current_task;
    PyObject *cancelled_error;
    /* interned names (owned) */
    PyObject *str_call_soon;
    PyObject *str_context;
    PyObject *str_throw;
    PyObject *str_await;
    PyObject *str_scope;   /* the attribute that carries a task's scope */
    PyObject *str_reactor; /* the attribute that carries a loop's reactor */
    PyObject *str_in_atomic_block;
    PyObject *str_state;
    PyObject *str_adding;
    PyObject *str_db;
    PyObject *str_fetch_mode;
    PyObject *str_fields_cache;
    PyObject *str_peers;
    PyObject *str_field;
    PyObject *str_attname;
    PyObject *str_vinyl_read;
    PyObject *str_ops;
    PyObject *str_as_sql;
    PyObject *str_utcoffset;
    PyObject *str_resolve_expression;
    PyObject *str_prepare_database_save;
    PyObject *str_atomic_blocks;
    PyObject *str_from_testcase;
    PyObject *kw_context; /* ("context",) */
    PyObject *kw_connection;
    /* what all tasks of the running test share, or NULL */
    PyObject *pin;
    int op_cache, op_get_awaitable; /* bytecode numbers of this Python */
    vnl_counters count;
} vnl_state;

extern vnl_state *vnl_core;

/* Raises vinyl.exceptions.<name>, or django.core.exceptions.<name>; the format
 * is PyUnicode_FromFormat's. */
void vnl_raise(const char *name, const char *format, ...);
void vnl_raise_django(const char *name, const char *format, ...);

#endif
