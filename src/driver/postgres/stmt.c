/* Which statements a connection has prepared: a small LRU list. */
#include "pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* Longer texts (bulk inserts) are rarely seen twice. */
#define MAX_SQL 32768

static uint64_t
hash_bytes(uint64_t h, const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * 1099511628211u; /* FNV-1a */
    }
    return h;
}

static void
stmt_free(vnl_pg_stmt *stmt)
{
    if (stmt != NULL) {
        free(stmt->sql);
        free(stmt->oids);
        free(stmt);
    }
}

void
vnl_pg_stmts_init(vnl_pg_stmts *stmts, int size)
{
    memset(stmts, 0, sizeof(*stmts));
    stmts->size = size;
}

void
vnl_pg_stmts_free(vnl_pg_stmts *stmts)
{
    for (int i = 0; i < stmts->count; i++) {
        stmt_free(stmts->list[i]);
    }
    free(stmts->list);
    stmts->list = NULL;
    stmts->count = 0;
}

void
vnl_pg_stmts_forget(vnl_pg_stmts *stmts)
{
    for (int i = 0; i < stmts->count; i++) {
        stmts->list[i]->prepared = stmts->list[i]->ran = 0;
        stmts->list[i]->binary = -1;
        stmts->list[i]->uses = 0;
    }
}

int
vnl_pg_stmts_any(const vnl_pg_stmts *stmts)
{
    for (int i = 0; i < stmts->count; i++) {
        if (stmts->list[i]->prepared) {
            return 1;
        }
    }
    return 0;
}

static vnl_pg_stmt *
stmt_new(uint64_t hash, const char *sql, size_t len, const Oid *oids, int noids)
{
    vnl_pg_stmt *stmt = calloc(1, sizeof(*stmt));
    if (stmt == NULL) {
        return NULL;
    }
    stmt->hash = hash;
    stmt->len = len;
    stmt->noids = noids;
    stmt->binary = -1;
    stmt->sql = malloc(len + 1);
    stmt->oids = malloc((size_t)(noids > 0 ? noids : 1) * sizeof(Oid));
    if (stmt->sql == NULL || stmt->oids == NULL) {
        stmt_free(stmt);
        return NULL;
    }
    memcpy(stmt->sql, sql, len);
    stmt->sql[len] = 0;
    if (noids > 0) {
        memcpy(stmt->oids, oids, (size_t)noids * sizeof(Oid));
    }
    return stmt;
}

/* The place for a new entry: a free one, or that of the least recently used. */
static int
make_room(vnl_pg_stmts *stmts, char *evicted)
{
    if (stmts->list == NULL) {
        stmts->list = calloc((size_t)stmts->size, sizeof(*stmts->list));
        if (stmts->list == NULL) {
            return -1;
        }
    }
    if (stmts->count < stmts->size) {
        return stmts->count++;
    }
    int oldest = 0;
    for (int i = 1; i < stmts->count; i++) {
        if (stmts->list[i]->tick < stmts->list[oldest]->tick) {
            oldest = i;
        }
    }
    if (stmts->list[oldest] != NULL && stmts->list[oldest]->prepared) {
        memcpy(evicted, stmts->list[oldest]->name, sizeof(stmts->list[oldest]->name));
    }
    stmt_free(stmts->list[oldest]);
    return oldest;
}

static uint64_t
hash_statement(const char *sql, size_t len, const Oid *oids, int noids)
{
    uint64_t hash = hash_bytes(14695981039346656037u, sql, len);
    return noids > 0 ? hash_bytes(hash, oids, (size_t)noids * sizeof(Oid)) : hash;
}

static vnl_pg_stmt *
find(const vnl_pg_stmts *stmts, uint64_t hash, const char *sql, size_t len, const Oid *oids, int noids)
{
    size_t oidlen = (size_t)noids * sizeof(Oid);
    for (int i = 0; i < stmts->count; i++) {
        vnl_pg_stmt *stmt = stmts->list[i];
        if (stmt->hash == hash && stmt->len == len && stmt->noids == noids &&
            memcmp(stmt->sql, sql, len) == 0 && (noids == 0 || memcmp(stmt->oids, oids, oidlen) == 0)) {
            return stmt;
        }
    }
    return NULL;
}

vnl_pg_stmt *
vnl_pg_stmts_find(const vnl_pg_stmts *stmts, const char *sql, size_t len, const Oid *oids, int noids)
{
    return find(stmts, hash_statement(sql, len, oids, noids), sql, len, oids, noids);
}

vnl_pg_stmt *
vnl_pg_stmts_use(vnl_pg_stmts *stmts, const char *sql, size_t len, const Oid *oids, int noids, char *evicted)
{
    evicted[0] = 0;
    if (stmts->size <= 0 || len > MAX_SQL) {
        return NULL;
    }
    uint64_t hash = hash_statement(sql, len, oids, noids);
    vnl_pg_stmt *known = find(stmts, hash, sql, len, oids, noids);
    if (known != NULL) {
        known->uses++;
        known->tick = ++stmts->tick;
        return known;
    }
    vnl_pg_stmt *stmt = stmt_new(hash, sql, len, oids, noids);
    int place = stmt != NULL ? make_room(stmts, evicted) : -1;
    if (place < 0) {
        stmt_free(stmt);
        return NULL;
    }
    stmts->list[place] = stmt;
    stmt->uses = 1;
    stmt->tick = ++stmts->tick;
    return stmt;
}

void
vnl_pg_stmt_name(vnl_pg_stmts *stmts, vnl_pg_stmt *stmt)
{
    /* Random per connection: behind a pooler, connections of other processes
     * share the server's session with ours. */
    if (stmts->serial == 0) {
        uint64_t seed = 0;
        if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed)) {
            seed = (uint64_t)vnl_pg_core->now() * 6364136223846793005u + (uint64_t)getpid();
        }
        stmts->serial = seed | 1;
    }
    snprintf(stmt->name, sizeof(stmt->name), "vnl_%016llx", (unsigned long long)stmts->serial++);
}
