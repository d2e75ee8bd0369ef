/* What the files of src/row share.  Not for other rooms. */
#ifndef VNL_ROW_ROW_H
#define VNL_ROW_ROW_H

#include "base/values.h"
#include "row/bind.h"
#include "row/decode.h"

/* The API is reached through vnl_row_state.dt; the header's static pointer stays unused. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-variable"
#include <datetime.h>
#pragma GCC diagnostic pop
#include <string.h>

/* Oids of pg_catalog.pg_type that C knows (fixed by initdb). */
enum {
    VNL_OID_BOOL = 16,
    VNL_OID_BYTEA = 17,
    VNL_OID_CHAR = 18,
    VNL_OID_NAME = 19,
    VNL_OID_INT8 = 20,
    VNL_OID_INT2 = 21,
    VNL_OID_INT4 = 23,
    VNL_OID_TEXT = 25,
    VNL_OID_OID = 26,
    VNL_OID_JSON = 114,
    VNL_OID_CIDR = 650,
    VNL_OID_FLOAT4 = 700,
    VNL_OID_FLOAT8 = 701,
    VNL_OID_UNKNOWN = 705,
    VNL_OID_INET = 869,
    VNL_OID_BPCHAR = 1042,
    VNL_OID_VARCHAR = 1043,
    VNL_OID_DATE = 1082,
    VNL_OID_TIME = 1083,
    VNL_OID_TIMESTAMP = 1114,
    VNL_OID_TIMESTAMPTZ = 1184,
    VNL_OID_INTERVAL = 1186,
    VNL_OID_TIMETZ = 1266,
    VNL_OID_NUMERIC = 1700,
    VNL_OID_CSTRING = 2275,
    VNL_OID_VOID = 2278,
    VNL_OID_UUID = 2950,
    VNL_OID_JSONB = 3802,
};

/* Decimals that were decoded last, by their bytes: amounts repeat, and a
 * Decimal is never changed. */
enum {
    VNL_NUMERICS = 256,
    VNL_NUMERIC_KEY = 16
};

typedef struct vnl_numeric {
    unsigned char key[VNL_NUMERIC_KEY]; /* as sent, which begins with its length, then zeros */
    PyObject *value;
} vnl_numeric;

/* Module-wide references; a GC-tracked object, kept in the module and by each
 * context.  Everything from `DataError` on is NULL until psycopg is loaded. */
typedef struct vnl_row_state {
    PyObject_HEAD
    PyTypeObject *codec_type;
    PyDateTime_CAPI *dt;
    PyObject *Decimal;
    vnl_uuids uuids;
    vnl_numeric *numerics; /* VNL_NUMERICS of them, direct-mapped */
    PyObject *json_loads;
    PyObject *json_dumps;
    PyObject *ZoneInfo;
    PyObject *zones; /* dict: name -> tzinfo */
    PyObject *str_utcoffset, *str_fromutc, *str_obj, *str_dumps, *str_load;
    PyObject *str_days, *str_seconds, *str_microseconds;
    PyObject *DataError;
    PyObject *Transformer;
    PyObject *Range;
    PyObject *Multirange;
    PyObject *Promise;      /* django.utils.functional.Promise */
    PyObject *Binary;       /* psycopg.Binary */
    PyObject *default_map;  /* psycopg.adapters */
    PyObject *pq_format[2]; /* psycopg.pq.Format.TEXT, BINARY */
    PyObject *py_text;      /* psycopg.adapt.PyFormat.TEXT */
} vnl_row_state;

/* One oid, as the adapters map of a context has it. */
typedef struct vnl_codec {
    uint32_t oid;
    uint32_t sub; /* element (array) or subtype (range) */
    char delimiter;
    vnl_decode_fn fn[2]; /* text (never NULL), binary (may be NULL) */
    PyObject *arg;       /* json: loads; timestamptz: the tzinfo or None; or NULL */
    PyObject *load[2];   /* psycopg's loader.load, looked up when first needed */
} vnl_codec;

/* How C dumps the instances of a class. */
typedef enum vnl_kind {
    VNL_KIND_GENERIC, /* through psycopg's dumper */
    VNL_KIND_NONE,
    VNL_KIND_STR,
    VNL_KIND_INT,
    VNL_KIND_FLOAT,
    VNL_KIND_DECIMAL,
    VNL_KIND_BOOL,
    VNL_KIND_BYTES,
    VNL_KIND_DATE,
    VNL_KIND_TIME,
    VNL_KIND_DATETIME,
    VNL_KIND_TIMEDELTA,
    VNL_KIND_UUID,
    VNL_KIND_JSON,
    VNL_KIND_NET, /* str(value) */
    VNL_KIND_LIST,
} vnl_kind;

typedef struct vnl_class {
    PyTypeObject *type; /* strong */
    vnl_kind kind;
    uint32_t oid; /* of the dumper class; 0 where it depends on the value */
} vnl_class;

enum {
    VNL_CLASS_SLOTS = 32,
    VNL_MAX_DEPTH = 64
};

typedef enum vnl_datestyle {
    VNL_STYLE_ISO,
    VNL_STYLE_GERMAN,
    VNL_STYLE_SQL,
    VNL_STYLE_POSTGRES
} vnl_datestyle;

struct vnl_decode_ctx {
    vnl_row_state *st; /* strong */
    PyObject *adapters;
    PyObject *transformer; /* lazily; NULL after a flush */
    PyObject *server_tz;   /* tzinfo of the server's TimeZone */
    char *tz_name;
    char *date_style_name;
    vnl_datestyle date_style;
    int date_dmy; /* the order of the non-ISO styles */
    int interval_postgres;
    int interval_sql;
    int depth;          /* nesting of arrays being decoded */
    vnl_codec **codecs; /* open addressing by oid */
    uint32_t codecs_cap, codecs_used;
    vnl_class classes[VNL_CLASS_SLOTS]; /* direct-mapped by type address */
};

/* --- wire integers.  The caller has checked the length. */
static inline uint16_t
vnl_be16(const char *data)
{
    const unsigned char *p = (const unsigned char *)data;
    return (uint16_t)((p[0] << 8) | p[1]);
}

static inline uint32_t
vnl_be32(const char *data)
{
    uint32_t value;
    memcpy(&value, data, sizeof(value));
    return __builtin_bswap32(value);
}

static inline uint64_t
vnl_be64(const char *data)
{
    uint64_t value;
    memcpy(&value, data, sizeof(value));
    return __builtin_bswap64(value);
}

static inline int
vnl_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, or -1. */
static inline int
vnl_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* --- context.c */
/* Borrowed; NULL with an exception. */
vnl_codec *vnl_row_codec(vnl_decode_ctx *ctx, uint32_t oid);
/* Borrowed: the context's psycopg Transformer. */
PyObject *vnl_row_transformer(vnl_decode_ctx *ctx);
/* codecs.c: fills in what C does for a freshly made codec. */
int vnl_row_codec_resolve(vnl_decode_ctx *ctx, vnl_codec *codec);

/* --- state.c */
/* Imports psycopg when first needed. */
int vnl_row_state_load(vnl_row_state *st);
/* Borrowed; from the module's dict. */
vnl_row_state *vnl_row_state_of(PyObject *module);
/* codec_type.c: the _Codec class, new reference. */
PyTypeObject *vnl_row_codec_type(PyObject *module);

/* Sets DataError("can't decode <type>: '<data>'") (hex in binary); returns NULL. */
PyObject *vnl_row_bad(vnl_decode_ctx *ctx, const char *type, int binary, const char *data, int len);
/* Sets DataError(message); returns NULL. */
PyObject *vnl_row_error(vnl_decode_ctx *ctx, const char *format, ...);

/* --- decoders, one family per file */
#define VNL_DECODER(name) PyObject *name(vnl_decode_ctx *ctx, uint32_t oid, const char *data, int len)
VNL_DECODER(vnl_bool_text);
VNL_DECODER(vnl_bool_binary);
VNL_DECODER(vnl_int_text);
VNL_DECODER(vnl_int2_binary);
VNL_DECODER(vnl_int4_binary);
VNL_DECODER(vnl_int8_binary);
VNL_DECODER(vnl_oid_binary);
VNL_DECODER(vnl_float_text);
VNL_DECODER(vnl_float4_binary);
VNL_DECODER(vnl_float8_binary);
VNL_DECODER(vnl_text_any);
VNL_DECODER(vnl_bytea_text);
VNL_DECODER(vnl_bytea_binary);
VNL_DECODER(vnl_numeric_text);
VNL_DECODER(vnl_numeric_binary);
VNL_DECODER(vnl_date_text);
VNL_DECODER(vnl_date_binary);
VNL_DECODER(vnl_time_text);
VNL_DECODER(vnl_time_binary);
VNL_DECODER(vnl_timetz_text);
VNL_DECODER(vnl_timetz_binary);
VNL_DECODER(vnl_timestamp_text);
VNL_DECODER(vnl_timestamp_binary);
VNL_DECODER(vnl_timestamptz_text);
VNL_DECODER(vnl_timestamptz_binary);
VNL_DECODER(vnl_interval_text);
VNL_DECODER(vnl_interval_binary);
VNL_DECODER(vnl_uuid_text);
VNL_DECODER(vnl_uuid_binary);
VNL_DECODER(vnl_json_any);
VNL_DECODER(vnl_jsonb_binary);
VNL_DECODER(vnl_jsonb_str_binary);
VNL_DECODER(vnl_inet_str_binary);
VNL_DECODER(vnl_array_text);
VNL_DECODER(vnl_array_binary);
VNL_DECODER(vnl_range_text);
VNL_DECODER(vnl_range_binary);
VNL_DECODER(vnl_multirange_text);
VNL_DECODER(vnl_multirange_binary);
VNL_DECODER(vnl_hstore_text);
VNL_DECODER(vnl_hstore_binary);
VNL_DECODER(vnl_fallback_text);

/* --- calendar.c: proleptic Gregorian days, 0 = 2000-01-01. */
int64_t vnl_days_from_civil(int year, int month, int day);
void vnl_civil_from_days(int64_t days, int *year, int *month, int *day);
#define VNL_MIN_DAYS (-730119) /* 0001-01-01 */
#define VNL_MAX_DAYS 2921939   /* 9999-12-31 */
#define VNL_DAY_US INT64_C(86400000000)

/* --- dumping */
/* classes.c: how the class of `value` is dumped.  NULL with an exception. */
const vnl_class *vnl_row_class(vnl_decode_ctx *ctx, PyObject *value);
/* dump.c: appends psycopg's text representation of `value`; *oid is its
 * dumper's oid.  Any kind but GENERIC, NONE and LIST. */
int vnl_dump_text(vnl_decode_ctx *ctx, const vnl_class *cls, PyObject *value, vnl_buf *out, uint32_t *oid);
/* dump_time.c */
int vnl_dump_date(PyObject *value, vnl_buf *out);
int vnl_dump_time(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out, uint32_t *oid);
int vnl_dump_datetime(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out, uint32_t *oid);
int vnl_dump_timedelta(vnl_decode_ctx *ctx, PyObject *value, vnl_buf *out);
/* *micros: seconds east of UTC times 1e6; *known 0 when utcoffset() is None. */
int vnl_utcoffset(vnl_decode_ctx *ctx, PyObject *value, int64_t *micros, int *known);
/* list.c: the array literal.  1 done, 0 when C cannot (use the generic way), -1 exception. */
int vnl_dump_list(vnl_decode_ctx *ctx, PyObject *list, vnl_buf *out, uint32_t *oid);
/* list_binary.c: the same array in binary.  1 done, 0 where it has to be text, -1 exception. */
int vnl_dump_list_binary(vnl_decode_ctx *ctx, PyObject *list, vnl_buf *out, uint32_t *oid);
uint32_t vnl_array_oid(uint32_t oid);
/* classes.c: the registered dumper of `value`, new reference, or NULL. */
PyObject *vnl_row_dumper(vnl_decode_ctx *ctx, PyObject *value);
/* new reference: `value`, or str(value) for a lazy string of Django's,
 * or what a psycopg.Binary holds. */
PyObject *vnl_row_unlazy(vnl_decode_ctx *ctx, PyObject *value);
/* A failed buffer becomes MemoryError: 0 or -1. */
int vnl_row_check_buf(const vnl_buf *buf);

#endif
