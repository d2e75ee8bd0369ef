#include "reactor/reader.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/waiter.h"

struct vnl_reader {
    PyObject_HEAD
    vectorcallfunc call;
    vnl_reactor *reactor; /* owned */
    vnl_watch *watch;     /* NULL: the connection is gone */
    vnl_node link;        /* in the reactor's readers, while the loop watches */
    int fd;               /* the duplicate, or -1 */
};

static void
let_go(vnl_reader *self)
{
    if (self->watch != NULL) {
        self->watch->reader = NULL;
        self->watch = NULL;
    }
    vnl_list_remove(&self->link);
}

static void
close_duplicate(vnl_reader *self)
{
    if (self->fd >= 0) {
        close(self->fd);
        self->fd = -1;
    }
}

/* A forked child has its parent's epoll descriptors: what it took out of them, the
 * parent would miss. */
static int
is_ours(const vnl_reader *self)
{
    return self->reactor != NULL && self->reactor->generation == vnl_fork_generation;
}

/* Ends the watching.  The loop drops its reference: the caller holds one. */
static void
stop(vnl_reader *self)
{
    let_go(self);
    if (self->fd >= 0 && is_ours(self)) {
        PyObject *raised = PyErr_GetRaisedException();
        PyObject *done = PyObject_CallMethod(self->reactor->loop, "remove_reader", "i", self->fd);
        if (done == NULL) {
            PyErr_Clear(); /* a closed loop watches nothing */
        }
        Py_XDECREF(done);
        PyErr_SetRaisedException(raised);
    }
    close_duplicate(self);
}

/* 1: the loop runs, and not in this thread. */
static int
runs_elsewhere(vnl_reader *self)
{
    if (vnl_here.fiber != NULL && vnl_here.fiber->reactor == (PyObject *)self->reactor) {
        return 0;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *here = PyObject_CallNoArgs(vnl_core->get_running_loop);
    PyObject *runs = NULL;
    int elsewhere = 0;
    if (here != NULL && here != self->reactor->loop) {
        runs = PyObject_CallMethod(self->reactor->loop, "is_running", NULL);
        elsewhere = runs != NULL && PyObject_IsTrue(runs) == 1;
    }
    if (PyErr_Occurred()) {
        PyErr_Clear();
    }
    Py_XDECREF(here);
    Py_XDECREF(runs);
    PyErr_SetRaisedException(raised);
    return elsewhere;
}

/* The connection is about to be closed, or belongs to another loop now. */
static void
forget(vnl_reader *self)
{
    Py_INCREF(self);
    self->watch->reader = NULL;
    self->watch = NULL;
    if (self->fd >= 0 && is_ours(self) && runs_elsewhere(self)) {
        /* What is readable from now on wakes the loop, which finds that nobody is there. */
        shutdown(self->fd, SHUT_RD);
    }
    else {
        stop(self);
    }
    Py_DECREF(self);
}

/* The loop's callback. */
static PyObject *
reader_ready(PyObject *op, PyObject *const *Py_UNUSED(args), size_t Py_UNUSED(nargs),
             PyObject *Py_UNUSED(kwnames))
{
    vnl_reader *self = (vnl_reader *)op;
    vnl_wake *wake = self->watch == NULL ? NULL : self->watch->wake;
    if (wake == NULL || !(self->watch->want & VNL_READ)) {
        /* Nobody waits: be silent until somebody does. */
        Py_INCREF(self);
        stop(self);
        Py_DECREF(self);
        Py_RETURN_NONE;
    }
    vnl_wake_disarm(wake);
    wake->events = VNL_READ;
    vnl_waiter *waiter = VNL_CONTAINER(wake, vnl_waiter, wake);
    Py_INCREF(waiter);
    int failed = vnl_waiter_fire_now(waiter);
    Py_DECREF(waiter);
    if (failed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Added in an empty context: the loop would else keep this task's variables. */
static int
add_to_loop(vnl_reader *self)
{
    PyObject *context = PyContext_New();
    PyObject *done = NULL;
    if (context != NULL && PyContext_Enter(context) == 0) {
        done = PyObject_CallMethod(self->reactor->loop, "add_reader", "iO", self->fd, (PyObject *)self);
        PyObject *raised = PyErr_GetRaisedException();
        (void)PyContext_Exit(context);
        PyErr_SetRaisedException(raised);
    }
    Py_XDECREF(context);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

void
vnl_reader_attach(vnl_reactor *reactor, vnl_watch *watch)
{
    if (watch->reader != NULL) {
        if (watch->reader->reactor == reactor) {
            return;
        }
        forget(watch->reader);
    }
    if (!reactor->selects) {
        return;
    }
    vnl_reader *self = PyObject_GC_New(vnl_reader, vnl_core->reader_type);
    if (self == NULL) {
        PyErr_Clear();
        return;
    }
    self->call = reader_ready;
    self->reactor = (vnl_reactor *)Py_NewRef((PyObject *)reactor);
    self->watch = NULL;
    vnl_list_init(&self->link);
    self->fd = fcntl(watch->fd, F_DUPFD_CLOEXEC, 0);
    PyObject_GC_Track(self);
    if (self->fd >= 0 && add_to_loop(self) == 0) {
        self->watch = watch;
        watch->reader = self;
        watch->forget = forget;
        vnl_list_append(&reactor->readers, &self->link);
    }
    else {
        /* No descriptor left, or a loop that cannot: the reactor's own goes on. */
        PyErr_Clear();
        watch->lasting = 0;
    }
    Py_DECREF(self); /* the loop has its own */
}

void
vnl_reader_end_all(vnl_reactor *reactor)
{
    vnl_node *node = NULL;
    while ((node = vnl_list_first(&reactor->readers)) != NULL) {
        vnl_reader *self = VNL_CONTAINER(node, vnl_reader, link);
        Py_INCREF(self);
        stop(self);
        Py_DECREF(self);
    }
}

static int
reader_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_reader *self = (vnl_reader *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->reactor);
    return 0;
}

static int
reader_clear(PyObject *op)
{
    vnl_reader *self = (vnl_reader *)op;
    let_go(self);
    Py_CLEAR(self->reactor);
    return 0;
}

static void
reader_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)reader_clear(op);
    close_duplicate((vnl_reader *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef reader_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(vnl_reader, call), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "An event loop's callback: an answer has come for one connection."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_members, reader_members},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "vinyl._core.Reader",
    .basicsize = sizeof(vnl_reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

int
vnl_reader_setup(PyObject *module)
{
    vnl_core->reader_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    return vnl_core->reader_type == NULL ? -1 : 0;
}
