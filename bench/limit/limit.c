/* Usage: PROGRAM WHERE NEW..., the nine values of a new item.  Each line of the input asks:
 *
 *     sample METHOD ARG TIMES     answered by the seconds that so many calls took
 *     answer METHOD ARG           answered by the rows, fields after 0x1f, then "end"
 */
#include "limit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
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

limit_text
limit_text_new(size_t size)
{
    limit_text text = {.data = malloc(size), .size = size};

    if (text.data == NULL) {
        limit_fail("limit_text_new", "no memory");
    }
    return text;
}

void
limit_add(limit_text *text, const char *format, ...)
{
    size_t room = text->size - text->length;
    int wrote = 0;
    va_list args;

    va_start(args, format);
    wrote = vsnprintf(text->data + text->length, room, format, args);
    va_end(args);
    if (wrote < 0 || (size_t)wrote >= room) {
        limit_fail("limit_add", "the text is longer than was said");
    }
    text->length += (size_t)wrote;
}

long
limit_number(const char *text)
{
    char *end = NULL;
    long number = 0;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        limit_fail("not a number", text);
    }
    return number;
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
    char arg[32];
    char times[32];

    if (argc != 2 + LIMIT_WRITTEN) {
        limit_fail("usage", "PROGRAM WHERE and the nine values of a new item");
    }
    limit_new = (const char *const *)argv + 2;
    limit_open(argv[1]);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "sample %63s %31s %31s", method, arg, times) == 3) {
            sample(method, limit_number(arg), limit_number(times));
        }
        else if (sscanf(line, "answer %63s %31s", method, arg) == 2) {
            answer(method, limit_number(arg));
        }
        else {
            limit_fail("what is asked", line);
        }
        fflush(stdout);
    }
    limit_close();
    return 0;
}
