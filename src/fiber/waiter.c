#include "fiber/waiter.h"

#include "core/state.h"

vnl_waiter *
vnl_waiter_new(vnl_reactor *reactor)
{
    vnl_waiter *self = PyObject_GC_New(vnl_waiter, vnl_core->waiter_type);
    if (self == NULL) {
        return NULL;
    }
    vnl_wake_init(&self->wake);
    self->reactor = Py_NewRef((PyObject *)reactor);
    self->callback = self->context = self->message = NULL;
    self->status = VNL_WAITER_IDLE;
    self->blocking = 0;
    self->sheltered = 0;
    PyObject_GC_Track(self);
    return self;
}

void
vnl_waiter_arm(vnl_waiter *self, int sheltered)
{
    self->status = VNL_WAITER_ARMED;
    self->sheltered = sheltered;
    self->blocking = 1;
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->message);
}

/* loop.call_soon(callback, self, context=context) */
static int
call_soon(vnl_waiter *self)
{
    if (self->callback == NULL) {
        return 0; /* add_done_callback will see the status */
    }
    PyObject *callback = self->callback;
    PyObject *context = self->context;
    PyObject *loop = ((vnl_reactor *)self->reactor)->loop;
    PyObject *args[4] = {loop, callback, (PyObject *)self, context};
    self->callback = NULL;
    self->context = NULL;
    PyObject *handle =
        PyObject_VectorcallMethod(vnl_core->str_call_soon, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                  context != NULL ? vnl_core->kw_context : NULL);
    Py_DECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

int
vnl_waiter_fire_soon(vnl_waiter *self)
{
    if (self->status != VNL_WAITER_ARMED) {
        return 0;
    }
    vnl_wake_disarm(&self->wake);
    self->status = VNL_WAITER_FIRED;
    return call_soon(self);
}

int
vnl_waiter_fire_now(vnl_waiter *self)
{
    if (self->status != VNL_WAITER_ARMED) {
        return 0;
    }
    self->status = VNL_WAITER_FIRED;
    PyObject *callback = self->callback;
    PyObject *context = self->context;
    PyObject *result = NULL;
    self->callback = NULL;
    self->context = NULL;
    if (callback == NULL) {
        return 0;
    }
    if (context != NULL && PyContext_Enter(context) < 0) {
        goto done;
    }
    result = PyObject_CallOneArg(callback, (PyObject *)self);
    if (context != NULL) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        (void)PyContext_Exit(context);
        PyErr_Restore(type, value, traceback);
    }
done:
    Py_XDECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
waiter_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    vnl_waiter *self = (vnl_waiter *)op;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs != 1 || nkw > 1 ||
        (nkw == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), vnl_core->str_context) != 0)) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(fn, *, context=None)");
        return NULL;
    }
    if (self->callback != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a database wait has one waiter");
        return NULL;
    }
    self->callback = Py_NewRef(args[0]);
    if (nkw == 1 && args[1] != Py_None) {
        self->context = Py_NewRef(args[1]);
    }
    if (self->status != VNL_WAITER_ARMED && call_soon(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
waiter_remove_done_callback(PyObject *op, PyObject *callback)
{
    vnl_waiter *self = (vnl_waiter *)op;
    if (self->callback == NULL) {
        return PyLong_FromLong(0);
    }
    int same = PyObject_RichCompareBool(self->callback, callback, Py_EQ);
    if (same < 0) {
        return NULL;
    }
    if (same) {
        Py_CLEAR(self->callback);
        Py_CLEAR(self->context);
    }
    return PyLong_FromLong(same);
}

static PyObject *
waiter_cancel(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    vnl_waiter *self = (vnl_waiter *)op;
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message)) {
        return NULL;
    }
    if (self->status != VNL_WAITER_ARMED || self->sheltered) {
        /* The task then throws CancelledError at its next step. */
        Py_RETURN_FALSE;
    }
    vnl_wake_disarm(&self->wake);
    self->status = VNL_WAITER_CANCELLED;
    Py_XSETREF(self->message, Py_NewRef(message));
    if (call_soon(self) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *
waiter_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_waiter *self = (vnl_waiter *)op;
    if (self->status == VNL_WAITER_CANCELLED) {
        if (self->message != NULL && self->message != Py_None) {
            PyErr_SetObject(vnl_core->cancelled_error, self->message);
        }
        else {
            PyErr_SetNone(vnl_core->cancelled_error);
        }
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
waiter_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((vnl_waiter *)op)->status != VNL_WAITER_ARMED);
}

static PyObject *
waiter_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((vnl_waiter *)op)->status == VNL_WAITER_CANCELLED);
}

static PyObject *
waiter_get_loop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(((vnl_reactor *)((vnl_waiter *)op)->reactor)->loop);
}

static PyObject *
waiter_get_blocking(PyObject *op, void *closure)
{
    return PyBool_FromLong(((vnl_waiter *)op)->blocking);
}

static int
waiter_set_blocking(PyObject *op, PyObject *value, void *closure)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    ((vnl_waiter *)op)->blocking = truth;
    return 0;
}

static int
waiter_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_waiter *self = (vnl_waiter *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->reactor);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->message);
    return 0;
}

static int
waiter_clear(PyObject *op)
{
    vnl_waiter *self = (vnl_waiter *)op;
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->message);
    return 0;
}

static void
waiter_dealloc(PyObject *op)
{
    vnl_waiter *self = (vnl_waiter *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    vnl_wake_disarm(&self->wake);
    (void)waiter_clear(op);
    Py_CLEAR(self->reactor);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef waiter_methods[] = {
    {"add_done_callback", (PyCFunction)(void *)waiter_add_done_callback, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"remove_done_callback", waiter_remove_done_callback, METH_O, NULL},
    {"cancel", (PyCFunction)(void *)waiter_cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"result", waiter_result, METH_NOARGS, NULL},
    {"exception", waiter_result, METH_NOARGS, NULL},
    {"done", waiter_done, METH_NOARGS, NULL},
    {"cancelled", waiter_cancelled, METH_NOARGS, NULL},
    {"get_loop", waiter_get_loop, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef waiter_getset[] = {
    {"_asyncio_future_blocking", waiter_get_blocking, waiter_set_blocking, NULL, NULL},
    {NULL},
};

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, "What an operation waits for; a future in asyncio's sense, used by its task alone."},
    {Py_tp_traverse, waiter_traverse},
    {Py_tp_clear, waiter_clear},
    {Py_tp_dealloc, waiter_dealloc},
    {Py_tp_methods, waiter_methods},
    {Py_tp_getset, waiter_getset},
    {0, NULL},
};

static PyType_Spec waiter_spec = {
    .name = "vinyl._core.Waiter",
    .basicsize = sizeof(vnl_waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = waiter_slots,
};

int
vnl_waiter_setup(PyObject *module)
{
    vnl_core->waiter_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &waiter_spec, NULL);
    return vnl_core->waiter_type == NULL ? -1 : 0;
}
