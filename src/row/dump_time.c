/* The text of dates and times: that of str(), for subclasses too. */
#include "row/row.h"

int
vnl_dump_date(PyObject *value, vnl_buf *out)
{
    return vnl_buf_printf(out, "%04d-%02d-%02d", PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                          PyDateTime_GET_DAY(value));
}

int
vnl_utcoffset(vnl_decode_ctx *ctx, PyObject *value, int64_t *micros, int *known)
{
    PyObject *delta = PyObject_CallMethodNoArgs(value, ctx->st->str_utcoffset);

    if (delta == NULL) {
        return -1;
    }
    *known = PyObject_TypeCheck(delta, ctx->st->dt->DeltaType);
    *micros = 0;
    if (*known) {
        *micros = ((int64_t)PyDateTime_DELTA_GET_DAYS(delta) * 86400 + PyDateTime_DELTA_GET_SECONDS(delta)) *
                      1000000 +
                  PyDateTime_DELTA_GET_MICROSECONDS(delta);
    }
    Py_DECREF(delta);
    return 0;
}

static int
put_clock(vnl_buf *out, int hour, int minute, int second, int micro)
{
    vnl_buf_printf(out, "%02d:%02d:%02d", hour, minute, second);
    return micro ? vnl_buf_printf(out, ".%06d", micro) : 0;
}

static int
put_offset(vnl_buf *out, int64_t micros)
{
    char sign = micros < 0 ? '-' : '+';
    int64_t size = micros < 0 ? -micros : micros;
    int seconds = (int)(size / 1000000);

    vnl_buf_printf(out, "%c%02d:%02d", sign, seconds / 3600, seconds / 60 % 60);
    if (size % 60000000 != 0) {
        vnl_buf_printf(out, ":%02d", seconds % 60);
    }
    return size % 1000000 ? vnl_buf_printf(out, ".%06d", (int)(size % 1000000)) : 0;
}

int
vnl_dump_time(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out, uint32_t *oid)
{
    int64_t offset = 0;
    int known = 0;
    int aware = !Py_IsNone(PyDateTime_TIME_GET_TZINFO(value));

    *oid = aware ? VNL_OID_TIMETZ : VNL_OID_TIME;
    if (aware) {
        if (vnl_utcoffset(ctx, value, &offset, &known) < 0) {
            return -1;
        }
        if (!known) {
            vnl_row_error(ctx, "cannot calculate the offset of tzinfo '%S' without a date",
                          PyDateTime_TIME_GET_TZINFO(value));
            return -1;
        }
    }
    put_clock(out, PyDateTime_TIME_GET_HOUR(value), PyDateTime_TIME_GET_MINUTE(value),
              PyDateTime_TIME_GET_SECOND(value), PyDateTime_TIME_GET_MICROSECOND(value));
    return aware ? put_offset(out, offset) : 0;
}

int
vnl_dump_datetime(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out, uint32_t *oid)
{
    int64_t offset = 0;
    int known = 0;
    int aware = !Py_IsNone(PyDateTime_DATE_GET_TZINFO(value));

    *oid = aware ? VNL_OID_TIMESTAMPTZ : VNL_OID_TIMESTAMP;
    if (aware && vnl_utcoffset(ctx, value, &offset, &known) < 0) {
        return -1;
    }
    vnl_dump_date(value, out);
    vnl_buf_putc(out, ' ');
    put_clock(out, PyDateTime_DATE_GET_HOUR(value), PyDateTime_DATE_GET_MINUTE(value),
              PyDateTime_DATE_GET_SECOND(value), PyDateTime_DATE_GET_MICROSECOND(value));
    return known ? put_offset(out, offset) : 0;
}

int
vnl_dump_timedelta(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out)
{
    int days = PyDateTime_DELTA_GET_DAYS(value);
    int seconds = PyDateTime_DELTA_GET_SECONDS(value);
    int micros = PyDateTime_DELTA_GET_MICROSECONDS(value);

    if (ctx->interval_sql) {
        /* There "-1 day 1 second" means minus both: every part has its sign. */
        return vnl_buf_printf(out, "%+d day %+d second %+d microsecond", days, seconds, micros);
    }
    if (days != 0) {
        vnl_buf_printf(out, "%d day%s ", days, days == 1 || days == -1 ? "" : "s");
    }
    vnl_buf_printf(out, "%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
    return micros ? vnl_buf_printf(out, ".%06d", micros) : 0;
}
