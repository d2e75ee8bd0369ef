/* Reads a statement once: where its placeholders are, and how each may be bound.
 *
 * Django's SQL is written for literals, and a parameter is not a literal: an
 * untyped one has no type where a literal would be text, two equal ones are
 * not one expression, and utility statements take none.  So a placeholder
 * becomes a parameter only in a context where PostgreSQL resolves both alike:
 * text and NULL next to a column in a comparison, in its IN list, in INSERT's
 * VALUES, or under a cast; values with a type of their own in any DML.
 * Everything else is interpolated.
 *
 * The lexical rules are those of PostgreSQL's scan.l with
 * standard_conforming_strings on.
 */
#include "pg.h"
#include "sql_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    TOK_NONE,
    TOK_WORD,
    TOK_QUOTED, /* "identifier" */
    TOK_COMPARE,
    TOK_OTHER,
    TOK_LPAR,
    TOK_RPAR,
    TOK_COMMA,
    TOK_CAST,
    TOK_HOLE,
    TOK_SEMI,
} token;

typedef struct reader {
    const char *in;
    size_t len, pos;
    int placeholders;
    vnl_sql *sql;
    size_t text_cap, hole_cap;
    size_t names_len;
    char *error;

    token prev[3]; /* prev[0] is the last token */
    char word[24]; /* the last word, lower case; "" when too long */
    char first[24], second[24];
    int words;
    int for_at; /* which of them the last FOR was */
    int depth;
    int insert_values; /* in the VALUES of an INSERT */
    int in_list_depth; /* depth of a column's IN list, 0: none */
    int after_conflict;
    int pending;    /* a hole that waits for the next token, -1: none */
    int pending_ok; /* it is safe when the next token ends the expression */
    int wrapped;    /* a hole alone in parentheses that waits for a cast, -1: none */
    int positional, named;
} reader;

static int
put(reader *r, const char *data, size_t len)
{
    vnl_sql *sql = r->sql;
    if (sql->len + len + 1 > r->text_cap) {
        size_t cap = (sql->len + len + 1) * 2;
        char *text = realloc(sql->text, cap);
        if (text == NULL) {
            return -1;
        }
        sql->text = text;
        r->text_cap = cap;
    }
    memcpy(sql->text + sql->len, data, len);
    sql->len += len;
    return 0;
}

static int
is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int
is_operator(unsigned char c)
{
    return c != 0 && strchr("+-*/<>=~!@#%^&|`?", c) != NULL;
}

static int
one_of(const char *word, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strcmp(word, *list) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A word that ends the expression before it. */
static int
ends_expression(const char *word)
{
    static const char *const enders[] = {"and",   "or",     "where", "order",     "group",     "having",
                                         "limit", "offset", "fetch", "from",      "returning", "then",
                                         "else",  "end",    "union", "intersect", "except",    "for",
                                         "on",    "when",   NULL};
    return one_of(word, enders);
}

/* Settles what waited for the token that comes now. */
static void
settle(reader *r, token tok)
{
    if (r->wrapped >= 0) {
        if (tok == TOK_CAST) {
            r->sql->holes[r->wrapped].kind = VNL_HOLE_ANY;
        }
        r->wrapped = -1;
    }
    if (r->pending < 0) {
        return;
    }
    int ends = tok == TOK_RPAR || tok == TOK_COMMA || tok == TOK_SEMI || tok == TOK_NONE ||
               (tok == TOK_WORD && ends_expression(r->word));
    if (tok == TOK_CAST || (ends && r->pending_ok)) {
        r->sql->holes[r->pending].kind = VNL_HOLE_ANY;
    }
    else if (tok == TOK_RPAR && r->prev[1] == TOK_LPAR) {
        r->wrapped = r->pending;
    }
    r->pending = -1;
}

static void
first_words(reader *r)
{
    if (r->words == 0) {
        memcpy(r->first, r->word, sizeof(r->first));
    }
    else if (r->words == 1) {
        memcpy(r->second, r->word, sizeof(r->second));
    }
    r->words++;
}

static void
see_word(reader *r)
{
    static const char *const locks[] = {"update", "no", "share", "key", NULL};
    first_words(r);
    const char *w = r->word;
    if (strcmp(w, "for") == 0) {
        r->for_at = r->words;
    }
    else if (r->prev[0] == TOK_WORD && r->words == r->for_at + 1 && one_of(w, locks)) {
        r->sql->flags |= VNL_SQL_LOCKS;
    }
    if (strcmp(w, "group") == 0 || strcmp(w, "distinct") == 0) {
        r->sql->flags |= VNL_SQL_SHARE;
    }
    else if (strcmp(w, "values") == 0) {
        r->insert_values = r->depth == 0 && strcmp(r->first, "insert") == 0;
    }
    else if (strcmp(w, "pg_cursors") == 0 || strcmp(w, "pg_prepared_statements") == 0) {
        r->sql->flags |= VNL_SQL_SIMPLE;
    }
    else if (strcmp(w, "conflict") == 0) {
        r->after_conflict = 1;
    }
    else if (strcmp(w, "pg_advisory_lock") == 0 || strcmp(w, "pg_advisory_lock_shared") == 0 ||
             strcmp(w, "set_config") == 0 || strcmp(w, "pg_try_advisory_lock") == 0 ||
             strcmp(w, "pg_try_advisory_lock_shared") == 0 || strcmp(w, "temporary") == 0 ||
             strcmp(w, "temp") == 0) {
        r->sql->flags |= VNL_SQL_PINS;
    }
    else if (strcmp(w, "returning") == 0) {
        r->sql->flags |= VNL_SQL_ROWS;
    }
    if (r->depth == 0 && (strcmp(w, "returning") == 0 || strcmp(w, "on") == 0 || strcmp(w, "select") == 0)) {
        r->insert_values = 0;
    }
}

static void
push(reader *r, token tok)
{
    settle(r, tok);
    if (tok != TOK_SEMI && tok != TOK_NONE && r->prev[0] == TOK_SEMI) {
        r->sql->flags |= VNL_SQL_MULTI;
    }
    if (tok == TOK_WORD) {
        see_word(r);
    }
    else if (tok == TOK_LPAR) {
        r->depth++;
        if (r->prev[0] == TOK_WORD && strcmp(r->word, "in") == 0 && r->prev[1] == TOK_QUOTED) {
            r->in_list_depth = r->depth;
        }
    }
    else if (tok == TOK_RPAR) {
        if (r->in_list_depth == r->depth) {
            r->in_list_depth = 0;
        }
        r->depth--;
    }
    r->prev[2] = r->prev[1];
    r->prev[1] = r->prev[0];
    r->prev[0] = tok;
}

static int
add_hole(reader *r, const char *name, size_t namelen, int kind)
{
    vnl_sql *sql = r->sql;
    if ((size_t)sql->nholes == r->hole_cap) {
        size_t cap = r->hole_cap ? r->hole_cap * 2 : 8;
        vnl_hole *holes = realloc(sql->holes, cap * sizeof(*holes));
        if (holes == NULL) {
            return -1;
        }
        sql->holes = holes;
        r->hole_cap = cap;
    }
    if (namelen > 0) {
        char *names = realloc(sql->names, r->names_len + namelen);
        if (names == NULL) {
            return -1;
        }
        memcpy(names + r->names_len, name, namelen);
        sql->names = names;
    }
    sql->holes[sql->nholes++] =
        (vnl_hole){(uint32_t)sql->len, (uint32_t)r->names_len, (uint32_t)namelen, (uint8_t)kind};
    r->names_len += namelen;
    return 0;
}

/* The context before a hole in plain SQL text. */
static void
place_hole(reader *r)
{
    token before = r->prev[0], before2 = r->prev[1];
    int list = before == TOK_LPAR || before == TOK_COMMA;
    r->pending_ok = (before == TOK_COMPARE && before2 == TOK_QUOTED) ||
                    (before == TOK_WORD && before2 == TOK_WORD && strcmp(r->word, "like-text") == 0) ||
                    (list && r->in_list_depth > 0 && r->in_list_depth == r->depth) ||
                    (list && r->insert_values && r->depth == 1);
    push(r, TOK_HOLE);
    r->pending = r->sql->nholes - 1;
}

/* At a '%': a hole, "%%", or a fault.  `quoted`: inside a string or comment. */
static int
read_percent(reader *r, int quoted)
{
    const char *p = r->in + r->pos;
    size_t left = r->len - r->pos;
    if (left >= 2 && p[1] == '%') {
        r->pos += 2;
        return put(r, "%", 1);
    }
    const char *name = NULL;
    size_t namelen = 0, used = 2;
    if (left >= 2 && p[1] == '(') {
        const char *end = memchr(p, ')', left);
        if (end == NULL || (size_t)(end - p) + 1 >= left) {
            snprintf(r->error, 120, "incomplete placeholder: '%.*s'; use '%%%%' for a per cent sign",
                     (int)(left < 40 ? left : 40), p);
            return -2;
        }
        name = p + 2;
        namelen = (size_t)(end - name);
        used = namelen + 4;
        r->named = 1;
    }
    else {
        r->positional = 1;
    }
    char kind = left >= used ? p[used - 1] : 0;
    if (kind != 's' && kind != 't' && kind != 'b') {
        snprintf(r->error, 120,
                 "only '%%s', '%%b', '%%t' are allowed as placeholders, got '%%%c'; use '%%%%' for a per "
                 "cent sign",
                 kind >= 32 && kind < 127 ? kind : '?');
        return -2;
    }
    if (r->positional && r->named) {
        snprintf(r->error, 120, "positional and named placeholders cannot be mixed");
        return -2;
    }
    if (add_hole(r, name, namelen, quoted || r->after_conflict ? VNL_HOLE_LITERAL : VNL_HOLE_TYPED) < 0) {
        return -1;
    }
    if (!quoted && !r->after_conflict) {
        place_hole(r);
    }
    else if (!quoted) {
        push(r, TOK_OTHER);
    }
    r->pos += used;
    return 0;
}

/* Copies up to `end`, with the holes in between (quoted text). */
static int
copy_quoted(reader *r, size_t end)
{
    while (r->pos < end) {
        const char *p = r->in + r->pos;
        const char *percent = r->placeholders ? memchr(p, '%', end - r->pos) : NULL;
        size_t run = percent != NULL ? (size_t)(percent - p) : end - r->pos;
        if (put(r, p, run) < 0) {
            return -1;
        }
        r->pos += run;
        if (percent != NULL) {
            int rc = read_percent(r, 1);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

static int
read_word(reader *r)
{
    size_t start = r->pos, end = start;
    while (end < r->len && vnl_sql_is_ident((unsigned char)r->in[end])) {
        end++;
    }
    size_t len = end - start;
    if (len == 1 && end < r->len && r->in[end] == '\'' && strchr("eEbBxXnN", r->in[start]) != NULL) {
        int escapes = r->in[start] == 'e' || r->in[start] == 'E';
        push(r, TOK_OTHER);
        return copy_quoted(r, vnl_sql_end_of_string(r->in, r->len, end, '\'', escapes));
    }
    char old[24];
    memcpy(old, r->word, sizeof(old));
    r->word[0] = 0;
    if (len < sizeof(r->word)) {
        for (size_t i = 0; i < len; i++) {
            char c = r->in[start + i];
            r->word[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
        r->word[len] = 0;
    }
    /* `"col"::text LIKE %s`, the only cast that LIKE is safe after. */
    int like_text = r->prev[0] == TOK_WORD && r->prev[1] == TOK_CAST && strcmp(old, "text") == 0 &&
                    strcmp(r->word, "like") == 0;
    push(r, TOK_WORD);
    if (like_text) {
        memcpy(r->word, "like-text", 10);
    }
    r->pos = end;
    return put(r, r->in + start, len);
}

static int
read_operator(reader *r)
{
    const char *p = r->in + r->pos;
    size_t n = 0;
    while (r->pos + n < r->len && is_operator((unsigned char)p[n]) && !(p[n] == '%' && r->placeholders)) {
        if (n > 0 && r->pos + n + 1 < r->len &&
            ((p[n] == '-' && p[n + 1] == '-') || (p[n] == '/' && p[n + 1] == '*'))) {
            break;
        }
        n++;
    }
    int compare = (n == 1 && strchr("=<>", p[0]) != NULL) ||
                  (n == 2 && (memcmp(p, "<>", 2) == 0 || memcmp(p, "!=", 2) == 0 || memcmp(p, "<=", 2) == 0 ||
                              memcmp(p, ">=", 2) == 0));
    push(r, compare ? TOK_COMPARE : TOK_OTHER);
    r->pos += n;
    return put(r, p, n);
}

static int
read_single(reader *r, char c)
{
    token tok = TOK_OTHER;
    size_t n = 1;
    if (c == '(') {
        tok = TOK_LPAR;
    }
    else if (c == ')') {
        tok = TOK_RPAR;
    }
    else if (c == ',') {
        tok = TOK_COMMA;
    }
    else if (c == ';' && r->depth == 0) {
        tok = TOK_SEMI;
    }
    else if (c == ':' && r->pos + 1 < r->len && r->in[r->pos + 1] == ':') {
        tok = TOK_CAST;
        n = 2;
    }
    push(r, tok);
    r->pos += n;
    return put(r, r->in + r->pos - n, n);
}

static int
read_token(reader *r)
{
    unsigned char c = (unsigned char)r->in[r->pos];
    unsigned char next = r->pos + 1 < r->len ? (unsigned char)r->in[r->pos + 1] : 0;
    if (is_space(c)) {
        r->pos++;
        return put(r, (const char *)&c, 1);
    }
    if (c == '%' && r->placeholders) {
        if (next == '%') {
            push(r, TOK_OTHER);
        }
        return read_percent(r, 0);
    }
    if (c == '\'') {
        push(r, TOK_OTHER);
        return copy_quoted(r, vnl_sql_end_of_string(r->in, r->len, r->pos, '\'', 0));
    }
    if (c == '"') {
        push(r, TOK_QUOTED);
        return copy_quoted(r, vnl_sql_end_of_string(r->in, r->len, r->pos, '"', 0));
    }
    if (c == '-' && next == '-') {
        const char *end = memchr(r->in + r->pos, '\n', r->len - r->pos);
        return copy_quoted(r, end != NULL ? (size_t)(end - r->in) : r->len);
    }
    if (c == '/' && next == '*') {
        return copy_quoted(r, vnl_sql_end_of_comment(r->in, r->len, r->pos));
    }
    if (c == '$') {
        size_t end = vnl_sql_end_of_dollar(r->in, r->len, r->pos);
        if (end > r->pos) {
            push(r, TOK_OTHER);
            return copy_quoted(r, end);
        }
    }
    if (vnl_sql_is_ident_start(c)) {
        return read_word(r);
    }
    if (c >= '0' && c <= '9') {
        size_t end = r->pos;
        while (end < r->len && (vnl_sql_is_ident((unsigned char)r->in[end]) || r->in[end] == '.')) {
            end++;
        }
        push(r, TOK_OTHER);
        size_t start = r->pos;
        r->pos = end;
        return put(r, r->in + start, end - start);
    }
    if (is_operator(c)) {
        return read_operator(r);
    }
    return read_single(r, (char)c);
}

static void
classify(reader *r)
{
    static const char *const dml[] = {"select", "insert", "update", "delete",
                                      "with",   "values", "merge",  NULL};
    static const char *const writes[] = {"insert", "update", "delete", "merge", NULL};
    static const char *const ddl[] = {"create", "alter", "drop", "truncate", "comment",
                                      "import", "do",    "call", NULL};
    static const char *const state[] = {"listen", "unlisten", "prepare", "load", NULL};
    static const char *const dealloc[] = {"deallocate", "discard", NULL};
    static const char *const local[] = {"local", "transaction", "constraints", NULL};
    vnl_sql *sql = r->sql;
    if (one_of(r->first, dml)) {
        sql->flags |= VNL_SQL_DML | (one_of(r->first, writes) ? VNL_SQL_WRITES : VNL_SQL_ROWS);
    }
    else if (one_of(r->first, ddl)) {
        sql->flags |= VNL_SQL_DDL;
    }
    else if (strcmp(r->first, "copy") == 0) {
        sql->flags |= VNL_SQL_COPY;
    }
    else if (one_of(r->first, state)) {
        sql->flags |= VNL_SQL_PINS;
    }
    else if (one_of(r->first, dealloc)) {
        sql->flags |= VNL_SQL_DEALLOC;
    }
    else if ((strcmp(r->first, "set") == 0 || strcmp(r->first, "reset") == 0) && !one_of(r->second, local)) {
        sql->flags |= VNL_SQL_PINS;
    }
    if (sql->flags & VNL_SQL_MULTI) {
        /* Only the first statement was classified: expect anything. */
        sql->flags |= VNL_SQL_DDL | VNL_SQL_DEALLOC;
    }
    int bind = (sql->flags & VNL_SQL_DML) && !(sql->flags & VNL_SQL_MULTI);
    for (int i = 0; i < sql->nholes; i++) {
        vnl_hole *hole = &sql->holes[i];
        if (!bind) {
            hole->kind = VNL_HOLE_LITERAL;
        }
        else if ((sql->flags & VNL_SQL_SHARE) && hole->kind == VNL_HOLE_ANY) {
            hole->kind = VNL_HOLE_TYPED;
        }
    }
    if (r->named) {
        sql->flags |= VNL_SQL_NAMED;
    }
}

void
vnl_sql_free(vnl_sql *sql)
{
    if (sql != NULL) {
        free(sql->text);
        free(sql->names);
        free(sql->holes);
        free(sql);
    }
}

vnl_sql *
vnl_sql_read(const char *text, size_t len, int placeholders, char *error)
{
    error[0] = 0;
    reader r = {
        .in = text, .len = len, .placeholders = placeholders, .error = error, .pending = -1, .wrapped = -1};
    if (len >= UINT32_MAX) {
        snprintf(error, 120, "the statement is longer than 4 GiB");
        return NULL;
    }
    r.sql = calloc(1, sizeof(*r.sql));
    r.text_cap = len + 1;
    if (r.sql == NULL || (r.sql->text = malloc(r.text_cap)) == NULL) {
        goto fail;
    }
    while (r.pos < len) {
        if (read_token(&r) < 0) {
            goto fail;
        }
    }
    push(&r, TOK_NONE);
    if (put(&r, "", 0) < 0) {
        goto fail;
    }
    r.sql->text[r.sql->len] = 0;
    classify(&r);
    return r.sql;

fail:
    vnl_sql_free(r.sql);
    return NULL;
}
