/* The link: taking a physical connection and giving it back, exclusive use,
 * transactions; and what the pool needs to know of this engine. */
#include "py_sqlite.h"

#define LINK_TURN_NS 1000000

/* --- the driver */

static void
driver_close(void *conn)
{
    PyObject *pending = vnl_sqlite_take_error();

    vnl_sqlite_free_above(conn);
    vnl_sqlite_close(conn);
    vnl_sqlite_put_error(pending);
}

static int
driver_check(void *arg)
{
    vnl_sqlite_conn *conn = arg;

    return !(conn->pins & VNL_PIN_BROKEN) && sqlite3_get_autocommit(conn->db);
}

static void
driver_abandon(void *arg)
{
    vnl_sqlite_conn *conn = arg;

    if (conn != NULL && conn->memory) {
        driver_close(conn); /* the child's copy is its own */
    }
    else {
        vnl_sqlite_abandon(conn);
    }
}

/* Reads attribute `name` of the config as an int or a bool. */
static int
config_int(PyObject *config, const char *name, int *out)
{
    PyObject *value = PyObject_GetAttrString(config, name);
    long number;

    if (value == NULL) {
        return -1;
    }
    number = PyLong_AsLong(value);
    Py_DECREF(value);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    *out = number > INT_MAX ? INT_MAX : number < INT_MIN ? INT_MIN : (int)number;
    return 0;
}

static int
config_seconds(PyObject *config, const char *name, int64_t *out)
{
    PyObject *value = PyObject_GetAttrString(config, name);
    double seconds;

    if (value == NULL) {
        return -1;
    }
    seconds = PyFloat_AsDouble(value);
    Py_DECREF(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    *out = seconds > 1e9 ? (int64_t)1e18 : seconds > 0 ? (int64_t)(seconds * 1e9) : 0;
    return 0;
}

/* config.setup(link) on a connection that no pool knows of yet. */
static int
run_setup_wait(vnl_sqlite_state *state, PyObject *config, vnl_sqlite_conn *conn)
{
    PyObject *setup = PyObject_GetAttrString(config, "setup");
    PyObject *result = NULL;
    vnl_link *link = NULL;

    if (setup == NULL) {
        return -1;
    }
    if (setup == Py_None) {
        Py_DECREF(setup);
        return 0;
    }
    if ((link = vnl_link_new(state, config, NULL)) != NULL) {
        link->conn = conn;
        link->borrowed = 1;
        result = PyObject_CallOneArg(setup, (PyObject *)link);
        while (link->open != NULL) {
            vnl_cursor_reset(link->open);
        }
        if (result != NULL && !sqlite3_get_autocommit(conn->db)) {
            vnl_sqlite_fail(state, VNL_E_OPERATIONAL,
                            "the set-up of a new connection left a transaction open");
            Py_CLEAR(result);
        }
        link->conn = NULL;
        link->closed = 1;
    }
    Py_XDECREF(link);
    Py_DECREF(setup);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    /* What the set-up left is how a connection begins. */
    conn->pins = 0;
    conn->attached = 0;
    vnl_sqlite_pins_free(conn);
    return 0;
}

static void *
driver_open_wait(PyObject *config)
{
    vnl_sqlite_state *state = vnl_sqlite_state_find();
    vnl_sqlite_conn *conn = NULL;
    PyObject *database = NULL, *path = NULL;
    int uri = 0, cached = 0, rc = SQLITE_OK;
    int64_t timeout = 0, command_timeout = 0;

    if (state == NULL || config_int(config, "uri", &uri) < 0 ||
        config_seconds(config, "timeout", &timeout) < 0 ||
        config_seconds(config, "command_timeout", &command_timeout) < 0 ||
        config_int(config, "cached_statements", &cached) < 0 ||
        (database = PyObject_GetAttrString(config, "database")) == NULL ||
        !PyUnicode_FSConverter(database, &path)) {
        goto done;
    }
    conn = vnl_sqlite_open_wait(PyBytes_AS_STRING(path), uri, timeout, cached, &rc);
    if (conn == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (rc != SQLITE_OK) {
        vnl_sqlite_raise(state, conn, rc);
    }
    if (PyErr_Occurred() || run_setup_wait(state, config, conn) < 0) {
        driver_close(conn);
        conn = NULL;
        goto done;
    }
    conn->command_timeout = command_timeout;
done:
    Py_XDECREF(database);
    Py_XDECREF(path);
    return conn;
}

const vnl_driver vnl_sqlite_driver = {
    .abi = VNL_CORE_ABI,
    .name = "sqlite",
    .open_wait = driver_open_wait,
    .close = driver_close,
    .check = driver_check,
    .abandon = driver_abandon,
};

/* --- exclusive use */

/* In the queue for a link that another fiber of this thread uses: first come, first served. */
typedef struct {
    vnl_node node;
    vnl_event *event;
    const void *who;
    int has_turn;
} link_turn;

/* The link goes to the first who waits for it, or is free. */
static void
release(vnl_link *link)
{
    vnl_node *node = vnl_list_first(&link->turns);

    if (node == NULL) {
        link->owner = 0;
        link->user = NULL;
        PyThread_release_lock(link->lock);
        return;
    }
    link_turn *turn = VNL_CONTAINER(node, link_turn, node);
    vnl_list_remove(node);
    turn->has_turn = 1;
    link->user = turn->who;
    link->state->core->event_set(turn->event);
}

/* 0 with the turn, or -1. */
static int
turn_wait(vnl_link *link)
{
    const vnl_core_api *core = link->state->core;
    link_turn *turn = PyMem_Calloc(1, sizeof(*turn));

    if (turn == NULL || (turn->event = core->event_new()) == NULL) {
        PyMem_Free(turn);
        PyErr_NoMemory();
        return -1;
    }
    turn->who = core->who();
    Py_INCREF(link);
    vnl_list_append(&link->turns, &turn->node);
    int ready = core->event_wait(turn->event, VNL_FOREVER);
    vnl_list_remove(&turn->node);
    if (ready < 0 && turn->has_turn) {
        release(link); /* the turn came together with the cancel */
    }
    core->event_free(turn->event);
    PyMem_Free(turn);
    Py_DECREF(link);
    return ready < 0 ? -1 : 0;
}

static int
acquire_wait(vnl_link *link)
{
    unsigned long me = PyThread_get_thread_ident();
    const vnl_core_api *core = link->state->core;

    if (!PyThread_acquire_lock(link->lock, NOWAIT_LOCK)) {
        if (link->owner == me) {
            /* Called back from inside a statement of ours: as far as SQLite
             * goes, but only where no other fiber can be meant. */
            if (!link->by_fiber && !core->can_suspend()) {
                link->depth++;
                return 0;
            }
            if (link->user == core->who() || !core->can_suspend()) {
                vnl_sqlite_fail(
                    link->state, VNL_E_INTERFACE, "This connection is in the middle of a statement%s.",
                    link->user == core->who() ? ", which has called this code" : " of another operation");
                return -1;
            }
            if (turn_wait(link) < 0) {
                return -1;
            }
        }
        else {
            Py_BEGIN_ALLOW_THREADS PyThread_acquire_lock(link->lock, WAIT_LOCK);
            Py_END_ALLOW_THREADS
        }
    }
    link->owner = me;
    link->user = core->who();
    link->depth = 1;
    link->by_fiber = core->can_suspend();
    return 0;
}

static void
give_back(vnl_link *link, int reusable)
{
    vnl_sqlite_conn *conn = link->conn;
    vnl_slot *slot = link->slot;
    PyObject *pending = vnl_sqlite_take_error();

    link->conn = NULL;
    link->slot = NULL;
    if (slot != NULL) {
        link->state->core->pool_give(slot, reusable);
    }
    else if (conn != NULL && !link->borrowed) {
        driver_close(conn);
    }
    vnl_sqlite_put_error(pending);
}

static int
take_wait(vnl_link *link)
{
    if (link->pool == NULL) {
        link->conn = driver_open_wait(link->config);
    }
    else if ((link->slot = link->state->core->pool_take_wait(link->pool, NULL)) != NULL) {
        link->conn = link->state->core->slot_conn(link->slot);
    }
    if (link->conn == NULL) {
        return -1;
    }
    if (link->slot != NULL && link->begin != NULL) {
        link->state->core->slot_note_line(link->slot);
    }
    if (vnl_link_sync_functions(link) < 0) {
        give_back(link, 0);
        return -1;
    }
    if (link->trace != Py_None) {
        link->conn->pins |= VNL_PIN_USER;
        return vnl_link_trace(link, link->trace);
    }
    return 0;
}

/* In a forked child: the parent's connection is left alone, and what was begun
 * on it is the parent's too. */
static void
forget_inherited(vnl_link *link)
{
    if (link->conn == NULL || !vnl_sqlite_inherited(link->conn)) {
        return;
    }
    link->lost = vnl_link_in_transaction(link);
    link->begin = NULL;
    link->doomed = NULL;
    while (link->open != NULL) {
        vnl_cursor_reset(link->open);
    }
    if (link->slot == NULL && !link->borrowed) {
        link->borrowed = 1; /* not closed */
        give_back(link, 0);
        link->borrowed = 0;
    }
    else {
        give_back(link, 0);
    }
}

static void
release_doomed(vnl_link *link)
{
    vnl_sqlite_vfs_direct(1);
    while (link->doomed != NULL) {
        vnl_sqlite_stmt *stmt = link->doomed;
        link->doomed = stmt->doomed;
        vnl_sqlite_stmt_done(link->conn, stmt);
    }
    vnl_sqlite_vfs_direct(-1);
}

/* Before a statement: short ones never suspend, but many in a row, with the
 * Python between them, must not keep the loop for themselves. */
static int
share_loop_wait(vnl_link *link)
{
    int64_t now = vnl_sqlite_now();

    if (link->turn_start == 0) {
        link->turn_start = now;
    }
    else if (now - link->turn_start > LINK_TURN_NS) {
        int rc = link->state->core->turn_wait();
        link->turn_start = vnl_sqlite_now();
        return rc;
    }
    return 0;
}

int
vnl_link_enter_wait(vnl_link *link, int take)
{
    if (link->closed) {
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING, "Cannot operate on a closed database.");
        return -1;
    }
    if (take && link->state->core->can_suspend() && share_loop_wait(link) < 0) {
        return -1;
    }
    if (acquire_wait(link) < 0) {
        return -1;
    }
    if (link->closed) { /* while we waited for another thread */
        vnl_link_leave(link);
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING, "Cannot operate on a closed database.");
        return -1;
    }
    forget_inherited(link);
    if (take && link->conn == NULL && take_wait(link) < 0) {
        vnl_link_leave(link);
        return -1;
    }
    if (link->conn != NULL && link->depth == 1) {
        link->conn->turn_start = link->turn_start;
    }
    return 0;
}

void
vnl_link_leave(vnl_link *link)
{
    if (--link->depth > 0) {
        return;
    }
    if (link->conn != NULL) {
        link->turn_start = link->conn->turn_start;
        if (link->doomed != NULL) {
            release_doomed(link);
        }
        if (link->slot != NULL && link->open == NULL && sqlite3_get_autocommit(link->conn->db) &&
            (link->by_fiber || link->state->core->can_suspend()) && !vnl_sqlite_pinned(link->conn)) {
            give_back(link, 1);
        }
    }
    release(link);
}

/* --- transactions */

int
vnl_link_in_transaction(const vnl_link *link)
{
    return link->begin != NULL || link->lost ||
           (link->conn != NULL && !sqlite3_get_autocommit(link->conn->db));
}

/* *done: it took place, whatever was raised meanwhile. */
static int
run_wait(vnl_link *link, const char *sql, int *done)
{
    int rc = vnl_sqlite_run_wait(link->conn, sql);

    *done = rc == SQLITE_OK;

    if (rc != SQLITE_OK) {
        vnl_sqlite_raise(link->state, link->conn, rc);
        return -1;
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* sqlite3's isolation_level as a BEGIN. */
static const char *
begin_of(PyObject *level)
{
    if (PyUnicode_CompareWithASCIIString(level, "IMMEDIATE") == 0) {
        return "BEGIN IMMEDIATE";
    }
    if (PyUnicode_CompareWithASCIIString(level, "EXCLUSIVE") == 0) {
        return "BEGIN EXCLUSIVE";
    }
    return "BEGIN";
}

int
vnl_link_begin_wait(vnl_link *link, const vnl_sqlite_stmt *stmt)
{
    const char *begin = link->begin;

    if (begin == NULL) {
        if (link->isolation_level == Py_None || stmt == NULL || !stmt->writes ||
            !sqlite3_get_autocommit(link->conn->db)) {
            return 0;
        }
        begin = begin_of(link->isolation_level);
    }
    int done = 0;
    if (run_wait(link, begin, &done) < 0) {
        return -1;
    }
    link->begin = NULL;
    return 0;
}

int
vnl_link_commit_wait(vnl_link *link)
{
    link->begin = NULL;
    link->committed = 0;
    if (link->lost) {
        link->lost = 0;
        vnl_sqlite_fail(link->state, VNL_E_OPERATIONAL,
                        "cannot commit: SQLite rolled this transaction back when a statement failed");
        return -1;
    }
    if (link->conn == NULL || sqlite3_get_autocommit(link->conn->db)) {
        return 0;
    }
    return run_wait(link, "COMMIT", &link->committed);
}

int
vnl_link_rollback_wait(vnl_link *link)
{
    int rc, done = 0;

    link->begin = NULL;
    link->lost = 0;
    if (link->conn == NULL || sqlite3_get_autocommit(link->conn->db)) {
        return 0;
    }
    /* A cancel must not stop it half way: Django then ends the transaction by
     * isolation_level = None, which commits what is open, as in sqlite3. */
    link->state->core->shield_enter();
    rc = run_wait(link, "ROLLBACK", &done);
    if (link->state->core->shield_leave() < 0) {
        rc = -1;
    }
    if ((link->conn->pins & VNL_PIN_TEMP) != 0) {
        vnl_sqlite_pin_after(link->conn, &(vnl_sqlite_stmt){.kind = VNL_KIND_ROLLBACK});
    }
    return rc;
}

int
vnl_link_close_wait(vnl_link *link)
{
    int rc = 0;

    if (link->closed) {
        return 0;
    }
    if (vnl_link_enter_wait(link, 0) < 0) {
        return -1;
    }
    if (link->depth > 1) {
        vnl_link_leave(link);
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING,
                        "Cannot close a connection inside its own statement.");
        return -1;
    }
    link->closed = 1;
    while (link->open != NULL) {
        vnl_cursor_reset(link->open);
    }
    if (link->conn != NULL) {
        release_doomed(link);
        rc = vnl_link_rollback_wait(link);
        give_back(link, rc == 0 && sqlite3_get_autocommit(link->conn->db) && !vnl_sqlite_pinned(link->conn));
    }
    vnl_link_leave(link);
    return rc;
}

void
vnl_link_drop(vnl_link *link)
{
    int was_closed = link->closed;

    link->closed = 1;
    forget_inherited(link);
    if (link->conn != NULL) {
        if (link->slot != NULL && !was_closed && !sqlite3_get_autocommit(link->conn->db)) {
            link->state->core->slot_warn_dropped(link->slot, "inside a transaction, which is rolled back");
        }
        release_doomed(link);
        give_back(link, 0);
    }
}
