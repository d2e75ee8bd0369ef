/* Gate: one connection's way to the locks of one database file.
 *
 * The VFS asks it before a lock and tells it of the answer.  It knows which
 * requests SQLite repeats by its busy handler; only these may be turned away
 * for others' sake, or wait in the queue.
 */
#ifndef VNL_SQLITE_GATE_H
#define VNL_SQLITE_GATE_H

#include <stdint.h>

#include "queue.h"

struct vnl_sqlite_conn;

typedef struct vnl_sqlite_gate {
    struct vnl_sqlite_conn *conn; /* NULL: all goes straight through */
    vnl_sqlite_queue *queue;
    uint64_t read_in;   /* the call of SQLite in which it got its shared lock */
    char writing;       /* has the write lock */
    char checkpointing; /* has the lock of checkpoints, and no other */
} vnl_sqlite_gate;

/* Ties a file's gate to its connection, and to the queue that it has to use:
 * the file's, or, with `in_memory`, the one of the database of that path. */
void vnl_sqlite_gate_tie(vnl_sqlite_gate *gate, struct vnl_sqlite_conn *conn, const char *path,
                         int in_memory);
void vnl_sqlite_gate_untie(vnl_sqlite_gate *gate);

/* Whether to ask for the lock at all; else the answer is SQLITE_BUSY. */
int vnl_sqlite_gate_may(vnl_sqlite_gate *gate, vnl_sqlite_want want);
/* The answer to a request. */
void vnl_sqlite_gate_answer(vnl_sqlite_gate *gate, vnl_sqlite_want want, int rc);
/* The write lock was let go of, or the shared one. */
void vnl_sqlite_gate_write_ends(vnl_sqlite_gate *gate);
void vnl_sqlite_gate_read_ends(vnl_sqlite_gate *gate);

#endif
