/* A server that speaks PostgreSQL's protocol, on a thread, for one client: what it answers is in the
 * statements.
 *
 *   BEGIN, COMMIT              as they do
 *   FAIL…                      an error, sqlstate 23505
 *   ROW n                      one row, of n bytes
 *   HANG                       no answer until server_hang_up()
 *   DIE                        closes
 *   all else                   the tag "INSERT 0 1"
 */
#ifndef VNL_TESTS_SCRIPTED_SERVER_H
#define VNL_TESTS_SCRIPTED_SERVER_H

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SERVER_PORT "5432"
#define SERVER_NAMES 16

typedef struct {
    char dir[32];
    int listening, fd, hung[2];
    pthread_t thread;
    /* Answers nothing before so many Syncs have come; then again. 0: at once. */
    atomic_int gate;
    char log[4096]; /* what was executed, '|' for a Sync */
    struct {
        char name[40];
        char sql[128];
    } statements[SERVER_NAMES];
    const char *bound;
    char txn;
    int skipping, syncs;
    char *out;
    size_t nout, room;
} scripted_server;

static void
server_put(scripted_server *server, const void *data, size_t n)
{
    if (server->nout + n > server->room) {
        server->room = 2 * (server->nout + n);
        server->out = realloc(server->out, server->room);
    }
    memcpy(server->out + server->nout, data, n);
    server->nout += n;
}

static void
server_int(scripted_server *server, uint32_t value)
{
    value = htonl(value);
    server_put(server, &value, 4);
}

static void
server_say(scripted_server *server, char kind, const void *body, size_t n)
{
    server_put(server, &kind, 1);
    server_int(server, (uint32_t)n + 4);
    server_put(server, body, n);
}

static int
server_flush(scripted_server *server)
{
    for (size_t at = 0; at < server->nout;) {
        ssize_t n = send(server->fd, server->out + at, server->nout - at, MSG_NOSIGNAL);
        if (n <= 0) {
            return 0;
        }
        at += (size_t)n;
    }
    server->nout = 0;
    return 1;
}

static int
server_read(scripted_server *server, void *data, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = recv(server->fd, (char *)data + at, n - at, 0);
        if (got <= 0) {
            return 0;
        }
        at += (size_t)got;
    }
    return 1;
}

static void
server_note(scripted_server *server, const char *what)
{
    size_t used = strlen(server->log);
    snprintf(server->log + used, sizeof(server->log) - used, "%s%s", what, *what == '|' ? "" : ";");
}

static void
server_parse(scripted_server *server, const char *body)
{
    const char *sql = body + strlen(body) + 1;
    for (int i = 0; i < SERVER_NAMES; i++) {
        if (strcmp(server->statements[i].name, body) == 0 || server->statements[i].sql[0] == 0) {
            snprintf(server->statements[i].name, sizeof(server->statements[i].name), "%s", body);
            snprintf(server->statements[i].sql, sizeof(server->statements[i].sql), "%s", sql);
            break;
        }
    }
    server_say(server, '1', "", 0);
}

static void
server_bind(scripted_server *server, const char *body)
{
    const char *name = body + strlen(body) + 1;
    server->bound = "";
    for (int i = 0; i < SERVER_NAMES; i++) {
        if (strcmp(server->statements[i].name, name) == 0) {
            server->bound = server->statements[i].sql;
            break;
        }
    }
    server_say(server, '2', "", 0);
}

static void
server_describe(scripted_server *server)
{
    static const char column[] = "\0\1a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0";
    if (strncmp(server->bound, "ROW ", 4) == 0) {
        server_say(server, 'T', column, sizeof(column));
    }
    else {
        server_say(server, 'n', "", 0);
    }
}

static void
server_fail(scripted_server *server)
{
    static const char error[] = "SERROR\0C23505\0Mduplicate\0";
    server_say(server, 'E', error, sizeof(error));
    server->skipping = 1;
    server->txn = server->txn == 'T' ? 'E' : server->txn;
}

static void
server_row(scripted_server *server, size_t n)
{
    char *row = calloc(1, 6 + n);
    uint32_t len = htonl((uint32_t)n);
    row[1] = 1;
    memcpy(row + 2, &len, 4);
    memset(row + 6, 'x', n);
    server_say(server, 'D', row, 6 + n);
    free(row);
}

/* 0: closes. */
static int
server_execute(scripted_server *server)
{
    const char *sql = server->bound;
    char tag[32] = "INSERT 0 1", byte;
    server_note(server, sql);
    if (strcmp(sql, "DIE") == 0) {
        server_flush(server);
        return 0;
    }
    if (strcmp(sql, "HANG") == 0 && read(server->hung[0], &byte, 1) < 0) {
        return 0;
    }
    if (strncmp(sql, "FAIL", 4) == 0 || (server->txn == 'E' && strcmp(sql, "COMMIT") != 0)) {
        server_fail(server);
        return 1;
    }
    if (strncmp(sql, "ROW ", 4) == 0) {
        server_row(server, (size_t)atol(sql + 4));
        snprintf(tag, sizeof(tag), "SELECT 1");
    }
    if (strcmp(sql, "BEGIN") == 0) {
        server->txn = 'T';
        snprintf(tag, sizeof(tag), "BEGIN");
    }
    if (strcmp(sql, "COMMIT") == 0) {
        snprintf(tag, sizeof(tag), server->txn == 'E' ? "ROLLBACK" : "COMMIT");
        server->txn = 'I';
    }
    server_say(server, 'C', tag, strlen(tag) + 1);
    return 1;
}

/* 0: closes. */
static int
server_serve(scripted_server *server, char kind, const char *body)
{
    if (kind == 'X') {
        return 0;
    }
    if (kind == 'S') {
        server->skipping = 0;
        server_note(server, "|");
        server_say(server, 'Z', &server->txn, 1);
        int gate = atomic_load(&server->gate);
        server->syncs++;
        if (gate == 0 || server->syncs % gate == 0) {
            return server_flush(server);
        }
        return 1;
    }
    if (server->skipping) {
        return 1;
    }
    switch (kind) {
    case 'P':
        server_parse(server, body);
        break;
    case 'B':
        server_bind(server, body);
        break;
    case 'D':
        server_describe(server);
        break;
    case 'E':
        if (!server_execute(server)) {
            return 0;
        }
        break;
    case 'H':
        return server_flush(server);
    default:
        break;
    }
    /* As the real one, which keeps what it says until it is a block, a Flush, a Sync or an error. */
    return atomic_load(&server->gate) > 0 || (server->nout < 8192 && !server->skipping) ||
           server_flush(server);
}

static int
server_greet(scripted_server *server)
{
    uint32_t len = 0;
    char body[1024];
    if (!server_read(server, &len, 4) || (len = ntohl(len)) > sizeof(body) ||
        !server_read(server, body, len - 4)) {
        return 0;
    }
    server_say(server, 'R', "\0\0\0\0", 4);
    server_say(server, 'K', "\0\0\0\1\0\0\0\2", 8);
    server->txn = 'I';
    server_say(server, 'Z', &server->txn, 1);
    return server_flush(server);
}

static void *
server_main(void *arg)
{
    scripted_server *server = arg;
    server->fd = accept(server->listening, NULL, NULL);
    int going = server->fd >= 0 && server_greet(server);
    while (going) {
        char kind = 0;
        uint32_t len = 0;
        if (!server_read(server, &kind, 1) || !server_read(server, &len, 4)) {
            break;
        }
        len = ntohl(len);
        char *body = calloc(1, (size_t)len);
        going = server_read(server, body, len - 4) && server_serve(server, kind, body);
        free(body);
    }
    close(server->fd);
    return NULL;
}

/* It listens when this returns. */
static inline scripted_server *
server_new(void)
{
    scripted_server *server = calloc(1, sizeof(*server));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(server->dir, sizeof(server->dir), "/tmp/vinyl-server-XXXXXX");
    if (mkdtemp(server->dir) == NULL || pipe(server->hung) != 0) {
        abort();
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL." SERVER_PORT, server->dir);
    server->listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(server->listening, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(server->listening, 1) != 0 ||
        pthread_create(&server->thread, NULL, server_main, server) != 0) {
        abort();
    }
    return server;
}

static inline void
server_hang_up(scripted_server *server)
{
    if (server->hung[1] >= 0) {
        close(server->hung[1]);
        server->hung[1] = -1;
    }
}

/* When its client has gone: what it executed, to be freed. */
static inline char *
server_end(scripted_server *server)
{
    char path[128];
    server_hang_up(server);
    pthread_join(server->thread, NULL);
    char *log = strdup(server->log);
    close(server->listening);
    close(server->hung[0]);
    snprintf(path, sizeof(path), "%s/.s.PGSQL." SERVER_PORT, server->dir);
    unlink(path);
    rmdir(server->dir);
    free(server->out);
    free(server);
    return log;
}

#endif
