/* Hydrator: makes the instances of a model whose instances are plain: no code
 * of the model's own runs when one is made (vinyl/compiler.py decides).  What it
 * makes has the same __dict__, in the same order, as Django's. */
#include "model/hydrate.h"

#include "core/state.h"
#include "model/garbage.h"
#include "model/layout.h"
#include "plan/plan.h"

typedef struct {
    PyObject_HEAD
    PyObject *names;      /* owned tuple: attnames of the concrete fields */
    vnl_layout *instance; /* _state, names */
    vnl_layout *state;    /* fields_cache, adding, db, and fetch_mode where Django has it */
    int clears;           /* ModelState.__del__ asks for the cache of every instance */
    PyObject *guard;      /* owned Unchanged: as long as it holds, __del__ does nothing else; or NULL */
} vnl_hydrator;

struct vnl_maker {
    vnl_layout *instance;
    vnl_layout *state;
    PyObject *stored[3]; /* owned: False, db, fetch_mode or NULL */
    Py_ssize_t nstored;
    Py_ssize_t count; /* of the columns */
    int caches;
    PyObject *guard; /* owned, or NULL */
};

static void hydrator_dealloc(PyObject *op);

/* --- the maker */

/* ("_state", *names): new reference. */
static PyObject *
with_state(PyObject *names)
{
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    PyObject *all = PyTuple_New(count + 1);
    if (all != NULL) {
        PyTuple_SET_ITEM(all, 0, Py_NewRef(vnl_core->str_state));
    }
    for (Py_ssize_t i = 0; all != NULL && i < count; i++) {
        PyTuple_SET_ITEM(all, i + 1, Py_NewRef(PyTuple_GET_ITEM(names, i)));
    }
    return all;
}

/* _state and those of the model's names that `names` has.  New reference. */
static PyObject *
chosen_names(const vnl_hydrator *self, PyObject *names)
{
    PyObject *list = PyList_New(0);
    if (list == NULL || PyList_Append(list, vnl_core->str_state) < 0) {
        Py_CLEAR(list);
    }
    for (Py_ssize_t i = 0; list != NULL && i < PyTuple_GET_SIZE(self->names); i++) {
        PyObject *name = PyTuple_GET_ITEM(self->names, i);
        int asked = PySequence_Contains(names, name);
        if (asked < 0 || (asked && PyList_Append(list, name) < 0)) {
            Py_CLEAR(list);
        }
    }
    PyObject *tuple = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    if (tuple != NULL && PyTuple_GET_SIZE(tuple) != PyTuple_GET_SIZE(names) + 1) {
        PyErr_SetString(PyExc_ValueError, "not names of the model's columns");
        Py_CLEAR(tuple);
    }
    return tuple;
}

/* New reference. */
static PyObject *
state_names(int caches, int fetch_mode)
{
    PyObject *const names[] = {vnl_core->str_fields_cache, vnl_core->str_adding, vnl_core->str_db,
                               vnl_core->str_fetch_mode};
    Py_ssize_t count = 2 + (caches != 0) + (fetch_mode != 0);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(names[i + (caches == 0)]));
    }
    return tuple;
}

/* The maker with its parts of the layouts, by the names of either.  Steals all but
 * `of`; takes NULL names, with an exception. */
static vnl_maker *
shaped(vnl_maker *self, const vnl_hydrator *of, PyObject *instance, PyObject *state)
{
    self->instance = state != NULL ? vnl_layout_part(of->instance, instance) : NULL;
    self->state = self->instance != NULL ? vnl_layout_part(of->state, state) : NULL;
    Py_XDECREF(instance);
    Py_XDECREF(state);
    if (self->state == NULL) {
        vnl_maker_free(self);
        return NULL;
    }
    return self;
}

vnl_maker *
vnl_maker_new(PyObject *hydrator, PyObject *names, PyObject *db, PyObject *fetch_mode, int caches)
{
    const vnl_hydrator *of = (vnl_hydrator *)hydrator;
    PyObject *instance = NULL, *state = NULL;
    vnl_maker *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int spares = of->clears && of->guard != NULL ? vnl_unchanged_holds(of->guard) : 0;
    self->guard = spares > 0 ? Py_NewRef(of->guard) : NULL;
    /* Django makes an empty cache when it is first asked for. */
    self->caches = caches || (of->clears && self->guard == NULL);
    self->count = PyTuple_GET_SIZE(names);
    self->stored[0] = Py_NewRef(Py_False);
    self->stored[1] = Py_NewRef(db);
    self->stored[2] = Py_XNewRef(fetch_mode);
    self->nstored = fetch_mode != NULL ? 3 : 2;
    instance = spares < 0                                   ? NULL
               : self->count == PyTuple_GET_SIZE(of->names) ? with_state(of->names)
                                                            : chosen_names(of, names);
    state = instance != NULL ? state_names(self->caches, fetch_mode != NULL) : NULL;
    return shaped(self, of, instance, state);
}

vnl_maker *
vnl_maker_of_new(PyObject *hydrator, int caches)
{
    const vnl_hydrator *of = (vnl_hydrator *)hydrator;
    vnl_maker *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->caches = caches;
    self->count = PyTuple_GET_SIZE(of->names);
    self->guard = of->clears ? Py_XNewRef(of->guard) : NULL;
    PyObject *instance = with_state(of->names);
    PyObject *state = instance != NULL ? PyTuple_New(caches) : NULL;
    if (state != NULL && caches) {
        PyTuple_SET_ITEM(state, 0, Py_NewRef(vnl_core->str_fields_cache));
    }
    return shaped(self, of, instance, state);
}

void
vnl_maker_free(vnl_maker *self)
{
    if (self != NULL) {
        vnl_layout_free(self->instance);
        vnl_layout_free(self->state);
        for (int i = 0; i < 3; i++) {
            Py_CLEAR(self->stored[i]);
        }
        Py_CLEAR(self->guard);
        PyMem_Free(self);
    }
}

int
vnl_maker_traverse(const vnl_maker *self, visitproc visit, void *arg)
{
    if (self == NULL) {
        return 0;
    }
    Py_VISIT(self->stored[1]);
    Py_VISIT(self->stored[2]);
    Py_VISIT(self->guard);
    int rc = vnl_layout_traverse(self->instance, visit, arg);
    return rc != 0 ? rc : vnl_layout_traverse(self->state, visit, arg);
}

/* New reference. */
static PyObject *
make_state(const vnl_maker *self)
{
    PyObject *cache = self->caches ? PyDict_New() : NULL;
    if (self->caches && cache == NULL) {
        return NULL;
    }
    PyObject *state = vnl_layout_make(self->state, &cache, self->caches, self->stored, self->nstored);
    /* Its __del__ empties the cache that goes with it. */
    if (state != NULL && self->guard != NULL && Py_TYPE(state)->tp_finalize != NULL) {
        int same = vnl_unchanged_holds(self->guard);
        if (same > 0) {
            vnl_garbage_skip_finalizer(state);
        }
        else if (same < 0) {
            Py_CLEAR(state);
        }
    }
    Py_XDECREF(cache);
    return state;
}

PyObject *
vnl_maker_make(const vnl_maker *self, PyObject *const *items)
{
    PyObject *state = make_state(self);
    PyObject *object = state != NULL ? vnl_layout_make(self->instance, &state, 1, items, self->count) : NULL;
    Py_XDECREF(state);
    return object;
}

int
vnl_maker_fits(const vnl_maker *self, PyObject *object)
{
    return vnl_layout_fits(self->instance, object);
}

int
vnl_maker_fill(const vnl_maker *self, PyObject *object, PyObject *const *items)
{
    PyObject *state = make_state(self);
    int done = state != NULL ? vnl_layout_fill(self->instance, object, &state, 1, items, self->count) : -1;
    Py_XDECREF(state);
    return done;
}

/* --- the type */

int
vnl_hydrator_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == hydrator_dealloc;
}

/* The names, interned: new reference. */
static PyObject *
interned(PyObject *names)
{
    PyObject *tuple = PyTuple_New(PyTuple_GET_SIZE(names));
    for (Py_ssize_t i = 0; tuple != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = Py_NewRef(PyTuple_GET_ITEM(names, i));
        if (PyUnicode_CheckExact(name)) {
            PyUnicode_InternInPlace(&name);
        }
        PyTuple_SET_ITEM(tuple, i, name);
    }
    return tuple;
}

static int
fill(vnl_hydrator *self, PyTypeObject *model, PyTypeObject *state, PyObject *names)
{
    PyObject *all = NULL, *of_state = NULL;
    self->names = interned(names);
    self->clears = state->tp_finalize != NULL;
    all = self->names != NULL ? with_state(self->names) : NULL;
    of_state =
        all != NULL ? state_names(1, PyObject_HasAttr((PyObject *)state, vnl_core->str_fetch_mode)) : NULL;
    /* A model's own __del__ is not to see an instance that is only tried. */
    self->instance = of_state != NULL
                         ? vnl_layout_new(model, all, model->tp_finalize == NULL && model->tp_del == NULL)
                         : NULL;
    self->state = self->instance != NULL ? vnl_layout_new(state, of_state, 1) : NULL;
    Py_XDECREF(all);
    Py_XDECREF(of_state);
    return self->state != NULL ? 0 : -1;
}

static PyObject *
hydrator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *model = NULL, *state = NULL, *names = NULL, *guard = Py_None;
    if (!PyArg_ParseTuple(args, "O!O!O!|O:Hydrator", &PyType_Type, &model, &PyType_Type, &state,
                          &PyTuple_Type, &names, &guard)) {
        return NULL;
    }
    vnl_hydrator *self = (vnl_hydrator *)type->tp_alloc(type, 0);
    if (self != NULL && fill(self, (PyTypeObject *)model, (PyTypeObject *)state, names) < 0) {
        Py_CLEAR(self);
    }
    if (self != NULL && guard != Py_None) {
        self->guard = Py_NewRef(guard);
    }
    return (PyObject *)self;
}

static PyObject *
is_direct(PyObject *op, void *unused)
{
    const vnl_hydrator *self = (vnl_hydrator *)op;
    return PyBool_FromLong(vnl_layout_is_direct(self->instance) && vnl_layout_is_direct(self->state));
}

static int
hydrator_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->names);
    Py_VISIT(self->guard);
    int rc = vnl_layout_traverse(self->instance, visit, arg);
    return rc != 0 ? rc : vnl_layout_traverse(self->state, visit, arg);
}

static int
hydrator_clear(PyObject *op)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    vnl_layout *instance = self->instance, *state = self->state;
    self->instance = self->state = NULL;
    vnl_layout_free(instance);
    vnl_layout_free(state);
    Py_CLEAR(self->names);
    Py_CLEAR(self->guard);
    return 0;
}

static void
hydrator_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)hydrator_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyGetSetDef hydrator_getset[] = {
    {"direct", is_direct, NULL, "Whether instances are made without their __dict__.", NULL},
    {NULL},
};

static PyType_Slot hydrator_slots[] = {
    {Py_tp_doc,
     "Hydrator(model, state_class, attnames, guard=None, /)\n--\n\n"
     "For a RowPlan: does what Model.from_db does for a model whose instances are plain. While guard, an\n"
     "Unchanged, holds, __del__ of the state does no more than empty its cache, which is left out."},
    {Py_tp_new, hydrator_new},
    {Py_tp_getset, hydrator_getset},
    {Py_tp_traverse, hydrator_traverse},
    {Py_tp_clear, hydrator_clear},
    {Py_tp_dealloc, hydrator_dealloc},
    {0, NULL},
};

static PyType_Spec hydrator_spec = {
    .name = "vinyl._core.Hydrator",
    .basicsize = sizeof(vnl_hydrator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = hydrator_slots,
};

int
vnl_hydrator_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &hydrator_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
