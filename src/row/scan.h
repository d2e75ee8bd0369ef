/* A cursor over text that is not NUL-terminated. */
#ifndef VNL_ROW_SCAN_H
#define VNL_ROW_SCAN_H

#include "row/row.h"

typedef struct vnl_scan {
    const char *at;
    const char *end;
} vnl_scan;

static inline vnl_scan
vnl_scan_of(const char *data, int len)
{
    return (vnl_scan){data, data + len};
}

static inline int
vnl_scan_done(const vnl_scan *s)
{
    return s->at == s->end;
}

/* The next character, or NUL at the end. */
static inline char
vnl_scan_peek(const vnl_scan *s)
{
    return s->at < s->end ? *s->at : '\0';
}

/* Skips `c` if it is next: 1, else 0. */
static inline int
vnl_scan_char(vnl_scan *s, char c)
{
    if (s->at < s->end && *s->at == c) {
        s->at++;
        return 1;
    }
    return 0;
}

/* Reads 1 to `most` (at most 9) digits, all that are there: their number, or 0
 * when there are none or more than that. */
static inline int
vnl_scan_digits(vnl_scan *s, int most, int *out)
{
    int count = 0;
    int value = 0;

    while (s->at < s->end && vnl_is_digit(*s->at)) {
        if (++count > most) {
            return 0;
        }
        value = value * 10 + (*s->at++ - '0');
    }
    *out = value;
    return count;
}

/* "HH:MM:SS[.ffffff]": 1, or 0 when malformed (ranges are not checked). */
typedef struct vnl_clock {
    int hour, minute, second, micro;
} vnl_clock;

static inline int
vnl_scan_clock(vnl_scan *s, int hour_digits, vnl_clock *t)
{
    int digits;

    t->micro = 0;
    if (!vnl_scan_digits(s, hour_digits, &t->hour) || !vnl_scan_char(s, ':') ||
        !vnl_scan_digits(s, 2, &t->minute) || !vnl_scan_char(s, ':') || !vnl_scan_digits(s, 2, &t->second)) {
        return 0;
    }
    if (vnl_scan_char(s, '.')) {
        digits = vnl_scan_digits(s, 6, &t->micro);
        if (digits == 0) {
            return 0;
        }
        for (; digits < 6; digits++) {
            t->micro *= 10;
        }
    }
    return 1;
}

/* "+HH[:MM[:SS]]" in seconds east of UTC: 1, or 0 when malformed. */
static inline int
vnl_scan_offset(vnl_scan *s, int *seconds)
{
    int negative = vnl_scan_char(s, '-');
    int hours = 0;
    int minutes = 0;
    int secs = 0;

    if ((!negative && !vnl_scan_char(s, '+')) || !vnl_scan_digits(s, 2, &hours)) {
        return 0;
    }
    if (vnl_scan_char(s, ':') && !vnl_scan_digits(s, 2, &minutes)) {
        return 0;
    }
    if (vnl_scan_char(s, ':') && !vnl_scan_digits(s, 2, &secs)) {
        return 0;
    }
    *seconds = hours * 3600 + minutes * 60 + secs;
    if (negative) {
        *seconds = -*seconds;
    }
    return *seconds > -86400 && *seconds < 86400;
}

#endif
