/* Which statements may give a bytea.
 *
 * As text a bytea is twice its size, and libpq has a result twice: what is large
 * has to come in binary the first time too, when the types of a statement's
 * columns are not known yet.  So such a statement is described before it runs.
 * That is one more round trip; to spare all others, the names by which a bytea
 * can be had are read from the server's catalogues, once, and only a statement
 * that has one of them in its text is described.  What is decided wrongly costs a
 * round trip or memory, never an answer.
 */
#include "pg.h"
#include "sql_scan.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Columns and functions ('c') and what has such columns ('r'), those of the toast
 * tables, indexes and catalogues apart.  A function that also takes a bytea is not
 * asked for: its argument has a name of its own.  17 is bytea, 1001 its array. */
const char *const vnl_pg_names_sql =
    "WITH b AS (SELECT oid FROM pg_catalog.pg_type WHERE oid IN (17, 1001) OR typbasetype IN (17, 1001)),"
    " a AS (SELECT attname, relname FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c ON c.oid = "
    "attrelid"
    " WHERE attrelid >= 16384 AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v', 'm', 'f', 'p')"
    " AND atttypid IN (SELECT oid FROM b))"
    " SELECT 'c', attname FROM a UNION SELECT 'r', relname FROM a UNION"
    " SELECT 'c', proname FROM pg_catalog.pg_proc WHERE (prorettype IN (SELECT oid FROM b)"
    " OR proallargtypes && ARRAY(SELECT oid FROM b)) AND NOT proargtypes::oid[] && ARRAY(SELECT oid FROM b)";

typedef struct name {
    char *word; /* the first word of the name, lower case */
    char kind;
} name;

struct vnl_pg_names {
    name *list;
    size_t count;
};

static char
lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

/* The next word at or behind *pos; its length, 0 when there is none. */
static size_t
next_word(const char *text, size_t len, size_t *pos)
{
    while (*pos < len && !vnl_sql_is_ident((unsigned char)text[*pos])) {
        (*pos)++;
    }
    size_t end = *pos;
    while (end < len && vnl_sql_is_ident((unsigned char)text[end])) {
        end++;
    }
    return end - *pos;
}

static int
by_word(const void *a, const void *b)
{
    return strcmp(((const name *)a)->word, ((const name *)b)->word);
}

static int
add_name(vnl_pg_names *names, char kind, const char *text)
{
    size_t pos = 0, len = next_word(text, strlen(text), &pos);
    if (len == 0) {
        return 0; /* a name of signs only; not met in practice */
    }
    char *word = malloc(len + 1);
    if (word == NULL) {
        return -1;
    }
    for (size_t i = 0; i < len; i++) {
        word[i] = lower(text[pos + i]);
    }
    word[len] = 0;
    names->list[names->count++] = (name){word, kind};
    return 0;
}

vnl_pg_names *
vnl_pg_names_new(int n, const char *(*get)(const void *, int, int), const void *from)
{
    vnl_pg_names *names = calloc(1, sizeof(*names));
    if (names == NULL || (names->list = calloc((size_t)n + 1, sizeof(*names->list))) == NULL) {
        free(names);
        return NULL;
    }
    int rc = add_name(names, 'c', "bytea");
    for (int i = 0; i < n && rc == 0; i++) {
        rc = add_name(names, get(from, i, 0)[0], get(from, i, 1));
    }
    if (rc < 0) {
        vnl_pg_names_free(names);
        return NULL;
    }
    qsort(names->list, names->count, sizeof(*names->list), by_word);
    return names;
}

void
vnl_pg_names_free(vnl_pg_names *names)
{
    if (names != NULL) {
        for (size_t i = 0; i < names->count; i++) {
            free(names->list[i].word);
        }
        free(names->list);
        free(names);
    }
}

/* Of which kinds the word is: 1 a column or function, 2 a relation. */
static int
kinds_of(const vnl_pg_names *names, const char *word, size_t len)
{
    size_t low = 0, high = names->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncasecmp(names->list[middle].word, word, len);
        if (order < 0) {
            low = middle + 1;
        }
        else {
            high = middle; /* the first that begins with the word */
        }
    }
    int kinds = 0;
    for (; low < names->count && strncasecmp(names->list[low].word, word, len) == 0; low++) {
        if (names->list[low].word[len] != 0) {
            break; /* sorted: the word itself comes before what is longer */
        }
        kinds |= names->list[low].kind == 'c' ? 1 : 2;
    }
    return kinds;
}

/* Whether a `*` stands in the text that is not count(*)'s. */
static int
has_star(const char *text, size_t len)
{
    const char *end = text + len;
    for (const char *at = text; (at = memchr(at, '*', (size_t)(end - at))) != NULL; at++) {
        if (at == text || at[-1] != '(') {
            return 1;
        }
    }
    return 0;
}

/* Where the list of an INSERT's, UPDATE's … RETURNING begins, or NULL. */
static const char *
returning_of(const char *text, size_t len)
{
    static const char word[] = "returning";
    for (size_t at = len; at >= sizeof(word) - 1; at--) {
        const char *start = text + at - (sizeof(word) - 1);
        if (strncasecmp(start, word, sizeof(word) - 1) == 0) {
            return text + at;
        }
    }
    return NULL;
}

int
vnl_pg_may_bytes(const vnl_pg_names *names, const char *text, size_t len, int flags)
{
    if (!(flags & VNL_SQL_ROWS)) {
        return 0;
    }
    int star = 0;
    if (flags & VNL_SQL_WRITES) {
        const char *list = returning_of(text, len);
        if (list == NULL) {
            return 0;
        }
        len -= (size_t)(list - text);
        text = list;
        if (has_star(text, len)) {
            return 1;
        }
    }
    else {
        star = has_star(text, len);
    }
    size_t pos = 0, n = 0;
    while ((n = next_word(text, len, &pos)) > 0) {
        int kinds = kinds_of(names, text + pos, n);
        if ((kinds & 1) || ((kinds & 2) && star)) {
            return 1;
        }
        pos += n;
    }
    return 0;
}

int
vnl_pg_names_touched(const vnl_pg_names *names, const char *text, size_t len)
{
    size_t pos = 0, n = 0;
    while ((n = next_word(text, len, &pos)) > 0) {
        if (kinds_of(names, text + pos, n)) {
            return 1;
        }
        pos += n;
    }
    return 0;
}
