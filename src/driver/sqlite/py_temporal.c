/* The text of DateField, TimeField and DateTimeField, as Django writes it:
 * YYYY-MM-DD, HH:MM:SS[.ffffff], and both with a space or T between. */
#include "py_sqlite.h"
#include <datetime.h>

int
vnl_sqlite_temporal_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

/* `n` digits; -1 when something else stands there. */
static int
digits(const char *p, int n)
{
    int value = 0;

    for (int i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

static int
days_in(int year, int month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) {
        return 29;
    }
    return days[month - 1];
}

struct date {
    int year, month, day;
};

struct clock {
    int hour, minute, second, microsecond;
};

static int
read_date(const char *p, struct date *d)
{
    d->year = digits(p, 4);
    d->month = digits(p + 5, 2);
    d->day = digits(p + 8, 2);
    return p[4] == '-' && p[7] == '-' && d->year >= 1 && d->month >= 1 && d->month <= 12 && d->day >= 1 &&
           d->day <= days_in(d->year, d->month);
}

/* 8 characters, or 15 with microseconds. */
static int
read_clock(const char *p, int len, struct clock *c)
{
    if (len != 8 && !(len == 15 && p[8] == '.')) {
        return 0;
    }
    c->hour = digits(p, 2);
    c->minute = digits(p + 3, 2);
    c->second = digits(p + 6, 2);
    c->microsecond = len == 15 ? digits(p + 9, 6) : 0;
    return p[2] == ':' && p[5] == ':' && c->hour >= 0 && c->hour <= 23 && c->minute >= 0 && c->minute <= 59 &&
           c->second >= 0 && c->second <= 59 && c->microsecond >= 0;
}

PyObject *
vnl_sqlite_decode_date(const char *text, int len)
{
    struct date d;

    return len == 10 && read_date(text, &d) ? PyDate_FromDate(d.year, d.month, d.day) : NULL;
}

PyObject *
vnl_sqlite_decode_time(const char *text, int len)
{
    struct clock c;

    return read_clock(text, len, &c) ? PyTime_FromTime(c.hour, c.minute, c.second, c.microsecond) : NULL;
}

PyObject *
vnl_sqlite_decode_datetime(const char *text, int len)
{
    struct date d;
    struct clock c;

    if (len < 19 || !read_date(text, &d) || (text[10] != ' ' && text[10] != 'T') ||
        !read_clock(text + 11, len - 11, &c)) {
        return NULL;
    }
    return PyDateTime_FromDateAndTime(d.year, d.month, d.day, c.hour, c.minute, c.second, c.microsecond);
}
