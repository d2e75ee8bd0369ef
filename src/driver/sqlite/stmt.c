/* Statements: placeholder conversion, what kind they are, the cache. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sqlite.h"

#define BUCKETS (sizeof(((vnl_sqlite_conn *)0)->buckets) / sizeof(vnl_sqlite_stmt *))

/* --- placeholders */

/* %s that does not follow a percent sign becomes ?, then %% becomes %. */
static size_t
convert_format(const char *sql, size_t len, char *out)
{
    size_t n = 0, m = 0;

    for (size_t i = 0; i < len; i++) {
        if (sql[i] == '%' && i + 1 < len && sql[i + 1] == 's' && (i == 0 || sql[i - 1] != '%')) {
            out[n++] = '?';
            i++;
        }
        else {
            out[n++] = sql[i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        out[m++] = out[i];
        if (out[i] == '%' && i + 1 < n && out[i + 1] == '%') {
            i++;
        }
    }
    return m;
}

/* %(name)s becomes :name, %% becomes %.  -1 for any other use of %. */
static int
convert_named(const char *sql, size_t len, char *out, size_t *out_len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        const char *end;
        if (sql[i] != '%') {
            out[n++] = sql[i];
            continue;
        }
        if (++i >= len) {
            return -1;
        }
        if (sql[i] == '%') {
            out[n++] = '%';
            continue;
        }
        if (sql[i] != '(' || (end = memchr(sql + i, ')', len - i)) == NULL) {
            return -1;
        }
        out[n++] = ':';
        for (i++; sql + i < end; i++) {
            out[n++] = sql[i];
        }
        if (++i >= len || sql[i] != 's') {
            return -1;
        }
    }
    *out_len = n;
    return 0;
}

char *
vnl_sqlite_convert(const char *sql, size_t len, vnl_sqlite_style style, size_t *out_len, int *rc)
{
    char *out = calloc(1, len + 1);

    if (out == NULL) {
        *rc = SQLITE_NOMEM;
        return NULL;
    }
    if (style == VNL_STYLE_FORMAT) {
        *out_len = convert_format(sql, len, out);
    }
    else if (style == VNL_STYLE_RAW) {
        memcpy(out, sql, len);
        *out_len = len;
    }
    else if (convert_named(sql, len, out, out_len) < 0) {
        free(out);
        *rc = VNL_BAD_FORMAT;
        return NULL;
    }
    out[*out_len] = '\0';
    return out;
}

/* --- kinds */

/* Past white space and comments. */
static const char *
skip_blank(const char *p)
{
    for (;;) {
        if (isspace((unsigned char)*p)) {
            p++;
        }
        else if (p[0] == '-' && p[1] == '-') {
            p += strcspn(p, "\n");
        }
        else if (p[0] == '/' && p[1] == '*') {
            const char *end = strstr(p + 2, "*/");
            p = end ? end + 2 : p + strlen(p);
        }
        else {
            return p;
        }
    }
}

static size_t
word_len(const char *p)
{
    size_t n = 0;

    while (isalnum((unsigned char)p[n]) || p[n] == '_') {
        n++;
    }
    return n;
}

static int
is_word(const char *p, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

/* PRAGMA [schema.]name = value or name(value): keeps the name when it sets
 * something that the connection remembers. */
static int
classify_pragma(vnl_sqlite_stmt *stmt, const char *p)
{
    size_t n = word_len(p);
    const char *name = p;
    const char *after = skip_blank(p + n);

    if (*after == '.') {
        name = skip_blank(after + 1);
        n = word_len(name);
        after = skip_blank(name + n);
    }
    if ((*after != '=' && *after != '(') || !vnl_sqlite_pragma_sets(name, n)) {
        return 0;
    }
    stmt->pragma = strndup(name, n);
    return stmt->pragma == NULL ? -1 : 0;
}

int
vnl_sqlite_classify(vnl_sqlite_stmt *stmt, const char *sql)
{
    static const struct {
        const char *word;
        vnl_sqlite_kind kind;
    } words[] = {
        {"INSERT", VNL_KIND_INSERT},     {"REPLACE", VNL_KIND_INSERT}, {"UPDATE", VNL_KIND_CHANGE},
        {"DELETE", VNL_KIND_CHANGE},     {"COMMIT", VNL_KIND_COMMIT},  {"END", VNL_KIND_COMMIT},
        {"ROLLBACK", VNL_KIND_ROLLBACK}, {"PRAGMA", VNL_KIND_PRAGMA},  {"ATTACH", VNL_KIND_ATTACH},
        {"DETACH", VNL_KIND_DETACH},     {"WITH", VNL_KIND_WITH},      {"DROP", VNL_KIND_DROP},
    };
    const char *p = skip_blank(sql);
    size_t n = word_len(p);
    const char *next = skip_blank(p + n);
    size_t next_n = word_len(next);

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (is_word(p, n, words[i].word)) {
            stmt->kind = words[i].kind;
        }
    }
    if (is_word(p, n, "CREATE") && (is_word(next, next_n, "TEMP") || is_word(next, next_n, "TEMPORARY"))) {
        stmt->kind = VNL_KIND_TEMP;
    }
    if (stmt->kind == VNL_KIND_INSERT || stmt->kind == VNL_KIND_CHANGE) {
        stmt->writes = 1;
    }
    return stmt->kind == VNL_KIND_PRAGMA ? classify_pragma(stmt, next) : 0;
}

/* --- the cache */

static uint64_t
hash_of(const char *text, size_t len, char style)
{
    uint64_t h = 0x9E3779B97F4A7C15ull ^ (uint64_t)len ^ ((uint64_t)(unsigned char)style << 56);
    uint64_t w;

    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&w, text, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    w = 0;
    memcpy(&w, text, len);
    h = (h ^ w) * 0xff51afd7ed558ccdull;
    return h ^ (h >> 29);
}

static void
unlink_stmt(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt)
{
    vnl_sqlite_stmt **at = &conn->buckets[stmt->hash % BUCKETS];

    while (*at != stmt) {
        at = &(*at)->chain;
    }
    *at = stmt->chain;
    *(stmt->newer ? &stmt->newer->older : &conn->newest) = stmt->older;
    *(stmt->older ? &stmt->older->newer : &conn->oldest) = stmt->newer;
    stmt->newer = stmt->older = stmt->chain = NULL;
    conn->cached--;
}

static void
link_stmt(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt)
{
    vnl_sqlite_stmt **bucket = &conn->buckets[stmt->hash % BUCKETS];

    stmt->chain = *bucket;
    *bucket = stmt;
    stmt->newer = NULL;
    stmt->older = conn->newest;
    *(conn->newest ? &conn->newest->newer : &conn->oldest) = stmt;
    conn->newest = stmt;
    conn->cached++;
}

/* A statement that is not cached, as long as it is in use. */
static void
link_loose(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt)
{
    stmt->newer = NULL;
    stmt->older = conn->loose;
    if (conn->loose != NULL) {
        conn->loose->newer = stmt;
    }
    conn->loose = stmt;
}

static void
unlink_loose(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt)
{
    *(stmt->newer ? &stmt->newer->older : &conn->loose) = stmt->older;
    if (stmt->older != NULL) {
        stmt->older->newer = stmt->newer;
    }
}

static void
free_stmt(vnl_sqlite_stmt *stmt)
{
    sqlite3_finalize(stmt->raw);
    if (stmt->extra != NULL) {
        vnl_sqlite_host_calls.forget(stmt->extra);
    }
    free(stmt->pragma);
    free(stmt->key);
    free(stmt);
}

static vnl_sqlite_stmt *
find_stmt(vnl_sqlite_conn *conn, uint64_t hash, const char *sql, size_t len, char style)
{
    vnl_sqlite_stmt *stmt = conn->buckets[hash % BUCKETS];

    for (; stmt != NULL; stmt = stmt->chain) {
        if (stmt->hash == hash && stmt->key_len == len && stmt->style == style &&
            memcmp(stmt->key, sql, len) == 0) {
            return stmt;
        }
    }
    return NULL;
}

/* Prepares `sql` into stmt->raw. */
static int
compile_wait(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt, const char *sql, size_t len)
{
    const char *tail = NULL;
    int64_t since = 0, pause = 0;
    int rc;

    if (len >= (size_t)sqlite3_limit(conn->db, SQLITE_LIMIT_SQL_LENGTH, -1)) {
        return SQLITE_TOOBIG;
    }
    do {
        vnl_sqlite_enter(conn);
        rc = sqlite3_prepare_v3(conn->db, sql, (int)len + 1, SQLITE_PREPARE_PERSISTENT, &stmt->raw, &tail);
        vnl_sqlite_leave(conn);
    } while (rc != SQLITE_OK && vnl_sqlite_again_wait(conn, rc, &since, &pause));
    if (rc != SQLITE_OK) {
        vnl_sqlite_note_error(conn, rc);
        return rc;
    }
    while (*(tail = skip_blank(tail)) == ';') {
        tail++;
    }
    return *tail == '\0' ? SQLITE_OK : VNL_MORE_SQL;
}

vnl_sqlite_stmt *
vnl_sqlite_prepare_wait(vnl_sqlite_conn *conn, const char *sql, size_t len, vnl_sqlite_style style, int *rc)
{
    uint64_t hash = hash_of(sql, len, (char)style);
    vnl_sqlite_stmt *found = find_stmt(conn, hash, sql, len, (char)style);
    vnl_sqlite_stmt *stmt = NULL;
    char *text = NULL;
    size_t text_len = 0;

    if (found != NULL && !found->in_use) {
        unlink_stmt(conn, found);
        link_stmt(conn, found);
        found->in_use = 1;
        return found;
    }
    *rc = SQLITE_NOMEM;
    if ((stmt = calloc(1, sizeof(*stmt))) == NULL ||
        (text = vnl_sqlite_convert(sql, len, style, &text_len, rc)) == NULL) {
        goto fail;
    }
    stmt->hash = hash;
    stmt->style = (char)style;
    stmt->in_use = 1;
    *rc = SQLITE_NOMEM;
    if (vnl_sqlite_classify(stmt, text) < 0) {
        goto fail;
    }
    /* SQLite carries out many a PRAGMA while it prepares it. */
    if (stmt->pragma != NULL) {
        vnl_sqlite_pin_before(conn, stmt);
    }
    if ((*rc = compile_wait(conn, stmt, text, text_len)) != SQLITE_OK) {
        goto fail;
    }
    if (stmt->kind == VNL_KIND_WITH && !sqlite3_stmt_readonly(stmt->raw)) {
        stmt->writes = 1;
    }
    *rc = SQLITE_NOMEM;
    /* Another fiber cannot have prepared the same meanwhile: the connection is
     * ours alone.  A second copy of one in use is not cached, nor
     * a PRAGMA that sets something. */
    if (found == NULL && conn->cache_max > 0 && stmt->pragma == NULL) {
        if ((stmt->key = malloc(len + 1)) == NULL) {
            goto fail;
        }
        memcpy(stmt->key, sql, len);
        stmt->key[len] = '\0';
        stmt->key_len = len;
        link_stmt(conn, stmt);
    }
    else {
        link_loose(conn, stmt);
    }
    free(text);
    *rc = SQLITE_OK;
    return stmt;

fail:
    if (stmt != NULL) {
        free_stmt(stmt);
    }
    free(text);
    return NULL;
}

void
vnl_sqlite_stmt_done(vnl_sqlite_conn *conn, vnl_sqlite_stmt *stmt)
{
    vnl_sqlite_stmt *old, *next;

    stmt->in_use = 0;
    if (stmt->raw != NULL) {
        sqlite3_reset(stmt->raw);
        sqlite3_clear_bindings(stmt->raw);
    }
    if (stmt->key == NULL) {
        unlink_loose(conn, stmt);
        free_stmt(stmt);
        return;
    }
    for (old = conn->oldest; conn->cached > conn->cache_max && old != NULL; old = next) {
        next = old->newer;
        if (!old->in_use) {
            unlink_stmt(conn, old);
            free_stmt(old);
        }
    }
}

static void
free_all(vnl_sqlite_stmt *stmt)
{
    while (stmt != NULL) {
        vnl_sqlite_stmt *older = stmt->older;
        free_stmt(stmt);
        stmt = older;
    }
}

void
vnl_sqlite_stmts_free(vnl_sqlite_conn *conn)
{
    vnl_sqlite_stmt *cached = conn->newest, *loose = conn->loose;

    conn->newest = conn->oldest = conn->loose = NULL;
    memset(conn->buckets, 0, sizeof(conn->buckets));
    conn->cached = 0;
    free_all(cached);
    free_all(loose);
}
