/* SQLite's result codes as sqlite3's exceptions. */
#include "py_sqlite.h"

static const char *const class_names[] = {
    "Warning",          "Error",          "InterfaceError",
    "DatabaseError",    "InternalError",  "OperationalError",
    "ProgrammingError", "IntegrityError", "DataError",
};

int
vnl_sqlite_errors_init(vnl_sqlite_state *state)
{
    PyObject *sqlite3 = PyImport_ImportModule("sqlite3");

    if (sqlite3 == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(class_names) / sizeof(class_names[0]); i++) {
        state->errors[i] = PyObject_GetAttrString(sqlite3, class_names[i]);
        if (state->errors[i] == NULL) {
            Py_DECREF(sqlite3);
            return -1;
        }
    }
    Py_DECREF(sqlite3);
    return 0;
}

static vnl_sqlite_error_kind
kind_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_INTERNAL:
    case SQLITE_NOTFOUND:
        return VNL_E_INTERNAL;
    case SQLITE_ERROR:
    case SQLITE_PERM:
    case SQLITE_ABORT:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_READONLY:
    case SQLITE_INTERRUPT:
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_CANTOPEN:
    case SQLITE_PROTOCOL:
    case SQLITE_EMPTY:
    case SQLITE_SCHEMA:
        return VNL_E_OPERATIONAL;
    case SQLITE_TOOBIG:
        return VNL_E_DATA;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return VNL_E_INTEGRITY;
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
        return VNL_E_INTERFACE;
    default:
        return VNL_E_DATABASE;
    }
}

#define NAME(code) {code, #code}

static const struct {
    int code;
    const char *name;
} names[] = {
    NAME(SQLITE_ERROR),
    NAME(SQLITE_INTERNAL),
    NAME(SQLITE_PERM),
    NAME(SQLITE_ABORT),
    NAME(SQLITE_BUSY),
    NAME(SQLITE_LOCKED),
    NAME(SQLITE_NOMEM),
    NAME(SQLITE_READONLY),
    NAME(SQLITE_INTERRUPT),
    NAME(SQLITE_IOERR),
    NAME(SQLITE_CORRUPT),
    NAME(SQLITE_NOTFOUND),
    NAME(SQLITE_FULL),
    NAME(SQLITE_CANTOPEN),
    NAME(SQLITE_PROTOCOL),
    NAME(SQLITE_EMPTY),
    NAME(SQLITE_SCHEMA),
    NAME(SQLITE_TOOBIG),
    NAME(SQLITE_CONSTRAINT),
    NAME(SQLITE_MISMATCH),
    NAME(SQLITE_MISUSE),
    NAME(SQLITE_NOLFS),
    NAME(SQLITE_AUTH),
    NAME(SQLITE_FORMAT),
    NAME(SQLITE_RANGE),
    NAME(SQLITE_NOTADB),
    NAME(SQLITE_ABORT_ROLLBACK),
    NAME(SQLITE_BUSY_RECOVERY),
    NAME(SQLITE_BUSY_SNAPSHOT),
    NAME(SQLITE_BUSY_TIMEOUT),
    NAME(SQLITE_CANTOPEN_FULLPATH),
    NAME(SQLITE_CANTOPEN_ISDIR),
    NAME(SQLITE_CANTOPEN_NOTEMPDIR),
    NAME(SQLITE_CANTOPEN_SYMLINK),
    NAME(SQLITE_CONSTRAINT_CHECK),
    NAME(SQLITE_CONSTRAINT_COMMITHOOK),
    NAME(SQLITE_CONSTRAINT_FOREIGNKEY),
    NAME(SQLITE_CONSTRAINT_FUNCTION),
    NAME(SQLITE_CONSTRAINT_NOTNULL),
    NAME(SQLITE_CONSTRAINT_PINNED),
    NAME(SQLITE_CONSTRAINT_PRIMARYKEY),
    NAME(SQLITE_CONSTRAINT_ROWID),
    NAME(SQLITE_CONSTRAINT_TRIGGER),
    NAME(SQLITE_CONSTRAINT_UNIQUE),
    NAME(SQLITE_CONSTRAINT_VTAB),
    NAME(SQLITE_CORRUPT_INDEX),
    NAME(SQLITE_CORRUPT_SEQUENCE),
    NAME(SQLITE_CORRUPT_VTAB),
    NAME(SQLITE_ERROR_MISSING_COLLSEQ),
    NAME(SQLITE_ERROR_RETRY),
    NAME(SQLITE_ERROR_SNAPSHOT),
    NAME(SQLITE_IOERR_ACCESS),
    NAME(SQLITE_IOERR_AUTH),
    NAME(SQLITE_IOERR_BEGIN_ATOMIC),
    NAME(SQLITE_IOERR_BLOCKED),
    NAME(SQLITE_IOERR_CHECKRESERVEDLOCK),
    NAME(SQLITE_IOERR_CLOSE),
    NAME(SQLITE_IOERR_COMMIT_ATOMIC),
    NAME(SQLITE_IOERR_CONVPATH),
    NAME(SQLITE_IOERR_DATA),
    NAME(SQLITE_IOERR_DELETE),
    NAME(SQLITE_IOERR_DELETE_NOENT),
    NAME(SQLITE_IOERR_DIR_CLOSE),
    NAME(SQLITE_IOERR_DIR_FSYNC),
    NAME(SQLITE_IOERR_FSTAT),
    NAME(SQLITE_IOERR_FSYNC),
    NAME(SQLITE_IOERR_GETTEMPPATH),
    NAME(SQLITE_IOERR_LOCK),
    NAME(SQLITE_IOERR_MMAP),
    NAME(SQLITE_IOERR_NOMEM),
    NAME(SQLITE_IOERR_RDLOCK),
    NAME(SQLITE_IOERR_READ),
    NAME(SQLITE_IOERR_ROLLBACK_ATOMIC),
    NAME(SQLITE_IOERR_SEEK),
    NAME(SQLITE_IOERR_SHMLOCK),
    NAME(SQLITE_IOERR_SHMMAP),
    NAME(SQLITE_IOERR_SHMOPEN),
    NAME(SQLITE_IOERR_SHMSIZE),
    NAME(SQLITE_IOERR_SHORT_READ),
    NAME(SQLITE_IOERR_TRUNCATE),
    NAME(SQLITE_IOERR_UNLOCK),
    NAME(SQLITE_IOERR_VNODE),
    NAME(SQLITE_IOERR_WRITE),
    NAME(SQLITE_LOCKED_SHAREDCACHE),
    NAME(SQLITE_LOCKED_VTAB),
    NAME(SQLITE_READONLY_CANTINIT),
    NAME(SQLITE_READONLY_CANTLOCK),
    NAME(SQLITE_READONLY_DBMOVED),
    NAME(SQLITE_READONLY_DIRECTORY),
    NAME(SQLITE_READONLY_RECOVERY),
    NAME(SQLITE_READONLY_ROLLBACK),
};

static const char *
name_of(int rc)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].code == rc) {
            return names[i].name;
        }
    }
    return rc == (rc & 0xff) ? "SQLITE_UNKNOWN" : name_of(rc & 0xff);
}

PyObject *
vnl_sqlite_raise(vnl_sqlite_state *state, vnl_sqlite_conn *conn, int rc)
{
    PyObject *cls = state->errors[kind_of(rc)];
    PyObject *error = NULL, *code = NULL, *name = NULL, *text = NULL;
    const char *message = NULL;

    if (PyErr_Occurred()) {
        return NULL;
    }
    if (conn != NULL && conn->overdue && rc != SQLITE_OK) {
        char seconds[32];
        PyOS_snprintf(seconds, sizeof(seconds), "%g", (double)conn->command_timeout / 1e9);
        return vnl_sqlite_fail(
            state, VNL_E_OPERATIONAL,
            "the statement was ended: it took longer than OPTIONS['command_timeout'] (%s s)%s", seconds,
            (rc & 0xff) == SQLITE_INTERRUPT ? "" : ", waiting for a lock");
    }
    if ((rc & 0xff) == SQLITE_NOMEM) {
        return PyErr_NoMemory();
    }
    /* The connection's message, unless it is about something else by now. */
    if (conn != NULL && (sqlite3_errcode(conn->db) & 0xff) == (rc & 0xff)) {
        message = sqlite3_errmsg(conn->db);
    }
    message = message != NULL ? message : sqlite3_errstr(rc);
    text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace");
    if (text == NULL || (error = PyObject_CallOneArg(cls, text)) == NULL) {
        goto done;
    }
    if ((code = PyLong_FromLong(rc)) == NULL || PyObject_SetAttrString(error, "sqlite_errorcode", code) < 0 ||
        (name = PyUnicode_FromString(name_of(rc))) == NULL ||
        PyObject_SetAttrString(error, "sqlite_errorname", name) < 0) {
        goto done;
    }
    PyErr_SetObject(cls, error);
done:
    Py_XDECREF(text);
    Py_XDECREF(name);
    Py_XDECREF(code);
    Py_XDECREF(error);
    return NULL;
}

PyObject *
vnl_sqlite_fail(vnl_sqlite_state *state, vnl_sqlite_error_kind kind, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PyErr_FormatV(state->errors[kind], format, args);
    va_end(args);
    return NULL;
}

PyObject *
vnl_sqlite_take_error(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
#endif
}

void
vnl_sqlite_put_error(PyObject *error)
{
    if (error == NULL) {
        return;
    }
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}
