/* interval -> timedelta, a month being 30 days and a year 365, as psycopg has it.
 * Binary (interval_send): int64 microseconds, int32 days, int32 months. */
#include "row/row.h"
#include "row/scan.h"

/* 2**31 months of 30 days, and days, still fit; timedelta holds 999999999 days. */
static PyObject *
make_delta(vnl_decode_ctx *ctx, int64_t days, int64_t micros)
{
    PyDateTime_CAPI *dt = ctx->st->dt;
    int64_t rest = micros % VNL_DAY_US;

    days += micros / VNL_DAY_US;
    if (rest < 0) {
        rest += VNL_DAY_US;
        days--;
    }
    if (days < -999999999 || days > 999999999) {
        return vnl_row_error(ctx, "can't decode interval: %lld days are out of timedelta's range",
                             (long long)days);
    }
    return dt->Delta_FromDelta((int)days, (int)(rest / 1000000), (int)(rest % 1000000), 0, dt->DeltaType);
}

static int64_t
days_of_months(int64_t months)
{
    int64_t size = months < 0 ? -months : months;
    int64_t days = size / 12 * 365 + size % 12 * 30;

    return months < 0 ? -days : days;
}

PyObject *
vnl_interval_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    int32_t days, months;

    if (len != 16) {
        return vnl_row_bad(ctx, "interval", 1, data, len);
    }
    days = (int32_t)vnl_be32(data + 8);
    months = (int32_t)vnl_be32(data + 12);
    return make_delta(ctx, days + days_of_months(months), (int64_t)vnl_be64(data));
}

/* "unit" or "units" after a number. */
static int
scan_unit(vnl_scan *s, const char *unit)
{
    size_t size = strlen(unit);

    if ((size_t)(s->end - s->at) < size || memcmp(s->at, unit, size) != 0) {
        return 0;
    }
    s->at += size;
    vnl_scan_char(s, 's');
    return vnl_scan_done(s) || vnl_scan_char(s, ' ');
}

/* Up to 12 digits: hours of an interval reach 2562047788. */
static int
scan_long(vnl_scan *s, int64_t *out)
{
    int count = 0;

    *out = 0;
    while (vnl_is_digit(vnl_scan_peek(s)) && ++count <= 12) {
        *out = *out * 10 + (*s->at++ - '0');
    }
    return count > 0 && count <= 12;
}

/* ":MM:SS[.ffffff]" after the hours. */
static int
scan_minutes(vnl_scan *s, int64_t hours, int64_t *micros)
{
    int minute, second, digits;
    int fraction = 0;

    if (hours > INT64_C(2562047788) || !vnl_scan_char(s, ':') || !vnl_scan_digits(s, 2, &minute) ||
        !vnl_scan_char(s, ':') || !vnl_scan_digits(s, 2, &second)) {
        return 0;
    }
    if (vnl_scan_char(s, '.')) {
        digits = vnl_scan_digits(s, 6, &fraction);
        if (digits == 0) {
            return 0;
        }
        for (; digits < 6; digits++) {
            fraction *= 10;
        }
    }
    /* Up to 2**63, the server's smallest: kept negative so that it fits. */
    if (__builtin_mul_overflow(hours, INT64_C(-3600000000), micros)) {
        return 0;
    }
    return !__builtin_sub_overflow(*micros, ((int64_t)minute * 60 + second) * 1000000 + fraction, micros);
}

static int
scan_interval(vnl_scan *s, int64_t *days, int64_t *micros)
{
    int seen = 0;

    *days = *micros = 0;
    while (!vnl_scan_done(s)) {
        int64_t value = 0;
        int negative = vnl_scan_char(s, '-');
        if ((!negative && vnl_scan_char(s, '+') && vnl_scan_done(s)) || !scan_long(s, &value)) {
            return 0;
        }
        seen = 1;
        if (vnl_scan_peek(s) == ':') {
            if (!scan_minutes(s, value, micros)) {
                return 0;
            }
            if (!negative && *micros == INT64_MIN) {
                return 0;
            }
            *micros = negative ? *micros : -*micros;
            return vnl_scan_done(s);
        }
        if (!vnl_scan_char(s, ' ') || value > INT64_C(4294967296)) {
            return 0;
        }
        value = negative ? -value : value;
        if (scan_unit(s, "year")) {
            *days += value * 365;
        }
        else if (scan_unit(s, "mon")) {
            *days += value * 30;
        }
        else if (scan_unit(s, "day")) {
            *days += value;
        }
        else {
            return 0;
        }
    }
    return seen;
}

PyObject *
vnl_interval_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    int64_t days = 0;
    int64_t micros = 0;

    if (!ctx->interval_postgres) {
        PyErr_SetString(PyExc_NotImplementedError,
                        "can't parse intervals unless IntervalStyle is 'postgres'");
        return NULL;
    }
    if (!scan_interval(&s, &days, &micros)) {
        return vnl_row_bad(ctx, "interval", 0, data, len);
    }
    return make_delta(ctx, days, micros);
}
