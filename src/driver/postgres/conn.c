/* A physical connection: open, close, look, notices. */
#include "pg.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Between attempts while a Unix socket's queue is full. */
#define QUEUE_PAUSE_MIN 2000000  /* 2 ms */
#define QUEUE_PAUSE_MAX 64000000 /* 64 ms */

const vnl_core_api *vnl_pg_core = NULL;

static char *
copy_field(const PGresult *result, int field)
{
    const char *text = PQresultErrorField(result, field);
    return text != NULL ? strdup(text) : NULL;
}

static void
on_notice(void *arg, const PGresult *result)
{
    vnl_pg_conn *conn = arg;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)) {
        conn->farewell = 1; /* libpq takes an error that nobody asked for as a notice */
    }
    if (conn->nnotices >= VNL_PG_MAX_NOTICES) {
        return;
    }
    vnl_pg_notice *notice = calloc(1, sizeof(*notice));
    if (notice == NULL) {
        return;
    }
    notice->severity = copy_field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    notice->sqlstate = copy_field(result, PG_DIAG_SQLSTATE);
    notice->message = copy_field(result, PG_DIAG_MESSAGE_PRIMARY);
    notice->detail = copy_field(result, PG_DIAG_MESSAGE_DETAIL);
    notice->hint = copy_field(result, PG_DIAG_MESSAGE_HINT);
    *conn->notices_tail = notice;
    conn->notices_tail = &notice->next;
    conn->nnotices++;
}

vnl_pg_notice *
vnl_pg_notices_take(vnl_pg_conn *conn)
{
    vnl_pg_notice *notices = conn->notices;
    conn->notices = NULL;
    conn->notices_tail = &conn->notices;
    conn->nnotices = 0;
    return notices;
}

void
vnl_pg_notices_free(vnl_pg_notice *notices)
{
    while (notices != NULL) {
        vnl_pg_notice *next = notices->next;
        free(notices->severity);
        free(notices->sqlstate);
        free(notices->message);
        free(notices->detail);
        free(notices->hint);
        free(notices);
        notices = next;
    }
}

static void
drop_watch(vnl_pg_conn *conn)
{
    if (conn->watch != NULL) {
        vnl_pg_core->watch_free(conn->watch);
        conn->watch = NULL;
    }
}

void
vnl_pg_close(vnl_pg_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    drop_watch(conn);
    if (conn->pg != NULL) {
        PQfinish(conn->pg);
    }
    PQclear(conn->ahead.result);
    vnl_pg_stmts_free(&conn->stmts);
    vnl_pg_later_clear(conn);
    vnl_pg_notices_free(conn->notices);
    free(conn);
}

/* A forked child: the descriptor is closed before PQfinish, so that its
 * farewell goes nowhere and the parent's session lives on. */
void
vnl_pg_abandon(vnl_pg_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    drop_watch(conn);
    int fd = conn->pg != NULL ? PQsocket(conn->pg) : -1;
    if (fd >= 0) {
        int null = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (null >= 0) {
            dup2(null, fd);
            close(null);
        }
    }
    vnl_pg_close(conn);
}

static vnl_pg_status
poll_connection_wait(vnl_pg_conn *conn, int64_t deadline)
{
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    for (;;) {
        if (want == PGRES_POLLING_OK) {
            return VNL_PG_OK;
        }
        int fd = PQsocket(conn->pg);
        if (want == PGRES_POLLING_FAILED || fd < 0) {
            return VNL_PG_LOST;
        }
        conn->watch = vnl_pg_core->watch_new(fd, 0);
        if (conn->watch == NULL) {
            return VNL_PG_INTERRUPTED;
        }
        int events = want == PGRES_POLLING_WRITING ? VNL_WRITE : VNL_READ;
        int ready = vnl_pg_core->watch_wait(conn->watch, events, deadline);
        /* PQconnectPoll may close this socket and open another. */
        drop_watch(conn);
        if (ready <= 0) {
            return ready < 0 ? VNL_PG_INTERRUPTED : VNL_PG_TIMEOUT;
        }
        want = PQconnectPoll(conn->pg);
    }
}

/* Whether connecting to a Unix socket failed because too many are in the server's queue: a blocking
 * connect() would wait. */
static int
is_queue_full(const PGconn *pg)
{
    const char *host = PQhost(pg);
    return PQstatus(pg) == CONNECTION_BAD && host != NULL && (host[0] == '/' || host[0] == '@') &&
           strstr(PQerrorMessage(pg), strerror(EAGAIN)) != NULL;
}

/* NULL when out of memory, or interrupted. */
static PGconn *
start_wait(const char *const *keywords, const char *const *values, int64_t deadline, vnl_pg_status *status)
{
    for (int64_t pause = QUEUE_PAUSE_MIN;; pause = pause < QUEUE_PAUSE_MAX ? 2 * pause : pause) {
        PGconn *pg = PQconnectStartParams(keywords, values, 1);
        if (pg == NULL || !is_queue_full(pg) || vnl_pg_core->now() + pause >= deadline) {
            *status = pg == NULL ? VNL_PG_NOMEM : VNL_PG_LOST;
            return pg;
        }
        PQfinish(pg);
        if (vnl_pg_core->sleep_wait(pause) < 0) {
            *status = VNL_PG_INTERRUPTED;
            return NULL;
        }
    }
}

char *
vnl_pg_place(const vnl_pg_conn *conn)
{
    const PGconn *pg = conn->pg;
    const char *host = PQhost(pg), *port = PQport(pg);
    char *place = NULL;
    if (asprintf(&place, "%s\n%s", host != NULL ? host : "", port != NULL ? port : "") < 0) {
        return NULL;
    }
    return place;
}

vnl_pg_status
vnl_pg_connect_wait(const char *const *keywords, const char *const *values, int64_t deadline,
                    vnl_pg_conn **out, char **message)
{
    *out = NULL;
    *message = NULL;
    vnl_pg_status status = VNL_PG_NOMEM;
    vnl_pg_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        return VNL_PG_NOMEM;
    }
    conn->notices_tail = &conn->notices;
    conn->pg = start_wait(keywords, values, deadline, &status);
    if (conn->pg == NULL) {
        goto fail;
    }
    if (PQstatus(conn->pg) == CONNECTION_BAD) {
        *message = strdup(PQerrorMessage(conn->pg));
        goto fail;
    }
    PQsetNoticeReceiver(conn->pg, on_notice, conn);
    status = poll_connection_wait(conn, deadline);
    if (status != VNL_PG_OK) {
        *message = status == VNL_PG_LOST      ? strdup(PQerrorMessage(conn->pg))
                   : status == VNL_PG_TIMEOUT ? vnl_pg_place(conn)
                                              : NULL;
        goto fail;
    }
    if (PQsetnonblocking(conn->pg, 1) != 0) {
        status = VNL_PG_LOST;
        *message = strdup(PQerrorMessage(conn->pg));
        goto fail;
    }
    conn->watch = vnl_pg_core->watch_new(PQsocket(conn->pg), 1);
    if (conn->watch == NULL) {
        status = VNL_PG_INTERRUPTED;
        goto fail;
    }
    *out = conn;
    return VNL_PG_OK;

fail:
    vnl_pg_close(conn);
    return status;
}

int
vnl_pg_check(vnl_pg_conn *conn)
{
    if (conn->inflight || conn->ahead.sent || PQstatus(conn->pg) != CONNECTION_OK ||
        PQtransactionStatus(conn->pg) != PQTRANS_IDLE) {
        return 0;
    }
    int fd = PQsocket(conn->pg);
    struct pollfd look = {.fd = fd, .events = POLLIN};
    if (fd < 0 || poll(&look, 1, 0) < 0) {
        return 0;
    }
    if (look.revents == 0) {
        return 1;
    }
    if (look.revents & (POLLERR | POLLNVAL)) {
        return 0;
    }
    /* Something came unasked: a farewell, or a notice or a parameter change. */
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        return 0;
    }
    if (PQconsumeInput(conn->pg) == 0) {
        return 0;
    }
    PGnotify *notify = NULL;
    while ((notify = PQnotifies(conn->pg)) != NULL) {
        PQfreemem(notify);
    }
    if (PQstatus(conn->pg) != CONNECTION_OK || conn->farewell) {
        return 0; /* the end of file may come a moment after the farewell */
    }
    n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

int
vnl_pg_later_add(vnl_pg_conn *conn, const char *sql)
{
    size_t len = strlen(sql) + 1;
    vnl_pg_later *later = malloc(sizeof(*later) + len);
    if (later == NULL) {
        return -1;
    }
    memcpy(later->sql, sql, len);
    later->next = conn->later;
    conn->later = later;
    return 0;
}

void
vnl_pg_later_clear(vnl_pg_conn *conn)
{
    while (conn->later != NULL) {
        vnl_pg_later *next = conn->later->next;
        free(conn->later);
        conn->later = next;
    }
}
