/* Hydrator: makes the instances of a model whose instances are plain: no code
 * of the model's own runs when one is made (vinyl/compiler.py decides).  What it
 * makes has the same __dict__, in the same order, as Django's. */
#include "model/hydrate.h"

#include "core/state.h"

typedef struct {
    PyObject_HEAD
    PyTypeObject *model; /* owned */
    PyTypeObject *state; /* owned: ModelState */
    PyObject *names;     /* owned tuple: attnames of the concrete fields */
    PyObject *empty;     /* owned: () */
} vnl_hydrator;

static void hydrator_dealloc(PyObject *op);

/* The names that `field_names` leaves of the model's, in the model's order.
 * New reference. */
static PyObject *
names_for(vnl_hydrator *self, PyObject *field_names, Py_ssize_t count)
{
    if (count == PyTuple_GET_SIZE(self->names)) {
        return Py_NewRef(self->names);
    }
    PyObject *chosen = PyList_New(0);
    for (Py_ssize_t i = 0; chosen != NULL && i < PyTuple_GET_SIZE(self->names); i++) {
        PyObject *name = PyTuple_GET_ITEM(self->names, i);
        int asked = PySequence_Contains(field_names, name);
        if (asked < 0 || (asked && PyList_Append(chosen, name) < 0)) {
            Py_CLEAR(chosen);
        }
    }
    PyObject *plan = chosen == NULL ? NULL : PyList_AsTuple(chosen);
    Py_XDECREF(chosen);
    return plan;
}

static PyObject *
new_state(vnl_hydrator *self, PyObject *db, PyObject *fetch_mode)
{
    PyObject *state = self->state->tp_new(self->state, self->empty, NULL);
    if (state == NULL) {
        return NULL;
    }
    if (PyObject_GenericSetAttr(state, vnl_core->str_adding, Py_False) < 0 ||
        PyObject_GenericSetAttr(state, vnl_core->str_db, db) < 0 ||
        (fetch_mode != NULL && fetch_mode != Py_None &&
         PyObject_GenericSetAttr(state, vnl_core->str_fetch_mode, fetch_mode) < 0)) {
        Py_DECREF(state);
        return NULL;
    }
    return state;
}

/* An instance with `names` for the values items[0], …  New reference. */
static PyObject *
hydrate(vnl_hydrator *self, PyObject *names, PyObject *const *items, PyObject *db, PyObject *fetch_mode)
{
    PyObject *state = NULL, *dict = NULL;
    PyObject *object = self->model->tp_new(self->model, self->empty, NULL);
    if (object == NULL) {
        return NULL;
    }
    state = new_state(self, db, fetch_mode);
    if (state == NULL || (dict = PyObject_GenericGetDict(object, NULL)) == NULL ||
        PyDict_SetItem(dict, vnl_core->str_state, state) < 0) {
        goto fail;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(names, i), items[i]) < 0) {
            goto fail;
        }
    }
    Py_DECREF(dict);
    Py_DECREF(state);
    return object;

fail:
    Py_XDECREF(dict);
    Py_XDECREF(state);
    Py_DECREF(object);
    return NULL;
}

PyObject *
vnl_hydrator_make(PyObject *hydrator, PyObject *names, PyObject *const *items, PyObject *db,
                  PyObject *fetch_mode)
{
    return hydrate((vnl_hydrator *)hydrator, names, items, db, fetch_mode);
}

PyObject *
vnl_hydrator_names(PyObject *hydrator, PyObject *field_names)
{
    PyObject *names = names_for((vnl_hydrator *)hydrator, field_names, PyTuple_GET_SIZE(field_names));
    if (names != NULL && PyTuple_GET_SIZE(names) != PyTuple_GET_SIZE(field_names)) {
        PyErr_SetString(PyExc_ValueError, "not names of the model's columns");
        Py_CLEAR(names);
    }
    return names;
}

int
vnl_hydrator_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == hydrator_dealloc;
}

static PyObject *
hydrator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *model = NULL, *state = NULL, *names = NULL;
    if (!PyArg_ParseTuple(args, "O!O!O!:Hydrator", &PyType_Type, &model, &PyType_Type, &state, &PyTuple_Type,
                          &names)) {
        return NULL;
    }
    vnl_hydrator *self = (vnl_hydrator *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->model = (PyTypeObject *)Py_NewRef(model);
    self->state = (PyTypeObject *)Py_NewRef(state);
    self->names = Py_NewRef(names);
    self->empty = PyTuple_New(0);
    if (self->empty == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
hydrator_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->model);
    Py_VISIT(self->state);
    Py_VISIT(self->names);
    return 0;
}

static int
hydrator_clear(PyObject *op)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_CLEAR(self->model);
    Py_CLEAR(self->state);
    Py_CLEAR(self->names);
    return 0;
}

static void
hydrator_dealloc(PyObject *op)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)hydrator_clear(op);
    Py_CLEAR(self->empty);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot hydrator_slots[] = {
    {Py_tp_doc,
     "Hydrator(model, state_class, attnames, /)\n--\n\n"
     "For a RowPlan: does what Model.from_db does for a model whose instances are plain."},
    {Py_tp_new, hydrator_new},
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
