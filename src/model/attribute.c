/* read_attribute: __get__ of a field's descriptor.  A foreign key's has a __set__
 * too, so that each read of its column comes here, loaded or not. */
#include "model/hydrate.h"

#include "core/state.h"
#include "model/layout.h"

/* The field's value in the instance's __dict__, which is not made for it: new
 * reference; NULL without an exception where it is not there. */
static PyObject *
loaded_value(PyObject *descriptor, PyObject *instance)
{
    PyObject *field = PyObject_GetAttr(descriptor, vnl_core->str_field);
    PyObject *name = field != NULL ? PyObject_GetAttr(field, vnl_core->str_attname) : NULL;
    PyObject *value = name != NULL ? vnl_layout_peek(instance, name) : NULL;
    if (value == NULL && name != NULL) {
        PyObject *dict = PyObject_GenericGetDict(instance, NULL);
        value = dict != NULL ? Py_XNewRef(PyDict_GetItemWithError(dict, name)) : NULL;
        Py_XDECREF(dict);
    }
    Py_XDECREF(name);
    Py_XDECREF(field);
    return value;
}

/* __get__(self, instance, type=None) */
static PyObject *
read_attribute(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "__get__() takes 1 or 2 arguments (%zd given)", nargs);
    }
    PyObject *missing[4] = {NULL, op, args[0], nargs == 2 ? args[1] : Py_None};
    if (args[0] != Py_None) {
        PyObject *value = loaded_value(op, args[0]);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return PyObject_VectorcallMethod(vnl_core->str_vinyl_read, missing + 1,
                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static PyMethodDef method = {
    "__get__", _PyCFunction_CAST(read_attribute), METH_FASTCALL,
    "What self.field.attname names in the instance's __dict__; where it is not there,\n"
    "self._vinyl_read(instance, type)."};

/* A method without a class: a base of ours would change the layout that a
 * descriptor needs to be adapted in place. */
int
vnl_attribute_setup(PyObject *module)
{
    PyObject *get = PyDescr_NewMethod(&PyBaseObject_Type, &method);
    int failed = get != NULL ? PyModule_AddObjectRef(module, "read_attribute", get) : -1;
    Py_XDECREF(get);
    return failed;
}
