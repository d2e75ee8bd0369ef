/* date, time, timetz, timestamp.
 * Binary: date int32 days, time and timestamp int64 microseconds, all since
 * 2000-01-01; timetz int64 microseconds and int32 seconds west of UTC. */
#include "row/row.h"
#include "row/scan.h"
#include "row/when.h"

static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

PyObject *
vnl_when_bad(vnl_decode_ctx *ctx, const char *type, const char *data, int len)
{
    const char *space = memchr(data, ' ', (size_t)len);
    int first = space ? (int)(space - data) : len;
    const char *wrong = NULL;
    PyObject *shown = NULL;

    if ((len == 8 && memcmp(data, "infinity", 8) == 0) || (first == 11 && vnl_is_digit(data[0]))) {
        wrong = "large (after year 10K)";
    }
    else if ((len >= 2 && memcmp(data + len - 2, "BC", 2) == 0) ||
             (len == 9 && memcmp(data, "-infinity", 9) == 0)) {
        wrong = "small (before year 1)";
    }
    else {
        return vnl_row_bad(ctx, type, 0, data, len);
    }
    shown = PyUnicode_DecodeUTF8(data, len > 60 ? 60 : len, "replace");
    if (shown != NULL) {
        vnl_row_error(ctx, "%s too %s: %R", type, wrong, shown);
        Py_DECREF(shown);
    }
    return NULL;
}

/* Reads the three numbers of a date in the server's DateStyle. */
int
vnl_scan_date(const vnl_decode_ctx *ctx, vnl_scan *s, vnl_date *d)
{
    char separator = ctx->date_style == VNL_STYLE_GERMAN ? '.' : ctx->date_style == VNL_STYLE_SQL ? '/' : '-';
    int *first = ctx->date_dmy ? &d->day : &d->month;
    int *second = ctx->date_dmy ? &d->month : &d->day;

    if (ctx->date_style == VNL_STYLE_ISO) {
        return vnl_scan_digits(s, 6, &d->year) >= 4 && vnl_scan_char(s, '-') &&
               vnl_scan_digits(s, 2, &d->month) && vnl_scan_char(s, '-') && vnl_scan_digits(s, 2, &d->day);
    }
    return vnl_scan_digits(s, 2, first) && vnl_scan_char(s, separator) && vnl_scan_digits(s, 2, second) &&
           vnl_scan_char(s, separator) && vnl_scan_digits(s, 6, &d->year) >= 4;
}

int
vnl_date_valid(const vnl_date *d)
{
    static const char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap;

    if (d->year < 1 || d->year > 9999 || d->month < 1 || d->month > 12 || d->day < 1) {
        return 0;
    }
    leap = d->month == 2 && d->year % 4 == 0 && (d->year % 100 != 0 || d->year % 400 == 0);
    return d->day <= days[d->month - 1] + leap;
}

PyObject *
vnl_date_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    vnl_date d = {0, 0, 0};
    PyDateTime_CAPI *dt = ctx->st->dt;

    if (!vnl_scan_date(ctx, &s, &d) || !vnl_scan_done(&s) || !vnl_date_valid(&d)) {
        return vnl_when_bad(ctx, "date", data, len);
    }
    return dt->Date_FromDate(d.year, d.month, d.day, dt->DateType);
}

PyObject *
vnl_date_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    PyDateTime_CAPI *dt = ctx->st->dt;
    int32_t days;
    vnl_date d;

    if (len != 4) {
        return vnl_row_bad(ctx, "date", 1, data, len);
    }
    days = (int32_t)vnl_be32(data);
    if (days < VNL_MIN_DAYS) {
        return vnl_row_error(ctx, "date too small (before year 1)");
    }
    if (days > VNL_MAX_DAYS) {
        return vnl_row_error(ctx, "date too large (after year 10K)");
    }
    vnl_civil_from_days(days, &d.year, &d.month, &d.day);
    return dt->Date_FromDate(d.year, d.month, d.day, dt->DateType);
}

/* --- time of day */
static int
clock_valid(const vnl_clock *t)
{
    return t->hour < 24 && t->minute < 60 && t->second < 60;
}

static int
clock_from_micros(int64_t micros, vnl_clock *t)
{
    if (micros < 0 || micros >= VNL_DAY_US) {
        return 0;
    }
    t->micro = (int)(micros % 1000000);
    micros /= 1000000;
    t->second = (int)(micros % 60);
    t->minute = (int)(micros / 60 % 60);
    t->hour = (int)(micros / 3600);
    return 1;
}

static PyObject *
make_time(vnl_decode_ctx *ctx, const vnl_clock *t, PyObject *tz)
{
    PyDateTime_CAPI *dt = ctx->st->dt;
    return dt->Time_FromTime(t->hour, t->minute, t->second, t->micro, tz, dt->TimeType);
}

static PyObject *
make_timetz(vnl_decode_ctx *ctx, const vnl_clock *t, int offset)
{
    PyDateTime_CAPI *dt = ctx->st->dt;
    PyObject *delta = dt->Delta_FromDelta(0, offset, 0, 1, dt->DeltaType);
    PyObject *tz = delta ? dt->TimeZone_FromTimeZone(delta, NULL) : NULL;
    PyObject *value = tz ? make_time(ctx, t, tz) : NULL;

    Py_XDECREF(delta);
    Py_XDECREF(tz);
    return value;
}

PyObject *
vnl_time_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    vnl_clock t;

    if (!vnl_scan_clock(&s, 2, &t) || !vnl_scan_done(&s) || !clock_valid(&t)) {
        return vnl_row_bad(ctx, "time", 0, data, len);
    }
    return make_time(ctx, &t, Py_None);
}

PyObject *
vnl_time_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_clock t;

    if (len != 8 || !clock_from_micros((int64_t)vnl_be64(data), &t)) {
        return vnl_row_bad(ctx, "time", 1, data, len);
    }
    return make_time(ctx, &t, Py_None);
}

PyObject *
vnl_timetz_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    vnl_clock t;
    int offset = 0;

    if (!vnl_scan_clock(&s, 2, &t) || !vnl_scan_offset(&s, &offset) || !vnl_scan_done(&s) ||
        !clock_valid(&t)) {
        return vnl_row_bad(ctx, "timetz", 0, data, len);
    }
    return make_timetz(ctx, &t, offset);
}

PyObject *
vnl_timetz_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_clock t;
    int32_t west;

    if (len != 12 || !clock_from_micros((int64_t)vnl_be64(data), &t)) {
        return vnl_row_bad(ctx, "timetz", 1, data, len);
    }
    west = (int32_t)vnl_be32(data + 8);
    if (west <= -86400 || west >= 86400) {
        return vnl_row_bad(ctx, "timetz", 1, data, len);
    }
    return make_timetz(ctx, &t, -west);
}

/* --- timestamp */
PyObject *
vnl_make_datetime(vnl_decode_ctx *ctx, int64_t micros, PyObject *tz)
{
    PyDateTime_CAPI *dt = ctx->st->dt;
    int64_t days = micros / VNL_DAY_US;
    int64_t rest = micros % VNL_DAY_US;
    vnl_date d;
    vnl_clock t;

    if (rest < 0) {
        rest += VNL_DAY_US;
        days--;
    }
    vnl_civil_from_days(days, &d.year, &d.month, &d.day);
    clock_from_micros(rest, &t);
    return dt->DateTime_FromDateAndTime(d.year, d.month, d.day, t.hour, t.minute, t.second, t.micro, tz,
                                        dt->DateTimeType);
}

/* "Thu Jan 01 12:00:00.5 2020" of DateStyle Postgres. */
static int
scan_postgres_style(const vnl_decode_ctx *ctx, vnl_scan *s, vnl_date *d, vnl_clock *t)
{
    if (s->end - s->at < 4 || s->at[3] != ' ') {
        return 0;
    }
    s->at += 4;
    if (ctx->date_dmy && (!vnl_scan_digits(s, 2, &d->day) || !vnl_scan_char(s, ' '))) {
        return 0;
    }
    if (s->end - s->at < 4 || s->at[3] != ' ') {
        return 0;
    }
    for (d->month = 1; d->month <= 12 && memcmp(s->at, months[d->month - 1], 3) != 0; d->month++) {
    }
    s->at += 4;
    if (!ctx->date_dmy && (!vnl_scan_digits(s, 2, &d->day) || !vnl_scan_char(s, ' '))) {
        return 0;
    }
    return vnl_scan_clock(s, 2, t) && vnl_scan_char(s, ' ') && vnl_scan_digits(s, 6, &d->year) >= 4;
}

int
vnl_scan_timestamp(const vnl_decode_ctx *ctx, vnl_scan *s, int64_t *micros)
{
    vnl_date d = {0, 0, 0};
    vnl_clock t;

    if (ctx->date_style == VNL_STYLE_POSTGRES) {
        if (!scan_postgres_style(ctx, s, &d, &t)) {
            return 0;
        }
    }
    else if (!vnl_scan_date(ctx, s, &d) || !vnl_scan_char(s, ' ') || !vnl_scan_clock(s, 2, &t)) {
        return 0;
    }
    if (!vnl_date_valid(&d) || !clock_valid(&t)) {
        return 0;
    }
    *micros = vnl_days_from_civil(d.year, d.month, d.day) * VNL_DAY_US +
              ((int64_t)t.hour * 3600 + t.minute * 60 + t.second) * 1000000 + t.micro;
    return 1;
}

PyObject *
vnl_timestamp_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    int64_t micros = 0;

    if (!vnl_scan_timestamp(ctx, &s, &micros) || !vnl_scan_done(&s)) {
        return vnl_when_bad(ctx, "timestamp", data, len);
    }
    return vnl_make_datetime(ctx, micros, Py_None);
}

PyObject *
vnl_timestamp_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    int64_t micros;

    if (len != 8) {
        return vnl_row_bad(ctx, "timestamp", 1, data, len);
    }
    micros = (int64_t)vnl_be64(data);
    if (micros < VNL_MIN_US || micros > VNL_MAX_US) {
        return vnl_row_error(ctx, "timestamp too %s",
                             micros < 0 ? "small (before year 1)" : "large (after year 10K)");
    }
    return vnl_make_datetime(ctx, micros, Py_None);
}
