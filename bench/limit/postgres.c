/* The works on libpq: prepared statements, results as text. */
#include "limit.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#define ITEM "i.id, i.maker_id, i.name, i.text, i.price, i.weight, i.stock, i.active, i.created, i.code"
#define WRITTEN "maker_id, name, text, price, weight, stock, active, created, code"
#define SAVED 7
#define STOCK 6 /* where it is in an item */
#define NUMBER 24

typedef struct {
    const char *name;
    const char *sql;
    int params;
} statement;

static const statement statements[] = {
    {"get_2", "SELECT id, name FROM shop_tag WHERE id = $1", 1},
    {"get_10", "SELECT " ITEM " FROM shop_item i WHERE i.id = $1", 1},
    {"rows", "SELECT " ITEM " FROM shop_item i ORDER BY i.id LIMIT $1", 1},
    {"select_related",
     "SELECT " ITEM ", m.id, m.name, m.founded FROM shop_item i "
     "JOIN shop_maker m ON m.id = i.maker_id ORDER BY i.id LIMIT $1",
     1},
    {"makers", "SELECT id, name, founded FROM shop_maker ORDER BY id LIMIT $1", 1},
    {"items_of", "SELECT " ITEM " FROM shop_item i WHERE i.maker_id = ANY($1::bigint[])", 1},
    {"aggregate", "SELECT count(id), sum(stock), avg(weight), max(price) FROM shop_item WHERE maker_id = $1",
     1},
    {"create",
     "INSERT INTO shop_item (" WRITTEN ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
     "RETURNING id",
     LIMIT_WRITTEN},
    {"save",
     "UPDATE shop_item SET maker_id = $1, name = $2, text = $3, price = $4, weight = $5, "
     "stock = $6, active = $7, created = $8, code = $9 WHERE id = $10",
     LIMIT_WRITTEN + 1},
    {"bulk_create",
     "INSERT INTO shop_item (" WRITTEN ") SELECT * FROM unnest($1::bigint[], $2::text[], "
     "$3::text[], $4::numeric[], $5::float8[], $6::int[], $7::boolean[], $8::timestamptz[], "
     "$9::uuid[]) RETURNING id",
     LIMIT_WRITTEN},
    {"bulk_update",
     "UPDATE shop_item i SET stock = u.stock, price = u.price FROM unnest($1::bigint[], "
     "$2::int[], $3::numeric[]) u(id, stock, price) WHERE i.id = u.id",
     3},
};

static PGconn *conns[LIMIT_CONNECTIONS];
static char *saved[LIMIT_COLUMNS];
static long saves = 0;
static long updates = 0;

static void
expect(PGconn *conn, PGresult *result, ExecStatusType wanted)
{
    if (PQresultStatus(result) != wanted) {
        limit_fail("PostgreSQL", PQerrorMessage(conn));
    }
}

static void
emit(limit_sink *sink, const PGresult *result)
{
    int rows = PQntuples(result);
    int columns = PQnfields(result);

    for (int row = 0; row < rows; row++) {
        for (int column = 0; column < columns; column++) {
            limit_field(sink, PQgetvalue(result, row, column), PQgetisnull(result, row, column));
        }
        limit_row_end(sink);
    }
}

static void
emit_text(limit_sink *sink, const char *text)
{
    limit_field(sink, text, 0);
    limit_row_end(sink);
}

/* New: the result. */
static PGresult *
run(const char *name, int count, const char *const *params, ExecStatusType wanted)
{
    PGresult *result = PQexecPrepared(conns[0], name, count, params, NULL, NULL, 0);

    expect(conns[0], result, wanted);
    return result;
}

static void
query(limit_sink *sink, const char *name, long arg)
{
    char number[NUMBER];
    const char *params[] = {number};
    PGresult *result = NULL;

    snprintf(number, sizeof(number), "%ld", arg);
    result = run(name, 1, params, PGRES_TUPLES_OK);
    emit(sink, result);
    PQclear(result);
}

static void
prefetch(limit_sink *sink, long arg)
{
    char number[NUMBER];
    const char *params[] = {number};
    PGresult *makers = NULL;
    PGresult *items = NULL;
    limit_text keys;

    snprintf(number, sizeof(number), "%ld", arg);
    makers = run("makers", 1, params, PGRES_TUPLES_OK);
    keys = limit_text_new((size_t)PQntuples(makers) * NUMBER + 3);
    for (int row = 0; row < PQntuples(makers); row++) {
        limit_add(&keys, "%c%s", row ? ',' : '{', PQgetvalue(makers, row, 0));
    }
    limit_add(&keys, "}");
    params[0] = keys.data;
    items = run("items_of", 1, params, PGRES_TUPLES_OK);
    emit(sink, makers);
    emit(sink, items);
    PQclear(makers);
    PQclear(items);
    free(keys.data);
}

static void
create(limit_sink *sink)
{
    PQclear(run("create", LIMIT_WRITTEN, limit_new, PGRES_TUPLES_OK));
    emit_text(sink, limit_new[1]);
}

static void
save(void)
{
    char stock[NUMBER];
    const char *params[LIMIT_COLUMNS];

    for (int n = 1; n < LIMIT_COLUMNS; n++) {
        params[n - 1] = saved[n];
    }
    params[LIMIT_WRITTEN] = saved[0];
    snprintf(stock, sizeof(stock), "%ld", limit_number(saved[STOCK]) + ++saves);
    params[STOCK - 1] = stock;
    PQclear(run("save", LIMIT_COLUMNS, params, PGRES_COMMAND_OK));
}

/* New: '{"text","text",…}'. */
static char *
array_of(const char *text, long count)
{
    limit_text array = limit_text_new((strlen(text) + 3) * (size_t)count + 3);

    for (long n = 0; n < count; n++) {
        limit_add(&array, "%c\"%s\"", n ? ',' : '{', text);
    }
    limit_add(&array, "}");
    return array.data;
}

static void
bulk_create(limit_sink *sink, long count)
{
    char *arrays[LIMIT_WRITTEN];
    char number[NUMBER];
    PGresult *result = NULL;

    for (int n = 0; n < LIMIT_WRITTEN; n++) {
        arrays[n] = array_of(limit_new[n], count);
    }
    result = run("bulk_create", LIMIT_WRITTEN, (const char *const *)arrays, PGRES_TUPLES_OK);
    snprintf(number, sizeof(number), "%d", PQntuples(result));
    emit_text(sink, number);
    PQclear(result);
    for (int n = 0; n < LIMIT_WRITTEN; n++) {
        free(arrays[n]);
    }
}

static void
bulk_update(limit_sink *sink, long count)
{
    size_t size = (size_t)count * NUMBER + 3;
    limit_text keys = limit_text_new(size);
    limit_text stocks = limit_text_new(size);
    limit_text prices = limit_text_new(size);
    const char *arrays[] = {keys.data, stocks.data, prices.data};
    PGresult *result = NULL;

    updates++;
    for (long n = 0; n < count; n++) {
        char before = n ? ',' : '{';

        limit_add(&keys, "%c%ld", before, n + 1);
        limit_add(&stocks, "%c%ld", before, n + updates);
        limit_add(&prices, "%c%ld.%02ld", before, n / 100 + updates, n % 100);
    }
    limit_add(&keys, "}");
    limit_add(&stocks, "}");
    limit_add(&prices, "}");
    result = run("bulk_update", 3, arrays, PGRES_COMMAND_OK);
    emit_text(sink, PQcmdTuples(result));
    PQclear(result);
    free(keys.data);
    free(stocks.data);
    free(prices.data);
}

/* As many at a time as there are connections. */
static void
tasks(limit_sink *sink, long count)
{
    for (long first = 1; first <= count; first += LIMIT_CONNECTIONS) {
        long last = first + LIMIT_CONNECTIONS - 1 < count ? first + LIMIT_CONNECTIONS - 1 : count;

        for (long pk = first; pk <= last; pk++) {
            char number[NUMBER];
            const char *params[] = {number};

            snprintf(number, sizeof(number), "%ld", pk);
            if (!PQsendQueryPrepared(conns[pk - first], "get_10", 1, params, NULL, NULL, 0)) {
                limit_fail("tasks", PQerrorMessage(conns[pk - first]));
            }
        }
        for (long pk = first; pk <= last; pk++) {
            PGresult *result = PQgetResult(conns[pk - first]);

            expect(conns[pk - first], result, PGRES_TUPLES_OK);
            emit(sink, result);
            PQclear(result);
            PQclear(PQgetResult(conns[pk - first]));
        }
    }
}

static void
stream(limit_sink *sink, long arg)
{
    char number[NUMBER];
    const char *params[] = {number};
    PGresult *result = NULL;
    long rows = 0;
    long stock = 0;

    snprintf(number, sizeof(number), "%ld", arg);
    if (!PQsendQueryPrepared(conns[0], "rows", 1, params, NULL, NULL, 0) || !PQsetSingleRowMode(conns[0])) {
        limit_fail("stream", PQerrorMessage(conns[0]));
    }
    while ((result = PQgetResult(conns[0])) != NULL) {
        if (PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
            rows++;
            stock += limit_number(PQgetvalue(result, 0, STOCK));
        }
        else {
            expect(conns[0], result, PGRES_TUPLES_OK);
        }
        PQclear(result);
    }
    snprintf(number, sizeof(number), "%ld", rows);
    limit_field(sink, number, 0);
    snprintf(number, sizeof(number), "%ld", stock);
    emit_text(sink, number);
}

void
limit_open(const char *where)
{
    char number[NUMBER];
    const char *params[] = {number};
    PGresult *result = NULL;

    for (int n = 0; n < LIMIT_CONNECTIONS; n++) {
        conns[n] = PQconnectdb(where);
        if (PQstatus(conns[n]) != CONNECTION_OK) {
            limit_fail("connect", PQerrorMessage(conns[n]));
        }
        for (size_t each = 0; each < sizeof(statements) / sizeof(*statements); each++) {
            const statement *made = &statements[each];

            result = PQprepare(conns[n], made->name, made->sql, made->params, NULL);
            expect(conns[n], result, PGRES_COMMAND_OK);
            PQclear(result);
        }
    }
    snprintf(number, sizeof(number), "%d", SAVED);
    result = run("get_10", 1, params, PGRES_TUPLES_OK);
    for (int n = 0; n < LIMIT_COLUMNS; n++) {
        saved[n] = strdup(PQgetvalue(result, 0, n));
    }
    PQclear(result);
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
        prefetch(sink, arg);
    }
    else if (strcmp(method, "create") == 0) {
        create(sink);
    }
    else if (strcmp(method, "save") == 0) {
        save();
    }
    else if (strcmp(method, "bulk_create") == 0) {
        bulk_create(sink, arg);
    }
    else if (strcmp(method, "bulk_update") == 0) {
        bulk_update(sink, arg);
    }
    else if (strcmp(method, "tasks") == 0) {
        tasks(sink, arg);
    }
    else if (strcmp(method, "stream") == 0) {
        stream(sink, arg);
    }
    else {
        query(sink, method, arg);
    }
    return 0;
}

void
limit_close(void)
{
    for (int n = 0; n < LIMIT_CONNECTIONS; n++) {
        PQfinish(conns[n]);
    }
    for (int n = 0; n < LIMIT_COLUMNS; n++) {
        free(saved[n]);
    }
}
