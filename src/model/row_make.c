/* One row by a RowPlan. */
#include "model/row_plan.h"

#include "core/state.h"

/* Borrowed from the row. */
static PyObject *
cell(const vnl_rows *row, Py_ssize_t column)
{
    if (row->cells == NULL || column >= row->count) {
        PyErr_SetString(PyExc_IndexError, "the row has fewer columns than the query selects");
        return NULL;
    }
    return row->cells[column];
}

static int
give_peers(PyObject *object, PyObject *peers)
{
    PyObject *state = PyObject_GetAttr(object, vnl_core->str_state);
    PyObject *weak = state != NULL ? PyWeakref_NewRef(object, NULL) : NULL;
    int rc = weak != NULL && PyList_Append(peers, weak) == 0 &&
                     PyObject_SetAttr(state, vnl_core->str_peers, peers) == 0
                 ? 0
                 : -1;
    Py_XDECREF(weak);
    Py_XDECREF(state);
    return rc;
}

/* New reference. */
static PyObject *
cache_of(PyObject *object)
{
    PyObject *state = PyObject_GetAttr(object, vnl_core->str_state);
    PyObject *cache = state != NULL ? PyObject_GetAttr(state, vnl_core->str_fields_cache) : NULL;
    Py_XDECREF(state);
    if (cache != NULL && !PyDict_Check(cache)) {
        PyErr_SetString(PyExc_TypeError, "an instance's fields_cache is a dict");
        Py_CLEAR(cache);
    }
    return cache;
}

/* `how` is a name in the cache of `object`, or a callable. */
static int
set_cached(PyObject *how, PyObject *object, PyObject *value)
{
    if (!PyUnicode_Check(how)) {
        PyObject *args[3] = {NULL, object, value};
        PyObject *done = PyObject_Vectorcall(how, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_XDECREF(done);
        return done != NULL ? 0 : -1;
    }
    PyObject *cache = cache_of(object);
    int rc = cache != NULL ? PyDict_SetItem(cache, how, value) : -1;
    Py_XDECREF(cache);
    return rc;
}

/* New reference. */
static PyObject *
make_by_from_db(const vnl_row_plan *plan, const vnl_row_node *self, const vnl_rows *row)
{
    PyObject *values = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; values != NULL && i < self->count; i++) {
        PyTuple_SET_ITEM(values, i, Py_NewRef(row->cells[self->columns[i]]));
    }
    PyObject *args[4] = {NULL, plan->db, self->names, values};
    PyObject *object = values != NULL ? PyObject_Vectorcall(self->from_db, args + 1,
                                                            3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                                      : NULL;
    Py_XDECREF(values);
    return object;
}

/* Of columns that are not together in the row.  New reference. */
static PyObject *
make_gathered(const vnl_row_node *self, const vnl_rows *row)
{
    PyObject **items = PyMem_Malloc((size_t)self->count * sizeof(*items));
    if (items == NULL) {
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < self->count; i++) {
        items[i] = row->cells[self->columns[i]];
    }
    PyObject *object = vnl_maker_make(self->maker, items);
    PyMem_Free(items);
    return object;
}

/* New reference. */
static PyObject *
make_plain(const vnl_row_node *self, const vnl_rows *row)
{
    if (!self->in_order) {
        return make_gathered(self, row);
    }
    return vnl_maker_make(self->maker, row->cells + (self->count > 0 ? self->columns[0] : 0));
}

/* New reference: the object and its related ones, or None. */
static PyObject *
make_node(const vnl_row_plan *plan, const vnl_row_node *self, const vnl_rows *row)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        if (cell(row, self->columns[i]) == NULL) {
            return NULL;
        }
    }
    PyObject *key = self->pk >= 0 ? cell(row, self->pk) : Py_True;
    if (key == NULL || key == Py_None) {
        return Py_XNewRef(key);
    }
    PyObject *object = self->maker != NULL ? make_plain(self, row) : make_by_from_db(plan, self, row);
    if (object != NULL && self->peers != NULL && give_peers(object, self->peers) < 0) {
        Py_CLEAR(object);
    }
    for (Py_ssize_t i = 0; object != NULL && i < self->nchildren; i++) {
        const vnl_row_node *child = &self->children[i];
        PyObject *related = make_node(plan, child, row);
        if (related == NULL ||
            (child->to_parent != NULL && set_cached(child->to_parent, object, related) < 0) ||
            (child->to_child != NULL && related != Py_None &&
             set_cached(child->to_child, related, object) < 0)) {
            Py_CLEAR(object);
        }
        Py_XDECREF(related);
    }
    return object;
}

/* New reference. */
static PyObject *
key_of(const vnl_row_known *self, const vnl_rows *row)
{
    if (self->count == 1) {
        return Py_XNewRef(cell(row, self->columns[0]));
    }
    PyObject *key = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; key != NULL && i < self->count; i++) {
        PyObject *part = cell(row, self->columns[i]);
        if (part == NULL) {
            Py_CLEAR(key);
        }
        else {
            PyTuple_SET_ITEM(key, i, Py_NewRef(part));
        }
    }
    return key;
}

/* Sets the relation unless select_related() has. */
static int
give_known(const vnl_row_known *self, PyObject *object, const vnl_rows *row)
{
    PyObject *cache = cache_of(object);
    int cached = cache != NULL ? PyDict_Contains(cache, self->cache_name) : -1;
    Py_XDECREF(cache);
    if (cached != 0) {
        return cached < 0 ? -1 : 0;
    }
    PyObject *key = key_of(self, row);
    PyObject *related = key != NULL ? Py_XNewRef(PyDict_GetItemWithError(self->objects, key)) : NULL;
    int rc = related != NULL ? PyObject_SetAttr(object, self->name, related) : PyErr_Occurred() ? -1 : 0;
    Py_XDECREF(related);
    Py_XDECREF(key);
    return rc;
}

PyObject *
vnl_row_plan_make(const vnl_row_plan *self, vnl_rows *row, vnl_garbage_loop *loop)
{
    if (self->converters != NULL && vnl_converters_apply(self->converters, row->cells, row->count) < 0) {
        return NULL;
    }
    /* Looked for before: a key may be compared by Python. */
    PyObject *related = NULL;
    if (self->relation != NULL) {
        PyObject *key = cell(row, self->relation_column);
        related = key != NULL ? vnl_known_find(self->relation, key) : NULL;
        if (related == NULL && PyErr_Occurred()) {
            return NULL;
        }
    }
    vnl_garbage_before_row(loop);
    PyObject *object = make_node(self, &self->root, row);
    if (object != NULL && related != NULL && vnl_known_put(self->relation, object, related) < 0) {
        Py_CLEAR(object);
    }
    if (object != NULL && self->quiet && vnl_garbage_after_row(loop) < 0) {
        Py_CLEAR(object);
    }
    Py_XDECREF(related);
    for (Py_ssize_t i = 0; object != NULL && i < self->nannotations; i++) {
        PyObject *value = cell(row, self->annotations[i].column);
        if (value == NULL || PyObject_SetAttr(object, self->annotations[i].name, value) < 0) {
            Py_CLEAR(object);
        }
    }
    for (Py_ssize_t i = 0; object != NULL && i < self->nknowns; i++) {
        if (give_known(&self->knowns[i], object, row) < 0) {
            Py_CLEAR(object);
        }
    }
    return object;
}
