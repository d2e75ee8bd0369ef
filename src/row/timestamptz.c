/* timestamptz -> datetime: the wall clock in the server's TimeZone, in which
 * Django's loader then replaces tzinfo by the connection's time zone (None
 * without USE_TZ).  The two zones are the same unless the user changed one. */
#include "row/row.h"
#include "row/when.h"

/* The tzinfo that Django's loader puts in; NULL for psycopg's own loader,
 * which leaves the server's.  Borrowed. */
static int
target_zone(vnl_decode_ctx *ctx, uint32_t oid, PyObject **tz)
{
    vnl_codec *codec = vnl_row_codec(ctx, oid);

    *tz = codec ? codec->arg : NULL;
    return codec == NULL ? -1 : 0;
}

/* value.replace(tzinfo=tz), which keeps fold. */
static PyObject *
replace_zone(vnl_decode_ctx *ctx, PyObject *value, PyObject *tz)
{
    PyDateTime_CAPI *dt = ctx->st->dt;

    return dt->DateTime_FromDateAndTimeAndFold(
        PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value), PyDateTime_GET_DAY(value),
        PyDateTime_DATE_GET_HOUR(value), PyDateTime_DATE_GET_MINUTE(value), PyDateTime_DATE_GET_SECOND(value),
        PyDateTime_DATE_GET_MICROSECOND(value), tz, PyDateTime_DATE_GET_FOLD(value), dt->DateTimeType);
}

/* `micros` UTC, within range.  NULL with OverflowError when the server's wall
 * clock is out of range. */
static PyObject *
from_utc(vnl_decode_ctx *ctx, int64_t micros, PyObject *tz)
{
    PyObject *zone = ctx->server_tz;
    PyObject *utc = NULL;
    PyObject *local = NULL;

    if (zone == ctx->st->dt->TimeZone_UTC) {
        return vnl_make_datetime(ctx, micros, tz ? tz : zone);
    }
    utc = vnl_make_datetime(ctx, micros, zone);
    if (utc == NULL) {
        return NULL;
    }
    local = PyObject_CallMethodOneArg(zone, ctx->st->str_fromutc, utc);
    Py_DECREF(utc);
    if (local != NULL && tz != NULL && tz != zone) {
        if (!PyObject_TypeCheck(local, ctx->st->dt->DateTimeType)) {
            Py_DECREF(local);
            PyErr_SetString(PyExc_TypeError, "fromutc() must return a datetime");
            return NULL;
        }
        Py_SETREF(local, replace_zone(ctx, local, tz));
    }
    return local;
}

PyObject *
vnl_timestamptz_text(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    vnl_scan s = vnl_scan_of(data, len);
    int64_t wall = 0;
    int64_t utc;
    int offset = 0;
    PyObject *tz = NULL;
    PyObject *value = NULL;

    if (target_zone(ctx, oid, &tz) < 0) {
        return NULL;
    }
    if (ctx->date_style != VNL_STYLE_ISO) {
        PyErr_Format(PyExc_NotImplementedError, "can't parse timestamptz with DateStyle '%s'",
                     ctx->date_style_name);
        return NULL;
    }
    if (!vnl_scan_timestamp(ctx, &s, &wall) || !vnl_scan_offset(&s, &offset) || !vnl_scan_done(&s)) {
        return vnl_when_bad(ctx, "timestamp", data, len);
    }
    utc = wall - (int64_t)offset * 1000000;
    if (utc >= VNL_MIN_US && utc <= VNL_MAX_US) {
        value = from_utc(ctx, utc, tz);
        if (value != NULL || !PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return value;
        }
        PyErr_Clear();
    }
    /* At the edge of the calendar the instant has no UTC datetime; its wall clock has one. */
    if (tz != NULL) {
        return vnl_make_datetime(ctx, wall, tz);
    }
    return vnl_make_datetime(ctx, wall, ctx->server_tz);
}

/* The server's wall clock at the edge of the calendar; 0 when out of range. */
static int
edge_wall(vnl_decode_ctx *ctx, int64_t micros, int64_t *wall)
{
    PyObject *edge = vnl_make_datetime(ctx, micros < 0 ? VNL_MIN_US : VNL_MAX_US, Py_None);
    PyObject *delta = NULL;
    int64_t offset = 0;

    if (edge == NULL) {
        return -1;
    }
    delta = PyObject_CallMethodOneArg(ctx->server_tz, ctx->st->str_utcoffset, edge);
    Py_DECREF(edge);
    if (delta == NULL) {
        return -1;
    }
    if (PyObject_TypeCheck(delta, ctx->st->dt->DeltaType)) {
        offset = (int64_t)PyDateTime_DELTA_GET_DAYS(delta) * 86400 + PyDateTime_DELTA_GET_SECONDS(delta);
    }
    Py_DECREF(delta);
    if (micros < VNL_MIN_US - VNL_DAY_US || micros > VNL_MAX_US + VNL_DAY_US) {
        return 0;
    }
    *wall = micros + offset * 1000000;
    return *wall >= VNL_MIN_US && *wall <= VNL_MAX_US;
}

PyObject *
vnl_timestamptz_binary(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
{
    PyObject *tz = NULL;
    PyObject *value = NULL;
    int64_t micros;
    int64_t wall = 0;
    int inside;

    if (len != 8) {
        return vnl_row_bad(ctx, "timestamptz", 1, data, len);
    }
    if (target_zone(ctx, oid, &tz) < 0) {
        return NULL;
    }
    micros = (int64_t)vnl_be64(data);
    if (micros >= VNL_MIN_US && micros <= VNL_MAX_US) {
        value = from_utc(ctx, micros, tz);
        if (value != NULL || !PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return value;
        }
        PyErr_Clear();
    }
    inside = edge_wall(ctx, micros, &wall);
    if (inside < 0) {
        return NULL;
    }
    if (inside == 0) {
        return vnl_row_error(ctx, "timestamp too %s",
                             micros < 0 ? "small (before year 1)" : "large (after year 10K)");
    }
    return vnl_make_datetime(ctx, wall, tz ? tz : ctx->server_tz);
}
