/* Usage: PROGRAM WHERE NEW..., the nine values of a new item.  Each line of the input asks:
 *
 *     sample METHOD ARG TIMES     answered by the seconds that so many calls took
 *     answer METHOD ARG           answered by the rows, fields after 0x1f, then "end"
 */
#include "limit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const *limit_new = NULL;

void
limit_field(limit_sink *sink, const char *text, int is_null)
{
    if (sink->out != NULL) {
        fprintf(sink->out, "\x1f%s", is_null ? "\x1e" : text);
    }
    else {
        sink->seen += is_null ? 1 : text[0];
    }
}

void
limit_row_end(limit_sink *sink)
{
    if (sink->out != NULL) {
        fputc('\n', sink->out);
    }
}

_Noreturn void
limit_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static double
now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void
answer(const char *method, long arg)
{
    limit_sink sink = {.out = stdout};

    if (limit_run(method, arg, &sink) < 0) {
        limit_fail("no such work", method);
    }
    puts("end");
}

static void
sample(const char *method, long arg, long times)
{
    limit_sink sink = {.out = NULL};
    double began = now();

    for (long n = 0; n < times; n++) {
        if (limit_run(method, arg, &sink) < 0) {
            limit_fail("no such work", method);
        }
    }
    printf("%.9f %ld\n", now() - began, sink.seen);
}

int
main(int argc, char **argv)
{
    char line[256];
    char method[64];
    long arg = 0;
    long times = 0;

    if (argc != 2 + LIMIT_WRITTEN) {
        limit_fail("usage", "PROGRAM WHERE and the nine values of a new item");
    }
    limit_new = (const char *const *)argv + 2;
    limit_open(argv[1]);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "sample %63s %ld %ld", method, &arg, &times) == 3) {
            sample(method, arg, times);
        }
        else if (sscanf(line, "answer %63s %ld", method, &arg) == 2) {
            answer(method, arg);
        }
        else {
            limit_fail("what is asked", line);
        }
        fflush(stdout);
    }
    limit_close();
    return 0;
}
