/* Several hosts: libpq goes on by itself after a refusal, but leaves the time
 * that a silent one may take to its blocking PQconnectdb.  Here the silent host
 * is left out and the rest is tried, each with a connect_timeout of its own. */
#include "py.h"

#include <string.h>

/* A list of the comma-separated items, or NULL (no exception) without the key. */
static PyObject *
items_of(PyObject *params, const char *key)
{
    PyObject *value = PyDict_GetItemString(params, key);
    PyObject *comma = value != NULL ? PyUnicode_FromString(",") : NULL;
    PyObject *items = comma != NULL ? PyUnicode_Split(value, comma, -1) : NULL;
    Py_XDECREF(comma);
    return items;
}

static int
item_is(PyObject *items, Py_ssize_t i, const char *text)
{
    if (items == NULL) {
        return 1;
    }
    Py_ssize_t n = PyList_GET_SIZE(items);
    PyObject *item = PyList_GET_ITEM(items, n == 1 ? 0 : i);
    return i < n || n == 1
               ? PyUnicode_CompareWithASCIIString(item, text) == 0 || PyUnicode_GET_LENGTH(item) == 0
               : 0;
}

/* Sets params[key] to the items but the i-th; a single one stands for all. */
static int
drop_item(PyObject *params, const char *key, PyObject *items, Py_ssize_t i)
{
    if (items == NULL || PyList_GET_SIZE(items) < 2) {
        return 0;
    }
    PyObject *comma = PyUnicode_FromString(",");
    PyObject *joined =
        comma != NULL && PySequence_DelItem(items, i) == 0 ? PyUnicode_Join(comma, items) : NULL;
    int rc = joined != NULL ? PyDict_SetItemString(params, key, joined) : -1;
    Py_XDECREF(joined);
    Py_XDECREF(comma);
    return rc;
}

PyObject *
pg_hosts_without(PyObject *params, const char *host, const char *port)
{
    PyObject *hosts = items_of(params, "host");
    PyObject *addresses = hosts != NULL || !PyErr_Occurred() ? items_of(params, "hostaddr") : NULL;
    PyObject *ports = !PyErr_Occurred() ? items_of(params, "port") : NULL;
    PyObject *names = hosts != NULL ? hosts : addresses;
    Py_ssize_t n = names != NULL ? PyList_GET_SIZE(names) : 0;
    PyObject *rest = NULL;
    int consistent = (addresses == NULL || PyList_GET_SIZE(addresses) == n) &&
                     (ports == NULL || PyList_GET_SIZE(ports) == n || PyList_GET_SIZE(ports) == 1);
    for (Py_ssize_t i = 0; i < n && n > 1 && consistent && rest == NULL && !PyErr_Occurred(); i++) {
        if (!item_is(names, i, host) || !item_is(ports, i, port)) {
            continue;
        }
        rest = PyDict_Copy(params);
        if (rest != NULL &&
            (drop_item(rest, "host", hosts, i) < 0 || drop_item(rest, "hostaddr", addresses, i) < 0 ||
             drop_item(rest, "port", ports, i) < 0)) {
            Py_CLEAR(rest);
        }
    }
    Py_XDECREF(hosts);
    Py_XDECREF(addresses);
    Py_XDECREF(ports);
    return rest;
}
