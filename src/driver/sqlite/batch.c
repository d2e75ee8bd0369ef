/* Many rows for one INSERT: a table-valued function over values in memory.
 *
 *     INSERT INTO t (a, b) SELECT c0, c1 FROM sqlite_vinyl_batch(?) WHERE 1 …
 *
 * is one text for any number of rows, prepared once, and to SQLite one
 * statement: what it promises for INSERT … VALUES (…), (…), … holds.  The
 * parameter is a pointer to the batch; without one the table is empty.  SQLite
 * lets nobody have a table or a view of a name that begins with sqlite_.
 */
#include <stdlib.h>
#include <string.h>

#include "sqlite.h"

#define POINTER "vinyl batch"

struct vnl_sqlite_batch {
    int rows, columns;
    vnl_sqlite_cell cells[];
};

/* Its state lives on SQLite's heap: a switch may come between any two calls. */
typedef struct batch_scan {
    sqlite3_vtab_cursor base;
    const vnl_sqlite_batch *batch; /* the statement's parameter, or NULL */
    int row;
} batch_scan;

/* The hidden column is the function's argument. */
#define TEN(tens) \
    "c" tens "0,c" tens "1,c" tens "2,c" tens "3,c" tens "4,c" tens "5,c" tens "6,c" tens "7,c" tens \
    "8,c" tens "9,"
#define ARGUMENT VNL_BATCH_COLUMNS
static const char schema[] = "CREATE TABLE batch(" TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5")
    TEN("6") TEN("7") TEN("8") TEN("9") "batch HIDDEN)";
_Static_assert(VNL_BATCH_COLUMNS == 100, "the columns that the schema declares");

/* --- batches */

vnl_sqlite_batch *
vnl_sqlite_batch_new(int rows, int columns)
{
    vnl_sqlite_batch *batch = NULL;

    if (rows < 0 || columns < 1 || columns > VNL_BATCH_COLUMNS || rows > INT32_MAX / columns) {
        return NULL;
    }
    batch = calloc(1, sizeof(*batch) + (size_t)rows * (size_t)columns * sizeof(batch->cells[0]));
    if (batch != NULL) {
        batch->rows = rows;
        batch->columns = columns;
    }
    return batch;
}

vnl_sqlite_cell *
vnl_sqlite_batch_cells(vnl_sqlite_batch *batch)
{
    return batch->cells;
}

void
vnl_sqlite_batch_free(void *batch)
{
    free(batch);
}

int
vnl_sqlite_batch_bind(sqlite3_stmt *raw, int at, vnl_sqlite_batch *batch)
{
    return sqlite3_bind_pointer(raw, at, batch, POINTER, vnl_sqlite_batch_free);
}

/* --- the table */

static int
connect_table(sqlite3 *db, void *unused, int argc, const char *const *argv, sqlite3_vtab **table,
              char **error)
{
    int rc = sqlite3_declare_vtab(db, schema);

    if (rc != SQLITE_OK) {
        return rc;
    }
    if ((*table = sqlite3_malloc(sizeof(**table))) == NULL) {
        return SQLITE_NOMEM;
    }
    memset(*table, 0, sizeof(**table));
    /* Not for the triggers and views of a schema. */
    sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
    return SQLITE_OK;
}

static int
disconnect_table(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

/* The rows come in their order, whatever is asked; the batch is the argument. */
static int
best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    info->estimatedCost = 1e6;
    for (int i = 0; i < info->nConstraint; i++) {
        if (info->aConstraint[i].iColumn != ARGUMENT ||
            info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) {
            continue;
        }
        if (!info->aConstraint[i].usable) {
            return SQLITE_CONSTRAINT;
        }
        info->aConstraintUsage[i].argvIndex = 1;
        info->aConstraintUsage[i].omit = 1;
        info->estimatedCost = 1;
        break;
    }
    return SQLITE_OK;
}

static int
open_scan(sqlite3_vtab *table, sqlite3_vtab_cursor **cursor)
{
    batch_scan *scan = sqlite3_malloc(sizeof(*scan));

    if (scan == NULL) {
        return SQLITE_NOMEM;
    }
    memset(scan, 0, sizeof(*scan));
    *cursor = &scan->base;
    return SQLITE_OK;
}

static int
close_scan(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int
start_scan(sqlite3_vtab_cursor *cursor, int number, const char *text, int argc, sqlite3_value **argv)
{
    batch_scan *scan = (batch_scan *)cursor;

    scan->batch = argc > 0 ? sqlite3_value_pointer(argv[0], POINTER) : NULL;
    scan->row = 0;
    return SQLITE_OK;
}

static int
next_row(sqlite3_vtab_cursor *cursor)
{
    ((batch_scan *)cursor)->row++;
    return SQLITE_OK;
}

static int
at_end(sqlite3_vtab_cursor *cursor)
{
    const batch_scan *scan = (const batch_scan *)cursor;

    return scan->batch == NULL || scan->row >= scan->batch->rows;
}

static int
give_value(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column)
{
    const batch_scan *scan = (const batch_scan *)cursor;
    const vnl_sqlite_batch *batch = scan->batch;

    if (column < batch->columns) {
        const vnl_sqlite_cell *cell = &batch->cells[scan->row * batch->columns + column];
        switch (cell->type) {
        case SQLITE_INTEGER:
            sqlite3_result_int64(context, cell->integer);
            break;
        case SQLITE_FLOAT:
            sqlite3_result_double(context, cell->real);
            break;
        case SQLITE_TEXT:
            sqlite3_result_text(context, cell->bytes, cell->size, SQLITE_STATIC);
            break;
        case SQLITE_BLOB:
            sqlite3_result_blob(context, cell->bytes, cell->size, SQLITE_STATIC);
            break;
        default:
            break; /* NULL */
        }
    }
    return SQLITE_OK;
}

static int
give_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid)
{
    *rowid = ((batch_scan *)cursor)->row;
    return SQLITE_OK;
}

/* Without xCreate: the table is there by its module's name, in no schema. */
static const sqlite3_module module = {
    .xConnect = connect_table,
    .xDisconnect = disconnect_table,
    .xBestIndex = best_index,
    .xOpen = open_scan,
    .xClose = close_scan,
    .xFilter = start_scan,
    .xNext = next_row,
    .xEof = at_end,
    .xColumn = give_value,
    .xRowid = give_rowid,
};

int
vnl_sqlite_batch_install(sqlite3 *db)
{
    return sqlite3_create_module_v2(db, "sqlite_vinyl_batch", &module, NULL, NULL);
}

void
vnl_sqlite_batch_connect_wait(vnl_sqlite_conn *conn)
{
    sqlite3_stmt *raw = NULL;

    vnl_sqlite_enter(conn);
    (void)sqlite3_prepare_v2(conn->db, "SELECT 1 FROM sqlite_vinyl_batch", -1, &raw, NULL);
    sqlite3_finalize(raw);
    vnl_sqlite_leave(conn);
}
