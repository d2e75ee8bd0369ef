/* Binder: plain values into a statement's parameters, exactly as the lookups
 * of plain fields do it (vinyl/plan/plain.py finds out which do). */
#include "plan/plan.h"

#include "core/state.h"

/* Constant parameters, or one value's. */
typedef struct {
    PyObject *constants; /* owned tuple, or NULL for a value's */
    PyTypeObject *type;  /* owned: exactly of this type, else Django has to do it */
    PyObject *how;       /* owned: a callable that wraps the value, an attribute's name, or NULL */
    long long low, high; /* of an integer */
} part;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Py_ssize_t count, size; /* of parts and of parameters */
    part *parts;
} vnl_binder;

/* 1 when the value fits, 0 when Django has to look at it. */
static int
fits(const part *self, PyObject *value)
{
    if (!Py_IS_TYPE(value, self->type)) {
        return 0;
    }
    if (!PyLong_Check(value)) {
        return 1;
    }
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow == 0 && number >= self->low && number <= self->high;
}

/* New reference. */
static PyObject *
prepared(const part *self, PyObject *value)
{
    if (self->how == NULL) {
        return Py_NewRef(value);
    }
    return PyUnicode_Check(self->how) ? PyObject_GetAttr(value, self->how)
                                      : PyObject_CallOneArg(self->how, value);
}

/* 1 with the parameters, 0, or -1 with an exception. */
static int
fill(vnl_binder *self, PyObject *values, PyObject *params)
{
    Py_ssize_t at = 0, next = 0;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const part *one = &self->parts[i];
        for (Py_ssize_t n = 0; one->constants != NULL && n < PyTuple_GET_SIZE(one->constants); n++) {
            PyTuple_SET_ITEM(params, at++, Py_NewRef(PyTuple_GET_ITEM(one->constants, n)));
        }
        if (one->constants != NULL) {
            continue;
        }
        if (next >= PySequence_Fast_GET_SIZE(values)) {
            return 0;
        }
        PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(values, next++));
        PyObject *param = fits(one, value) ? prepared(one, value) : Py_NewRef(Py_None);
        Py_DECREF(value);
        if (param == NULL || param == Py_None) {
            Py_XDECREF(param);
            return param == NULL ? -1 : 0;
        }
        PyTuple_SET_ITEM(params, at++, param);
    }
    return next == PySequence_Fast_GET_SIZE(values);
}

static PyObject *
binder_call(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    vnl_binder *self = (vnl_binder *)op;
    if (PyVectorcall_NARGS(nargsf) != 1 || kwnames != NULL ||
        !(PyTuple_Check(args[0]) || PyList_Check(args[0]))) {
        PyErr_SetString(PyExc_TypeError, "a Binder takes a tuple or a list of values");
        return NULL;
    }
    PyObject *params = PyTuple_New(self->size);
    int filled = params == NULL ? -1 : fill(self, args[0], params);
    if (filled == 1) {
        return params;
    }
    Py_XDECREF(params);
    return filled < 0 ? NULL : Py_NewRef(Py_None);
}

static int
read_part(vnl_binder *self, PyObject *spec)
{
    part *one = &self->parts[self->count];
    PyObject *constants = NULL, *type = NULL, *how = NULL;
    if (!PyTuple_Check(spec) ||
        !PyArg_ParseTuple(spec, "OOOLL", &constants, &type, &how, &one->low, &one->high)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "Binder: a part is (constants, type, how, low, high)");
        }
        return -1;
    }
    if (constants != Py_None ? !PyTuple_Check(constants) : !PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "Binder: a part has a tuple of constants or a type");
        return -1;
    }
    self->count++;
    one->constants = constants == Py_None ? NULL : Py_NewRef(constants);
    one->type = constants == Py_None ? (PyTypeObject *)Py_NewRef(type) : NULL;
    one->how = how == Py_None ? NULL : Py_NewRef(how);
    self->size += one->constants == NULL ? 1 : PyTuple_GET_SIZE(one->constants);
    return 0;
}

static PyObject *
binder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *specs = NULL;
    if (!PyArg_ParseTuple(args, "O!:Binder", &PyTuple_Type, &specs)) {
        return NULL;
    }
    vnl_binder *self = (vnl_binder *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->call = binder_call;
    self->parts = PyMem_Calloc((size_t)PyTuple_GET_SIZE(specs) + 1, sizeof(part));
    if (self->parts == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(specs); i++) {
        if (read_part(self, PyTuple_GET_ITEM(specs, i)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static int
binder_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_binder *self = (vnl_binder *)op;
    Py_VISIT(Py_TYPE(op));
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->parts[i].constants);
        Py_VISIT(self->parts[i].type);
        Py_VISIT(self->parts[i].how);
    }
    return 0;
}

static int
binder_clear(PyObject *op)
{
    vnl_binder *self = (vnl_binder *)op;
    Py_ssize_t count = self->count;
    self->count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_CLEAR(self->parts[i].constants);
        Py_CLEAR(self->parts[i].type);
        Py_CLEAR(self->parts[i].how);
    }
    return 0;
}

static void
binder_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)binder_clear(op);
    PyMem_Free(((vnl_binder *)op)->parts);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef binder_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(vnl_binder, call), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot binder_slots[] = {
    {Py_tp_doc,
     "Binder(parts, /)\n--\n\n"
     "Called with a statement's values, gives its parameters, or None where Django has to look at a\n"
     "value. A part is (constants, None, None, 0, 0), or (None, type, how, low, high): the value is\n"
     "exactly of the type, an integer is in the range; it goes in as it is (how: None), wrapped by\n"
     "a callable, or as its attribute of that name."},
    {Py_tp_new, binder_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, binder_members},
    {Py_tp_traverse, binder_traverse},
    {Py_tp_clear, binder_clear},
    {Py_tp_dealloc, binder_dealloc},
    {0, NULL},
};

static PyType_Spec binder_spec = {
    .name = "vinyl._core.Binder",
    .basicsize = sizeof(vnl_binder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = binder_slots,
};

int
vnl_binder_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &binder_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
