#include "fiber/fiber.h"

/* Here and in strand.c alone: greenlet.h declares its API pointer static per file. */
#include <greenlet.h>

#include <alloca.h>

#include "core/state.h"
#include "fiber/stack.h"
#include "fiber/waiter.h"
#include "reactor/reactor.h"
#include "session/block.h"
#include "session/scope.h"

#define IDLE_FIBERS_KEPT 64

_Thread_local vnl_position vnl_here = {VNL_PLAIN, NULL, NULL};

/* Idle fibers belong to the thread whose stack they started on. */
static _Thread_local vnl_node idle_fibers;
static _Thread_local int idle_count;
static _Thread_local int idle_ready;

PyObject *
vnl_running_loop(void)
{
    PyObject *loop = PyObject_CallNoArgs(vnl_core->get_running_loop);
    if (loop == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (loop == Py_None) {
        Py_DECREF(loop);
        return NULL;
    }
    return loop;
}

int
vnl_show_loop(PyObject *loop)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *done = PyObject_CallOneArg(vnl_core->set_running_loop, loop);
    int failed = done == NULL ? -1 : 0;
    Py_XDECREF(done);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return failed;
}

vnl_place
vnl_where(void)
{
    PyObject *loop = vnl_running_loop();
    if (loop != NULL) {
        Py_DECREF(loop);
        return VNL_LOOP;
    }
    return vnl_here.place;
}

/* The fiber shares the context of who resumes it, so that context variables
 * set on either side are seen on the other.  Done from inside: greenlet takes
 * a suspended greenlet without a Python frame for a running one and refuses
 * to set its gr_context; it saves and restores these two fields itself. */
static void
adopt_context(vnl_fiber *self)
{
    PyThreadState *tstate = PyThreadState_Get();
    PyObject *old = tstate->context;
    self->shared = self->context;
    if (old == self->context) {
        Py_CLEAR(self->context);
        return;
    }
    tstate->context = self->context;
    tstate->context_ver++;
    self->context = NULL;
    Py_XDECREF(old);
}

/* Between two calls a fiber keeps nothing of the last one alive: a context can hold a session. */
static void
leave_context(vnl_fiber *self)
{
    PyThreadState *tstate = PyThreadState_Get();
    Py_XSETREF(self->context, tstate->context);
    tstate->context = NULL;
    tstate->context_ver++;
    self->shared = NULL;
}

/* Whether the fiber is inside a Context.run() of its own (asgiref's
 * sync_to_async makes one): that one stays entered across a suspension. */
static int
in_own_context(vnl_fiber *self)
{
    return self->shared != NULL && PyThreadState_Get()->context != self->shared;
}

/* Runs the call that the fiber was given; result or error is set after. */
static void
fiber_run_call(vnl_fiber *self)
{
    /* What it had to wait for may have been the end of its block. */
    if (vnl_scope_enter_wait(self) == 0 && vnl_block_check_operation(self->operation) == 0) {
        self->result = PyObject_Call(self->fn, self->args, self->kwargs);
    }
    if (self->result == NULL) {
        self->error = PyErr_GetRaisedException();
    }
    vnl_scope_leave(self);
    if (self->result != NULL && self->kept != NULL) {
        /* Cancelled behind a shield that nothing looked behind, or put off and not waited since. */
        Py_CLEAR(self->result);
        self->error = self->kept;
        self->kept = NULL;
    }
    Py_CLEAR(self->kept);
    Py_CLEAR(self->fn);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    self->shield = 0;
}

/* What the greenlet runs: one call after the other until it is dropped. */
static PyObject *
fiber_main(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_fiber *self = (vnl_fiber *)op;
    for (;;) {
        if (self->quit) {
            return Py_NewRef(Py_None); /* to the parent: who let it go */
        }
        adopt_context(self);
        fiber_run_call(self);
        leave_context(self);
        self->status = VNL_FIBER_ENDED;
        PyObject *back = PyGreenlet_Switch((PyGreenlet *)self->resumer, NULL, NULL);
        if (back == NULL) {
            /* GreenletExit: the last reference to an idle greenlet has gone. */
            return NULL;
        }
        Py_DECREF(back);
    }
}

static PyMethodDef fiber_main_def = {"fiber", fiber_main, METH_NOARGS, NULL};

static vnl_fiber *
fiber_new(void)
{
    vnl_fiber *self = PyObject_GC_New(vnl_fiber, vnl_core->fiber_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof(*self) - sizeof(PyObject));
    vnl_list_init(&self->link);
    PyObject *run = PyCFunction_New(&fiber_main_def, (PyObject *)self);
    if (run != NULL) {
        self->greenlet = (PyObject *)PyGreenlet_New(run, NULL);
        Py_DECREF(run);
    }
    PyObject_GC_Track(self);
    if (self->greenlet == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    vnl_core->count.fibers_created++;
    return self;
}

/* Lets go of a fiber between two calls.  The greenlet's stack refers to the
 * fiber, so it has to run to its end; it runs no Python code there.  In the
 * middle of a call, which another thread cannot end, it stays as it is, and a
 * raised exception too.  Steals. */
static void
fiber_drop(vnl_fiber *self)
{
    int ended = self->status == VNL_FIBER_IDLE || self->status == VNL_FIBER_ENDED;
    PyGreenlet *here = ended ? PyGreenlet_GetCurrent() : NULL;
    if (here != NULL && PyGreenlet_ACTIVE((PyGreenlet *)self->greenlet)) {
        self->quit = 1;
        PyObject *end = NULL;
        if (PyGreenlet_SetParent((PyGreenlet *)self->greenlet, here) == 0) {
            end = PyGreenlet_Switch((PyGreenlet *)self->greenlet, NULL, NULL);
        }
        if (end == NULL) {
            PyErr_WriteUnraisable(self->greenlet);
        }
        Py_XDECREF(end);
    }
    Py_XDECREF(here);
    Py_DECREF(self);
}

/* The last of the thread's idle fibers, or NULL. */
static vnl_fiber *
take_idle(void)
{
    vnl_node *node = idle_ready ? vnl_list_first(&idle_fibers) : NULL;
    if (node == NULL) {
        return NULL;
    }
    vnl_list_remove(node);
    idle_count--;
    vnl_core->count.fibers_idle--;
    return VNL_CONTAINER(node, vnl_fiber, link);
}

vnl_fiber *
vnl_fiber_take(PyObject *reactor, PyObject *scope, PyObject *fn, PyObject *args, PyObject *kwargs)
{
    char *outer = vnl_here.outer != NULL ? vnl_here.outer : __builtin_frame_address(0);
    vnl_fiber *self = take_idle();
    while (self != NULL && !vnl_stack_fits(outer, self->start)) {
        fiber_drop(self);
        self = take_idle();
    }
    if (self == NULL && (self = fiber_new()) == NULL) {
        return NULL;
    }
    self->reactor = Py_NewRef(reactor);
    self->scope = Py_XNewRef(scope);
    self->fn = Py_NewRef(fn);
    self->args = Py_NewRef(args);
    self->kwargs = Py_XNewRef(kwargs);
    self->dying = 0;
    self->thread = PyThread_get_thread_ident();
    self->status = VNL_FIBER_RUNNING;
    vnl_list_append(&((vnl_reactor *)reactor)->fibers, &self->link);
    vnl_core->count.fibers_live++;
    return self;
}

void
vnl_fiber_drop_idle(void)
{
    vnl_fiber *fiber = NULL;
    while ((fiber = take_idle()) != NULL) {
        fiber_drop(fiber);
    }
}

void
vnl_fiber_give(vnl_fiber *self)
{
    vnl_list_remove(&self->link);
    vnl_core->count.fibers_live--;
    Py_CLEAR(self->reactor);
    Py_CLEAR(self->scope);
    Py_CLEAR(self->result);
    Py_CLEAR(self->error);
    Py_CLEAR(self->yielded);
    Py_CLEAR(self->thrown);
    Py_CLEAR(self->sent);
    Py_CLEAR(self->resumer);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->context);
    vnl_line_clear(&self->line);
    if (!idle_ready) {
        vnl_list_init(&idle_fibers);
        idle_ready = 1;
    }
    if (self->status != VNL_FIBER_ENDED || idle_count >= IDLE_FIBERS_KEPT) {
        fiber_drop(self);
        return;
    }
    self->status = VNL_FIBER_IDLE;
    vnl_list_prepend(&idle_fibers, &self->link);
    idle_count++;
    vnl_core->count.fibers_idle++;
}

/* The first switch into a fiber: it begins at its place on the C stack (stack.h). */
Py_NO_INLINE static PyObject *
fiber_begin(vnl_fiber *self)
{
    char *frame = __builtin_frame_address(0);
    size_t gap = vnl_stack_gap(vnl_here.outer, frame);
    volatile char *space = gap > 0 ? alloca(gap) : frame;
    self->start = frame - gap;
    PyObject *back = PyGreenlet_Switch((PyGreenlet *)self->greenlet, NULL, NULL);
    (void)*space; /* it is there until then */
    return back;
}

int
vnl_fiber_resume(vnl_fiber *self, PyObject *sent, PyObject *thrown)
{
    vnl_position before = vnl_here;
    PyObject *loop = vnl_running_loop();
    PyObject *back = NULL;
    self->thrown = thrown;
    self->sent = Py_XNewRef(sent);
    Py_XSETREF(self->context, Py_XNewRef(PyThreadState_Get()->context));
    Py_XSETREF(self->resumer, (PyObject *)PyGreenlet_GetCurrent());
    if (self->resumer == NULL) {
        goto done;
    }
    if (loop != NULL && vnl_show_loop(Py_None) < 0) {
        goto done;
    }
    vnl_here.place = VNL_FIBER;
    vnl_here.fiber = self;
    if (vnl_here.outer == NULL) {
        vnl_here.outer = __builtin_frame_address(0);
    }
    self->status = VNL_FIBER_RUNNING;
    PyObject *at = self->at != NULL ? self->at : self->greenlet;
    back = self->start == NULL ? fiber_begin(self) : PyGreenlet_Switch((PyGreenlet *)at, NULL, NULL);
    vnl_here = before;
    if (loop != NULL) {
        (void)vnl_show_loop(loop);
    }
done:
    Py_CLEAR(self->resumer);
    Py_XDECREF(loop);
    Py_XDECREF(back);
    return back == NULL ? -1 : 0;
}

int
vnl_fiber_suspend_wait(vnl_fiber *self, PyObject *yielded)
{
    int own_context = in_own_context(self);
    Py_XSETREF(self->yielded, yielded);
    self->status = VNL_FIBER_SUSPENDED;
    vnl_core->count.suspends++;
    PyObject *back = PyGreenlet_Switch((PyGreenlet *)self->resumer, NULL, NULL);
    if (back == NULL) {
        /* GreenletExit, from a greenlet that is being dropped. */
        self->dying = 1;
        return -1;
    }
    Py_DECREF(back);
    if (own_context) {
        Py_CLEAR(self->context);
    }
    else {
        adopt_context(self);
    }
    if (self->thrown != NULL) {
        PyObject *thrown = self->thrown;
        self->thrown = NULL;
        if (self->shield > 0) {
            if (self->kept == NULL) {
                self->kept = thrown;
            }
            else {
                Py_DECREF(thrown);
            }
            return 0;
        }
        PyErr_SetRaisedException(thrown);
        return -1;
    }
    return 0;
}

static int
fiber_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_fiber *self = (vnl_fiber *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->greenlet);
    Py_VISIT(self->resumer);
    Py_VISIT(self->reactor);
    Py_VISIT(self->scope);
    Py_VISIT(self->waiter);
    Py_VISIT(self->fn);
    Py_VISIT(self->args);
    Py_VISIT(self->kwargs);
    Py_VISIT(self->result);
    Py_VISIT(self->error);
    Py_VISIT(self->yielded);
    Py_VISIT(self->thrown);
    Py_VISIT(self->sent);
    Py_VISIT(self->kept);
    Py_VISIT(self->context);
    Py_VISIT(self->line.code);
    return 0;
}

static int
fiber_clear(PyObject *op)
{
    vnl_fiber *self = (vnl_fiber *)op;
    Py_CLEAR(self->greenlet);
    Py_CLEAR(self->resumer);
    Py_CLEAR(self->reactor);
    Py_CLEAR(self->scope);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->fn);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->result);
    Py_CLEAR(self->error);
    Py_CLEAR(self->yielded);
    Py_CLEAR(self->thrown);
    Py_CLEAR(self->sent);
    Py_CLEAR(self->kept);
    Py_CLEAR(self->context);
    vnl_line_clear(&self->line);
    return 0;
}

static void
fiber_dealloc(PyObject *op)
{
    vnl_fiber *self = (vnl_fiber *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    vnl_list_remove(&self->link);
    (void)fiber_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot fiber_slots[] = {
    {Py_tp_traverse, fiber_traverse},
    {Py_tp_clear, fiber_clear},
    {Py_tp_dealloc, fiber_dealloc},
    {0, NULL},
};

static PyType_Spec fiber_spec = {
    .name = "vinyl._core.Fiber",
    .basicsize = sizeof(vnl_fiber),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = fiber_slots,
};

int
vnl_fiber_setup(PyObject *module)
{
    PyGreenlet_Import();
    if (_PyGreenlet_API == NULL) {
        return -1;
    }
    vnl_core->fiber_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &fiber_spec, NULL);
    return vnl_core->fiber_type == NULL ? -1 : 0;
}
