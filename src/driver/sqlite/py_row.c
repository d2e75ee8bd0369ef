/* A statement's columns, and its rows as Python values.
 *
 * Converters are sqlite3's (register_converter), keyed as there by the
 * declared type or by "[type]" in the column's name.  Where the registered one
 * is the very function that Django registered, C decodes the usual text itself
 * and calls it for anything unusual only. */
#include "py_sqlite.h"

/* --- columns */

void
vnl_sqlite_columns_free(void *arg)
{
    vnl_sqlite_columns *columns = arg;

    Py_XDECREF(columns->description);
    for (int i = 0; i < columns->count; i++) {
        Py_XDECREF(columns->column[i].key);
        Py_XDECREF(columns->column[i].convert);
    }
    PyMem_Free(columns);
}

static const struct {
    const char *name;
    vnl_sqlite_decoder decoder;
} known[] = {
    {"BOOL", VNL_DECODE_BOOL},         {"DATE", VNL_DECODE_DATE},          {"TIME", VNL_DECODE_TIME},
    {"DATETIME", VNL_DECODE_DATETIME}, {"TIMESTAMP", VNL_DECODE_DATETIME},
};

/* 1 found, 0 none, -1 exception. */
static int
find_converter(vnl_sqlite_state *state, const char *type, Py_ssize_t len, struct vnl_sqlite_column *column)
{
    PyObject *name = PyUnicode_DecodeUTF8(type, len, "replace");
    PyObject *upper = name == NULL ? NULL : PyObject_CallMethod(name, "upper", NULL);
    PyObject *convert = NULL, *django = NULL;
    int found = -1;

    if (upper == NULL) {
        goto done;
    }
    convert = Py_XNewRef(PyDict_GetItemWithError(state->converters, upper));
    if (convert == NULL) {
        found = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    column->decoder = VNL_DECODE_CALL;
    column->convert = Py_NewRef(convert);
    column->key = Py_NewRef(upper);
    django = PyDict_GetItemWithError(state->django_converters, upper);
    for (size_t i = 0; django == convert && i < sizeof(known) / sizeof(known[0]); i++) {
        if (PyUnicode_CompareWithASCIIString(upper, known[i].name) == 0) {
            column->decoder = known[i].decoder;
        }
    }
    found = PyErr_Occurred() ? -1 : 1;
done:
    Py_XDECREF(convert);
    Py_XDECREF(upper);
    Py_XDECREF(name);
    return found;
}

static int
look_up_converter(vnl_sqlite_state *state, sqlite3_stmt *raw, int i, int detect_types,
                  struct vnl_sqlite_column *column)
{
    const char *name = sqlite3_column_name(raw, i);
    const char *type = NULL;
    int found = 0;

    if ((detect_types & 2) && name != NULL) { /* PARSE_COLNAMES */
        const char *start = strchr(name, '[');
        const char *end = start == NULL ? NULL : strchr(start, ']');
        if (end != NULL) {
            found = find_converter(state, start + 1, end - start - 1, column);
        }
    }
    if (found == 0 && (detect_types & 1)) { /* PARSE_DECLTYPES */
        type = sqlite3_column_decltype(raw, i);
        if (type != NULL) {
            found = find_converter(state, type, (Py_ssize_t)strcspn(type, " ("), column);
        }
    }
    return found;
}

/* A new 7-tuple. */
static PyObject *
describe(vnl_sqlite_state *state, const char *name, int detect_types)
{
    size_t len;

    if (name == NULL) {
        return PyErr_NoMemory();
    }
    len = strlen(name);
    if (detect_types & 2) {
        const char *bracket = strchr(name, '[');
        if (bracket != NULL) {
            len = (size_t)(bracket - name);
            len -= len > 0 && name[len - 1] == ' ';
        }
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    return Py_BuildValue("(s#OOOOOO)", name, (Py_ssize_t)len, Py_None, Py_None, Py_None, Py_None, Py_None,
                         Py_None);
}

int
vnl_sqlite_columns_hold(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt)
{
    vnl_sqlite_columns *columns = stmt->extra;

    for (int i = 0; columns != NULL && i < columns->count; i++) {
        const struct vnl_sqlite_column *column = &columns->column[i];
        if (column->key != NULL &&
            PyDict_GetItemWithError(state->converters, column->key) != column->convert) {
            if (PyErr_Occurred()) {
                return -1;
            }
            stmt->extra = NULL;
            vnl_sqlite_columns_free(columns);
            break;
        }
    }
    return 0;
}

vnl_sqlite_columns *
vnl_sqlite_columns_of(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, int detect_types)
{
    vnl_sqlite_columns *columns = stmt->extra;
    int count = stmt->raw == NULL ? 0 : sqlite3_column_count(stmt->raw);
    int reprepared = stmt->raw == NULL ? 0 : sqlite3_stmt_status(stmt->raw, SQLITE_STMTSTATUS_REPREPARE, 0);
    Py_ssize_t converters = PyDict_GET_SIZE(state->converters);

    if (columns != NULL && columns->count == count && columns->reprepared == reprepared &&
        columns->detect_types == detect_types && columns->converters == converters) {
        return columns;
    }
    columns = PyMem_Calloc(1, sizeof(*columns) + (size_t)count * sizeof(columns->column[0]));
    if (columns == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    columns->count = count;
    columns->reprepared = reprepared;
    columns->detect_types = detect_types;
    columns->converters = converters;
    columns->description = count == 0 ? Py_NewRef(Py_None) : PyTuple_New(count);
    if (columns->description == NULL) {
        goto fail;
    }
    for (int i = 0; i < count; i++) {
        PyObject *one = describe(state, sqlite3_column_name(stmt->raw, i), detect_types);
        if (one == NULL) {
            goto fail;
        }
        PyTuple_SET_ITEM(columns->description, i, one);
        if (look_up_converter(state, stmt->raw, i, detect_types, &columns->column[i]) < 0) {
            goto fail;
        }
    }
    if (stmt->extra != NULL) {
        vnl_sqlite_columns_free(stmt->extra);
    }
    stmt->extra = columns;
    return columns;

fail:
    vnl_sqlite_columns_free(columns);
    return NULL;
}

/* --- values */

static PyObject *
decode_text(vnl_sqlite_state *state, sqlite3_stmt *raw, int i)
{
    const char *text = (const char *)sqlite3_column_text(raw, i);
    int len = sqlite3_column_bytes(raw, i);
    PyObject *value, *shown;

    if (text == NULL) {
        return PyErr_NoMemory();
    }
    value = vnl_text_new(text, len);
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        return value;
    }
    PyErr_Clear();
    shown = PyUnicode_DecodeUTF8(text, len, "replace");
    if (shown != NULL) {
        vnl_sqlite_fail(state, VNL_E_OPERATIONAL, "Could not decode to UTF-8 column '%s' with text '%U'",
                        sqlite3_column_name(raw, i), shown);
        Py_DECREF(shown);
    }
    return NULL;
}

static PyObject *
decode_plain(vnl_sqlite_state *state, sqlite3_stmt *raw, int i)
{
    const void *blob;

    switch (sqlite3_column_type(raw, i)) {
    case SQLITE_INTEGER:
        return PyLong_FromLongLong(sqlite3_column_int64(raw, i));
    case SQLITE_FLOAT:
        return PyFloat_FromDouble(sqlite3_column_double(raw, i));
    case SQLITE_TEXT:
        return decode_text(state, raw, i);
    case SQLITE_BLOB:
        blob = sqlite3_column_blob(raw, i);
        return PyBytes_FromStringAndSize(blob, sqlite3_column_bytes(raw, i));
    default:
        Py_RETURN_NONE;
    }
}

static PyObject *
decode_call(sqlite3_stmt *raw, int i, PyObject *convert)
{
    const char *blob = sqlite3_column_blob(raw, i);
    PyObject *bytes = PyBytes_FromStringAndSize(blob, sqlite3_column_bytes(raw, i));
    PyObject *value;

    if (bytes == NULL) {
        return NULL;
    }
    value = PyObject_CallOneArg(convert, bytes);
    Py_DECREF(bytes);
    return value;
}

static PyObject *
decode_converted(sqlite3_stmt *raw, int i, const struct vnl_sqlite_column *column)
{
    int type = sqlite3_column_type(raw, i);
    const char *text;
    int len;
    PyObject *value = NULL;

    if (type == SQLITE_NULL) {
        Py_RETURN_NONE;
    }
    if (column->decoder == VNL_DECODE_BOOL && type == SQLITE_INTEGER) {
        return PyBool_FromLong(sqlite3_column_int64(raw, i) == 1);
    }
    if (column->decoder != VNL_DECODE_CALL && type == SQLITE_TEXT) {
        text = (const char *)sqlite3_column_text(raw, i);
        len = sqlite3_column_bytes(raw, i);
        if (text == NULL) {
            return PyErr_NoMemory();
        }
        switch (column->decoder) {
        case VNL_DECODE_DATE:
            value = vnl_sqlite_decode_date(text, len);
            break;
        case VNL_DECODE_TIME:
            value = vnl_sqlite_decode_time(text, len);
            break;
        case VNL_DECODE_DATETIME:
            value = vnl_sqlite_decode_datetime(text, len);
            break;
        default:
            break;
        }
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return decode_call(raw, i, column->convert);
}

int
vnl_sqlite_cells(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, const vnl_sqlite_columns *columns,
                 PyObject **cells)
{
    for (int i = 0; i < columns->count; i++) {
        const struct vnl_sqlite_column *column = &columns->column[i];
        cells[i] = column->decoder == VNL_DECODE_PLAIN ? decode_plain(state, stmt->raw, i)
                                                       : decode_converted(stmt->raw, i, column);
        if (cells[i] == NULL) {
            while (--i >= 0) {
                Py_CLEAR(cells[i]);
            }
            return -1;
        }
    }
    return 0;
}

PyObject *
vnl_sqlite_row(vnl_sqlite_state *state, vnl_sqlite_stmt *stmt, const vnl_sqlite_columns *columns)
{
    PyObject *row = PyTuple_New(columns->count);

    if (row != NULL && vnl_sqlite_cells(state, stmt, columns, ((PyTupleObject *)row)->ob_item) < 0) {
        Py_CLEAR(row);
    }
    return row;
}
