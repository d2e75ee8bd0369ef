/* Stepping statements. */
#include <string.h>

#include "sqlite.h"

void
vnl_sqlite_note_error(vnl_sqlite_conn *conn, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_MISUSE:
        conn->pins |= VNL_PIN_BROKEN;
        break;
    default:
        break;
    }
}

int
vnl_sqlite_step_wait(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, int first)
{
    int64_t since = 0, pause = 0;
    char outer = conn->write_step; /* of a statement whose function runs this one */
    int rc;

    if (stmt->raw == NULL) {
        return SQLITE_DONE;
    }
    for (;;) {
        conn->write_step = (char)!sqlite3_stmt_readonly(stmt->raw);
        vnl_sqlite_enter(conn);
        rc = sqlite3_step(stmt->raw);
        vnl_sqlite_leave(conn);
        conn->write_step = outer;
        if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
            return rc;
        }
        if (!first || !vnl_sqlite_again_wait(conn, rc, &since, &pause)) {
            break;
        }
        sqlite3_reset(stmt->raw);
    }
    vnl_sqlite_note_error(conn, rc);
    return rc;
}

int
vnl_sqlite_run_wait(vnl_sqlite_conn *conn, const char *sql)
{
    int rc = SQLITE_OK;
    vnl_sqlite_stmt *stmt = vnl_sqlite_prepare_wait(conn, sql, strlen(sql), VNL_STYLE_RAW, &rc);

    if (stmt == NULL) {
        return rc;
    }
    do {
        rc = vnl_sqlite_step_wait(conn, stmt, 1);
    } while (rc == SQLITE_ROW);
    vnl_sqlite_stmt_done(conn, stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}
