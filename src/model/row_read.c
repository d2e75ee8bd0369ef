/* A RowPlan out of what vinyl/rows.py says of a query. */
#include "model/row_plan.h"

static int
read_columns(PyObject *tuple, Py_ssize_t **columns, Py_ssize_t *count)
{
    *columns = PyMem_Calloc((size_t)PyTuple_GET_SIZE(tuple) + 1, sizeof(Py_ssize_t));
    if (*columns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *count = PyTuple_GET_SIZE(tuple);
    for (Py_ssize_t i = 0; i < *count; i++) {
        (*columns)[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i));
        if ((*columns)[i] < 0) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "a column's number is not negative");
            }
            return -1;
        }
    }
    return 0;
}

static PyObject *
unless_none(PyObject *object)
{
    return object == Py_None ? NULL : Py_NewRef(object);
}

static void
free_node(vnl_row_node *self)
{
    vnl_maker_free(self->maker);
    self->maker = NULL;
    Py_CLEAR(self->from_db);
    Py_CLEAR(self->names);
    Py_CLEAR(self->to_parent);
    Py_CLEAR(self->to_child);
    Py_CLEAR(self->peers);
    PyMem_Free(self->columns);
    self->columns = NULL;
    for (Py_ssize_t i = 0; i < self->nchildren; i++) {
        free_node(&self->children[i]);
    }
    PyMem_Free(self->children);
    self->children = NULL;
    self->nchildren = 0;
}

/* How the node's instances are made. */
static int
read_maker(const vnl_row_plan *plan, vnl_row_node *self, PyObject *maker, PyObject *names, int caches)
{
    if (vnl_hydrator_check(maker)) {
        self->maker = vnl_maker_new(maker, names, plan->db, plan->fetch_mode, caches);
        return self->maker != NULL ? 0 : -1;
    }
    self->from_db = Py_NewRef(maker);
    self->names = PySequence_List(names);
    return self->names != NULL ? 0 : -1;
}

static int
read_node(vnl_row_plan *plan, vnl_row_node *self, PyObject *spec, int depth)
{
    PyObject *maker = NULL, *names = NULL, *columns = NULL, *to_parent = NULL, *to_child = NULL;
    PyObject *children = NULL, *peers = NULL;
    if (depth > 100 || !PyTuple_Check(spec)) {
        PyErr_SetString(PyExc_TypeError, "a plan's node is a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(spec, "OO!O!nOOO!O", &maker, &PyTuple_Type, &names, &PyTuple_Type, &columns,
                          &self->pk, &to_parent, &to_child, &PyTuple_Type, &children, &peers)) {
        return -1;
    }
    self->to_parent = unless_none(to_parent);
    self->to_child = unless_none(to_child);
    self->peers = unless_none(peers);
    int caches = to_child != Py_None || PyTuple_GET_SIZE(children) > 0 ||
                 (depth == 0 && (plan->nknowns > 0 || plan->relation != NULL));
    if (read_maker(plan, self, maker, names, caches) < 0 ||
        read_columns(columns, &self->columns, &self->count) < 0) {
        return -1;
    }
    if (self->count != PyTuple_GET_SIZE(names) || (peers != Py_None && !PyList_Check(peers))) {
        PyErr_SetString(PyExc_ValueError, "a plan's node has as many columns as names, and peers in a list");
        return -1;
    }
    if (self->maker == NULL || self->peers != NULL || (to_parent != Py_None && !PyUnicode_Check(to_parent)) ||
        (to_child != Py_None && !PyUnicode_Check(to_child))) {
        plan->quiet = 0;
    }
    self->in_order = 1;
    for (Py_ssize_t i = 1; self->in_order && i < self->count; i++) {
        self->in_order = self->columns[i] == self->columns[i - 1] + 1;
    }
    self->children = PyMem_Calloc((size_t)PyTuple_GET_SIZE(children) + 1, sizeof(vnl_row_node));
    if (self->children == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(children); i++) {
        self->nchildren++;
        if (read_node(plan, &self->children[i], PyTuple_GET_ITEM(children, i), depth + 1) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
read_annotations(vnl_row_plan *self, PyObject *pairs)
{
    self->annotations = PyMem_Calloc((size_t)PyTuple_GET_SIZE(pairs) + 1, sizeof(vnl_row_annotation));
    if (self->annotations == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pairs); i++) {
        PyObject *name = NULL;
        Py_ssize_t column = 0;
        if (!PyArg_Parse(PyTuple_GET_ITEM(pairs, i), "(Un)", &name, &column)) {
            return -1;
        }
        self->annotations[self->nannotations++] = (vnl_row_annotation){Py_NewRef(name), column};
    }
    return 0;
}

static int
read_knowns(vnl_row_plan *self, PyObject *list)
{
    self->knowns = PyMem_Calloc((size_t)PyTuple_GET_SIZE(list) + 1, sizeof(vnl_row_known));
    if (self->knowns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); i++) {
        PyObject *name = NULL, *cache_name = NULL, *objects = NULL, *columns = NULL;
        vnl_row_known *one = &self->knowns[self->nknowns];
        PyObject *pair = PyTuple_GET_ITEM(list, i);
        if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 &&
            vnl_known_check(PyTuple_GET_ITEM(pair, 0))) {
            Py_XSETREF(self->relation, Py_NewRef(PyTuple_GET_ITEM(pair, 0)));
            self->relation_column = PyLong_AsSsize_t(PyTuple_GET_ITEM(pair, 1));
            if (PyErr_Occurred()) {
                return -1;
            }
            continue;
        }
        if (!PyArg_Parse(pair, "(UUO!O!)", &name, &cache_name, &PyDict_Type, &objects, &PyTuple_Type,
                         &columns)) {
            return -1;
        }
        self->nknowns++;
        one->name = Py_NewRef(name);
        one->cache_name = Py_NewRef(cache_name);
        one->objects = Py_NewRef(objects);
        if (read_columns(columns, &one->columns, &one->count) < 0) {
            return -1;
        }
    }
    return 0;
}

int
vnl_row_plan_read(vnl_row_plan *self, PyObject *args)
{
    PyObject *root = NULL, *db = NULL, *fetch_mode = NULL, *converters = NULL, *connection = NULL;
    PyObject *annotations = NULL, *knowns = NULL;
    if (!PyArg_ParseTuple(args, "O!OOO!OO!O!:RowPlan", &PyTuple_Type, &root, &db, &fetch_mode, &PyDict_Type,
                          &converters, &connection, &PyTuple_Type, &annotations, &PyTuple_Type, &knowns)) {
        return -1;
    }
    self->db = Py_NewRef(db);
    self->fetch_mode = unless_none(fetch_mode);
    self->quiet = 1;
    if (read_knowns(self, knowns) < 0 || read_annotations(self, annotations) < 0 ||
        read_node(self, &self->root, root, 0) < 0) {
        return -1;
    }
    if (PyDict_GET_SIZE(converters) > 0) {
        self->converters = vnl_converters_new(converters, connection);
        return self->converters != NULL ? 0 : -1;
    }
    return 0;
}

static int
visit_node(const vnl_row_node *self, visitproc visit, void *arg)
{
    Py_VISIT(self->from_db);
    Py_VISIT(self->names);
    Py_VISIT(self->to_parent);
    Py_VISIT(self->to_child);
    Py_VISIT(self->peers);
    int rc = vnl_maker_traverse(self->maker, visit, arg);
    for (Py_ssize_t i = 0; rc == 0 && i < self->nchildren; i++) {
        rc = visit_node(&self->children[i], visit, arg);
    }
    return rc;
}

int
vnl_row_plan_traverse(const vnl_row_plan *self, visitproc visit, void *arg)
{
    Py_VISIT(self->db);
    Py_VISIT(self->relation);
    Py_VISIT(self->fetch_mode);
    for (Py_ssize_t i = 0; i < self->nknowns; i++) {
        Py_VISIT(self->knowns[i].objects);
    }
    int rc = visit_node(&self->root, visit, arg);
    return rc != 0 ? rc : vnl_converters_traverse(self->converters, visit, arg);
}

void
vnl_row_plan_clear(vnl_row_plan *self)
{
    vnl_converters *converters = self->converters;
    self->converters = NULL;
    vnl_converters_free(converters);
    free_node(&self->root);
    for (Py_ssize_t i = 0; i < self->nannotations; i++) {
        Py_CLEAR(self->annotations[i].name);
    }
    self->nannotations = 0;
    PyMem_Free(self->annotations);
    self->annotations = NULL;
    for (Py_ssize_t i = 0; i < self->nknowns; i++) {
        Py_CLEAR(self->knowns[i].name);
        Py_CLEAR(self->knowns[i].cache_name);
        Py_CLEAR(self->knowns[i].objects);
        PyMem_Free(self->knowns[i].columns);
    }
    self->nknowns = 0;
    PyMem_Free(self->knowns);
    self->knowns = NULL;
    Py_CLEAR(self->fetch_mode);
    Py_CLEAR(self->relation);
    Py_CLEAR(self->db);
}
