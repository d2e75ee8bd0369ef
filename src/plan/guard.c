/* Unchanged: whether classes, with all their bases, still have the attributes
 * that they had.  Whoever replaces a method to watch or to change what it does
 * is noticed, at the cost of one comparison for each class. */
#include "plan/plan.h"

#include "core/state.h"

typedef struct {
    PyTypeObject *type; /* owned */
    unsigned int tag;   /* CPython's version tag of the type, 0: none, so look at the dicts */
    PyObject *mro;      /* owned tuple */
    PyObject *dicts;    /* owned tuple: of each class of the mro a copy of its dict, or None */
} watched;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Py_ssize_t count;
    watched *classes;
} vnl_unchanged;

/* CPython takes the tag away when the type or one of its bases is changed. */
static unsigned int
tag_of(const PyTypeObject *type)
{
#if PY_VERSION_HEX < 0x030D0000
    if (!(type->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG)) {
        return 0;
    }
#endif
    return type->tp_version_tag;
}

/* A copy of the class's dict, None for a class that cannot be changed.  New reference. */
static PyObject *
copy_of_dict(PyObject *cls)
{
    if (PyType_HasFeature((PyTypeObject *)cls, Py_TPFLAGS_IMMUTABLETYPE)) {
        return Py_NewRef(Py_None);
    }
    PyObject *proxy = PyObject_GetAttrString(cls, "__dict__");
    PyObject *copy = proxy == NULL ? NULL : PyDict_New();
    if (copy != NULL && PyDict_Update(copy, proxy) < 0) {
        Py_CLEAR(copy);
    }
    Py_XDECREF(proxy);
    return copy;
}

/* 1 when no name has another value now; -1 with an exception. */
static int
same_dict(PyObject *before, PyObject *now)
{
    PyObject *name = NULL, *value = NULL;
    Py_ssize_t position = 0, known = 0;
    while (PyDict_Next(now, &position, &name, &value)) {
        PyObject *old = PyDict_GetItemWithError(before, name);
        if (old == NULL) {
            if (PyErr_Occurred()) {
                return -1;
            }
            /* Made by whoever reads it first. */
            if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "__annotations__") == 0) {
                continue;
            }
            return 0;
        }
        if (old != value) {
            return 0;
        }
        known++;
    }
    return known == PyDict_GET_SIZE(before);
}

static int
same_mro(const watched *self)
{
    PyObject *mro = self->type->tp_mro;
    if (mro == NULL || PyTuple_GET_SIZE(mro) != PyTuple_GET_SIZE(self->mro)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        if (PyTuple_GET_ITEM(mro, i) != PyTuple_GET_ITEM(self->mro, i)) {
            return 0;
        }
    }
    return 1;
}

/* After a change of something: 1 when it has been undone; -1 with an exception. */
static int
look_again(watched *self)
{
    if (!same_mro(self)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->mro); i++) {
        PyObject *before = PyTuple_GET_ITEM(self->dicts, i);
        if (before == Py_None) {
            continue;
        }
        PyObject *now = copy_of_dict(PyTuple_GET_ITEM(self->mro, i));
        int same = now == NULL ? -1 : same_dict(before, now);
        Py_XDECREF(now);
        if (same <= 0) {
            return same;
        }
    }
    /* Looking something up gives the type its next tag. */
    PyObject *found = PyObject_GetAttrString((PyObject *)self->type, "__init__");
    self->tag = found == NULL ? 0 : tag_of(self->type);
    Py_XDECREF(found);
    return found == NULL ? -1 : 1;
}

static PyObject *
unchanged_call(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    int same = vnl_unchanged_holds(op);
    return same < 0 ? NULL : PyBool_FromLong(same);
}

int
vnl_unchanged_holds(PyObject *op)
{
    vnl_unchanged *self = (vnl_unchanged *)op;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        watched *one = &self->classes[i];
        if (one->tag == 0 || one->tag != tag_of(one->type)) {
            int same = look_again(one);
            if (same <= 0) {
                return same;
            }
        }
    }
    return 1;
}

static int
watch(watched *self, PyObject *cls)
{
    if (!PyType_Check(cls) || ((PyTypeObject *)cls)->tp_mro == NULL) {
        PyErr_SetString(PyExc_TypeError, "Unchanged(*classes)");
        return -1;
    }
    self->type = (PyTypeObject *)Py_NewRef(cls);
    self->mro = Py_NewRef(self->type->tp_mro);
    self->dicts = PyTuple_New(PyTuple_GET_SIZE(self->mro));
    for (Py_ssize_t i = 0; self->dicts != NULL && i < PyTuple_GET_SIZE(self->mro); i++) {
        PyObject *copy = copy_of_dict(PyTuple_GET_ITEM(self->mro, i));
        if (copy == NULL) {
            return -1;
        }
        PyTuple_SET_ITEM(self->dicts, i, copy);
    }
    return self->dicts == NULL ? -1 : 0;
}

static PyObject *
unchanged_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Unchanged(*classes)");
        return NULL;
    }
    vnl_unchanged *self = (vnl_unchanged *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->call = unchanged_call;
    self->classes = PyMem_Calloc((size_t)PyTuple_GET_SIZE(args) + 1, sizeof(watched));
    if (self->classes == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        self->count++;
        if (watch(&self->classes[i], PyTuple_GET_ITEM(args, i)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static int
unchanged_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_unchanged *self = (vnl_unchanged *)op;
    Py_VISIT(Py_TYPE(op));
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->classes[i].type);
        Py_VISIT(self->classes[i].mro);
        Py_VISIT(self->classes[i].dicts);
    }
    return 0;
}

static int
unchanged_clear(PyObject *op)
{
    vnl_unchanged *self = (vnl_unchanged *)op;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->classes[i].type);
        Py_CLEAR(self->classes[i].mro);
        Py_CLEAR(self->classes[i].dicts);
    }
    self->count = 0;
    return 0;
}

static void
unchanged_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)unchanged_clear(op);
    PyMem_Free(((vnl_unchanged *)op)->classes);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef unchanged_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(vnl_unchanged, call), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot unchanged_slots[] = {
    {Py_tp_doc,
     "Unchanged(*classes)\n--\n\n"
     "Called, says whether no attribute of the classes and of their bases has been set or deleted\n"
     "since, or whether what was has been undone."},
    {Py_tp_new, unchanged_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, unchanged_members},
    {Py_tp_traverse, unchanged_traverse},
    {Py_tp_clear, unchanged_clear},
    {Py_tp_dealloc, unchanged_dealloc},
    {0, NULL},
};

static PyType_Spec unchanged_spec = {
    .name = "vinyl._core.Unchanged",
    .basicsize = sizeof(vnl_unchanged),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = unchanged_slots,
};

int
vnl_guard_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &unchanged_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
