/* Filler: opens connections in the background until its shard has min_size.
 *
 * On a loop it resumes an operation of its own, from the callbacks of that operation's waits: no
 * task that asyncio.all_tasks() would show, and nobody waits for it.  For threads it is a thread. */
#include <stdlib.h>

#include "core/state.h"
#include "fiber/operation.h"
#include "fiber/wait.h"
#include "pool/inside.h"
#include "reactor/reactor.h"

#define SECOND 1000000000
#define FIRST_DELAY SECOND
#define LONGEST_NAP (SECOND / 2) /* how soon it sees that it is not wanted any more */

typedef struct {
    PyObject_HEAD
    vnl_pool *pool;      /* owned */
    vnl_shard *shard;    /* counts this filler; NULL: it has ended */
    PyObject *operation; /* owned while it runs on a loop */
    unsigned generation, epoch, round;
    vnl_node link; /* in the shard's fillers */
} vnl_filler;

static int
is_wanted(const vnl_filler *self)
{
    const vnl_shard *shard = self->shard;
    return shard != NULL && self->generation == vnl_fork_generation && !shard->closed &&
           self->epoch == shard->epoch && self->round == shard->round &&
           shard->size + shard->filling < self->pool->limits.min_size;
}

static void
filler_end(vnl_filler *self)
{
    vnl_shard *shard = self->shard;
    self->shard = NULL;
    if (shard == NULL || self->generation != vnl_fork_generation) {
        return;
    }
    vnl_list_remove(&self->link);
    shard->fillers--;
    if (shard->failing == self) {
        shard->failing = NULL;
    }
    vnl_pool_free_when_unused(shard);
}

/* --- filling -------------------------------------------------------------- */

/* logging.getLogger("vinyl.pool").warning(format, name, seconds[, error]); clears errors. */
static void
warn(vnl_pool *pool, const char *format, PyObject *error)
{
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger = logging != NULL ? PyObject_CallMethod(logging, "getLogger", "s", "vinyl.pool") : NULL;
    PyObject *seconds = logger != NULL ? vnl_pool_seconds(pool->limits.reconnect_timeout) : NULL;
    PyObject *done = seconds != NULL
                         ? PyObject_CallMethod(logger, "warning", "sOOO", format, pool->name, seconds, error)
                         : NULL;
    if (done == NULL) {
        PyErr_WriteUnraisable((PyObject *)pool);
    }
    Py_XDECREF(done);
    Py_XDECREF(seconds);
    Py_XDECREF(logger);
    Py_XDECREF(logging);
}

static void
give_up(vnl_pool *pool, PyObject *error)
{
    warn(pool,
         "Database '%s' could not be connected to in the background for %s s, the last time because of: "
         "%s. The next request will try again.",
         error);
    if (pool->reconnect_failed == NULL) {
        return;
    }
    PyObject *done = PyObject_CallOneArg(pool->reconnect_failed, (PyObject *)pool);
    if (done == NULL) {
        PyErr_WriteUnraisable(pool->reconnect_failed);
    }
    Py_XDECREF(done);
}

static int
nap_wait(const vnl_filler *self, int64_t until)
{
    int64_t left = 0;
    while (is_wanted(self) && (left = until - vnl_now()) > 0) {
        if (vnl_sleep_wait(left < LONGEST_NAP ? left : LONGEST_NAP) < 0) {
            return -1;
        }
    }
    return 0;
}

/* An attempt failed with what is raised.  1: try again now, 0: it is over, -1: ended from outside. */
static int
failed_wait(vnl_filler *self, int64_t *delay, int64_t *ends)
{
    vnl_shard *shard = self->shard;
    int64_t now = vnl_now();
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *error = PyErr_GetRaisedException();
    int again = 0;
    if (self->round != shard->round || (shard->failing != NULL && shard->failing != self)) {
        goto done; /* one that tries is enough */
    }
    if (shard->failing == NULL) {
        shard->failing = self;
        *ends = now + self->pool->limits.reconnect_timeout;
        *delay = FIRST_DELAY;
        warn(self->pool,
             "Connecting to database '%s' in the background failed; trying again for up to %s s: %s", error);
    }
    else {
        *delay *= 2;
    }
    if (now >= *ends) {
        shard->round++;
        give_up(self->pool, error);
        goto done;
    }
    int64_t until = now + *delay / 100 * (90 + rand() % 21);
    again = nap_wait(self, until < *ends ? until : *ends) < 0 ? -1 : 1;
done:
    Py_DECREF(error);
    return again;
}

static int
fill_wait(vnl_filler *self)
{
    int64_t delay = 0, ends = 0;
    while (is_wanted(self)) {
        vnl_shard *shard = self->shard;
        shard->filling++;
        vnl_slot *slot = vnl_pool_connect_wait(self->pool, shard);
        if (self->shard == NULL || self->generation != vnl_fork_generation) {
            return PyErr_Occurred() ? -1 : 0; /* ended meanwhile, or in a child: not counted any more */
        }
        shard->filling--;
        if (slot != NULL) {
            shard->failing = NULL;
            slot->epoch = self->epoch;
            vnl_pool_wake(vnl_shard_add(shard, slot, vnl_now()));
            continue;
        }
        PyObject *raised = PyErr_GetRaisedException();
        vnl_pool_wake(vnl_shard_pass_room(shard, &self->pool->limits));
        PyErr_SetRaisedException(raised);
        int again = failed_wait(self, &delay, &ends);
        if (again <= 0) {
            return again;
        }
    }
    return 0;
}

static PyObject *
filler_fill(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_filler *self = (vnl_filler *)op;
    int failed = fill_wait(self);
    filler_end(self);
    return failed < 0 ? NULL : Py_NewRef(Py_None);
}

/* --- on a loop ------------------------------------------------------------ */

/* loop.call_soon(self.step, context=a new one): nothing of the task that happens to run is inherited. */
static int
step_soon(vnl_filler *self, PyObject *loop)
{
    PyObject *step = PyObject_GetAttrString((PyObject *)self, "step");
    PyObject *context = step != NULL ? PyContext_New() : NULL;
    PyObject *args[3] = {loop, step, context};
    PyObject *handle =
        context == NULL ? NULL
                        : PyObject_VectorcallMethod(vnl_core->str_call_soon, args,
                                                    2 | PY_VECTORCALL_ARGUMENTS_OFFSET, vnl_core->kw_context);
    Py_XDECREF(step);
    Py_XDECREF(context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Has step() called when the wait is over. */
static int
step_after(vnl_filler *self, PyObject *wait)
{
    PyObject *step = PyObject_GetAttrString((PyObject *)self, "step");
    PyObject *done = step != NULL ? PyObject_CallMethod(wait, "add_done_callback", "O", step) : NULL;
    Py_XDECREF(step);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
operation_of(vnl_filler *self)
{
    PyObject *fill = PyObject_GetAttrString((PyObject *)self, "fill");
    PyObject *none = fill != NULL ? PyTuple_New(0) : NULL;
    PyObject *operation = none != NULL ? vnl_operation_new(fill, none, NULL) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(fill);
    return operation;
}

/* The loop's callback: starts the operation, or resumes it. */
static PyObject *
filler_step(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    vnl_filler *self = (vnl_filler *)op;
    PyObject *yielded = NULL;
    if (self->shard == NULL) {
        Py_RETURN_NONE;
    }
    if (self->operation == NULL && (self->operation = operation_of(self)) == NULL) {
        goto fail;
    }
    PySendResult outcome = PyIter_Send(self->operation, Py_None, &yielded);
    if (outcome == PYGEN_ERROR) {
        goto fail;
    }
    if (outcome == PYGEN_NEXT && yielded != Py_None && step_after(self, yielded) < 0) {
        goto fail;
    }
    if (outcome == PYGEN_NEXT && yielded == Py_None && self->shard != NULL &&
        step_soon(self, ((vnl_reactor *)self->shard->owner)->loop) < 0) {
        goto fail;
    }
    Py_DECREF(yielded);
    Py_RETURN_NONE;

fail:
    PyErr_WriteUnraisable(op);
    Py_XDECREF(yielded);
    filler_end(self);
    Py_RETURN_NONE;
}

/* --- start and end -------------------------------------------------------- */

static vnl_filler *
filler_new(vnl_pool *pool, vnl_shard *shard)
{
    vnl_filler *self = PyObject_GC_New(vnl_filler, vnl_core->filler_type);
    if (self == NULL) {
        return NULL;
    }
    self->pool = (vnl_pool *)Py_NewRef((PyObject *)pool);
    self->shard = shard;
    self->operation = NULL;
    self->generation = vnl_fork_generation;
    self->epoch = shard->epoch;
    self->round = shard->round;
    shard->fillers++;
    vnl_list_append(&shard->filler_list, &self->link);
    PyObject_GC_Track(self);
    return self;
}

/* threading.Thread(target=self.fill, daemon=True).start() */
static int
thread_start(vnl_filler *self)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *make = threading != NULL ? PyObject_GetAttrString(threading, "Thread") : NULL;
    PyObject *fill = make != NULL ? PyObject_GetAttrString((PyObject *)self, "fill") : NULL;
    PyObject *kwargs =
        fill != NULL ? Py_BuildValue("{sOsOsO}", "target", fill, "daemon", Py_True, "name", self->pool->name)
                     : NULL;
    PyObject *none = kwargs != NULL ? PyTuple_New(0) : NULL;
    PyObject *thread = none != NULL ? PyObject_Call(make, none, kwargs) : NULL;
    PyObject *done = thread != NULL ? PyObject_CallMethod(thread, "start", NULL) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(thread);
    Py_XDECREF(none);
    Py_XDECREF(kwargs);
    Py_XDECREF(fill);
    Py_XDECREF(make);
    Py_XDECREF(threading);
    return done == NULL ? -1 : 0;
}

void
vnl_filler_start(vnl_pool *pool, vnl_shard *shard)
{
    vnl_reactor *reactor = shard->owner;
    if (shard->closed || pool->limits.max_lifetime == 0 ||
        (reactor == NULL ? !pool->threads : reactor->closed)) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    int missing = pool->limits.min_size - shard->size;
    for (int i = 0; i < missing && i < pool->limits.num_workers; i++) {
        vnl_filler *filler = filler_new(pool, shard);
        int failed =
            filler == NULL || (reactor == NULL ? thread_start(filler) : step_soon(filler, reactor->loop)) < 0;
        if (failed) {
            PyErr_Clear(); /* no thread to be had, or a closed loop: the next request tries again */
            if (filler != NULL) {
                filler_end(filler);
            }
        }
        Py_XDECREF(filler);
        if (failed) {
            break;
        }
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

void
vnl_filler_stop_all(vnl_shard *shard)
{
    vnl_node *node = NULL;
    shard->fillers++; /* so that the last one that ends does not free the shard */
    while ((node = vnl_list_first(&shard->filler_list)) != NULL) {
        vnl_filler *filler = VNL_CONTAINER(node, vnl_filler, link);
        Py_INCREF(filler);
        if (filler->operation != NULL) {
            vnl_operation_end(filler->operation);
        }
        if (vnl_list_first(&shard->filler_list) == node) {
            filler_end(filler); /* not started yet, or a thread's */
        }
        Py_DECREF(filler);
    }
    shard->fillers--;
}

static int
filler_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_filler *self = (vnl_filler *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->pool);
    Py_VISIT(self->operation);
    return 0;
}

static void
filler_dealloc(PyObject *op)
{
    vnl_filler *self = (vnl_filler *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    filler_end(self);
    Py_CLEAR(self->operation);
    Py_CLEAR(self->pool);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef filler_methods[] = {
    {"fill", filler_fill, METH_NOARGS, "Opens connections until there are min_size."},
    {"step", (PyCFunction)(void *)filler_step, METH_FASTCALL, "The loop's callback."},
    {NULL},
};

static PyType_Slot filler_slots[] = {
    {Py_tp_doc, "What opens a pool's connections in the background."},
    {Py_tp_traverse, filler_traverse},
    {Py_tp_dealloc, filler_dealloc},
    {Py_tp_methods, filler_methods},
    {0, NULL},
};

static PyType_Spec filler_spec = {
    .name = "vinyl._core.Filler",
    .basicsize = sizeof(vnl_filler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = filler_slots,
};

int
vnl_filler_setup(PyObject *module)
{
    vnl_core->filler_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &filler_spec, NULL);
    return vnl_core->filler_type == NULL ? -1 : 0;
}
