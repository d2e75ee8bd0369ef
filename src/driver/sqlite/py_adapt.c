/* What Django's backend makes of a field's value for SQLite, in C for values of
 * exactly the usual class; any other one goes to Django's own method.
 *
 * `adapter()` gives a method for a DatabaseOperations class: it is called as
 * Django's adapt_datefield_value() and its kin are. */
#include "py_sqlite.h"

#include <datetime.h>
#include <string.h>

/* A method's own arguments: (Django's function, our module, the dict of settings). */
#define DJANGOS(own) PyTuple_GET_ITEM(own, 0)
#define STATE(own) ((vnl_sqlite_state *)PyModule_GetState(PyTuple_GET_ITEM(own, 1)))
#define SETTINGS(own) PyTuple_GET_ITEM(own, 2)

enum {
    CLOCK = 15 /* HH:MM:SS.ffffff */
};

/* --- text */

static char *
put_digits(char *at, int number, int count)
{
    for (int i = count - 1; i >= 0; i--) {
        at[i] = (char)('0' + number % 10);
        number /= 10;
    }
    return at + count;
}

static char *
put_date(char *at, PyObject *date)
{
    at = put_digits(at, PyDateTime_GET_YEAR(date), 4);
    *at++ = '-';
    at = put_digits(at, PyDateTime_GET_MONTH(date), 2);
    *at++ = '-';
    return put_digits(at, PyDateTime_GET_DAY(date), 2);
}

static char *
put_clock(char *at, int hour, int minute, int second, int micro)
{
    at = put_digits(at, hour, 2);
    *at++ = ':';
    at = put_digits(at, minute, 2);
    *at++ = ':';
    at = put_digits(at, second, 2);
    if (micro != 0) {
        *at++ = '.';
        at = put_digits(at, micro, 6);
    }
    return at;
}

static PyObject *
text_of(const char *text, const char *end)
{
    PyObject *value = PyUnicode_New(end - text, 127);

    if (value != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(value), text, (size_t)(end - text));
    }
    return value;
}

/* --- the methods: (operations, value) */

static PyObject *
ask_django(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    return PyObject_Vectorcall(DJANGOS(own), args, (size_t)nargs, NULL);
}

static PyObject *
adapt_date(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    char text[10];

    if (nargs != 2 || !PyDate_CheckExact(args[1])) {
        return ask_django(own, args, nargs);
    }
    return text_of(text, put_date(text, args[1]));
}

static PyObject *
adapt_time(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    char text[CLOCK];
    PyObject *value = nargs == 2 ? args[1] : Py_None;

    if (!PyTime_CheckExact(value) || PyDateTime_TIME_GET_TZINFO(value) != Py_None) {
        return ask_django(own, args, nargs);
    }
    return text_of(text,
                   put_clock(text, PyDateTime_TIME_GET_HOUR(value), PyDateTime_TIME_GET_MINUTE(value),
                             PyDateTime_TIME_GET_SECOND(value), PyDateTime_TIME_GET_MICROSECOND(value)));
}

/* Whether what is in UTC is written as it is: USE_TZ is on, and the database's
 * zone is UTC too.  -1 with an exception. */
static int
writes_utc(vnl_sqlite_state *state, PyObject *settings, PyObject *operations)
{
    PyObject *connection = NULL, *zone = NULL;
    int same = -1;

    /* Django's settings keep there what was asked of them since they changed. */
    if (PyDict_GetItemWithError(settings, state->str_use_tz) != Py_True) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if ((connection = PyObject_GetAttr(operations, state->str_connection)) != NULL &&
        (zone = PyObject_GetAttr(connection, state->str_timezone)) != NULL) {
        same = zone == PyDateTime_TimeZone_UTC;
    }
    Py_XDECREF(zone);
    Py_XDECREF(connection);
    return same;
}

static PyObject *
adapt_datetime(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    char text[11 + CLOCK];
    char *at;
    PyObject *value = nargs == 2 ? args[1] : Py_None;
    int plain = PyDateTime_CheckExact(value);

    if (plain && PyDateTime_DATE_GET_TZINFO(value) != Py_None) {
        plain = PyDateTime_DATE_GET_TZINFO(value) == PyDateTime_TimeZone_UTC
                    ? writes_utc(STATE(own), SETTINGS(own), args[0])
                    : 0;
    }
    if (plain <= 0) {
        return plain == 0 ? ask_django(own, args, nargs) : NULL;
    }
    at = put_date(text, value);
    *at++ = ' ';
    return text_of(text,
                   put_clock(at, PyDateTime_DATE_GET_HOUR(value), PyDateTime_DATE_GET_MINUTE(value),
                             PyDateTime_DATE_GET_SECOND(value), PyDateTime_DATE_GET_MICROSECOND(value)));
}

static PyMethodDef methods[] = {
    {"date", _PyCFunction_CAST(adapt_date), METH_FASTCALL, NULL},
    {"time", _PyCFunction_CAST(adapt_time), METH_FASTCALL, NULL},
    {"datetime", _PyCFunction_CAST(adapt_datetime), METH_FASTCALL, NULL},
};

PyObject *
vnl_sqlite_adapter(PyObject *module, PyObject *args)
{
    const char *kind = NULL;
    PyObject *function = NULL, *settings = NULL;
    PyObject *own = NULL, *made = NULL, *method = NULL;

    if (!PyArg_ParseTuple(args, "sOO!:adapter", &kind, &function, &PyDict_Type, &settings)) {
        return NULL;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(methods); i++) {
        if (strcmp(methods[i].ml_name, kind) == 0) {
            own = PyTuple_Pack(3, function, module, settings);
            made = own != NULL ? PyCFunction_New(&methods[i], own) : NULL;
            method = made != NULL ? PyInstanceMethod_New(made) : NULL;
            Py_XDECREF(made);
            Py_XDECREF(own);
            return method;
        }
    }
    return PyErr_Format(PyExc_ValueError, "no adapter '%s'", kind);
}

PyObject *
vnl_sqlite_uuid_hex(PyObject *module, PyObject *uuid)
{
    static const char digits[] = "0123456789abcdef";
    vnl_sqlite_state *state = PyModule_GetState(module);
    unsigned char bytes[16];
    char text[2 * sizeof(bytes)];
    int usual = vnl_uuid_bytes(&state->uuids, uuid, bytes);

    if (usual <= 0) {
        return usual == 0 ? PyObject_GetAttr(uuid, state->str_hex) : NULL;
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return text_of(text, text + sizeof(text));
}

int
vnl_sqlite_adapt_init(vnl_sqlite_state *state)
{
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL) {
        return -1;
    }
    state->str_use_tz = PyUnicode_InternFromString("USE_TZ");
    state->str_connection = PyUnicode_InternFromString("connection");
    state->str_timezone = PyUnicode_InternFromString("timezone");
    state->str_hex = PyUnicode_InternFromString("hex");
    return state->str_use_tz == NULL || state->str_connection == NULL || state->str_timezone == NULL ||
                   state->str_hex == NULL
               ? -1
               : 0;
}
