/* Where a placeholder may be a parameter, and that any text is read in bounds. */
#include "driver/postgres/pg.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The kinds of a statement's holes: L literal, T typed values only, A any value. */
static const char *
kinds(const char *text)
{
    static char shown[64];
    static char error[120];
    vnl_sql *sql = vnl_sql_read(text, strlen(text), 1, error);
    int n = 0;

    if (sql == NULL) {
        return error;
    }
    for (; n < sql->nholes && n < 63; n++) {
        shown[n] = "LTA"[sql->holes[n].kind];
    }
    shown[n] = 0;
    vnl_sql_free(sql);
    return shown;
}

static int
flags(const char *text)
{
    char error[120];
    vnl_sql *sql = vnl_sql_read(text, strlen(text), 1, error);
    int found = sql != NULL ? sql->flags : -1;

    vnl_sql_free(sql);
    return found;
}

#define KINDS(sql, wanted) CHECK(strcmp(kinds(sql), wanted) == 0)

static void
test_contexts(void)
{
    KINDS("SELECT 1 FROM t WHERE \"t\".\"a\" = %s", "A");
    KINDS("SELECT 1 FROM t WHERE (\"t\".\"a\" = %s AND \"b\" >= %s)", "AA");
    KINDS("SELECT 1 FROM t WHERE \"a\" = %s || 'x'", "T");
    KINDS("SELECT 1 FROM t WHERE a = %s", "T");
    KINDS("SELECT 1 FROM t WHERE \"a\" IN (%s, %s) AND \"b\" IN (%s)", "AAA");
    KINDS("SELECT 1 FROM t WHERE \"a\" IN (SELECT %s)", "T");
    KINDS("SELECT 1 FROM t WHERE \"a\"::text LIKE %s", "A");
    KINDS("SELECT 1 FROM t WHERE \"a\" LIKE %s", "T");
    KINDS("SELECT %s, %s::int, (%s)::numeric(8, 2), (%s)", "TAAT");
    KINDS("SELECT JSONB_BUILD_OBJECT(%s, \"a\"), f(%s)", "TT");
    KINDS("INSERT INTO t (a, b) VALUES (%s, %s), (%s, f(%s)) RETURNING %s", "AAATT");
    KINDS("INSERT INTO t (a) SELECT %s", "T");
    KINDS("INSERT INTO t (a) VALUES (%s) ON CONFLICT (a) WHERE b = %s DO NOTHING", "AL");
    KINDS("UPDATE \"t\" SET \"a\" = %s, \"b\" = CASE WHEN \"c\" = %s THEN %s END", "AAT");
    KINDS("SELECT \"a\" = %s, COUNT(*) FROM t GROUP BY \"a\" = %s", "TT");
    KINDS("SELECT DISTINCT %s", "T");
    KINDS("CREATE TABLE t (a int DEFAULT %s)", "L");
    KINDS("SELECT %s; SELECT %s", "LL");
    KINDS("SELECT '%s', \"%s\", $$%s$$, $a$ %s $b$ $a$, E'\\'%s', %s -- %s\n, /* %s /* %s */ */ %s",
          "LLLLLTLLLT");
    KINDS("select %(a)s, %(b)s", "TT");
    KINDS("(SELECT %s) UNION (SELECT %s)", "TT");
    KINDS("/* hint */ WITH x AS (SELECT %s) SELECT 1", "T");
}

static void
test_text(void)
{
    char error[120];
    vnl_sql *sql = vnl_sql_read("a %% %s '%%' %s!", 16, 1, error);

    CHECK(sql != NULL && strcmp(sql->text, "a %  '%' !") == 0);
    CHECK(sql != NULL && sql->nholes == 2 && sql->holes[0].at == 4 && sql->holes[1].at == 9);
    vnl_sql_free(sql);
    sql = vnl_sql_read("a %% %s", 7, 0, error);
    CHECK(sql != NULL && strcmp(sql->text, "a %% %s") == 0 && sql->nholes == 0);
    vnl_sql_free(sql);
    CHECK(strstr(kinds("SELECT %d"), "got '%d'") != NULL);
    CHECK(strstr(kinds("SELECT %"), "placeholders") != NULL);
    CHECK(strstr(kinds("SELECT %(a"), "incomplete") != NULL);
    CHECK(strstr(kinds("SELECT %(a)"), "incomplete") != NULL);
    CHECK(strstr(kinds("SELECT %s %(a)s"), "mixed") != NULL);
}

static void
test_flags(void)
{
    CHECK(flags("SELECT 1; ") == (VNL_SQL_DML | VNL_SQL_ROWS));
    CHECK(flags("UPDATE t SET a = 1") == (VNL_SQL_DML | VNL_SQL_WRITES));
    CHECK(flags("DELETE FROM t RETURNING a") == (VNL_SQL_DML | VNL_SQL_WRITES | VNL_SQL_ROWS));
    CHECK(flags("SELECT 1; SELECT 2") & VNL_SQL_MULTI);
    CHECK(!(flags("SELECT ';'; -- ; x\n") & VNL_SQL_MULTI));
    CHECK(flags("copy t from stdin") & VNL_SQL_COPY);
    CHECK(flags("SET search_path = x") & VNL_SQL_PINS);
    CHECK(!(flags("SET LOCAL search_path = x") & VNL_SQL_PINS));
    CHECK(!(flags("SET CONSTRAINTS ALL IMMEDIATE") & VNL_SQL_PINS));
    CHECK(flags("LISTEN x") & VNL_SQL_PINS);
    CHECK(flags("SELECT pg_advisory_lock(1)") & VNL_SQL_PINS);
    CHECK(!(flags("SELECT pg_advisory_xact_lock(1)") & VNL_SQL_PINS));
    CHECK(flags("CREATE TEMP TABLE t ()") & VNL_SQL_PINS);
    CHECK(flags("ALTER TABLE t ADD a int") & VNL_SQL_DDL);
    CHECK(flags("DISCARD ALL") & VNL_SQL_DEALLOC);
    CHECK(flags("SELECT %(a)s") & VNL_SQL_NAMED);
    CHECK(flags("SELECT a FROM t ORDER BY a LIMIT 3 FOR UPDATE OF t SKIP LOCKED") & VNL_SQL_LOCKS);
    CHECK(flags("SELECT a FROM t for no key update") & VNL_SQL_LOCKS);
    CHECK(flags("SELECT (SELECT 1 FROM t FOR KEY SHARE)") & VNL_SQL_LOCKS);
    CHECK(flags("SELECT substring(a FOR 3), update FROM t") == (VNL_SQL_DML | VNL_SQL_ROWS));
    CHECK(flags("SELECT 'FOR UPDATE', \"for update\" FROM t") == (VNL_SQL_DML | VNL_SQL_ROWS));
    CHECK(flags("SELECT update FROM share") == (VNL_SQL_DML | VNL_SQL_ROWS));
}

/* Every beginning of a text with everything in it, and random ones: in bounds
 * (under ASan), and the text never longer than what was read. */
static void
test_bounds(void)
{
    static const char all[] =
        "SELECT \"a\" IN (%s,%(b)s), E'\\'%s''', $t$ $ $t$ /* /* */ -- x\n */ ::text LIKE %% ;%s";
    static const char alphabet[] = "%s()'\"$a;:-/*\\\n E=,";
    char error[120];
    unsigned seed = 1;

    for (size_t len = 0; len < sizeof(all); len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, all, len);
        vnl_sql_free(vnl_sql_read(copy, len, 1, error));
        vnl_sql_free(vnl_sql_read(copy, len, 0, error));
        free(copy);
    }
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)(seed >> 16) % 24;
        char *copy = malloc(len > 0 ? len : 1);
        for (size_t i = 0; i < len; i++) {
            seed = seed * 1103515245u + 12345u;
            copy[i] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        seed = seed * 1103515245u + 12345u;
        vnl_sql *sql = vnl_sql_read(copy, len, 1, error);
        CHECK(sql == NULL ? error[0] != 0 : sql->len <= len && strlen(sql->text) == sql->len);
        vnl_sql_free(sql);
        free(copy);
    }
}

int
main(void)
{
    test_contexts();
    test_text();
    test_flags();
    test_bounds();
    return checked();
}
