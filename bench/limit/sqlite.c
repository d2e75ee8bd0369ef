/* The works on libsqlite3: prepared statements, one connection. */
#include "limit.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define ITEM "i.id, i.maker_id, i.name, i.text, i.price, i.weight, i.stock, i.active, i.created, i.code"
#define WRITTEN "maker_id, name, text, price, weight, stock, active, created, code"
#define SAVED 7
#define STOCK 6 /* where it is in an item */
#define NUMBER 40
#define BUSY_MILLISECONDS 5000

typedef struct {
    const char *name;
    const char *sql;
    sqlite3_stmt *prepared;
} statement;

static statement statements[] = {
    {"get_2", "SELECT id, name FROM shop_tag WHERE id = ?", NULL},
    {"get_10", "SELECT " ITEM " FROM shop_item i WHERE i.id = ?", NULL},
    {"rows", "SELECT " ITEM " FROM shop_item i ORDER BY i.id LIMIT ?", NULL},
    {"select_related",
     "SELECT " ITEM ", m.id, m.name, m.founded FROM shop_item i "
     "JOIN shop_maker m ON m.id = i.maker_id ORDER BY i.id LIMIT ?",
     NULL},
    {"makers", "SELECT id, name, founded FROM shop_maker ORDER BY id LIMIT ?", NULL},
    {"items_of",
     "SELECT " ITEM " FROM shop_item i "
     "WHERE i.maker_id IN (SELECT id FROM shop_maker ORDER BY id LIMIT ?)",
     NULL},
    {"aggregate", "SELECT count(id), sum(stock), avg(weight), max(price) FROM shop_item WHERE maker_id = ?",
     NULL},
    {"create", "INSERT INTO shop_item (" WRITTEN ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", NULL},
    {"save",
     "UPDATE shop_item SET maker_id = ?, name = ?, text = ?, price = ?, weight = ?, stock = ?, "
     "active = ?, created = ?, code = ? WHERE id = ?",
     NULL},
    {"update", "UPDATE shop_item SET stock = ?, price = ? WHERE id = ?", NULL},
    {"begin", "BEGIN", NULL},
    {"commit", "COMMIT", NULL},
};

static sqlite3 *db = NULL;
static char *saved[LIMIT_COLUMNS];
static long saves = 0;
static long updates = 0;

/* Borrowed; NULL when there is none of that name. */
static sqlite3_stmt *
prepared(const char *name)
{
    for (size_t n = 0; n < sizeof(statements) / sizeof(*statements); n++) {
        if (strcmp(statements[n].name, name) == 0) {
            return statements[n].prepared;
        }
    }
    return NULL;
}

static void
emit_text(limit_sink *sink, const char *text)
{
    limit_field(sink, text, 0);
    limit_row_end(sink);
}

static void
emit_column(limit_sink *sink, sqlite3_stmt *from, int column)
{
    char number[NUMBER];

    switch (sqlite3_column_type(from, column)) {
    case SQLITE_INTEGER:
        if (sink->out == NULL) {
            sink->seen += sqlite3_column_int64(from, column);
            return;
        }
        limit_field(sink, (const char *)sqlite3_column_text(from, column), 0);
        return;
    case SQLITE_FLOAT:
        if (sink->out == NULL) {
            sink->seen += (long)sqlite3_column_double(from, column);
            return;
        }
        snprintf(number, sizeof(number), "%.17g", sqlite3_column_double(from, column));
        limit_field(sink, number, 0);
        return;
    case SQLITE_NULL:
        limit_field(sink, "", 1);
        return;
    default:
        limit_field(sink, (const char *)sqlite3_column_text(from, column), 0);
    }
}

/* Steps to the end, and makes the statement ready for the next time. */
static void
finish(limit_sink *sink, sqlite3_stmt *of)
{
    int code = SQLITE_OK;

    while ((code = sqlite3_step(of)) == SQLITE_ROW) {
        for (int column = 0; column < sqlite3_column_count(of); column++) {
            emit_column(sink, of, column);
        }
        limit_row_end(sink);
    }
    if (code != SQLITE_DONE) {
        limit_fail("SQLite", sqlite3_errmsg(db));
    }
    sqlite3_reset(of);
}

static int
query(limit_sink *sink, const char *name, long arg)
{
    sqlite3_stmt *of = prepared(name);

    if (of == NULL) {
        return -1;
    }
    sqlite3_bind_int64(of, 1, arg);
    finish(sink, of);
    return 0;
}

static void
insert(limit_sink *sink)
{
    sqlite3_stmt *of = prepared("create");

    for (int n = 0; n < LIMIT_WRITTEN; n++) {
        sqlite3_bind_text(of, n + 1, limit_new[n], -1, SQLITE_STATIC);
    }
    finish(sink, of);
}

static void
save(limit_sink *sink)
{
    sqlite3_stmt *of = prepared("save");

    for (int n = 1; n < LIMIT_COLUMNS; n++) {
        sqlite3_bind_text(of, n, saved[n], -1, SQLITE_STATIC);
    }
    sqlite3_bind_int64(of, STOCK, limit_number(saved[STOCK]) + ++saves);
    sqlite3_bind_text(of, LIMIT_COLUMNS, saved[0], -1, SQLITE_STATIC);
    finish(sink, of);
}

static void
bulk_create(limit_sink *sink, long count)
{
    char number[NUMBER];

    finish(sink, prepared("begin"));
    for (long n = 0; n < count; n++) {
        insert(sink);
    }
    finish(sink, prepared("commit"));
    snprintf(number, sizeof(number), "%ld", count);
    emit_text(sink, number);
}

static void
bulk_update(limit_sink *sink, long count)
{
    sqlite3_stmt *of = prepared("update");
    char number[NUMBER];

    updates++;
    finish(sink, prepared("begin"));
    for (long n = 0; n < count; n++) {
        snprintf(number, sizeof(number), "%ld.%02ld", n / 100 + updates, n % 100);
        sqlite3_bind_int64(of, 1, n + updates);
        sqlite3_bind_text(of, 2, number, -1, SQLITE_STATIC);
        sqlite3_bind_int64(of, 3, n + 1);
        finish(sink, of);
    }
    finish(sink, prepared("commit"));
    snprintf(number, sizeof(number), "%ld", count);
    emit_text(sink, number);
}

static void
stream(limit_sink *sink, long arg)
{
    sqlite3_stmt *of = prepared("rows");
    char number[NUMBER];
    long rows = 0;
    long stock = 0;

    sqlite3_bind_int64(of, 1, arg);
    while (sqlite3_step(of) == SQLITE_ROW) {
        rows++;
        stock += sqlite3_column_int(of, STOCK);
    }
    sqlite3_reset(of);
    snprintf(number, sizeof(number), "%ld", rows);
    limit_field(sink, number, 0);
    snprintf(number, sizeof(number), "%ld", stock);
    emit_text(sink, number);
}

void
limit_open(const char *where)
{
    sqlite3_stmt *of = NULL;

    if (sqlite3_open(where, &db) != SQLITE_OK) {
        limit_fail(where, sqlite3_errmsg(db));
    }
    sqlite3_busy_timeout(db, BUSY_MILLISECONDS);
    sqlite3_exec(db, "PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON", NULL, NULL, NULL);
    for (size_t n = 0; n < sizeof(statements) / sizeof(*statements); n++) {
        if (sqlite3_prepare_v3(db, statements[n].sql, -1, SQLITE_PREPARE_PERSISTENT, &statements[n].prepared,
                               NULL) != SQLITE_OK) {
            limit_fail(statements[n].sql, sqlite3_errmsg(db));
        }
    }
    of = prepared("get_10");
    sqlite3_bind_int64(of, 1, SAVED);
    if (sqlite3_step(of) != SQLITE_ROW) {
        limit_fail("the saved item", sqlite3_errmsg(db));
    }
    for (int n = 0; n < LIMIT_COLUMNS; n++) {
        saved[n] = strdup((const char *)sqlite3_column_text(of, n));
    }
    sqlite3_reset(of);
}

int
limit_run(const char *method, long arg, limit_sink *sink)
{
    if (arg < 0 || arg > 10 * LIMIT_MOST) {
        return -1;
    }
    if (strcmp(method, "values") == 0 || strcmp(method, "values_list") == 0) {
        method = "rows";
    }
    if (strcmp(method, "prefetch") == 0) {
        query(sink, "makers", arg);
        return query(sink, "items_of", arg);
    }
    if (strcmp(method, "create") == 0) {
        insert(sink);
        emit_text(sink, limit_new[1]);
    }
    else if (strcmp(method, "save") == 0) {
        save(sink);
    }
    else if (strcmp(method, "bulk_create") == 0) {
        bulk_create(sink, arg);
    }
    else if (strcmp(method, "bulk_update") == 0) {
        bulk_update(sink, arg);
    }
    else if (strcmp(method, "tasks") == 0) {
        for (long pk = 1; pk <= arg; pk++) {
            query(sink, "get_10", pk);
        }
    }
    else if (strcmp(method, "stream") == 0) {
        stream(sink, arg);
    }
    else {
        return query(sink, method, arg);
    }
    return 0;
}

void
limit_close(void)
{
    for (size_t n = 0; n < sizeof(statements) / sizeof(*statements); n++) {
        sqlite3_finalize(statements[n].prepared);
    }
    sqlite3_close(db);
    for (int n = 0; n < LIMIT_COLUMNS; n++) {
        free(saved[n]);
    }
}
