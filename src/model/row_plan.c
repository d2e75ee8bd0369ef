/* RowPlan: what a queryset makes of each row, that is an instance with the
 * related ones of select_related(), annotations and known related objects, in
 * the order in which Django's ModelIterable does it.  vinyl/rows.py makes it. */
#include "model/hydrate.h"

#include "core/state.h"

/* One model of the query. */
typedef struct node {
    PyObject *maker;     /* Hydrator, or from_db */
    PyObject *names;     /* of its columns; a tuple for a Hydrator, a list for from_db */
    Py_ssize_t *columns; /* where they are in the row */
    Py_ssize_t count;    /* of names and columns */
    Py_ssize_t pk;       /* no object where this column is None; -1: always one */
    PyObject *to_parent; /* name in the parent's cache, a setter(parent, object), or NULL */
    PyObject *to_child;  /* name in the object's cache, a setter(object, parent), or NULL */
    PyObject *peers;     /* list of weak references to all objects, or NULL */
    int caches;          /* its objects have something in their cache */
    struct node *children;
    Py_ssize_t nchildren;
} node;

/* Objects that the queryset knows the rows are related to. */
typedef struct {
    PyObject *name; /* of the relation */
    PyObject *cache_name;
    PyObject *objects;   /* dict: key -> object */
    Py_ssize_t *columns; /* of the key */
    Py_ssize_t count;
} known;

typedef struct {
    PyObject *name;
    Py_ssize_t column;
} annotation;

typedef struct {
    PyObject_HEAD
    node root;
    PyObject *db;
    PyObject *fetch_mode;       /* or NULL */
    vnl_converters *converters; /* or NULL */
    annotation *annotations;
    Py_ssize_t nannotations;
    known *knowns;
    Py_ssize_t nknowns;
} vnl_row_plan;

/* The row under way. */
typedef struct {
    PyObject **cells; /* owned references */
    Py_ssize_t count, room;
} row_cells;

/* --- reading the plan */

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
free_node(node *self)
{
    Py_CLEAR(self->maker);
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

static int
read_node(node *self, PyObject *spec, int depth)
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
    self->maker = Py_NewRef(maker);
    self->names = vnl_hydrator_check(maker) ? vnl_hydrator_names(maker, names) : PySequence_List(names);
    self->to_parent = unless_none(to_parent);
    self->to_child = unless_none(to_child);
    self->peers = unless_none(peers);
    if (self->names == NULL || read_columns(columns, &self->columns, &self->count) < 0) {
        return -1;
    }
    if (self->count != PyTuple_GET_SIZE(names) || (peers != Py_None && !PyList_Check(peers))) {
        PyErr_SetString(PyExc_ValueError, "a plan's node has as many columns as names, and peers in a list");
        return -1;
    }
    self->caches = self->to_child != NULL || PyTuple_GET_SIZE(children) > 0;
    self->children = PyMem_Calloc((size_t)PyTuple_GET_SIZE(children) + 1, sizeof(node));
    if (self->children == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(children); i++) {
        self->nchildren++;
        if (read_node(&self->children[i], PyTuple_GET_ITEM(children, i), depth + 1) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
read_annotations(vnl_row_plan *self, PyObject *pairs)
{
    self->annotations = PyMem_Calloc((size_t)PyTuple_GET_SIZE(pairs) + 1, sizeof(annotation));
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
        self->annotations[self->nannotations++] = (annotation){Py_NewRef(name), column};
    }
    return 0;
}

static int
read_knowns(vnl_row_plan *self, PyObject *list)
{
    self->knowns = PyMem_Calloc((size_t)PyTuple_GET_SIZE(list) + 1, sizeof(known));
    if (self->knowns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list); i++) {
        PyObject *name = NULL, *cache_name = NULL, *objects = NULL, *columns = NULL;
        known *one = &self->knowns[i];
        if (!PyArg_Parse(PyTuple_GET_ITEM(list, i), "(UUO!O!)", &name, &cache_name, &PyDict_Type, &objects,
                         &PyTuple_Type, &columns)) {
            return -1;
        }
        self->nknowns++;
        one->name = Py_NewRef(name);
        one->cache_name = Py_NewRef(cache_name);
        one->objects = Py_NewRef(objects);
        if (read_columns(columns, &one->columns, &one->count) < 0) {
            return -1;
        }
        self->root.caches = 1;
    }
    return 0;
}

static PyObject *
row_plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *root = NULL, *db = NULL, *fetch_mode = NULL, *converters = NULL, *connection = NULL;
    PyObject *annotations = NULL, *knowns = NULL;
    if (!PyArg_ParseTuple(args, "O!OOO!OO!O!:RowPlan", &PyTuple_Type, &root, &db, &fetch_mode, &PyDict_Type,
                          &converters, &connection, &PyTuple_Type, &annotations, &PyTuple_Type, &knowns)) {
        return NULL;
    }
    vnl_row_plan *self = (vnl_row_plan *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->db = Py_NewRef(db);
    self->fetch_mode = unless_none(fetch_mode);
    if (read_node(&self->root, root, 0) < 0 || read_annotations(self, annotations) < 0 ||
        read_knowns(self, knowns) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (PyDict_GET_SIZE(converters) > 0) {
        self->converters = vnl_converters_new(converters, connection);
        if (self->converters == NULL) {
            Py_CLEAR(self);
        }
    }
    return (PyObject *)self;
}

/* --- one row */

static void
clear_cells(row_cells *row)
{
    while (row->count > 0) {
        row->count--;
        Py_CLEAR(row->cells[row->count]);
    }
}

/* 0, or -1 with an exception. */
static int
load_cells(row_cells *row, PyObject *source)
{
    if (!PyTuple_Check(source) && !PyList_Check(source)) {
        PyErr_SetString(PyExc_TypeError, "a row is a tuple or a list");
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(source);
    if (count > row->room) {
        PyObject **cells = PyMem_Realloc(row->cells, (size_t)count * sizeof(*cells));
        if (cells == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        row->cells = cells;
        row->room = count;
    }
    PyObject **items = PySequence_Fast_ITEMS(source);
    for (Py_ssize_t i = 0; i < count; i++) {
        row->cells[i] = Py_NewRef(items[i]);
    }
    row->count = count;
    return 0;
}

/* Borrowed from the row. */
static PyObject *
cell(const row_cells *row, Py_ssize_t column)
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

/* An empty cache, which Django would make when it is first asked for. */
static int
give_cache(PyObject *object)
{
    PyObject *state = PyObject_GetAttr(object, vnl_core->str_state);
    PyObject *cache = state != NULL ? PyDict_New() : NULL;
    int rc = cache != NULL ? PyObject_SetAttr(state, vnl_core->str_fields_cache, cache) : -1;
    Py_XDECREF(cache);
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
make_by_from_db(const vnl_row_plan *plan, const node *self, const row_cells *row)
{
    PyObject *values = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; values != NULL && i < self->count; i++) {
        PyTuple_SET_ITEM(values, i, Py_NewRef(row->cells[self->columns[i]]));
    }
    PyObject *args[4] = {NULL, plan->db, self->names, values};
    PyObject *object =
        values != NULL ? PyObject_Vectorcall(self->maker, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                       : NULL;
    Py_XDECREF(values);
    return object;
}

/* New reference. */
static PyObject *
make_by_hydrator(const vnl_row_plan *plan, const node *self, const row_cells *row)
{
    enum {
        FEW = 32
    };
    PyObject *few[FEW];
    PyObject *const *items = row->cells + (self->count > 0 ? self->columns[0] : 0);
    PyObject **many = NULL;
    int in_order = 1;
    for (Py_ssize_t i = 1; in_order && i < self->count; i++) {
        in_order = self->columns[i] == self->columns[i - 1] + 1;
    }
    if (!in_order) {
        many = self->count > FEW ? PyMem_Malloc((size_t)self->count * sizeof(*many)) : few;
        if (many == NULL) {
            return PyErr_NoMemory();
        }
        for (Py_ssize_t i = 0; i < self->count; i++) {
            many[i] = row->cells[self->columns[i]];
        }
        items = many;
    }
    PyObject *object = vnl_hydrator_make(self->maker, self->names, items, plan->db, plan->fetch_mode);
    if (many != NULL && many != few) {
        PyMem_Free(many);
    }
    if (object != NULL && self->caches && give_cache(object) < 0) {
        Py_CLEAR(object);
    }
    return object;
}

/* New reference: the object and its related ones, or None. */
static PyObject *
make_node(const vnl_row_plan *plan, const node *self, const row_cells *row)
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
    PyObject *object = vnl_hydrator_check(self->maker) ? make_by_hydrator(plan, self, row)
                                                       : make_by_from_db(plan, self, row);
    if (object != NULL && self->peers != NULL && give_peers(object, self->peers) < 0) {
        Py_CLEAR(object);
    }
    for (Py_ssize_t i = 0; object != NULL && i < self->nchildren; i++) {
        const node *child = &self->children[i];
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
key_of(const known *self, const row_cells *row)
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
give_known(const known *self, PyObject *object, const row_cells *row)
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

/* New reference. */
static PyObject *
make_row(const vnl_row_plan *self, row_cells *row)
{
    if (self->converters != NULL && vnl_converters_apply(self->converters, row->cells, row->count) < 0) {
        return NULL;
    }
    PyObject *object = make_node(self, &self->root, row);
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

static PyObject *
row_plan_make(PyObject *op, PyObject *rows)
{
    vnl_row_plan *self = (vnl_row_plan *)op;
    row_cells row = {NULL, 0, 0};
    PyObject *source = NULL;
    PyObject *iterator = PyObject_GetIter(rows);
    PyObject *made = iterator != NULL ? PyList_New(0) : NULL;
    while (made != NULL && (source = PyIter_Next(iterator)) != NULL) {
        PyObject *object = load_cells(&row, source) == 0 ? make_row(self, &row) : NULL;
        Py_DECREF(source);
        clear_cells(&row);
        if (object == NULL || PyList_Append(made, object) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(object);
    }
    if (made != NULL && PyErr_Occurred()) {
        Py_CLEAR(made);
    }
    PyMem_Free(row.cells);
    Py_XDECREF(iterator);
    return made;
}

/* --- the type */

static int
visit_node(const node *self, visitproc visit, void *arg)
{
    Py_VISIT(self->maker);
    Py_VISIT(self->names);
    Py_VISIT(self->to_parent);
    Py_VISIT(self->to_child);
    Py_VISIT(self->peers);
    for (Py_ssize_t i = 0; i < self->nchildren; i++) {
        int rc = visit_node(&self->children[i], visit, arg);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int
row_plan_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_row_plan *self = (vnl_row_plan *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->db);
    Py_VISIT(self->fetch_mode);
    for (Py_ssize_t i = 0; i < self->nknowns; i++) {
        Py_VISIT(self->knowns[i].objects);
    }
    int rc = visit_node(&self->root, visit, arg);
    return rc != 0 ? rc : vnl_converters_traverse(self->converters, visit, arg);
}

static int
row_plan_clear(PyObject *op)
{
    vnl_row_plan *self = (vnl_row_plan *)op;
    vnl_converters *converters = self->converters;
    self->converters = NULL;
    vnl_converters_free(converters);
    free_node(&self->root);
    for (Py_ssize_t i = 0; i < self->nannotations; i++) {
        Py_CLEAR(self->annotations[i].name);
    }
    self->nannotations = 0;
    for (Py_ssize_t i = 0; i < self->nknowns; i++) {
        Py_CLEAR(self->knowns[i].name);
        Py_CLEAR(self->knowns[i].cache_name);
        Py_CLEAR(self->knowns[i].objects);
        PyMem_Free(self->knowns[i].columns);
        self->knowns[i].columns = NULL;
    }
    self->nknowns = 0;
    Py_CLEAR(self->fetch_mode);
    return 0;
}

static void
row_plan_dealloc(PyObject *op)
{
    vnl_row_plan *self = (vnl_row_plan *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)row_plan_clear(op);
    PyMem_Free(self->annotations);
    PyMem_Free(self->knowns);
    Py_CLEAR(self->db);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef row_plan_methods[] = {
    {"make", row_plan_make, METH_O, "make(rows, /) -> list\n\nThe instances of the rows."},
    {NULL},
};

static PyType_Slot row_plan_slots[] = {
    {Py_tp_doc,
     "RowPlan(root, db, fetch_mode, converters, connection, annotations, known, /)\n--\n\n"
     "What a queryset makes of each row. A node (root) is (Hydrator or from_db, attnames, columns,\n"
     "column of the key or -1, setter of the parent, setter of the object, nodes, peers or None); a\n"
     "setter is a name in the instance's cache, a callable, or None. annotations: (name, column).\n"
     "known: (relation, name in the cache, {key: object}, columns of the key)."},
    {Py_tp_new, row_plan_new},
    {Py_tp_methods, row_plan_methods},
    {Py_tp_traverse, row_plan_traverse},
    {Py_tp_clear, row_plan_clear},
    {Py_tp_dealloc, row_plan_dealloc},
    {0, NULL},
};

static PyType_Spec row_plan_spec = {
    .name = "vinyl._core.RowPlan",
    .basicsize = sizeof(vnl_row_plan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = row_plan_slots,
};

int
vnl_row_plan_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &row_plan_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
