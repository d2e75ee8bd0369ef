/* Parameters: the values of one instance as the parameters of its INSERT or UPDATE.
 * vinyl/plan/write.py says for which fields, and by which rules. */
#include "model/hydrate.h"

#include "core/state.h"

/* The items of a field's tuple. */
enum {
    ATTNAME,
    BEFORE, /* callable(instance, add) that gives the value, or None: the attribute is it */
    TYPES,  /* the rule of _core.plain_column, */
    TEST,
    WRAP,
    EXTRA,   /* and a tuple where wrap is called as wrap(connection.ops, value, *extra), or None */
    PREPARE, /* callable(value, connection=…) for a value that is not plain */
    ITEMS
};

typedef struct {
    PyObject *attname, *before, *extra, *prepare; /* before, extra: NULL for None */
    vnl_value_rule rule;
} field_rule;

typedef struct {
    PyObject_HEAD
    PyObject *fields;  /* the tuple that the rules borrow from */
    field_rule *rules; /* of `fields`, then the key's when there is one */
    Py_ssize_t count;
    int has_key;
    int asks_first;       /* some rule has a `before`, and all are asked before a value is looked at */
    PyObject *low, *high; /* of the key; NULL: any */
    PyObject *add;        /* True or False */
} parameters;

/* What a field of a statement and a call of Parameters.of() have in common: all owned by the caller. */
typedef struct {
    PyObject *instance, *connection, *ops, *add;
} target;

/* 1 where Django's compiler would look into the value, 0, or -1. */
static int
is_expression(PyObject *value)
{
    PyObject *const names[] = {vnl_core->str_resolve_expression, vnl_core->str_as_sql,
                               vnl_core->str_prepare_database_save};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *found = PyObject_GetAttr(value, names[i]);
        if (found != NULL) {
            Py_DECREF(found);
            return 1;
        }
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

/* New reference; NULL without an exception where Django has to. */
static PyObject *
prepared(const field_rule *field, PyObject *value, const target *writing)
{
    int expression = is_expression(value);
    if (expression != 0) {
        return NULL;
    }
    PyObject *args[] = {NULL, value, writing->connection};
    PyObject *result = PyObject_Vectorcall(field->prepare, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                           vnl_core->kw_connection);
    if (result != NULL && result != value && is_expression(result) != 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* What wrap(ops, value, *extra) gives.  New reference. */
static PyObject *
adapted(const field_rule *field, PyObject *value, PyObject *ops)
{
    PyObject *args[5] = {NULL, ops, value, NULL, NULL};
    Py_ssize_t count = PyTuple_GET_SIZE(field->extra);
    for (Py_ssize_t i = 0; i < count; i++) { /* two at most, see parameters_new */
        args[3 + i] = PyTuple_GET_ITEM(field->extra, i);
    }
    return PyObject_Vectorcall(field->rule.wrap, args + 1,
                               (size_t)(2 + count) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* What a field refuses, Django is to refuse: it raises where it breaks the transaction, and looks
 * at the key first. */
static void
leave_to_django(void)
{
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
}

/* `before`: what was given by the rule's, stolen, or NULL where it has none.  New reference;
 * NULL without an exception where Django has to. */
static PyObject *
field_parameter(const field_rule *field, PyObject *before, const target *writing)
{
    PyObject *value = before != NULL ? before : PyObject_GetAttr(writing->instance, field->attname);
    PyObject *result = NULL;
    if (value == NULL) {
        return NULL;
    }
    int plain = vnl_value_is_plain(&field->rule, value);
    if (plain > 0) {
        result = field->extra != NULL ? adapted(field, value, writing->ops)
                                      : vnl_value_wrapped(&field->rule, value);
    }
    else if (plain == 0 && value == Py_None && PyTuple_GET_SIZE(field->rule.types) > 0) {
        result = Py_NewRef(Py_None);
    }
    else if (plain == 0) {
        result = prepared(field, value, writing);
    }
    Py_DECREF(value);
    if (result == NULL) {
        leave_to_django();
    }
    return result;
}

/* New reference, or NULL with what the rule's `before` has raised. */
static PyObject *
ask(const field_rule *field, const target *writing)
{
    PyObject *args[] = {NULL, writing->instance, writing->add};
    return PyObject_Vectorcall(field->before, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* Puts into `values` what each rule's `before` gives.  0, or -1. */
static int
ask_all(const parameters *self, const target *writing, PyObject *values)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        if (self->rules[i].before == NULL) {
            continue;
        }
        PyObject *value = ask(&self->rules[i], writing);
        if (value == NULL) {
            return -1;
        }
        PyTuple_SET_ITEM(values, i, value);
    }
    return 0;
}

/* New reference; NULL without an exception where the key is not plain or out of range. */
static PyObject *
key_parameter(const parameters *self, const target *writing)
{
    const field_rule *field = &self->rules[self->count];
    PyObject *value = PyObject_GetAttr(writing->instance, field->attname);
    if (value == NULL) {
        return NULL;
    }
    int plain = vnl_value_is_plain(&field->rule, value);
    if (plain > 0 && self->low != NULL) {
        plain = PyObject_RichCompareBool(value, self->low, Py_GE);
    }
    if (plain > 0 && self->high != NULL) {
        plain = PyObject_RichCompareBool(value, self->high, Py_LE);
    }
    PyObject *result = plain > 0 ? vnl_value_wrapped(&field->rule, value) : NULL;
    Py_DECREF(value);
    return result;
}

/* The parameter at an index of the tuple, in which what was asked before is. */
static PyObject *
parameter_at(const parameters *self, Py_ssize_t at, PyObject *values, const target *writing)
{
    if (at == self->count) {
        return key_parameter(self, writing);
    }
    const field_rule *field = &self->rules[at];
    PyObject *before = PyTuple_GET_ITEM(values, at);
    PyTuple_SET_ITEM(values, at, NULL);
    if (before == NULL && field->before != NULL && (before = ask(field, writing)) == NULL) {
        return NULL;
    }
    return field_parameter(field, before, writing);
}

/* of(instance, connection) */
static PyObject *
parameters_of(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    parameters *self = (parameters *)op;
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "of() takes 2 arguments (%zd given)", nargs);
    }
    target writing = {.instance = args[0], .connection = args[1], .add = self->add};
    PyObject *tuple = PyTuple_New(self->count + self->has_key);
    writing.ops = tuple != NULL ? PyObject_GetAttr(args[1], vnl_core->str_ops) : NULL;
    int fits = writing.ops != NULL && (!self->asks_first || ask_all(self, &writing, tuple) == 0);
    for (Py_ssize_t at = 0; fits && at < self->count + self->has_key; at++) {
        PyObject *value = parameter_at(self, at, tuple, &writing);
        fits = value != NULL;
        PyTuple_SET_ITEM(tuple, at, value);
    }
    if (!fits) {
        Py_CLEAR(tuple);
    }
    Py_XDECREF(writing.ops);
    return tuple != NULL || PyErr_Occurred() ? tuple : Py_NewRef(Py_None);
}

static PyObject *
or_null(PyObject *item)
{
    return item != Py_None ? item : NULL;
}

/* Borrows from `field`.  0, or -1 with an exception. */
static int
read_rule(field_rule *rule, PyObject *field)
{
    if (!PyTuple_Check(field) || PyTuple_GET_SIZE(field) != ITEMS ||
        !PyTuple_Check(PyTuple_GET_ITEM(field, TYPES))) {
        PyErr_SetString(PyExc_TypeError, "a field is (attname, before, types, test, wrap, extra, prepare)");
        return -1;
    }
    rule->attname = PyTuple_GET_ITEM(field, ATTNAME);
    rule->before = or_null(PyTuple_GET_ITEM(field, BEFORE));
    rule->rule.types = PyTuple_GET_ITEM(field, TYPES);
    rule->rule.test = or_null(PyTuple_GET_ITEM(field, TEST));
    rule->rule.wrap = or_null(PyTuple_GET_ITEM(field, WRAP));
    rule->extra = or_null(PyTuple_GET_ITEM(field, EXTRA));
    rule->prepare = PyTuple_GET_ITEM(field, PREPARE);
    if (rule->extra != NULL &&
        (!PyTuple_Check(rule->extra) || PyTuple_GET_SIZE(rule->extra) > 2 || rule->rule.wrap == NULL)) {
        PyErr_SetString(PyExc_TypeError, "extra is a tuple of at most 2, for a wrap");
        return -1;
    }
    return 0;
}

static PyObject *
parameters_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *fields = NULL, *low = Py_None, *high = Py_None;
    int add = 0, has_key = 0, in_turn = 0;
    static char *names[] = {"add", "fields", "has_key", "low", "high", "in_turn", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pO!p|OOp:Parameters", names, &add, &PyTuple_Type, &fields,
                                     &has_key, &low, &high, &in_turn)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    if (count < has_key) {
        PyErr_SetString(PyExc_ValueError, "the key is the last of the fields");
        return NULL;
    }
    parameters *self = (parameters *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fields = Py_NewRef(fields);
    self->low = Py_XNewRef(or_null(low));
    self->high = Py_XNewRef(or_null(high));
    self->add = add ? Py_True : Py_False;
    self->has_key = has_key;
    self->count = count - has_key;
    self->rules = PyMem_Calloc((size_t)count + 1, sizeof(field_rule));
    if (self->rules == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_rule(&self->rules[i], PyTuple_GET_ITEM(fields, i)) < 0) {
            goto fail;
        }
        self->asks_first |= !in_turn && i < self->count && self->rules[i].before != NULL;
    }
    return (PyObject *)self;

fail:
    Py_DECREF(self);
    return NULL;
}

static int
parameters_traverse(PyObject *op, visitproc visit, void *arg)
{
    parameters *self = (parameters *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->fields);
    Py_VISIT(self->low);
    Py_VISIT(self->high);
    return 0;
}

static void
parameters_dealloc(PyObject *op)
{
    parameters *self = (parameters *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    PyMem_Free(self->rules);
    Py_CLEAR(self->fields);
    Py_CLEAR(self->low);
    Py_CLEAR(self->high);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef parameters_methods[] = {
    {"of", _PyCFunction_CAST(parameters_of), METH_FASTCALL,
     "of(instance, connection, /)\n--\n\n"
     "The tuple of parameters; None where a value is an expression, or the key is not a plain one\n"
     "between low and high."},
    {NULL},
};

/* No tp_clear: the tuples are immutable, so a cycle through them has another object that breaks it. */
static PyType_Slot parameters_slots[] = {
    {Py_tp_doc,
     "Parameters(add, fields, has_key, low=None, high=None, in_turn=False)\n--\n\n"
     "How the attributes of an instance become the parameters of a statement. A field is\n"
     "(attname, before, types, test, wrap, extra, prepare); with has_key the last is the key\n"
     "of the WHERE clause. With in_turn a field's before is asked when its value is looked at,\n"
     "else all are asked first."},
    {Py_tp_new, parameters_new},
    {Py_tp_traverse, parameters_traverse},
    {Py_tp_dealloc, parameters_dealloc},
    {Py_tp_methods, parameters_methods},
    {0, NULL},
};

static PyType_Spec parameters_spec = {
    .name = "vinyl._core.Parameters",
    .basicsize = sizeof(parameters),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = parameters_slots,
};

int
vnl_parameters_setup(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &parameters_spec, NULL);
    int failed = type != NULL ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return failed;
}
