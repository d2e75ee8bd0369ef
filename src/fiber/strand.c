#include "fiber/strand.h"

#include <greenlet.h>

#include "core/state.h"
#include "fiber/chain.h"
#include "fiber/chunk.h"
#include "fiber/fiber.h"
#include "fiber/line.h"

typedef enum {
    STRAND_NEW,
    STRAND_RUNNING,
    STRAND_PARKED,
    STRAND_ENDED /* its call returned or raised: result or error is set */
} strand_status;

struct vnl_strand {
    PyObject_HEAD
    PyObject *greenlet; /* owned */
    PyObject *hub;      /* owned: the greenlet of who called together() */
    PyObject *fn;       /* owned until it has been called */
    PyObject *result;   /* owned */
    PyObject *error;    /* owned */
    PyObject *thrown;   /* owned: raised where it is parked */
    PyObject *context;  /* owned: of the hub, until it is taken over */
    PyObject *shared;   /* not owned, only compared: the context taken over last */
    vnl_park **parks;   /* while it is parked: what of, or of its own strands */
    int nparks;
    vnl_park *park; /* its own, on the heap, its driver's */
    strand_status status;
    int ending; /* nobody wants its result: it parks no more */
};

/* The strands of one call of together(), on the heap. */
typedef struct {
    vnl_strand **strands; /* owned */
    Py_ssize_t n;
    vnl_park **parks; /* what is parked, and what of it flies together */
    Py_ssize_t room;  /* twice as much as can be parked now */
} weft;

/* Of the thread, outside fibers. */
static _Thread_local vnl_strand *thread_strand;

/* Where the strand that runs is found; NULL there when none does. */
static vnl_strand **
running(void)
{
    return vnl_here.fiber != NULL ? &vnl_here.fiber->strand : &thread_strand;
}

/* --- context variables: a strand shares the context of its hub ----------------- */

static void
set_context(PyObject *context)
{
    PyThreadState *tstate = PyThreadState_Get();
    if (tstate->context != context) {
        Py_XSETREF(tstate->context, Py_XNewRef(context));
        tstate->context_ver++;
    }
}

/* In the strand, when it goes on. */
static void
adopt_context(vnl_strand *self)
{
    set_context(self->context);
    self->shared = self->context;
    Py_CLEAR(self->context);
}

/* Whether what runs is inside a Context.run() of its own. */
static int
in_own_context(const vnl_strand *self)
{
    PyObject *context = PyThreadState_Get()->context;
    return context != self->shared && (vnl_here.fiber == NULL || context != vnl_here.fiber->shared);
}

/* --- inside a strand ----------------------------------------------------------- */

static PyObject *
strand_main(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_strand *self = (vnl_strand *)op;
    adopt_context(self);
    vnl_chunk_lend();
    PyObject *fn = self->fn;
    self->fn = NULL;
    self->result = PyObject_CallNoArgs(fn);
    if (self->result == NULL) {
        self->error = PyErr_GetRaisedException();
    }
    Py_DECREF(fn);
    vnl_chunk_keep();
    self->status = STRAND_ENDED;
    return Py_NewRef(Py_None); /* to the parent, which is the hub */
}

static PyMethodDef strand_main_def = {"strand", strand_main, METH_NOARGS, NULL};

int
vnl_strand_parks(void)
{
    vnl_strand *self = *running();
    if (self == NULL || self->ending) {
        return 0;
    }
    PyObject *here = (PyObject *)PyGreenlet_GetCurrent();
    int own = here == self->greenlet;
    Py_XDECREF(here);
    /* The others would run inside whatever block of the user's code is open here. */
    return own && vnl_line_is_ours();
}

/* Until all of them have flown, or go on as they are. */
static int
park_wait(vnl_strand *self, vnl_park **parks, int n)
{
    if (self->ending) {
        PyErr_SetNone(PyExc_GreenletExit);
        return -1;
    }
    int own_context = in_own_context(self);
    self->parks = parks;
    self->nparks = n;
    self->status = STRAND_PARKED;
    PyObject *back = PyGreenlet_Switch((PyGreenlet *)self->hub, NULL, NULL);
    self->parks = NULL;
    self->nparks = 0;
    self->status = STRAND_RUNNING;
    if (back == NULL) {
        return -1; /* GreenletExit, from a greenlet that is being dropped */
    }
    Py_DECREF(back);
    if (own_context) {
        Py_CLEAR(self->context);
    }
    else {
        adopt_context(self);
    }
    if (self->thrown != NULL) {
        PyErr_SetRaisedException(self->thrown);
        self->thrown = NULL;
        return -1;
    }
    return 0;
}

int
vnl_strand_park_wait(vnl_park *park)
{
    vnl_strand *self = *running();
    if (self == NULL) {
        return 0;
    }
    self->park = park;
    return park_wait(self, &self->park, 1);
}

/* --- the hub ------------------------------------------------------------------- */

/* Runs the strand until it parks or ends.  0, or -1 when the switch itself failed. */
static int
strand_resume(vnl_strand *self)
{
    vnl_fiber *fiber = vnl_here.fiber;
    /* Not one that another greenlet of the thread has left in the middle: it may be gone by the end of
     * this one. */
    vnl_strand *before = *running();
    before = before != NULL && before->greenlet == self->hub ? before : NULL;
    PyObject *at = fiber != NULL ? fiber->at : NULL;
    PyObject *context = PyThreadState_Get()->context;
    int follows = fiber != NULL && fiber->shared == context;
    Py_XSETREF(self->context, Py_XNewRef(context));
    self->status = STRAND_RUNNING;
    *running() = self;
    if (fiber != NULL) {
        fiber->at = self->greenlet;
    }
    PyObject *back = PyGreenlet_Switch((PyGreenlet *)self->greenlet, NULL, NULL);
    *running() = before;
    if (fiber != NULL) {
        fiber->at = at;
        if (follows) {
            set_context(fiber->shared); /* that of who has resumed the fiber meanwhile */
        }
    }
    Py_XDECREF(back);
    return back == NULL ? -1 : 0;
}

static vnl_strand *
strand_new(PyObject *fn, PyObject *hub)
{
    vnl_strand *self = PyObject_GC_New(vnl_strand, vnl_core->strand_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof(*self) - sizeof(PyObject));
    self->fn = Py_NewRef(fn);
    self->hub = Py_NewRef(hub);
    PyObject *run = PyCFunction_New(&strand_main_def, (PyObject *)self);
    if (run != NULL) {
        self->greenlet = (PyObject *)PyGreenlet_New(run, (PyGreenlet *)hub);
        Py_DECREF(run);
    }
    PyObject_GC_Track(self);
    if (self->greenlet == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static void
weft_free(weft *self)
{
    for (Py_ssize_t i = 0; self != NULL && self->strands != NULL && i < self->n; i++) {
        if (self->strands[i] != NULL) {
            /* Its greenlet, when never begun, holds what holds the strand. */
            Py_CLEAR(self->strands[i]->greenlet);
            Py_DECREF(self->strands[i]);
        }
    }
    if (self != NULL) {
        PyMem_Free(self->strands);
        PyMem_Free(self->parks);
        PyMem_Free(self);
    }
}

static weft *
weft_new(PyObject *calls)
{
    weft *self = PyMem_Calloc(1, sizeof(*self));
    PyObject *hub = (PyObject *)PyGreenlet_GetCurrent();
    Py_ssize_t n = PySequence_Fast_GET_SIZE(calls);
    if (self == NULL || hub == NULL) {
        goto fail;
    }
    self->n = n;
    self->strands = PyMem_Calloc((size_t)n, sizeof(vnl_strand *));
    if (self->strands == NULL) {
        goto fail;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        self->strands[i] = strand_new(PySequence_Fast_GET_ITEM(calls, i), hub);
        if (self->strands[i] == NULL) {
            goto fail;
        }
    }
    Py_DECREF(hub);
    return self;
fail:
    if (!PyErr_Occurred()) {
        PyErr_NoMemory();
    }
    Py_XDECREF(hub);
    weft_free(self);
    return NULL;
}

/* What a flight has raised is raised in the strand of its first statement; an order to end in the first of
 * all. */
static void
throw_into(weft *self, const vnl_park *first)
{
    int any = !PyErr_ExceptionMatches(PyExc_Exception);
    for (Py_ssize_t i = 0; i < self->n; i++) {
        vnl_strand *strand = self->strands[i];
        for (int k = 0; k < strand->nparks; k++) {
            if (any || strand->parks[k] == first) {
                strand->thrown = PyErr_GetRaisedException();
                return;
            }
        }
    }
}

/* All that is parked, in order: how much, or -1 with an exception. */
static int
gather(weft *self)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < self->n; i++) {
        count += self->strands[i]->nparks;
    }
    if (count * 2 > self->room) {
        vnl_park **parks = PyMem_Realloc(self->parks, (size_t)count * 2 * sizeof(vnl_park *));
        if (parks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->parks = parks;
        self->room = count * 2;
    }
    count = 0;
    for (Py_ssize_t i = 0; i < self->n; i++) {
        for (int k = 0; k < self->strands[i]->nparks; k++) {
            self->parks[count++] = self->strands[i]->parks[k];
        }
    }
    return (int)count;
}

/* What is parked flies, all that has the same key at once; one that would fly alone goes on as it is.  In a
 * strand that may park itself it flies with what the others have parked there.  0, or -1: there is no memory
 * for it. */
static int
fly_wait(weft *self)
{
    int n = gather(self);
    if (n < 0) {
        return -1;
    }
    if (vnl_strand_parks()) {
        if (park_wait(*running(), self->parks, n) < 0) {
            throw_into(self, self->parks[0]);
        }
        return 0;
    }
    vnl_park **together = self->parks + n;
    for (int i = 0; i < n; i++) {
        vnl_park *first = self->parks[i];
        int count = 0;
        for (int k = i; first != NULL && k < n; k++) {
            vnl_park *park = self->parks[k];
            if (park != NULL && park->key == first->key && park->fly_wait == first->fly_wait) {
                together[count++] = park;
                self->parks[k] = NULL;
            }
        }
        if (count > 1 && first->fly_wait(together, count) < 0) {
            throw_into(self, first);
            return 0;
        }
    }
    return 0;
}

/* Lets a strand go on: 1 it has ended well, 0 it is parked, -1 it has raised, or could not run. */
static int
step(vnl_strand *self)
{
    if (strand_resume(self) < 0) {
        return -1;
    }
    if (self->status != STRAND_ENDED) {
        return 0;
    }
    if (self->error != NULL) {
        PyErr_SetRaisedException(self->error);
        self->error = NULL;
        return -1;
    }
    return 1;
}

/* Ends what is still parked, now that an exception is raised.  An order to end that comes meanwhile is
 * raised in its place. */
static void
end_rest(weft *self)
{
    PyObject *raised = PyErr_GetRaisedException();
    for (Py_ssize_t i = 0; i < self->n; i++) {
        vnl_strand *strand = self->strands[i];
        if (strand->status != STRAND_PARKED) {
            continue;
        }
        strand->ending = 1;
        Py_XSETREF(strand->thrown, PyObject_CallNoArgs(PyExc_GreenletExit));
        if (strand->thrown == NULL || step(strand) >= 0) {
            PyErr_Clear();
            continue;
        }
        if (PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_GreenletExit) ||
            !PyErr_GivenExceptionMatches(raised, PyExc_Exception)) {
            PyErr_Clear();
            continue;
        }
        Py_SETREF(raised, PyErr_GetRaisedException());
    }
    vnl_chain_context(raised);
    PyErr_SetRaisedException(raised);
}

/* Runs all of them to their ends.  0, or -1 with the exception of the first that raised. */
static int
weave_wait(weft *self)
{
    Py_ssize_t left = self->n;
    for (;;) {
        for (Py_ssize_t i = 0; i < self->n; i++) {
            if (self->strands[i]->status == STRAND_ENDED) {
                continue;
            }
            int ended = step(self->strands[i]);
            if (ended < 0) {
                end_rest(self);
                return -1;
            }
            left -= ended;
        }
        if (left == 0) {
            return 0;
        }
        if (fly_wait(self) < 0) {
            end_rest(self);
            return -1;
        }
    }
}

/* A context of the thread's own is made when a variable is first set: before, so that it is shared. */
static int
have_context(void)
{
    PyObject *copy = PyContext_CopyCurrent();
    Py_XDECREF(copy);
    return copy == NULL ? -1 : 0;
}

PyObject *
vnl_strand_together(PyObject *module, PyObject *calls)
{
    weft *self = NULL;
    PyObject *results = NULL;
    PyObject *sequence = PySequence_Fast(calls, "together(calls): a sequence of callables");
    if (sequence == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        if (!PyCallable_Check(PySequence_Fast_GET_ITEM(sequence, i))) {
            PyErr_SetString(PyExc_TypeError, "together(calls): a sequence of callables");
            goto done;
        }
    }
    if ((PyThreadState_Get()->context == NULL && have_context() < 0) || (self = weft_new(sequence)) == NULL) {
        goto done;
    }
    if (weave_wait(self) < 0 || (results = PyList_New(self->n)) == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < self->n; i++) {
        PyList_SET_ITEM(results, i, self->strands[i]->result);
        self->strands[i]->result = NULL;
    }
done:
    weft_free(self);
    Py_DECREF(sequence);
    return results;
}

/* --- the type ------------------------------------------------------------------ */

static int
strand_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_strand *self = (vnl_strand *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->greenlet);
    Py_VISIT(self->hub);
    Py_VISIT(self->fn);
    Py_VISIT(self->result);
    Py_VISIT(self->error);
    Py_VISIT(self->thrown);
    Py_VISIT(self->context);
    return 0;
}

static int
strand_clear(PyObject *op)
{
    vnl_strand *self = (vnl_strand *)op;
    Py_CLEAR(self->greenlet);
    Py_CLEAR(self->hub);
    Py_CLEAR(self->fn);
    Py_CLEAR(self->result);
    Py_CLEAR(self->error);
    Py_CLEAR(self->thrown);
    Py_CLEAR(self->context);
    return 0;
}

static void
strand_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)strand_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot strand_slots[] = {
    {Py_tp_traverse, strand_traverse},
    {Py_tp_clear, strand_clear},
    {Py_tp_dealloc, strand_dealloc},
    {0, NULL},
};

static PyType_Spec strand_spec = {
    .name = "vinyl._core.Strand",
    .basicsize = sizeof(vnl_strand),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = strand_slots,
};

int
vnl_strand_setup(PyObject *module)
{
    PyGreenlet_Import();
    if (_PyGreenlet_API == NULL) {
        return -1;
    }
    vnl_core->strand_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &strand_spec, NULL);
    return vnl_core->strand_type == NULL ? -1 : 0;
}
