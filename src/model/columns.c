/* The loops of a bulk INSERT over its instances: which have a primary key
 * (split_new), what they hold for one field (plain_column), and what the server
 * has given them (assign_rows).
 * vinyl/inserting.py says when they are right. */
#include "model/hydrate.h"

#include "core/state.h"
#include "model/layout.h"

#include <datetime.h>

int
vnl_value_is_plain(const vnl_value_rule *rule, PyObject *value)
{
    int known = 0;
    for (Py_ssize_t i = 0; !known && i < PyTuple_GET_SIZE(rule->types); i++) {
        known = (PyObject *)Py_TYPE(value) == PyTuple_GET_ITEM(rule->types, i);
    }
    if (!known || rule->test == NULL) {
        return known;
    }
    PyObject *answer = PyObject_CallOneArg(rule->test, value);
    int plain = answer == NULL ? -1 : answer != Py_None && answer != Py_False;
    Py_XDECREF(answer);
    return plain;
}

PyObject *
vnl_value_wrapped(const vnl_value_rule *rule, PyObject *value)
{
    if (rule->wrap == NULL) {
        return Py_NewRef(value);
    }
    if (PyType_Check(rule->wrap) && PyType_IsSubtype((PyTypeObject *)rule->wrap, &PyLong_Type)) {
        /* psycopg's Int4 and its like do nothing else in their Python. */
        PyObject *args = PyTuple_Pack(1, value);
        PyObject *number = args != NULL ? PyLong_Type.tp_new((PyTypeObject *)rule->wrap, args, NULL) : NULL;
        Py_XDECREF(args);
        return number;
    }
    return PyObject_CallOneArg(rule->wrap, value);
}

/* What is known of a class for one name, as long as it is as it was: an attribute
 * of an instance goes before the class's own, which is no data descriptor. */
typedef struct {
    PyTypeObject *type; /* borrowed, only compared; NULL: none yet */
    unsigned int version;
    int instances_first;
} class_view;

static void
look_at_class(class_view *view, PyTypeObject *type, PyObject *name)
{
    PyObject *found = _PyType_Lookup(type, name); /* borrowed; gives the class a version */
    view->type = type;
    view->version = type->tp_version_tag;
    view->instances_first = view->version != 0 && type->tp_getattro == PyObject_GenericGetAttr &&
                            (found == NULL || Py_TYPE(found)->tp_descr_set == NULL);
}

/* New reference. */
static PyObject *
attribute_of(PyObject *object, PyObject *name, class_view *view)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type != view->type || type->tp_version_tag != view->version) {
        look_at_class(view, type, name);
    }
    PyObject *value = view->instances_first ? vnl_layout_peek(object, name) : NULL;
    return value != NULL ? value : PyObject_GetAttr(object, name);
}

/* New reference; NULL without an exception where the value is not plain. */
static PyObject *
parameter(const vnl_value_rule *rule, PyObject *object, PyObject *attname, class_view *view)
{
    PyObject *value = attribute_of(object, attname, view);
    if (value == NULL || value == Py_None) {
        return value;
    }
    PyObject *result = vnl_value_is_plain(rule, value) > 0 ? vnl_value_wrapped(rule, value) : NULL;
    Py_DECREF(value);
    return result;
}

static PyObject *
plain_column(PyObject *module, PyObject *args)
{
    PyObject *objects = NULL, *attname = NULL, *test = NULL, *wrap = NULL;
    vnl_value_rule rule = {NULL, NULL, NULL};
    class_view view = {NULL, 0, 0};
    if (!PyArg_ParseTuple(args, "O!UO!OO:plain_column", &PyList_Type, &objects, &attname, &PyTuple_Type,
                          &rule.types, &test, &wrap)) {
        return NULL;
    }
    rule.test = test != Py_None ? test : NULL;
    rule.wrap = wrap != Py_None ? wrap : NULL;
    PyObject *column = PyList_New(0);
    /* Reading an attribute may run Python, which may change the list. */
    for (Py_ssize_t i = 0; column != NULL && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = Py_NewRef(PyList_GET_ITEM(objects, i));
        PyObject *value = parameter(&rule, object, attname, &view);
        Py_DECREF(object);
        if (value == NULL && !PyErr_Occurred()) {
            Py_CLEAR(column);
            break; /* Django has to look at them all */
        }
        if (value == NULL || PyList_Append(column, value) < 0) {
            Py_CLEAR(column);
        }
        Py_XDECREF(value);
    }
    return column == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : column;
}

static int
assign_row(PyObject *object, PyObject *names, PyObject *row, PyObject *db)
{
    PyObject *values = PySequence_Fast(row, "a row is a sequence");
    if (values == NULL) {
        return -1;
    }
    int rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyTuple_GET_SIZE(names) && i < PySequence_Fast_GET_SIZE(values);
         i++) {
        PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(values, i));
        rc = PyObject_SetAttr(object, PyTuple_GET_ITEM(names, i), value);
        Py_DECREF(value);
    }
    Py_DECREF(values);
    PyObject *state = rc == 0 ? PyObject_GetAttr(object, vnl_core->str_state) : NULL;
    if (state == NULL || PyObject_SetAttr(state, vnl_core->str_adding, Py_False) < 0 ||
        PyObject_SetAttr(state, vnl_core->str_db, db) < 0) {
        rc = -1;
    }
    Py_XDECREF(state);
    return rc;
}

static PyObject *
assign_rows(PyObject *module, PyObject *args)
{
    PyObject *objects = NULL, *names = NULL, *rows = NULL, *db = NULL;
    if (!PyArg_ParseTuple(args, "O!O!O!O:assign_rows", &PyList_Type, &objects, &PyTuple_Type, &names,
                          &PyList_Type, &rows, &db)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects) && i < PyList_GET_SIZE(rows); i++) {
        PyObject *object = Py_NewRef(PyList_GET_ITEM(objects, i));
        PyObject *row = Py_NewRef(PyList_GET_ITEM(rows, i));
        int rc = assign_row(object, names, row, db);
        Py_DECREF(row);
        Py_DECREF(object);
        if (rc < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* Lets Django look at the relations of an object that holds any.  0, or -1. */
static int
prepare_related(PyObject *object, PyObject *state)
{
    PyObject *cache = PyObject_GetAttr(state, vnl_core->str_fields_cache);
    if (cache == NULL) {
        return -1;
    }
    int empty = PyDict_CheckExact(cache) && PyDict_GET_SIZE(cache) == 0;
    Py_DECREF(cache);
    if (empty) {
        return 0;
    }
    PyObject *done = PyObject_CallMethod(object, "_prepare_related_fields_for_save", "s", "bulk_create");
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* 1 with a primary key, 0 without, -1 exception, 2 where Django has to look. */
static int
has_key(PyObject *object, PyObject *model, PyObject *attname, int relations)
{
    if ((PyObject *)Py_TYPE(object) != model) {
        return 2;
    }
    if (relations) {
        PyObject *state = PyObject_GetAttr(object, vnl_core->str_state);
        int rc = state != NULL ? prepare_related(object, state) : -1;
        Py_XDECREF(state);
        if (rc < 0) {
            return -1;
        }
    }
    PyObject *key = PyObject_GetAttr(object, attname);
    int answer = key == NULL ? -1 : key == Py_None ? 0 : PyLong_CheckExact(key) ? 1 : 2;
    Py_XDECREF(key);
    return answer;
}

static PyObject *
split_new(PyObject *module, PyObject *args)
{
    PyObject *objects = NULL, *model = NULL, *attname = NULL;
    int relations = 0;
    if (!PyArg_ParseTuple(args, "O!OUp:split_new", &PyList_Type, &objects, &model, &attname, &relations)) {
        return NULL;
    }
    PyObject *with = PyList_New(0), *without = PyList_New(0);
    int answer = with != NULL && without != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; answer >= 0 && answer < 2 && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = Py_NewRef(PyList_GET_ITEM(objects, i));
        answer = has_key(object, model, attname, relations);
        if (answer >= 0 && PyList_Append(answer ? with : without, object) < 0) {
            answer = -1;
        }
        Py_DECREF(object);
    }
    PyObject *pair = NULL;
    if (answer >= 0) {
        pair = answer < 2 ? PyTuple_Pack(2, with, without) : Py_NewRef(Py_None);
    }
    Py_XDECREF(with);
    Py_XDECREF(without);
    return pair;
}

/* Whether utcoffset() is not None: a rule's test. */
static PyObject *
is_aware(PyObject *module, PyObject *value)
{
    if (PyDateTime_CheckExact(value) && PyDateTime_DATE_GET_TZINFO(value) == PyDateTime_TimeZone_UTC) {
        Py_RETURN_TRUE;
    }
    PyObject *offset = PyObject_CallMethodNoArgs(value, vnl_core->str_utcoffset);
    if (offset == NULL) {
        return NULL;
    }
    Py_DECREF(offset);
    return PyBool_FromLong(offset != Py_None);
}

static PyMethodDef columns_methods[] = {
    {"plain_column", plain_column, METH_VARARGS,
     "plain_column(objects, attname, types, test, wrap, /)\n--\n\n"
     "The attribute of each object as an INSERT's parameter: None, or wrap(value). The answer is None\n"
     "where the class of a value is not one of types, or test(value) is None or False."},
    {"is_aware", is_aware, METH_O, "is_aware(datetime, /)\n--\n\nWhether its utcoffset() is not None."},
    {"split_new", split_new, METH_VARARGS,
     "split_new(objects, model, pk_attname, has_relations, /)\n--\n\n"
     "The objects that have a primary key and those that have none; None where an object is\n"
     "not simply of that model or its key is not simply an int."},
    {"assign_rows", assign_rows, METH_VARARGS,
     "assign_rows(objects, attnames, rows, db, /)\n--\n\n"
     "Gives each object the values of its row, and counts it as stored in db."},
    {NULL},
};

int
vnl_columns_setup(PyObject *module)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : PyModule_AddFunctions(module, columns_methods);
}
