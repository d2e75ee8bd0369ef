/* The limit: the works of bench/work.py in C, straight on the client library that vinyl uses.
 * limit.c speaks to the bench; postgres.c and sqlite.c do the works. */
#ifndef VNL_BENCH_LIMIT_H
#define VNL_BENCH_LIMIT_H

#include <stddef.h>
#include <stdio.h>

#define LIMIT_COLUMNS 10
#define LIMIT_WRITTEN 9 /* without the key */
#define LIMIT_CONNECTIONS 10
#define LIMIT_MOST 100000 /* rows in a bulk work */

/* Where an answer's rows are written; NULL while time is measured: then fields are looked at,
 * and forgotten. */
typedef struct {
    FILE *out;
    long seen; /* lengths and numbers of the fields: what nobody reads is not optimised away */
} limit_sink;

/* Borrowed: the values of a new item, in the order of the table without the key. */
extern const char *const *limit_new;

/* Text of a known size at most. */
typedef struct {
    char *data; /* owned; free() it */
    size_t length;
    size_t size;
} limit_text;

limit_text limit_text_new(size_t size);
void limit_add(limit_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
long limit_number(const char *text);

void limit_field(limit_sink *sink, const char *text, int is_null);
void limit_row_end(limit_sink *sink);
_Noreturn void limit_fail(const char *what, const char *why);

/* Of the engine.  The work `method` with `arg`, once; -1 when it has no such work. */
void limit_open(const char *where);
int limit_run(const char *method, long arg, limit_sink *sink);
void limit_close(void);

#endif
