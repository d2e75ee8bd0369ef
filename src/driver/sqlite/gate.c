#include "gate.h"

#include <sys/stat.h>

#include "sqlite.h"

void
vnl_sqlite_gate_tie(vnl_sqlite_gate *gate, vnl_sqlite_conn *conn, const char *path, int in_memory)
{
    struct stat st;

    if (gate->conn != NULL || path == NULL) {
        return;
    }
    if (in_memory) {
        gate->queue = vnl_sqlite_queue_open(0, 0, path);
    }
    else if (stat(path, &st) == 0) {
        gate->queue = vnl_sqlite_queue_open((uint64_t)st.st_dev, (uint64_t)st.st_ino, NULL);
    }
    if (gate->queue != NULL) {
        gate->conn = conn;
    }
}

/* Whether it has no part in the queue: not tied, or a parent's. */
static int
is_out(const vnl_sqlite_gate *gate)
{
    return gate->conn == NULL || vnl_sqlite_is_parents(gate->conn);
}

void
vnl_sqlite_gate_untie(vnl_sqlite_gate *gate)
{
    if (!is_out(gate)) {
        vnl_sqlite_gate_write_ends(gate);
        vnl_sqlite_queue_close(gate->queue);
    }
    gate->conn = NULL;
    gate->queue = NULL;
}

/* SQLite repeats a request for the write lock when the transaction is as new
 * as the request: it holds nothing, so that waiting cannot be a deadlock.  One
 * that has read before fails at once, or overtakes those who can wait. */
static int
is_repeated(const vnl_sqlite_gate *gate)
{
    const vnl_sqlite_conn *conn = gate->conn;

    if (conn->no_switch || (conn->suspendable && vnl_sqlite_vfs_is_direct())) {
        return 0; /* its busy handler does not wait */
    }
    return gate->read_in == conn->call || gate->checkpointing;
}

int
vnl_sqlite_gate_may(vnl_sqlite_gate *gate, vnl_sqlite_want want)
{
    return is_out(gate) || want != VNL_WANT_WRITE || !is_repeated(gate) ||
           vnl_sqlite_queue_may_write(gate->queue, &gate->conn->request, vnl_sqlite_now());
}

static void
granted(vnl_sqlite_gate *gate, vnl_sqlite_want want)
{
    vnl_sqlite_conn *conn = gate->conn;
    vnl_sqlite_request *request = &conn->request;

    conn->blocked = NULL;
    if (want == VNL_WANT_READ) {
        gate->read_in = conn->call;
    }
    if (want == VNL_WANT_WRITE && !gate->writing) {
        gate->writing = 1;
        vnl_sqlite_queue_took(gate->queue, vnl_sqlite_now());
    }
    if (request->queue == gate->queue && request->want == want) {
        vnl_sqlite_queue_leave(request, vnl_sqlite_now());
    }
}

void
vnl_sqlite_gate_answer(vnl_sqlite_gate *gate, vnl_sqlite_want want, int rc)
{
    vnl_sqlite_conn *conn = gate->conn;

    if (is_out(gate)) {
        return;
    }
    if (rc == SQLITE_OK) {
        granted(gate, want);
    }
    else if (rc == SQLITE_BUSY && (want != VNL_WANT_WRITE || is_repeated(gate))) {
        conn->blocked = gate;
        /* Who is going to write takes a writer's place already while it is
         * kept from reading. */
        conn->blocked_want = want == VNL_WANT_READ && conn->write_step ? VNL_WANT_WRITE : want;
    }
}

void
vnl_sqlite_gate_write_ends(vnl_sqlite_gate *gate)
{
    if (!is_out(gate) && gate->writing) {
        gate->writing = 0;
        vnl_sqlite_queue_released(gate->queue, vnl_sqlite_now());
    }
}

void
vnl_sqlite_gate_read_ends(vnl_sqlite_gate *gate)
{
    if (!is_out(gate)) {
        vnl_sqlite_queue_reader_left(gate->queue, vnl_sqlite_now());
    }
}
