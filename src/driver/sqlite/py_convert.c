/* Django's converters for columns of SQLite, in C for the values that its own
 * backend writes; any other value goes to Django's function. */
#include "py_sqlite.h"

#include <datetime.h>
#include <math.h>
#include <string.h>

#define EXACT_DIGITS 15 /* as many significant digits as SQLite's REAL has */

/* A converter's own arguments: (Django's function, our module, then what its kind needs). */
#define DJANGOS(own) PyTuple_GET_ITEM(own, 0)
#define STATE(own) ((vnl_sqlite_state *)PyModule_GetState(PyTuple_GET_ITEM(own, 1)))

/* Decimals that were made last, by what they were made of: amounts repeat,
 * and a Decimal is never changed. */
enum {
    DECIMALS = 256
};

struct vnl_sqlite_decimals {
    struct {
        int64_t whole; /* without its point */
        int places;
        PyObject *value; /* owned, or NULL */
    } made[DECIMALS];
};

static PyObject *
ask_django(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    return PyObject_Vectorcall(DJANGOS(own), args, (size_t)nargs, NULL);
}

static int
check_args(Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "a converter takes (value, expression, connection), not %zd arguments",
                     nargs);
        return -1;
    }
    return 0;
}

/* What is a date or a time already. */
static PyObject *
convert_date(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    if (args[0] == Py_None || PyDate_CheckExact(args[0]) || PyTime_CheckExact(args[0])) {
        return Py_NewRef(args[0]);
    }
    return ask_django(own, args, nargs);
}

static PyObject *
convert_bool(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    if (args[0] == Py_None || PyBool_Check(args[0])) {
        return Py_NewRef(args[0]);
    }
    return ask_django(own, args, nargs);
}

/* A datetime as it was stored, in UTC or the database's zone, gets that zone. */
static PyObject *
convert_datetime(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    PyObject *value = args[0];
    if (value == Py_None) {
        return Py_NewRef(value);
    }
    if (!PyDateTime_CheckExact(value) || PyDateTime_DATE_GET_TZINFO(value) != Py_None) {
        return ask_django(own, args, nargs);
    }
    return PyDateTimeAPI->DateTime_FromDateAndTimeAndFold(
        PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value), PyDateTime_GET_DAY(value),
        PyDateTime_DATE_GET_HOUR(value), PyDateTime_DATE_GET_MINUTE(value), PyDateTime_DATE_GET_SECOND(value),
        PyDateTime_DATE_GET_MICROSECOND(value), PyTuple_GET_ITEM(own, 2), PyDateTime_DATE_GET_FOLD(value),
        PyDateTimeAPI->DateTimeType);
}

/* The value of a hexadecimal digit, or -1. */
static int
hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 hexadecimal digits. */
static PyObject *
convert_uuid(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    if (args[0] == Py_None) {
        return Py_NewRef(args[0]);
    }
    unsigned char bytes[16];
    int wrong =
        !PyUnicode_CheckExact(args[0]) || !PyUnicode_IS_ASCII(args[0]) || PyUnicode_GET_LENGTH(args[0]) != 32;
    const char *text = wrong ? NULL : (const char *)PyUnicode_1BYTE_DATA(args[0]);
    for (int i = 0; !wrong && i < 16; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        wrong = high < 0 || low < 0;
        bytes[i] = (unsigned char)((unsigned)high << 4 | (unsigned)low);
    }
    return wrong ? ask_django(own, args, nargs) : vnl_uuid_new(&STATE(own)->uuids, bytes);
}

/* The whole number that `number` is with its point moved `places` to the right,
 * when `number` is the float next to that decimal and `digits` digits are enough
 * for it.  A decimal of 15 digits or less is what Django's converter gives for
 * the float next to it.  0 when it is not so. */
static int
whole_of(double number, int places, int digits, int64_t *whole)
{
    static const double tens[] = {1,   1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    if (places > EXACT_DIGITS || !(fabs(number) < 1e15) || (number == 0 && signbit(number))) {
        return 0;
    }
    double moved = nearbyint(number * tens[places]);
    if (!(fabs(moved) < tens[digits < EXACT_DIGITS ? digits : EXACT_DIGITS]) ||
        moved / tens[places] != number) {
        return 0;
    }
    *whole = (int64_t)moved;
    return 1;
}

/* Decimal of that whole number with its point moved back.  New reference. */
static PyObject *
decimal_of(PyObject *type, int64_t whole, int places)
{
    char text[40];
    char *at = text + sizeof(text);
    uint64_t rest = whole < 0 ? 0 - (uint64_t)whole : (uint64_t)whole;
    for (int i = 0; rest > 0 || i <= places; i++) {
        if (i == places && places > 0) {
            *--at = '.';
        }
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    }
    if (whole < 0) {
        *--at = '-';
    }
    PyObject *str = PyUnicode_FromStringAndSize(at, text + sizeof(text) - at);
    PyObject *value = str != NULL ? PyObject_CallOneArg(type, str) : NULL;
    Py_XDECREF(str);
    return value;
}

/* own: (function, module, places, digits). */
static PyObject *
convert_decimal(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    if (!PyFloat_CheckExact(args[0])) {
        return ask_django(own, args, nargs);
    }
    double number = PyFloat_AS_DOUBLE(args[0]);
    int places = (int)PyLong_AsLong(PyTuple_GET_ITEM(own, 2));
    int digits = (int)PyLong_AsLong(PyTuple_GET_ITEM(own, 3));
    vnl_sqlite_state *state = STATE(own);
    int64_t whole = 0;
    if (!whole_of(number, places, digits, &whole)) {
        return ask_django(own, args, nargs);
    }
    size_t slot = ((uint64_t)whole * UINT64_C(0x9E3779B97F4A7C15)) >> 56 & (DECIMALS - 1);
    struct vnl_sqlite_decimals *decimals = state->decimals;
    if (decimals->made[slot].value != NULL && decimals->made[slot].whole == whole &&
        decimals->made[slot].places == places) {
        return Py_NewRef(decimals->made[slot].value);
    }
    PyObject *value = decimal_of(state->decimal, whole, places);
    if (value != NULL) {
        decimals->made[slot].whole = whole;
        decimals->made[slot].places = places;
        Py_XSETREF(decimals->made[slot].value, Py_NewRef(value));
    }
    return value;
}

static PyMethodDef methods[] = {
    {"bool", _PyCFunction_CAST(convert_bool), METH_FASTCALL, NULL},
    {"date", _PyCFunction_CAST(convert_date), METH_FASTCALL, NULL},
    {"datetime", _PyCFunction_CAST(convert_datetime), METH_FASTCALL, NULL},
    {"uuid", _PyCFunction_CAST(convert_uuid), METH_FASTCALL, NULL},
    {"decimal", _PyCFunction_CAST(convert_decimal), METH_FASTCALL, NULL},
};

/* What a kind needs: new reference to (function, module, …). */
static PyObject *
own_arguments(PyObject *module, const char *kind, PyObject *function, PyObject *zone, int places, int digits)
{
    if (strcmp(kind, "datetime") == 0) {
        return PyTuple_Pack(3, function, module, zone);
    }
    if (strcmp(kind, "decimal") == 0) {
        return Py_BuildValue("OOii", function, module, places, digits);
    }
    return PyTuple_Pack(2, function, module);
}

PyObject *
vnl_sqlite_converter(PyObject *module, PyObject *args)
{
    const char *kind = NULL;
    PyObject *function = NULL, *zone = Py_None;
    int places = 0, digits = 0;
    if (!PyArg_ParseTuple(args, "sO|Oii:converter", &kind, &function, &zone, &places, &digits)) {
        return NULL;
    }
    if (places < 0 || places > 30 || digits < 0) {
        return Py_NewRef(function);
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].ml_name, kind) == 0) {
            PyObject *own = own_arguments(module, kind, function, zone, places, digits);
            PyObject *converter = own != NULL ? PyCFunction_New(&methods[i], own) : NULL;
            Py_XDECREF(own);
            return converter;
        }
    }
    return PyErr_Format(PyExc_ValueError, "no converter '%s'", kind);
}

void
vnl_sqlite_decimals_free(struct vnl_sqlite_decimals *self)
{
    for (int i = 0; self != NULL && i < DECIMALS; i++) {
        Py_CLEAR(self->made[i].value);
    }
    PyMem_Free(self);
}

int
vnl_sqlite_convert_init(vnl_sqlite_state *state)
{
    PyObject *module = PyImport_ImportModule("decimal");
    state->decimal = module != NULL ? PyObject_GetAttrString(module, "Decimal") : NULL;
    Py_XDECREF(module);
    if (state->decimal == NULL || vnl_uuids_init(&state->uuids) < 0) {
        return -1;
    }
    state->decimals = PyMem_Calloc(1, sizeof(*state->decimals));
    if (state->decimals == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}
