/* Hydrator: in place of Model.from_db for models whose instances are plain:
 * no code of the model's own runs when one is made (vinyl/compiler.py decides).
 * What it makes has the same __dict__, in the same order, as Django's. */
#include "model/hydrate.h"

#include "core/state.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyTypeObject *model; /* owned */
    PyTypeObject *state; /* owned: ModelState */
    PyObject *names;     /* owned tuple: attnames of the concrete fields */
    PyObject *from_db;   /* owned: the model's own, for whatever is unusual */
    PyObject *empty;     /* owned: () */
    PyObject *asked;     /* owned: the field_names of the last call */
    PyObject *plan;      /* owned tuple: the attnames that these values are for */
} vnl_hydrator;

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

static PyObject *
hydrate(vnl_hydrator *self, PyObject *db, PyObject *values, PyObject *fetch_mode)
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
    PyObject **items = PySequence_Fast_ITEMS(values);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->plan); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(self->plan, i), items[i]) < 0) {
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

/* (db, field_names, values, *, fetch_mode=None) */
static PyObject *
hydrator_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (PyVectorcall_NARGS(nargsf) != 3 || nkw > 1 ||
        (nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), vnl_core->str_fetch_mode) != 0) ||
        !(PyTuple_CheckExact(args[2]) || PyList_CheckExact(args[2]))) {
        return PyObject_Vectorcall(self->from_db, args, nargsf, kwnames);
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(args[2]);
    if (self->asked != args[1]) {
        PyObject *plan = names_for(self, args[1], count);
        if (plan == NULL) {
            return NULL;
        }
        Py_XSETREF(self->plan, plan);
        Py_XSETREF(self->asked, Py_NewRef(args[1]));
    }
    if (PyTuple_GET_SIZE(self->plan) != count) {
        return PyObject_Vectorcall(self->from_db, args, nargsf, kwnames);
    }
    return hydrate(self, args[0], args[2], nkw == 1 ? args[3] : NULL);
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
    self->vectorcall = hydrator_vectorcall;
    self->model = (PyTypeObject *)Py_NewRef(model);
    self->state = (PyTypeObject *)Py_NewRef(state);
    self->names = Py_NewRef(names);
    self->empty = PyTuple_New(0);
    self->from_db = PyObject_GetAttrString(model, "from_db");
    if (self->empty == NULL || self->from_db == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* What is not from_db is asked of the model: Django's row loops take this for
 * the model class. */
static PyObject *
hydrator_getattro(PyObject *op, PyObject *name)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    int equal = PyUnicode_CompareWithASCIIString(name, "from_db") == 0;
    if (equal) {
        return Py_NewRef(op);
    }
    /* Django 6.1 looks at from_db.__func__ to see whether it is its own. */
    if (PyUnicode_CompareWithASCIIString(name, "__func__") == 0) {
        return PyObject_GetAttr(self->from_db, vnl_core->str_func);
    }
    return PyObject_GetAttr((PyObject *)self->model, name);
}

static int
hydrator_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->model);
    Py_VISIT(self->state);
    Py_VISIT(self->names);
    Py_VISIT(self->from_db);
    Py_VISIT(self->asked);
    Py_VISIT(self->plan);
    return 0;
}

static int
hydrator_clear(PyObject *op)
{
    vnl_hydrator *self = (vnl_hydrator *)op;
    Py_CLEAR(self->model);
    Py_CLEAR(self->state);
    Py_CLEAR(self->names);
    Py_CLEAR(self->from_db);
    Py_CLEAR(self->asked);
    Py_CLEAR(self->plan);
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

static PyMemberDef hydrator_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(vnl_hydrator, vectorcall), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot hydrator_slots[] = {
    {Py_tp_doc,
     "Hydrator(model, state_class, attnames, /)\n--\n\n"
     "Stands for the model class where Django turns rows into instances; its from_db() does what\n"
     "Model.from_db does for a model whose instances are plain."},
    {Py_tp_new, hydrator_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_getattro, hydrator_getattro},
    {Py_tp_traverse, hydrator_traverse},
    {Py_tp_clear, hydrator_clear},
    {Py_tp_dealloc, hydrator_dealloc},
    {Py_tp_members, hydrator_members},
    {0, NULL},
};

static PyType_Spec hydrator_spec = {
    .name = "vinyl._core.Hydrator",
    .basicsize = sizeof(vnl_hydrator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
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
