#include "reactor/reactor.h"

#include <pthread.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/operation.h"
#include "fiber/waiter.h"
#include "reactor/jobs.h"
#include "reactor/reader.h"

unsigned vnl_fork_generation;

/* The reactor of the loop that this thread asked for last.  Borrowed; cleared
 * when that reactor goes. */
static _Thread_local vnl_reactor *last_reactor;

static void
after_fork_in_child(void)
{
    vnl_fork_generation++;
    vnl_jobs_after_fork();
}

/* 1, 0, or -1 with an exception. */
static int
is_selecting(PyObject *loop)
{
    PyObject *module = PyImport_ImportModule("asyncio.selector_events");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, "BaseSelectorEventLoop") : NULL;
    int selects = type != NULL ? PyObject_IsInstance(loop, type) : -1;
    Py_XDECREF(module);
    Py_XDECREF(type);
    return selects;
}

static vnl_reactor *
reactor_new(PyObject *loop)
{
    vnl_reactor *self = PyObject_GC_New(vnl_reactor, vnl_core->reactor_type);
    if (self == NULL) {
        return NULL;
    }
    self->loop = Py_NewRef(loop);
    self->guard = NULL;
    self->weakrefs = NULL;
    self->generation = vnl_fork_generation;
    self->closed = 0;
    vnl_list_init(&self->fibers);
    vnl_list_init(&self->readers);
    self->poller = vnl_poller_new();
    self->on_close = PyList_New(0);
    PyObject_GC_Track(self);
    self->selects = 0;
    if (self->poller == NULL && !PyErr_Occurred()) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    if (self->poller == NULL || self->on_close == NULL || (self->selects = is_selecting(loop)) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* Registers a new reactor with its loop (vinyl/loops.py).  0 or -1. */
static int
reactor_attach(vnl_reactor *self)
{
    PyObject *module = PyImport_ImportModule("vinyl.loops");
    PyObject *guard = NULL;
    if (module != NULL) {
        guard = PyObject_CallMethod(module, "attach", "OO", (PyObject *)self, self->loop);
        Py_DECREF(module);
    }
    if (guard == NULL) {
        return -1;
    }
    Py_XSETREF(self->guard, guard);
    return PyObject_SetAttr(self->loop, vnl_core->str_reactor, (PyObject *)self);
}

vnl_reactor *
vnl_reactor_of(PyObject *loop)
{
    vnl_reactor *self = last_reactor;
    if (self != NULL && self->loop == loop && self->generation == vnl_fork_generation && !self->closed) {
        return (vnl_reactor *)Py_NewRef((PyObject *)self);
    }
    self = (vnl_reactor *)PyObject_GetAttr(loop, vnl_core->str_reactor);
    if (self == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    else if (self->generation != vnl_fork_generation || self->closed) {
        Py_CLEAR(self); /* a parent's, or of an earlier life of the loop */
    }
    if (self == NULL) {
        self = reactor_new(loop);
        if (self == NULL || reactor_attach(self) < 0) {
            Py_XDECREF(self);
            return NULL;
        }
    }
    last_reactor = self;
    return self;
}

/* The loop's reader callback: wakes the tasks whose waits are over. */
static PyObject *
reactor_process(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_reactor *self = (vnl_reactor *)op;
    if (self->poller == NULL) {
        Py_RETURN_NONE;
    }
    vnl_poller_collect(self->poller);
    vnl_wake *wake = NULL;
    Py_INCREF(self);
    int failed = 0;
    while (!failed && self->poller != NULL && (wake = vnl_poller_next(self->poller)) != NULL) {
        vnl_waiter *waiter = VNL_CONTAINER(wake, vnl_waiter, wake);
        Py_INCREF(waiter);
        failed = vnl_waiter_fire_now(waiter) < 0;
        Py_DECREF(waiter);
    }
    Py_DECREF(self);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
reactor_fileno(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_reactor *self = (vnl_reactor *)op;
    return PyLong_FromLong(self->poller == NULL ? -1 : vnl_poller_fd(self->poller));
}

static PyObject *
reactor_on_close(PyObject *op, PyObject *fn)
{
    if (PyList_Append(((vnl_reactor *)op)->on_close, fn) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Calls what was registered with on_close, once. */
static PyObject *
reactor_drain(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_reactor *self = (vnl_reactor *)op;
    PyObject *calls = PyList_GetSlice(self->on_close, 0, PY_SSIZE_T_MAX);
    if (calls == NULL || PyList_SetSlice(self->on_close, 0, PY_SSIZE_T_MAX, NULL) < 0) {
        Py_XDECREF(calls);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(calls); i++) {
        PyObject *done = PyObject_CallNoArgs(PyList_GET_ITEM(calls, i));
        if (done == NULL) {
            PyErr_WriteUnraisable(PyList_GET_ITEM(calls, i));
        }
        Py_XDECREF(done);
    }
    Py_DECREF(calls);
    Py_RETURN_NONE;
}

static void
reactor_end(vnl_reactor *self)
{
    self->closed = 1;
    if (last_reactor == self) {
        last_reactor = NULL;
    }
}

/* Fibers that nobody will resume: a cycle through their stacks, which the
 * collector cannot see, would keep them and their transactions for good. */
static void
end_fibers(vnl_reactor *self)
{
    vnl_node *node = NULL;
    while ((node = vnl_list_first(&self->fibers)) != NULL) {
        vnl_fiber *fiber = VNL_CONTAINER(node, vnl_fiber, link);
        if (fiber->operation != NULL) {
            vnl_operation_end(fiber->operation);
        }
        if (vnl_list_first(&self->fibers) == node) {
            vnl_list_remove(node); /* it would not end */
        }
    }
}

/* The loop is gone. */
static PyObject *
reactor_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_reactor *self = (vnl_reactor *)op;
    if (!self->closed) {
        reactor_end(self);
        end_fibers(self);
        vnl_fiber_drop_idle();
        vnl_reader_end_all(self);
        return reactor_drain(op, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *
reactor_suspended(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t n = 0;
    vnl_reactor *self = (vnl_reactor *)op;
    for (vnl_node *node = self->fibers.next; node != &self->fibers; node = node->next) {
        n++;
    }
    return PyLong_FromSsize_t(n);
}

static int
reactor_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_reactor *self = (vnl_reactor *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->guard);
    Py_VISIT(self->on_close);
    return 0;
}

static int
reactor_clear(PyObject *op)
{
    vnl_reactor *self = (vnl_reactor *)op;
    Py_CLEAR(self->guard);
    Py_CLEAR(self->on_close);
    Py_CLEAR(self->loop);
    return 0;
}

static void
reactor_dealloc(PyObject *op)
{
    vnl_reactor *self = (vnl_reactor *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    reactor_end(self);
    vnl_list_remove(&self->fibers);
    vnl_list_remove(&self->readers);
    if (self->poller != NULL) {
        vnl_poller_free(self->poller);
        self->poller = NULL;
    }
    (void)reactor_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef reactor_methods[] = {
    {"process", reactor_process, METH_NOARGS,
     "Wakes the tasks whose waits are over (the loop's reader callback)."},
    {"fileno", reactor_fileno, METH_NOARGS, "The descriptor to watch for reading."},
    {"on_close", reactor_on_close, METH_O, "Registers a callable for the end of the loop."},
    {"drain", reactor_drain, METH_NOARGS, "Calls, once, what was registered with on_close()."},
    {"close", reactor_close, METH_NOARGS, "The loop is closed: nothing can be waited for any more."},
    {"live", reactor_suspended, METH_NOARGS, "How many fibers are running or suspended."},
    {NULL},
};

static PyMemberDef reactor_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(vnl_reactor, weakrefs), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot reactor_slots[] = {
    {Py_tp_doc, "What connects one event loop with the descriptors, deadlines and jobs of its operations."},
    {Py_tp_traverse, reactor_traverse},
    {Py_tp_clear, reactor_clear},
    {Py_tp_dealloc, reactor_dealloc},
    {Py_tp_methods, reactor_methods},
    {Py_tp_members, reactor_members},
    {0, NULL},
};

static PyType_Spec reactor_spec = {
    .name = "vinyl._core.Reactor",
    .basicsize = sizeof(vnl_reactor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reactor_slots,
};

int
vnl_reactor_setup(PyObject *module)
{
    static int fork_handler;
    if (!fork_handler) {
        pthread_atfork(NULL, NULL, after_fork_in_child);
        fork_handler = 1;
    }
    vnl_core->reactor_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &reactor_spec, NULL);
    return vnl_core->reactor_type == NULL ? -1 : 0;
}
