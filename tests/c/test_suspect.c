/* Which statements are described before they run. */
#include "driver/postgres/pg.h"

#include <string.h>

#include "check.h"

static const char *const known[][2] = {
    {"c", "data"},  {"c", "Pay load"},   {"c", "decode"}, {"c", "database_copy"},
    {"r", "files"}, {"r", "data_files"}, {"c", "=="},
};

static const char *
cell(const void *from, int row, int column)
{
    const char *const(*rows)[2] = from;
    return rows[row][column];
}

static vnl_pg_names *
names_new(void)
{
    return vnl_pg_names_new((int)(sizeof(known) / sizeof(known[0])), cell, known);
}

static void
test_reads(void)
{
    vnl_pg_names *names = names_new();
    int flags = VNL_SQL_DML | VNL_SQL_ROWS;

#define READS(sql) vnl_pg_may_bytes(names, sql, strlen(sql), flags)
    CHECK(READS("SELECT \"t\".\"data\" FROM \"t\""));
    CHECK(READS("SELECT DATA FROM t"));
    CHECK(READS("SELECT \"Pay load\" FROM t"));
    CHECK(READS("SELECT x::bytea"));
    CHECK(READS("SELECT decode('00', 'hex')"));
    CHECK(READS("SELECT * FROM files"));
    CHECK(READS("SELECT f.* FROM x JOIN \"Files\" f ON true"));
    CHECK(READS("data"));
    CHECK(!READS("SELECT id FROM files"));
    CHECK(!READS("SELECT COUNT(*) FROM files"));
    CHECK(!READS("SELECT * FROM others"));
    CHECK(!READS("SELECT dat, data1, _data, database, d FROM t"));
    CHECK(!READS(""));
    CHECK(!vnl_pg_may_bytes(names, "SELECT data", 11, VNL_SQL_DML));
    CHECK(!vnl_pg_may_bytes(names, "SELECT database", 10, flags));
    vnl_pg_names_free(names);
}

static void
test_writes(void)
{
    vnl_pg_names *names = names_new();
    int flags = VNL_SQL_DML | VNL_SQL_ROWS | VNL_SQL_WRITES;

#define WRITES(sql) vnl_pg_may_bytes(names, sql, strlen(sql), flags)
    CHECK(WRITES("UPDATE t SET a = 1 RETURNING data"));
    CHECK(WRITES("UPDATE t SET a = 1 returning *"));
    CHECK(!WRITES("INSERT INTO t (data) VALUES ($1) RETURNING id"));
    CHECK(!WRITES("INSERT INTO t (data) VALUES ($1) RETURNING"));
    CHECK(!WRITES("INSERT INTO t (data) VALUES ($1)"));
    CHECK(!WRITES("RETURN"));
    vnl_pg_names_free(names);
}

static void
test_touched(void)
{
    vnl_pg_names *names = names_new();

#define TOUCHED(sql) vnl_pg_names_touched(names, sql, strlen(sql))
    CHECK(TOUCHED("CREATE TABLE t (a BYTEA)"));
    CHECK(TOUCHED("ALTER TABLE files RENAME TO folders"));
    CHECK(TOUCHED("ALTER TABLE t RENAME COLUMN data TO load"));
    CHECK(!TOUCHED("CREATE TABLE t (a int)"));
    vnl_pg_names_free(names);
    vnl_pg_names_free(NULL);
    names = vnl_pg_names_new(0, cell, known);
    CHECK(TOUCHED("bytea") && !TOUCHED("data"));
    vnl_pg_names_free(names);
}

int
main(void)
{
    test_reads();
    test_writes();
    test_touched();
    return checked();
}
