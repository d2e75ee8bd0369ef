/* What datetime.c and timestamptz.c share. */
#ifndef VNL_ROW_WHEN_H
#define VNL_ROW_WHEN_H

#include "row/row.h"
#include "row/scan.h"

/* datetime.min and .max in microseconds since 2000-01-01. */
#define VNL_MIN_US (VNL_MIN_DAYS * VNL_DAY_US)
#define VNL_MAX_US ((VNL_MAX_DAYS + 1) * VNL_DAY_US - 1)

typedef struct vnl_date {
    int year, month, day;
} vnl_date;

/* 1, or 0 when the text is not a date; ranges are not checked. */
int vnl_scan_date(const vnl_decode_ctx *ctx, vnl_scan *s, vnl_date *d);
int vnl_date_valid(const vnl_date *d);
/* Wall-clock microseconds since 2000-01-01, ranges checked; 1 or 0. */
int vnl_scan_timestamp(const vnl_decode_ctx *ctx, vnl_scan *s, int64_t *micros);
/* `micros` is within VNL_MIN_US .. VNL_MAX_US.  New reference. */
PyObject *vnl_make_datetime(vnl_decode_ctx *ctx, int64_t micros, PyObject *tz);
/* DataError that tells values out of Python's range from garbage; NULL. */
PyObject *vnl_when_bad(vnl_decode_ctx *ctx, const char *type, const char *data, int len);

#endif
