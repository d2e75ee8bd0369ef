/* Which functions, aggregates and collations a physical connection has.
 *
 * Those that config.setup creates belong to every connection of the pool; what
 * is created on a link belongs to that link.  A connection remembers both, and
 * when a link takes it, it gets that link's and loses what another left: so
 * nothing has to be pinned, and a session that creates the same functions as
 * the one before it finds them there. */
#include "py_sqlite.h"

/* What a physical connection carries for us: conn->above. */
typedef struct above {
    PyObject *base;  /* dict: (kind, name, narg) -> (callable, flags), by set-up */
    PyObject *extra; /* the same, by the link that last had it */
    void *trace;
} above;

static above *
above_of(vnl_sqlite_conn *conn)
{
    above *a = conn->above;

    if (a != NULL) {
        return a;
    }
    a = PyMem_Calloc(1, sizeof(*a));
    if (a == NULL || (a->base = PyDict_New()) == NULL || (a->extra = PyDict_New()) == NULL) {
        if (a != NULL) {
            Py_XDECREF(a->base);
            PyMem_Free(a);
        }
        PyErr_NoMemory();
        return NULL;
    }
    conn->above = a;
    return a;
}

void
vnl_sqlite_free_above(vnl_sqlite_conn *conn)
{
    above *a = conn == NULL ? NULL : conn->above;

    if (a == NULL) {
        return;
    }
    conn->above = NULL;
    sqlite3_trace_v2(conn->db, 0, NULL, NULL);
    vnl_sqlite_free_trace(a->trace);
    Py_DECREF(a->base);
    Py_DECREF(a->extra);
    PyMem_Free(a);
}

int
vnl_link_trace(vnl_link *link, PyObject *callable)
{
    above *a = above_of(link->conn);
    void *old;

    if (a == NULL) {
        return -1;
    }
    old = a->trace;
    if (vnl_sqlite_set_trace(link->state, link->conn, callable, &a->trace) < 0) {
        return -1;
    }
    vnl_sqlite_free_trace(old);
    return 0;
}

/* --- applying */

/* `value` NULL removes. */
static int
apply(vnl_link *link, PyObject *key, PyObject *value)
{
    long kind = PyLong_AsLong(PyTuple_GET_ITEM(key, 0));
    const char *name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(key, 1));
    int narg = (int)PyLong_AsLong(PyTuple_GET_ITEM(key, 2));
    PyObject *callable = value == NULL ? Py_None : PyTuple_GET_ITEM(value, 0);
    int flags = value == NULL ? 0 : (int)PyLong_AsLong(PyTuple_GET_ITEM(value, 1));

    if (name == NULL) {
        return -1;
    }
    switch (kind) {
    case VNL_REG_FUNCTION:
        return vnl_sqlite_create_function(link->state, link->conn, name, narg, callable, flags);
    case VNL_REG_AGGREGATE:
    case VNL_REG_WINDOW:
        return vnl_sqlite_create_aggregate(link->state, link->conn, name, narg, callable,
                                           kind == VNL_REG_WINDOW);
    default:
        return vnl_sqlite_create_collation(link->state, link->conn, name, callable);
    }
}

/* Takes away what another link left and this one does not have. */
static int
remove_strangers(vnl_link *link, above *a)
{
    PyObject *keys = PyDict_Keys(a->extra);
    int rc = keys == NULL ? -1 : 0;

    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        if (link->functions != NULL && PyDict_GetItemWithError(link->functions, key) != NULL) {
            continue;
        }
        rc = PyErr_Occurred() ? -1 : apply(link, key, PyDict_GetItemWithError(a->base, key));
        if (rc == 0) {
            rc = PyDict_DelItem(a->extra, key);
        }
    }
    Py_XDECREF(keys);
    return rc;
}

static int
add_own(vnl_link *link, above *a)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(link->functions, &at, &key, &value)) {
        PyObject *there = PyDict_GetItemWithError(a->extra, key);
        int same = there == NULL ? 0 : PyObject_RichCompareBool(there, value, Py_EQ);
        if (same < 0 || PyErr_Occurred()) {
            return -1;
        }
        if (!same && (apply(link, key, value) < 0 || PyDict_SetItem(a->extra, key, value) < 0)) {
            return -1;
        }
    }
    return 0;
}

int
vnl_link_sync_functions(vnl_link *link)
{
    above *a = link->conn->above;

    if (link->functions == NULL && (a == NULL || PyDict_GET_SIZE(a->extra) == 0)) {
        return 0;
    }
    if ((a = above_of(link->conn)) == NULL || remove_strangers(link, a) < 0) {
        return -1;
    }
    return link->functions == NULL ? 0 : add_own(link, a);
}

/* --- creating */

int
vnl_link_register(vnl_link *link, vnl_registered kind, const char *name, int narg, PyObject *callable,
                  int flags)
{
    PyObject *key = NULL, *value = NULL;
    above *a = NULL;
    int rc = -1;

    if (vnl_link_enter_wait(link, 0) < 0) {
        return -1;
    }
    if (narg < -1 || narg > 127 || strlen(name) > 255) {
        vnl_sqlite_fail(link->state, VNL_E_PROGRAMMING, "Error creating function '%.100s' of %d arguments",
                        name, narg);
        goto done;
    }
    if ((key = Py_BuildValue("(isi)", (int)kind, name, narg)) == NULL ||
        (value = Py_BuildValue("(Oi)", callable, flags)) == NULL) {
        goto done;
    }
    if (link->conn != NULL && ((a = above_of(link->conn)) == NULL || apply(link, key, value) < 0 ||
                               PyDict_SetItem(link->borrowed ? a->base : a->extra, key, value) < 0)) {
        goto done;
    }
    if (!link->borrowed) {
        if (link->functions == NULL && (link->functions = PyDict_New()) == NULL) {
            goto done;
        }
        rc = PyDict_SetItem(link->functions, key, value);
        goto done;
    }
    rc = 0;
done:
    Py_XDECREF(key);
    Py_XDECREF(value);
    vnl_link_leave(link);
    return rc;
}
