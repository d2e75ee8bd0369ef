/* Shapes: a filter, or a call with keyword arguments, without its values.  What
 * has the same shape has the same SQL (vinyl/plan/shape.py says why). */
#include "plan/plan.h"

#include "core/state.h"

typedef struct {
    PyObject_HEAD
    PyObject *plain;     /* owned frozenset: types whose values leave the SQL as it is */
    PyTypeObject *q;     /* owned: Django's Q */
    PyTypeObject *model; /* owned: Django's Model */
    Py_ssize_t longest;  /* of a list of values */
    PyObject *str_connector, *str_negated, *str_children;
} vnl_shapes;

/* (list, types of its values), or None.  New reference. */
static PyObject *
kind_of_list(vnl_shapes *self, PyObject *value)
{
    Py_ssize_t size = PySequence_Fast_GET_SIZE(value);
    if (size == 0 || size > self->longest) {
        Py_RETURN_NONE;
    }
    PyObject *kinds = PyTuple_New(size);
    for (Py_ssize_t i = 0; kinds != NULL && i < size; i++) {
        PyObject *type = Py_NewRef((PyObject *)Py_TYPE(PySequence_Fast_GET_ITEM(value, i)));
        int plain = PySet_Contains(self->plain, type);
        /* A metaclass has hashed its class, and may have changed the list. */
        if (plain <= 0 || PySequence_Fast_GET_SIZE(value) != size) {
            Py_DECREF(type);
            Py_DECREF(kinds);
            return plain < 0 ? NULL : Py_NewRef(Py_None);
        }
        PyTuple_SET_ITEM(kinds, i, type);
    }
    PyObject *kind = kinds == NULL ? NULL : PyTuple_Pack(2, (PyObject *)Py_TYPE(value), kinds);
    Py_XDECREF(kinds);
    return kind;
}

/* What of a value is part of the shape: its type; of True and False the value;
 * None when the SQL may depend on more.  New reference. */
static PyObject *
kind_of(vnl_shapes *self, PyObject *value)
{
    PyObject *type = (PyObject *)Py_TYPE(value);
    if (PyBool_Check(value)) {
        return PyTuple_Pack(2, type, value);
    }
    int plain = PySet_Contains(self->plain, type);
    if (plain != 0) {
        return plain < 0 ? NULL : Py_NewRef(type);
    }
    if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        return kind_of_list(self, value);
    }
    return Py_NewRef(PyType_IsSubtype(Py_TYPE(value), self->model) ? type : Py_None);
}

/* Appends the name and the value's kind to `parts`, the value to `values`.
 * 1, 0 when there is no shape, -1 with an exception. */
static int
add_argument(vnl_shapes *self, PyObject *name, PyObject *value, PyObject *parts, PyObject *values)
{
    if (!PyUnicode_CheckExact(name)) {
        return 0;
    }
    PyObject *kind = kind_of(self, value);
    if (kind == NULL || kind == Py_None) {
        Py_XDECREF(kind);
        return kind == NULL ? -1 : 0;
    }
    int failed = PyList_Append(parts, name) < 0 || PyList_Append(parts, kind) < 0 ||
                 (!PyBool_Check(value) && PyList_Append(values, value) < 0);
    Py_DECREF(kind);
    return failed ? -1 : 1;
}

static int add_filter(vnl_shapes *self, PyObject *q, PyObject *parts, PyObject *values);

static int
add_child(vnl_shapes *self, PyObject *child, PyObject *parts, PyObject *values)
{
    if (PyTuple_CheckExact(child) && PyTuple_GET_SIZE(child) == 2) {
        return add_argument(self, PyTuple_GET_ITEM(child, 0), PyTuple_GET_ITEM(child, 1), parts, values);
    }
    if (!Py_IS_TYPE(child, self->q)) {
        return 0;
    }
    PyObject *inner = PyList_New(0);
    int found = inner == NULL || Py_EnterRecursiveCall(" in a filter") ? -1 : 1;
    if (found == 1) {
        found = add_filter(self, child, inner, values);
        Py_LeaveRecursiveCall();
    }
    PyObject *tuple = found == 1 ? PyList_AsTuple(inner) : NULL;
    if (found == 1 && (tuple == NULL || PyList_Append(parts, tuple) < 0)) {
        found = -1;
    }
    Py_XDECREF(tuple);
    Py_XDECREF(inner);
    return found;
}

static int
add_filter(vnl_shapes *self, PyObject *q, PyObject *parts, PyObject *values)
{
    PyObject *connector = PyObject_GetAttr(q, self->str_connector);
    PyObject *negated = connector != NULL ? PyObject_GetAttr(q, self->str_negated) : NULL;
    PyObject *children = negated != NULL ? PyObject_GetAttr(q, self->str_children) : NULL;
    int found = -1;
    if (children != NULL && PyList_Append(parts, connector) == 0 && PyList_Append(parts, negated) == 0) {
        found = PyList_CheckExact(children);
    }
    for (Py_ssize_t i = 0; found == 1 && i < PyList_GET_SIZE(children); i++) {
        PyObject *child = Py_NewRef(PyList_GET_ITEM(children, i));
        found = add_child(self, child, parts, values);
        Py_DECREF(child);
    }
    Py_XDECREF(connector);
    Py_XDECREF(negated);
    Py_XDECREF(children);
    return found;
}

/* (key, values), or None.  Steals both lists. */
static PyObject *
shape_of(int found, PyObject *parts, PyObject *values)
{
    PyObject *key = found == 1 ? PyList_AsTuple(parts) : NULL;
    PyObject *shape = key != NULL ? PyTuple_Pack(2, key, values) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(parts);
    Py_XDECREF(values);
    return found == 0 ? Py_NewRef(Py_None) : shape;
}

static PyObject *
shapes_of_filter(PyObject *op, PyObject *q)
{
    vnl_shapes *self = (vnl_shapes *)op;
    PyObject *parts = PyList_New(0), *values = PyList_New(0);
    int found = parts == NULL || values == NULL ? -1 : 0;
    if (found == 0 && Py_IS_TYPE(q, self->q)) {
        found = add_filter(self, q, parts, values);
    }
    return shape_of(found, parts, values);
}

/* The keyword arguments, sorted as Q sorts them. */
static int
add_arguments(vnl_shapes *self, PyObject *kwargs, PyObject *parts, PyObject *values)
{
    PyObject *names = PyDict_Keys(kwargs);
    int found = names == NULL || PyList_Sort(names) < 0 ? -1 : 1;
    for (Py_ssize_t i = 0; found == 1 && i < PyList_GET_SIZE(names); i++) {
        PyObject *name = PyList_GET_ITEM(names, i);
        PyObject *value = Py_XNewRef(PyDict_GetItemWithError(kwargs, name));
        found = value == NULL ? -1 : add_argument(self, name, value, parts, values);
        Py_XDECREF(value);
    }
    Py_XDECREF(names);
    return found;
}

static PyObject *
shapes_of_call(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyUnicode_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "of_call(name, kwargs)");
        return NULL;
    }
    PyObject *parts = PyList_New(0), *values = PyList_New(0);
    int found = parts == NULL || values == NULL || PyList_Append(parts, args[0]) < 0 ? -1 : 1;
    if (found == 1) {
        found = add_arguments((vnl_shapes *)op, args[1], parts, values);
    }
    return shape_of(found, parts, values);
}

static PyObject *
shapes_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *plain = NULL, *q = NULL, *model = NULL;
    Py_ssize_t longest = 0;
    if (!PyArg_ParseTuple(args, "O!O!O!n:Shapes", &PyFrozenSet_Type, &plain, &PyType_Type, &q, &PyType_Type,
                          &model, &longest)) {
        return NULL;
    }
    vnl_shapes *self = (vnl_shapes *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->plain = Py_NewRef(plain);
    self->q = (PyTypeObject *)Py_NewRef(q);
    self->model = (PyTypeObject *)Py_NewRef(model);
    self->longest = longest;
    self->str_connector = PyUnicode_InternFromString("connector");
    self->str_negated = PyUnicode_InternFromString("negated");
    self->str_children = PyUnicode_InternFromString("children");
    if (self->str_connector == NULL || self->str_negated == NULL || self->str_children == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
shapes_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_shapes *self = (vnl_shapes *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->plain);
    Py_VISIT(self->q);
    Py_VISIT(self->model);
    return 0;
}

static int
shapes_clear(PyObject *op)
{
    vnl_shapes *self = (vnl_shapes *)op;
    Py_CLEAR(self->plain);
    Py_CLEAR(self->q);
    Py_CLEAR(self->model);
    return 0;
}

static void
shapes_dealloc(PyObject *op)
{
    vnl_shapes *self = (vnl_shapes *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)shapes_clear(op);
    Py_CLEAR(self->str_connector);
    Py_CLEAR(self->str_negated);
    Py_CLEAR(self->str_children);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef shapes_methods[] = {
    {"of_filter", shapes_of_filter, METH_O,
     "of_filter(q, /)\n--\n\n(key, values) of a Q, the values in the order in which Django meets them, or "
     "None."},
    {"of_call", _PyCFunction_CAST(shapes_of_call), METH_FASTCALL,
     "of_call(name, kwargs, /)\n--\n\n(key, values) of a method called with keyword arguments that make a "
     "Q,\nor None."},
    {NULL},
};

static PyType_Slot shapes_slots[] = {
    {Py_tp_doc, "Shapes(plain_types, Q, Model, longest, /)\n--\n\nFilters and calls without their values."},
    {Py_tp_new, shapes_new},
    {Py_tp_methods, shapes_methods},
    {Py_tp_traverse, shapes_traverse},
    {Py_tp_clear, shapes_clear},
    {Py_tp_dealloc, shapes_dealloc},
    {0, NULL},
};

static PyType_Spec shapes_spec = {
    .name = "vinyl._core.Shapes",
    .basicsize = sizeof(vnl_shapes),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shapes_slots,
};

int
vnl_shapes_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &shapes_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
