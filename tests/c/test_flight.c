/* Statements that travel together: what is sent, whose error is whose, what an end from outside leaves. */
#include "driver/postgres/pg.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "scripted_server.h"

#define SECOND 1000000000LL

/* --- a core that polls ---------------------------------------------------- */

struct vnl_watch {
    int fd;
};

static int counted;
static int waits_left = -1; /* the wait after so many is ended from outside */

static int64_t
core_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static vnl_watch *
core_watch_new(int fd, int lasting)
{
    vnl_watch *watch = malloc(sizeof(*watch));
    watch->fd = fd;
    return watch;
}

static void
core_watch_free(vnl_watch *watch)
{
    free(watch);
}

static int
core_watch_wait(vnl_watch *watch, int events, int64_t deadline)
{
    struct pollfd look = {.fd = watch->fd};
    if (waits_left == 0) {
        return -1;
    }
    waits_left -= waits_left > 0;
    look.events = (short)((events & VNL_READ ? POLLIN : 0) | (events & VNL_WRITE ? POLLOUT : 0));
    int64_t left = deadline - core_now();
    int ms = deadline == VNL_FOREVER ? 20000 : left > 0 ? (int)(left / 1000000) + 1 : 0;
    if (poll(&look, 1, ms) <= 0) {
        return 0;
    }
    return (look.revents & (POLLIN | POLLHUP | POLLERR) ? VNL_READ : 0) |
           (look.revents & POLLOUT ? VNL_WRITE : 0);
}

static void
core_count_statement(void)
{
    counted++;
}

static void
core_count_flight(int statements)
{
    CHECK(statements > 1);
}

static const vnl_core_api core = {
    .now = core_now,
    .watch_new = core_watch_new,
    .watch_free = core_watch_free,
    .watch_wait = core_watch_wait,
    .count_statement = core_count_statement,
    .count_flight = core_count_flight,
};

/* --- what the tests say ----------------------------------------------------- */

static vnl_pg_conn *
connect_to(scripted_server *server)
{
    const char *const keywords[] = {"host", "port", "user", "dbname", "sslmode", "gssencmode", NULL};
    const char *const values[] = {server->dir, SERVER_PORT, "u", "d", "disable", "disable", NULL};
    vnl_pg_conn *conn = NULL;
    char *message = NULL;
    CHECK(vnl_pg_connect_wait(keywords, values, VNL_FOREVER, &conn, &message) == VNL_PG_OK);
    if (conn == NULL) {
        fprintf(stderr, "%s\n", message != NULL ? message : "");
        abort();
    }
    counted = 0;
    waits_left = -1;
    return conn;
}

static vnl_pg_leg *
legs_of(int n, const char *const *sql)
{
    vnl_pg_leg *legs = calloc((size_t)n, sizeof(*legs));
    for (int i = 0; i < n; i++) {
        legs[i].query.sql = sql[i];
    }
    return legs;
}

static void
legs_free(vnl_pg_leg *legs, int n)
{
    for (int i = 0; i < n; i++) {
        PQclear(legs[i].answer.result);
    }
    free(legs);
}

static int
has_tag(const vnl_pg_leg *leg, const char *tag)
{
    return leg->status == VNL_PG_OK && strcmp(PQcmdStatus(leg->answer.result), tag) == 0;
}

static int
has_state(const vnl_pg_leg *leg, const char *state)
{
    const char *had = PQresultErrorField(leg->answer.result, PG_DIAG_SQLSTATE);
    return leg->status == VNL_PG_SERVER && had != NULL && strcmp(had, state) == 0;
}

/* Closes, and compares what the server was asked for. */
static int
executed(scripted_server *server, vnl_pg_conn *conn, const char *expected)
{
    vnl_pg_close(conn);
    char *log = server_end(server);
    int same = strcmp(log, expected) == 0;
    if (!same) {
        fprintf(stderr, "executed %s\n", log);
    }
    free(log);
    return same;
}

/* --- the tests ---------------------------------------------------------------- */

static void
test_one_flight(void)
{
    static const char *const sql[] = {"INSERT a", "INSERT b", "COMMIT"};
    scripted_server *server = server_new();
    atomic_store(&server->gate, 1);
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(3, sql);
    legs[0].query.begin = "BEGIN";
    legs[1].query.name = "s1";
    legs[1].query.prepare = 1;
    CHECK(vnl_pg_flight_wait(conn, legs, 3, core_now() + 5 * SECOND, SECOND) == VNL_PG_OK);
    CHECK(has_tag(&legs[0], "INSERT 0 1") && has_tag(&legs[1], "INSERT 0 1") && has_tag(&legs[2], "COMMIT"));
    CHECK(legs[0].answer.begun && !legs[1].answer.begun);
    CHECK(legs[1].answer.prepared && !legs[0].answer.prepared);
    CHECK(counted == 3 && !conn->inflight);
    CHECK(PQtransactionStatus(conn->pg) == PQTRANS_IDLE);
    CHECK(PQpipelineStatus(conn->pg) == PQ_PIPELINE_OFF);
    legs_free(legs, 3);
    CHECK(executed(server, conn, "BEGIN;INSERT a;INSERT b;COMMIT;|"));
}

/* With the server silent until it has all of them. */
static void
test_syncs(void)
{
    static const char *const sql[] = {"ROW 3", "FAIL", "ROW 4"};
    scripted_server *server = server_new();
    atomic_store(&server->gate, 5);
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(3, sql);
    legs[0].sync = legs[1].sync = 1;
    vnl_pg_later_add(conn, "FAIL later");
    vnl_pg_later_add(conn, "DEALLOCATE x");
    CHECK(vnl_pg_flight_wait(conn, legs, 3, core_now() + 5 * SECOND, 0) == VNL_PG_OK);
    CHECK(has_tag(&legs[0], "SELECT 1") && PQgetlength(legs[0].answer.result, 0, 0) == 3);
    CHECK(has_state(&legs[1], "23505"));
    CHECK(has_tag(&legs[2], "SELECT 1") && PQgetlength(legs[2].answer.result, 0, 0) == 4);
    CHECK(conn->later == NULL && counted == 3);
    legs_free(legs, 3);
    CHECK(executed(server, conn, "DEALLOCATE x;|FAIL later;|ROW 3;|FAIL;|ROW 4;|"));
}

static void
test_failure_skips(void)
{
    static const char *const sql[] = {"INSERT a", "FAIL", "INSERT b", "COMMIT"};
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(4, sql);
    legs[0].query.begin = "BEGIN";
    legs[2].query.name = "s1";
    legs[2].query.prepare = 1;
    CHECK(vnl_pg_flight_wait(conn, legs, 4, VNL_FOREVER, 0) == VNL_PG_OK);
    CHECK(has_tag(&legs[0], "INSERT 0 1") && has_state(&legs[1], "23505"));
    CHECK(legs[2].status == VNL_PG_SKIPPED && !legs[2].answer.prepared && legs[2].answer.result == NULL);
    CHECK(legs[3].status == VNL_PG_SKIPPED);
    CHECK(PQtransactionStatus(conn->pg) == PQTRANS_INERROR && !conn->inflight);
    legs_free(legs, 4);
    CHECK(executed(server, conn, "BEGIN;INSERT a;FAIL;|"));
}

static void
test_begin_fails(void)
{
    static const char *const sql[] = {"INSERT a", "COMMIT"};
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(2, sql);
    legs[0].query.begin = "FAIL";
    CHECK(vnl_pg_flight_wait(conn, legs, 2, VNL_FOREVER, 0) == VNL_PG_OK);
    CHECK(has_state(&legs[0], "23505") && !legs[0].answer.begun);
    CHECK(legs[1].status == VNL_PG_SKIPPED);
    legs_free(legs, 2);
    CHECK(executed(server, conn, "FAIL;|"));
}

/* The server reads no more until what it says is read, and the other way round. */
static void
test_both_ways_full(void)
{
    enum {
        N = 8,
        SIZE = 1 << 20
    };
    static const char *const sql[N] = {"ROW 3000000", "ROW 3000001", "ROW 3000002", "ROW 3000003",
                                       "ROW 3000004", "ROW 3000005", "ROW 3000006", "ROW 3000007"};
    char *large = calloc(1, SIZE + 1);
    const char *values[1] = {large};
    memset(large, 'y', SIZE);
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(N, sql);
    for (int i = 0; i < N; i++) {
        legs[i].sync = i % 2;
        legs[i].query.nparams = 1;
        legs[i].query.values = values;
    }
    CHECK(vnl_pg_flight_wait(conn, legs, N, core_now() + 20 * SECOND, 20 * SECOND) == VNL_PG_OK);
    for (int i = 0; i < N; i++) {
        CHECK(has_tag(&legs[i], "SELECT 1") && PQgetlength(legs[i].answer.result, 0, 0) == 3000000 + i);
    }
    legs_free(legs, N);
    free(large);
    vnl_pg_close(conn);
    free(server_end(server));
}

/* The first is answered, the second is not: within its own limit. */
static void
test_limit(void)
{
    static const char *const sql[] = {"INSERT a", "HANG", "COMMIT"};
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(3, sql);
    int64_t began = core_now();
    CHECK(vnl_pg_flight_wait(conn, legs, 3, began + 20 * SECOND, SECOND / 50) == VNL_PG_TIMEOUT);
    CHECK(core_now() - began < 10 * SECOND);
    CHECK(legs[0].status == VNL_PG_OK && legs[1].status == VNL_PG_TIMEOUT &&
          legs[2].status == VNL_PG_TIMEOUT);
    CHECK(conn->inflight);
    server_hang_up(server);
    CHECK(vnl_pg_drain_wait(conn, core_now() + 5 * SECOND, NULL) == VNL_PG_OK);
    legs_free(legs, 3);
    vnl_pg_close(conn);
    free(server_end(server));
}

static void
test_lost(void)
{
    static const char *const sql[] = {"INSERT a", "DIE", "COMMIT"};
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_leg *legs = legs_of(3, sql);
    CHECK(vnl_pg_flight_wait(conn, legs, 3, VNL_FOREVER, 0) == VNL_PG_LOST);
    CHECK(legs[0].status == VNL_PG_OK && legs[1].status == VNL_PG_LOST && legs[2].status == VNL_PG_LOST);
    legs_free(legs, 3);
    legs = legs_of(3, sql);
    CHECK(vnl_pg_flight_wait(conn, legs, 3, VNL_FOREVER, 0) == VNL_PG_LOST);
    legs_free(legs, 3);
    CHECK(executed(server, conn, "INSERT a;DIE;"));
}

/* Ended from outside at each of its waits: the rest can be drained, and the tag says what took place. */
static void
test_interrupted(void)
{
    static const char *const sql[] = {"INSERT a", "ROW 3000000", "COMMIT"};
    int ended = 1;
    for (int at = 0; ended; at++) {
        scripted_server *server = server_new();
        vnl_pg_conn *conn = connect_to(server);
        vnl_pg_leg *legs = legs_of(3, sql);
        legs[0].query.begin = "BEGIN";
        waits_left = at;
        vnl_pg_status status = vnl_pg_flight_wait(conn, legs, 3, VNL_FOREVER, 0);
        ended = status == VNL_PG_INTERRUPTED;
        CHECK(ended ? at < 200 : at > 0);
        waits_left = -1;
        if (ended) {
            CHECK(conn->inflight);
            CHECK(vnl_pg_drain_wait(conn, core_now() + 5 * SECOND, NULL) == VNL_PG_OK);
            CHECK(has_tag(&legs[2], "COMMIT") || strcmp(conn->drained, "COMMIT") == 0);
        }
        CHECK(!conn->inflight && PQtransactionStatus(conn->pg) == PQTRANS_IDLE);
        legs_free(legs, 3);
        CHECK(executed(server, conn, "BEGIN;INSERT a;ROW 3000000;COMMIT;|"));
    }
}

/* One statement with what goes ahead of it is a flight of one. */
static void
test_one_statement(void)
{
    scripted_server *server = server_new();
    vnl_pg_conn *conn = connect_to(server);
    vnl_pg_query query = {.sql = "INSERT a", .begin = "BEGIN"};
    vnl_pg_answer answer;
    CHECK(vnl_pg_run_wait(conn, &query, VNL_FOREVER, &answer) == VNL_PG_OK);
    CHECK(answer.begun && strcmp(PQcmdStatus(answer.result), "INSERT 0 1") == 0);
    PQclear(answer.result);
    query = (vnl_pg_query){.sql = "FAIL", .name = "s", .prepare = 1};
    CHECK(vnl_pg_run_wait(conn, &query, VNL_FOREVER, &answer) == VNL_PG_SERVER);
    CHECK(answer.prepared);
    PQclear(answer.result);
    query = (vnl_pg_query){.sql = "COMMIT"};
    CHECK(!vnl_pg_flies(conn, &query));
    CHECK(vnl_pg_run_wait(conn, &query, VNL_FOREVER, &answer) == VNL_PG_OK);
    CHECK(strcmp(PQcmdStatus(answer.result), "ROLLBACK") == 0);
    PQclear(answer.result);
    query = (vnl_pg_query){.sql = NULL, .begin = "BEGIN"};
    CHECK(vnl_pg_run_wait(conn, &query, VNL_FOREVER, &answer) == VNL_PG_OK);
    CHECK(answer.begun && answer.result == NULL && counted == 4);
    CHECK(executed(server, conn, "BEGIN;INSERT a;|FAIL;|COMMIT;|BEGIN;|"));
}

int
main(void)
{
    vnl_pg_core = &core;
    test_one_flight();
    test_syncs();
    test_failure_skips();
    test_begin_fails();
    test_both_ways_full();
    test_limit();
    test_lost();
    test_interrupted();
    test_one_statement();
    return checked();
}
