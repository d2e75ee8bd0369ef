/* Django's converters for columns of SQLite, in C for the values that its own
 * backend writes; any other value goes to Django's function. */
#include "py_sqlite.h"

#include <datetime.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define EXACT_DIGITS 15 /* as many significant digits as SQLite's REAL has */

/* A converter's own arguments: (Django's function, then what its kind needs). */
#define DJANGOS(own) PyTuple_GET_ITEM(own, 0)

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
        PyDateTime_DATE_GET_MICROSECOND(value), PyTuple_GET_ITEM(own, 1), PyDateTime_DATE_GET_FOLD(value),
        PyDateTimeAPI->DateTimeType);
}

/* 32 hexadecimal digits.  own: (function, UUID, SafeUUID.unknown, names of the slots). */
static PyObject *
convert_uuid(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    Py_ssize_t len = 0;
    const char *text = PyUnicode_CheckExact(args[0]) ? PyUnicode_AsUTF8AndSize(args[0], &len) : NULL;
    if (args[0] == Py_None) {
        return Py_NewRef(args[0]);
    }
    if (text == NULL || len != 32 || strspn(text, "0123456789abcdefABCDEF") != 32) {
        PyErr_Clear();
        return ask_django(own, args, nargs);
    }
    PyTypeObject *type = (PyTypeObject *)PyTuple_GET_ITEM(own, 1);
    PyObject *number = PyLong_FromString(text, NULL, 16);
    PyObject *uuid = number != NULL ? type->tp_alloc(type, 0) : NULL;
    PyObject *names[2] = {PyTuple_GET_ITEM(own, 3), PyTuple_GET_ITEM(own, 4)};
    /* UUID.__setattr__ refuses; its slots are set as its __init__ does. */
    if (uuid != NULL && (PyObject_GenericSetAttr(uuid, names[0], number) < 0 ||
                         PyObject_GenericSetAttr(uuid, names[1], PyTuple_GET_ITEM(own, 2)) < 0)) {
        Py_CLEAR(uuid);
    }
    Py_XDECREF(number);
    return uuid;
}

/* The number with `places` decimals, when it has no more than those among its
 * first 15 significant digits, and `digits` digits at most.  0 when it has. */
static int
format_decimal(double number, int places, int digits, char *out, size_t size)
{
    char exact[32]; /* d.dddddddddddddde±xx */
    if (!isfinite(number) || fabs(number) >= 1e15 || (number == 0 && signbit(number))) {
        return 0;
    }
    int len = snprintf(out, size, "%.*f", places, number);
    if (len < 0 || (size_t)len >= size) {
        return 0;
    }
    int count = 0;
    for (int i = 0; i < len; i++) {
        count += out[i] >= '0' && out[i] <= '9' && (count > 0 || out[i] != '0');
    }
    /* The shorter text is right when it stands for the same 15 digits. */
    char again[32];
    snprintf(exact, sizeof(exact), "%.*e", EXACT_DIGITS - 1, number);
    snprintf(again, sizeof(again), "%.*e", EXACT_DIGITS - 1, strtod(out, NULL));
    return count <= digits && count <= EXACT_DIGITS && strcmp(exact, again) == 0;
}

/* own: (function, Decimal, places, digits). */
static PyObject *
convert_decimal(PyObject *own, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(nargs) < 0) {
        return NULL;
    }
    char text[64];
    int places = (int)PyLong_AsLong(PyTuple_GET_ITEM(own, 2));
    int digits = (int)PyLong_AsLong(PyTuple_GET_ITEM(own, 3));
    if (!PyFloat_CheckExact(args[0]) ||
        !format_decimal(PyFloat_AS_DOUBLE(args[0]), places, digits, text, sizeof(text))) {
        return ask_django(own, args, nargs);
    }
    PyObject *str = PyUnicode_FromString(text);
    PyObject *value = str != NULL ? PyObject_CallOneArg(PyTuple_GET_ITEM(own, 1), str) : NULL;
    Py_XDECREF(str);
    return value;
}

static PyMethodDef methods[] = {
    {"bool", _PyCFunction_CAST(convert_bool), METH_FASTCALL, NULL},
    {"date", _PyCFunction_CAST(convert_date), METH_FASTCALL, NULL},
    {"datetime", _PyCFunction_CAST(convert_datetime), METH_FASTCALL, NULL},
    {"uuid", _PyCFunction_CAST(convert_uuid), METH_FASTCALL, NULL},
    {"decimal", _PyCFunction_CAST(convert_decimal), METH_FASTCALL, NULL},
};

/* Looks up what a kind needs besides Django's function.  New reference: (function, …). */
static PyObject *
own_arguments(const char *kind, PyObject *function, PyObject *zone, int places, int digits)
{
    PyObject *module = NULL, *own = NULL;
    if (strcmp(kind, "datetime") == 0) {
        return PyTuple_Pack(2, function, zone);
    }
    if (strcmp(kind, "uuid") == 0 && (module = PyImport_ImportModule("uuid")) != NULL) {
        PyObject *safe = PyObject_GetAttrString(module, "SafeUUID");
        PyObject *unknown = safe != NULL ? PyObject_GetAttrString(safe, "unknown") : NULL;
        PyObject *uuid = unknown != NULL ? PyObject_GetAttrString(module, "UUID") : NULL;
        own = uuid != NULL ? Py_BuildValue("OOOss", function, uuid, unknown, "int", "is_safe") : NULL;
        Py_XDECREF(uuid);
        Py_XDECREF(unknown);
        Py_XDECREF(safe);
    }
    else if (strcmp(kind, "decimal") == 0 && (module = PyImport_ImportModule("decimal")) != NULL) {
        PyObject *decimal = PyObject_GetAttrString(module, "Decimal");
        own = decimal != NULL ? Py_BuildValue("ONii", function, decimal, places, digits) : NULL;
    }
    else if (!PyErr_Occurred()) {
        return PyTuple_Pack(1, function);
    }
    Py_XDECREF(module);
    return own;
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
    if (places < 0 || places > 30) {
        return Py_NewRef(function);
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].ml_name, kind) == 0) {
            PyObject *own = own_arguments(kind, function, zone, places, digits);
            PyObject *converter = own != NULL ? PyCFunction_New(&methods[i], own) : NULL;
            Py_XDECREF(own);
            return converter;
        }
    }
    return PyErr_Format(PyExc_ValueError, "no converter '%s'", kind);
}

int
vnl_sqlite_convert_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}
