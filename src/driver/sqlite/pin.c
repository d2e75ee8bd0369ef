/* State that ties a connection to its user: temporary tables, PRAGMAs that
 * differ from how the connection began, attached databases.
 *
 * A pinned connection stays with its link; it goes back to the pool only when
 * everything is as it was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sqlite.h"

struct vnl_sqlite_pragma {
    struct vnl_sqlite_pragma *next;
    int differs;
    char *start; /* its value when the connection was taken; NULL: none */
    char name[];
};

int
vnl_sqlite_pragma_sets(const char *name, size_t len)
{
    /* Those that only answer, act once, or are kept in the file. */
    static const char *const others[] = {
        "application_id",  "auto_vacuum",        "collation_list",    "compile_options",  "data_version",
        "database_list",   "encoding",           "foreign_key_check", "foreign_key_list", "freelist_count",
        "function_list",   "incremental_vacuum", "index_info",        "index_list",       "index_xinfo",
        "integrity_check", "journal_mode",       "module_list",       "optimize",         "page_count",
        "page_size",       "pragma_list",        "quick_check",       "schema_version",   "shrink_memory",
        "table_info",      "table_list",         "table_xinfo",       "user_version",     "wal_checkpoint",
    };

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strlen(others[i]) == len && strncasecmp(others[i], name, len) == 0) {
            return 0;
        }
    }
    return 1;
}

/* The value of a PRAGMA as text, malloc'ed; NULL when it has none. */
static char *
pragma_value(vnl_sqlite_conn *conn, const char *name)
{
    sqlite3_stmt *raw = NULL;
    char *value = NULL;
    char *sql = sqlite3_mprintf("PRAGMA %s", name);

    if (sql != NULL && sqlite3_prepare_v2(conn->db, sql, -1, &raw, NULL) == SQLITE_OK &&
        sqlite3_step(raw) == SQLITE_ROW && sqlite3_column_text(raw, 0) != NULL) {
        value = strdup((const char *)sqlite3_column_text(raw, 0));
    }
    sqlite3_finalize(raw);
    sqlite3_free(sql);
    return value;
}

static struct vnl_sqlite_pragma *
find_pragma(const vnl_sqlite_conn *conn, const char *name)
{
    struct vnl_sqlite_pragma *p = conn->pragmas;

    while (p != NULL && strcasecmp(p->name, name) != 0) {
        p = p->next;
    }
    return p;
}

void
vnl_sqlite_pin_before(vnl_sqlite_conn *conn, const vnl_sqlite_stmt *stmt)
{
    size_t len;
    struct vnl_sqlite_pragma *p;

    if (stmt->pragma == NULL || find_pragma(conn, stmt->pragma) != NULL) {
        return;
    }
    len = strlen(stmt->pragma);
    p = malloc(sizeof(*p) + len + 1);
    if (p == NULL) {
        conn->pins |= VNL_PIN_PRAGMA;
        return;
    }
    memcpy(p->name, stmt->pragma, len + 1);
    p->differs = 0;
    p->start = pragma_value(conn, p->name);
    p->next = conn->pragmas;
    conn->pragmas = p;
}

static void
look_at_pragma(vnl_sqlite_conn *conn, const char *name)
{
    struct vnl_sqlite_pragma *p = find_pragma(conn, name);
    char *value;

    if (p == NULL || p->start == NULL) {
        conn->pins |= VNL_PIN_PRAGMA;
        return;
    }
    value = pragma_value(conn, name);
    p->differs = value == NULL || strcmp(value, p->start) != 0;
    free(value);
}

/* Whether temporary tables are left. */
static int
has_temp(vnl_sqlite_conn *conn)
{
    sqlite3_stmt *raw = NULL;
    int found = 1;

    if (sqlite3_prepare_v2(conn->db, "SELECT 1 FROM sqlite_temp_master LIMIT 1", -1, &raw, NULL) ==
        SQLITE_OK) {
        found = sqlite3_step(raw) != SQLITE_DONE;
    }
    sqlite3_finalize(raw);
    return found;
}

/* A shared cache came along: from now on no switch inside SQLite. */
static void
look_for_shared_cache(vnl_sqlite_conn *conn, const vnl_sqlite_stmt *stmt)
{
    char *sql = sqlite3_expanded_sql(stmt->raw);

    if (sql == NULL || strcasestr(sql, "cache") != NULL) {
        conn->no_switch = 1;
    }
    sqlite3_free(sql);
}

/* The files of all attached databases belong to this connection. */
static void
tie_all(vnl_sqlite_conn *conn)
{
    sqlite3_stmt *raw = NULL;

    if (sqlite3_prepare_v2(conn->db, "PRAGMA database_list", -1, &raw, NULL) == SQLITE_OK) {
        while (sqlite3_step(raw) == SQLITE_ROW) {
            vnl_sqlite_vfs_tie(conn, (const char *)sqlite3_column_text(raw, 1));
        }
    }
    sqlite3_finalize(raw);
}

void
vnl_sqlite_pin_after(vnl_sqlite_conn *conn, const vnl_sqlite_stmt *stmt)
{
    switch (stmt->kind) {
    case VNL_KIND_TEMP:
        conn->pins |= VNL_PIN_TEMP;
        break;
    case VNL_KIND_DROP:
    case VNL_KIND_ROLLBACK:
        if ((conn->pins & VNL_PIN_TEMP) && !has_temp(conn)) {
            conn->pins &= ~VNL_PIN_TEMP;
        }
        break;
    case VNL_KIND_ATTACH:
        conn->attached++;
        look_for_shared_cache(conn, stmt);
        tie_all(conn);
        break;
    case VNL_KIND_DETACH:
        conn->attached--;
        break;
    case VNL_KIND_PRAGMA:
        if (stmt->pragma != NULL) {
            look_at_pragma(conn, stmt->pragma);
        }
        break;
    default:
        break;
    }
}

int
vnl_sqlite_pinned(const vnl_sqlite_conn *conn)
{
    if (conn->pins != 0 || conn->attached > 0) {
        return 1;
    }
    for (const struct vnl_sqlite_pragma *p = conn->pragmas; p != NULL; p = p->next) {
        if (p->differs) {
            return 1;
        }
    }
    return 0;
}

void
vnl_sqlite_pins_free(vnl_sqlite_conn *conn)
{
    while (conn->pragmas != NULL) {
        struct vnl_sqlite_pragma *p = conn->pragmas;
        conn->pragmas = p->next;
        free(p->start);
        free(p);
    }
}
