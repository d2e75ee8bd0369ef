/* KnownRelation: which of the instances that a prefetch is for an object belongs
 * to.  vinyl/related.py says when Django's own methods do just this. */
#include "model/hydrate.h"

#include "core/state.h"
#include "model/layout.h"

typedef struct {
    PyObject_HEAD
    PyObject *attname;    /* owned: of the column that names the instance */
    PyObject *cache_name; /* owned: of the relation in an object's cache */
    PyObject *instances;  /* owned dict: the column's value -> instance */
    char missed;          /* an object was asked for whose instance is not among them */
} known_relation;

static void known_relation_dealloc(PyObject *op);

/* New reference. */
static PyObject *
attribute_of(PyObject *object, PyObject *name)
{
    PyObject *value = vnl_layout_peek(object, name);
    return value != NULL ? value : PyObject_GetAttr(object, name);
}

static PyObject *
known_relation_key(PyObject *op, PyObject *object)
{
    return attribute_of(object, ((known_relation *)op)->attname);
}

int
vnl_known_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == known_relation_dealloc;
}

PyObject *
vnl_known_find(PyObject *relation, PyObject *key)
{
    known_relation *self = (known_relation *)relation;
    PyObject *instance = Py_XNewRef(PyDict_GetItemWithError(self->instances, key));
    self->missed |= instance == NULL;
    return instance;
}

/* The object's cache, where the relation is not in it: new reference; NULL without
 * an exception where it is. */
static PyObject *
cache_without(const known_relation *self, PyObject *object)
{
    PyObject *state = attribute_of(object, vnl_core->str_state);
    PyObject *cache = state != NULL ? attribute_of(state, vnl_core->str_fields_cache) : NULL;
    if (cache != NULL && PySequence_Contains(cache, self->cache_name) != 0) {
        Py_CLEAR(cache);
    }
    Py_XDECREF(state);
    return cache;
}

int
vnl_known_put(PyObject *relation, PyObject *object, PyObject *instance)
{
    const known_relation *self = (known_relation *)relation;
    PyObject *cache = cache_without(self, object);
    int rc = cache != NULL ? PyObject_SetItem(cache, self->cache_name, instance) : PyErr_Occurred() ? -1 : 0;
    Py_XDECREF(cache);
    return rc;
}

/* Puts the object's instance into its cache.  1, 0 there is none, -1 exception. */
static int
relate(known_relation *self, PyObject *object, PyObject *cache)
{
    PyObject *key = attribute_of(object, self->attname);
    PyObject *instance = key != NULL ? vnl_known_find((PyObject *)self, key) : NULL;
    int rc = instance != NULL ? PyObject_SetItem(cache, self->cache_name, instance) : 0;
    Py_XDECREF(instance);
    Py_XDECREF(key);
    return rc < 0 || PyErr_Occurred() ? -1 : instance != NULL;
}

static PyObject *
known_relation_relate(PyObject *op, PyObject *object)
{
    PyObject *cache = cache_without((known_relation *)op, object);
    int related = cache != NULL ? relate((known_relation *)op, object, cache) : PyErr_Occurred() ? -1 : 1;
    Py_XDECREF(cache);
    return related < 0 ? NULL : PyBool_FromLong(related);
}

static PyObject *
known_relation_related(PyObject *op, PyObject *object)
{
    Py_RETURN_TRUE;
}

static PyObject *
known_relation_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *attname = NULL, *cache_name = NULL, *instances = NULL;
    if (!PyArg_ParseTuple(args, "UUO!:KnownRelation", &attname, &cache_name, &PyDict_Type, &instances)) {
        return NULL;
    }
    known_relation *self = (known_relation *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->attname = PyUnicode_FromObject(attname);
        self->cache_name = Py_NewRef(cache_name);
        self->instances = Py_NewRef(instances);
    }
    if (self != NULL && self->attname == NULL) {
        Py_CLEAR(self);
    }
    if (self != NULL) {
        PyUnicode_InternInPlace(&self->attname);
    }
    return (PyObject *)self;
}

static int
known_relation_traverse(PyObject *op, visitproc visit, void *arg)
{
    const known_relation *self = (known_relation *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->instances);
    return 0;
}

static int
known_relation_clear(PyObject *op)
{
    Py_CLEAR(((known_relation *)op)->instances);
    return 0;
}

static void
known_relation_dealloc(PyObject *op)
{
    known_relation *self = (known_relation *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(self->attname);
    Py_CLEAR(self->cache_name);
    Py_CLEAR(self->instances);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef known_relation_methods[] = {
    {"key", known_relation_key, METH_O, "key(object, /)\n--\n\nThe object's attname."},
    {"relate", known_relation_relate, METH_O,
     "relate(object, /) -> bool\n--\n\n"
     "Whether the relation is in the object's cache; puts the instance that it belongs to there."},
    {"related", known_relation_related, METH_O,
     "related(object, /) -> bool\n--\n\nTrue, when all objects are known to be related."},
    {NULL},
};

static PyMemberDef known_relation_members[] = {
    {"missed", Py_T_BOOL, offsetof(known_relation, missed), Py_READONLY,
     "Whether an object belongs to none of the instances."},
    {NULL},
};

static PyType_Slot known_relation_slots[] = {
    {Py_tp_doc,
     "KnownRelation(attname, cache_name, {key: instance}, /)\n--\n\n"
     "The relation of objects to instances that are here."},
    {Py_tp_new, known_relation_new},
    {Py_tp_methods, known_relation_methods},
    {Py_tp_members, known_relation_members},
    {Py_tp_traverse, known_relation_traverse},
    {Py_tp_clear, known_relation_clear},
    {Py_tp_dealloc, known_relation_dealloc},
    {0, NULL},
};

static PyType_Spec known_relation_spec = {
    .name = "vinyl._core.KnownRelation",
    .basicsize = sizeof(known_relation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = known_relation_slots,
};

int
vnl_known_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &known_relation_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
