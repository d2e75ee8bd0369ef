/* model_init: Model.__init__ where an instance is made by the names of its columns
 * and no code but Django's would run.  Initial is what is known of such a model
 * (vinyl/initial.py); all else is Django's own __init__. */
#include "model/hydrate.h"

#include "core/state.h"
#include "fiber/fiber.h"
#include "plan/plan.h"

enum {
    MOST = 64 /* fields, and arguments handed on without an allocation */
};

typedef struct {
    PyObject_HEAD
    vnl_maker *maker;
    PyObject *model;    /* owned */
    PyObject *fields;   /* owned: the model's fields, another object when they change */
    PyObject *names;    /* owned tuple of their attnames, interned */
    PyObject *defaults; /* owned tuple: what gives a field's value where none is given */
    PyObject *signals;  /* owned tuple of signals that nobody may be listening to */
    PyObject *deferred; /* owned: a value that sets nothing */
    PyObject *guard;    /* owned Unchanged */
} initial;

static struct {
    PyObject *django; /* Model.__init__ */
    PyObject *find;   /* find(model): its Initial or None, also put where it is looked for */
    PyObject *str_meta, *str_initial, *str_fields, *str_receivers;
    PyTypeObject *type;
} here;

/* 1 somebody, 0 nobody, -1 exception. */
static int
is_listening(PyObject *signals, PyObject *model)
{
    int found = 0;
    for (Py_ssize_t i = 0; found == 0 && i < PyTuple_GET_SIZE(signals); i++) {
        PyObject *signal = PyTuple_GET_ITEM(signals, i);
        PyObject *receivers = PyObject_GetAttr(signal, here.str_receivers);
        found = receivers != NULL ? PyObject_IsTrue(receivers) : -1;
        Py_XDECREF(receivers);
        if (found > 0) {
            PyObject *answer = PyObject_CallMethod(signal, "has_listeners", "O", model);
            found = answer != NULL ? PyObject_IsTrue(answer) : -1;
            Py_XDECREF(answer);
        }
    }
    return found;
}

/* The Initial of an instance: new reference; NULL without an exception where
 * Django has to make it. */
static PyObject *
initial_of(PyObject *object)
{
    PyObject *model = (PyObject *)Py_TYPE(object);
    PyObject *meta = PyObject_GetAttr(model, here.str_meta);
    PyObject *found = meta != NULL ? PyObject_GetAttr(meta, here.str_initial) : NULL;
    if (found == NULL && meta != NULL) {
        PyErr_Clear();
        found = PyObject_CallOneArg(here.find, model);
    }
    PyObject *fields = found != NULL ? PyObject_GetAttr(meta, here.str_fields) : NULL;
    if (found != NULL && Py_IS_TYPE(found, here.type)) {
        const initial *self = (initial *)found;
        if (fields != self->fields || model != self->model) {
            Py_SETREF(found, fields != NULL ? PyObject_CallOneArg(here.find, model) : NULL);
        }
    }
    if (found != NULL && !Py_IS_TYPE(found, here.type)) {
        Py_CLEAR(found);
    }
    Py_XDECREF(fields);
    Py_XDECREF(meta);
    return found;
}

/* The given value of the name, borrowed, or NULL. */
static PyObject *
given(PyObject *const *values, PyObject *kwnames, PyObject *name, Py_ssize_t *from)
{
    Py_ssize_t count = PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t n = 0; n < count; n++) {
        Py_ssize_t i = (*from + n) % count;
        if (PyTuple_GET_ITEM(kwnames, i) == name) {
            *from = i + 1;
            return values[i];
        }
    }
    return NULL;
}

/* Whether each name that is given is one of the model's. */
static int
knows(const initial *self, PyObject *kwnames)
{
    Py_ssize_t known = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(self->names); n++) {
            if (PyTuple_GET_ITEM(kwnames, i) == PyTuple_GET_ITEM(self->names, n)) {
                known++;
                break;
            }
        }
    }
    return known == PyTuple_GET_SIZE(kwnames);
}

/* 1 filled, 0 Django has to do it, -1 exception. */
static int
fill(const initial *self, PyObject *object, PyObject *const *values, PyObject *kwnames)
{
    PyObject *items[MOST] = {NULL};
    Py_ssize_t count = PyTuple_GET_SIZE(self->names), from = 0;
    int done = 1;
    for (Py_ssize_t i = 0; done > 0 && i < count; i++) {
        items[i] = Py_XNewRef(given(values, kwnames, PyTuple_GET_ITEM(self->names, i), &from));
        if (items[i] == NULL) {
            items[i] = PyObject_CallNoArgs(PyTuple_GET_ITEM(self->defaults, i));
            done = items[i] != NULL ? 1 : -1;
        }
    }
    if (done > 0) {
        done = vnl_maker_fill(self->maker, object, items);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(items[i]);
    }
    return done;
}

static int
is_given(const initial *self, PyObject *const *values, PyObject *kwnames)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        if (values[i] == self->deferred) {
            return 0;
        }
    }
    return knows(self, kwnames);
}

static int
make(PyObject *object, PyObject *const *values, PyObject *kwnames)
{
    PyObject *found = initial_of(object);
    if (found == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    const initial *self = (initial *)found;
    int done = is_given(self, values, kwnames) && vnl_maker_fits(self->maker, object);
    if (done) {
        done = vnl_unchanged_holds(self->guard);
        if (done == 0) {
            PyObject *again = PyObject_CallOneArg(here.find, self->model);
            done = again != NULL ? 0 : -1;
            Py_XDECREF(again);
        }
    }
    if (done > 0) {
        int listening = is_listening(self->signals, self->model);
        done = listening < 0 ? -1 : !listening;
    }
    if (done > 0) {
        done = fill(self, object, values, kwnames);
    }
    Py_DECREF(found);
    return done;
}

/* Django's own. */
static PyObject *
hand_on(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *small[MOST + 1];
    Py_ssize_t count = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    PyObject **all = count <= MOST ? small : PyMem_Malloc((size_t)(count + 1) * sizeof(*all));
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = self;
    for (Py_ssize_t i = 0; i < count; i++) {
        all[i + 1] = args[i];
    }
    PyObject *done = PyObject_Vectorcall(here.django, all, (size_t)nargs + 1, kwnames);
    if (all != small) {
        PyMem_Free(all);
    }
    return done;
}

static PyObject *
model_init(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (here.django == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "model_init is not installed");
        return NULL;
    }
    if (nargs == 0 && kwnames != NULL && vnl_where() != VNL_PLAIN) {
        int done = make(self, args, kwnames);
        if (done != 0) {
            return done > 0 ? Py_NewRef(Py_None) : NULL;
        }
    }
    return hand_on(self, args, nargs, kwnames);
}

/* --- the type */

static PyObject *
initial_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *hydrator = NULL, *model = NULL, *fields = NULL, *names = NULL, *defaults = NULL;
    PyObject *signals = NULL, *deferred = NULL, *guard = NULL;
    int caches = 0;
    if (!PyArg_ParseTuple(args, "OO!OO!O!O!OOp:Initial", &hydrator, &PyType_Type, &model, &fields,
                          &PyTuple_Type, &names, &PyTuple_Type, &defaults, &PyTuple_Type, &signals, &deferred,
                          &guard, &caches)) {
        return NULL;
    }
    if (!vnl_hydrator_check(hydrator) || PyTuple_GET_SIZE(names) > MOST ||
        PyTuple_GET_SIZE(names) != PyTuple_GET_SIZE(defaults)) {
        PyErr_SetString(PyExc_ValueError, "Initial: a Hydrator, and as many names as defaults");
        return NULL;
    }
    initial *self = (initial *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->model = Py_NewRef(model);
    self->fields = Py_NewRef(fields);
    self->names = Py_NewRef(names);
    self->defaults = Py_NewRef(defaults);
    self->signals = Py_NewRef(signals);
    self->deferred = Py_NewRef(deferred);
    self->guard = Py_NewRef(guard);
    self->maker = vnl_maker_of_new(hydrator, caches);
    if (self->maker == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
initial_traverse(PyObject *op, visitproc visit, void *arg)
{
    const initial *self = (initial *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->model);
    Py_VISIT(self->fields);
    Py_VISIT(self->names);
    Py_VISIT(self->defaults);
    Py_VISIT(self->signals);
    Py_VISIT(self->deferred);
    Py_VISIT(self->guard);
    return vnl_maker_traverse(self->maker, visit, arg);
}

static int
initial_clear(PyObject *op)
{
    initial *self = (initial *)op;
    Py_CLEAR(self->model);
    Py_CLEAR(self->fields);
    Py_CLEAR(self->names);
    Py_CLEAR(self->defaults);
    Py_CLEAR(self->signals);
    Py_CLEAR(self->deferred);
    Py_CLEAR(self->guard);
    return 0;
}

static void
initial_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)initial_clear(op);
    vnl_maker_free(((initial *)op)->maker);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot initial_slots[] = {
    {Py_tp_doc,
     "Initial(hydrator, model, fields, attnames, defaults, signals, deferred, guard, caches, /)\n--\n\n"
     "A model whose new instances need no code but Django's."},
    {Py_tp_new, initial_new},
    {Py_tp_traverse, initial_traverse},
    {Py_tp_clear, initial_clear},
    {Py_tp_dealloc, initial_dealloc},
    {0, NULL},
};

static PyType_Spec initial_spec = {
    .name = "vinyl._core.Initial",
    .basicsize = sizeof(initial),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = initial_slots,
};

static PyObject *
install_init(PyObject *module, PyObject *args)
{
    PyObject *django = NULL, *find = NULL;
    if (!PyArg_ParseTuple(args, "OO:install_init", &django, &find)) {
        return NULL;
    }
    Py_XSETREF(here.django, Py_NewRef(django));
    Py_XSETREF(here.find, Py_NewRef(find));
    Py_RETURN_NONE;
}

static PyMethodDef init_method = {"__init__", _PyCFunction_CAST(model_init), METH_FASTCALL | METH_KEYWORDS,
                                  "__init__($self, /, *args, **kwargs)\n--\n\n"};

static PyMethodDef initial_methods[] = {
    {"install_init", install_init, METH_VARARGS,
     "install_init(django_init, find, /)\n--\n\n"
     "What model_init calls: find(model) gives its Initial or None, and leaves it in _meta._vinyl_initial."},
    {NULL},
};

int
vnl_initial_setup(PyObject *module)
{
    here.str_meta = PyUnicode_InternFromString("_meta");
    here.str_initial = PyUnicode_InternFromString("_vinyl_initial");
    here.str_fields = PyUnicode_InternFromString("fields");
    here.str_receivers = PyUnicode_InternFromString("receivers");
    here.type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &initial_spec, NULL);
    if (here.type == NULL || PyModule_AddType(module, here.type) < 0 ||
        PyModule_AddFunctions(module, initial_methods) < 0) {
        return -1;
    }
    PyObject *init = PyDescr_NewMethod(&PyBaseObject_Type, &init_method);
    int failed = init != NULL ? PyModule_AddObjectRef(module, "model_init", init) : -1;
    Py_XDECREF(init);
    return failed;
}
