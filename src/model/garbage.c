/* The generations of CPython's garbage collector, in CPython 3.11 to 3.13.
 *
 * A loop over many rows fills the youngest generation again and again, and each
 * time a pass would go over instances that the loop still holds, only to move
 * them to the next generation.  So they are moved there at once, and counted
 * there.  The pass over that generation that they would bring about is made at
 * the beginning of the next such loop: then those that are no longer needed are
 * found, and no new ones are gone through. */
#define Py_BUILD_CORE_MODULE 1
#include "model/garbage.h"

#include <stddef.h>

#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#if __has_include(<internal/pycore_gc.h>)
#define HAS_GENERATIONS 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include <internal/pycore_gc.h>
#pragma GCC diagnostic pop
#endif
#endif

#ifdef HAS_GENERATIONS

enum {
    PATIENCE = 4 /* so much later than by itself: most results are gone when they are dropped */
};

static struct {
    struct _gc_runtime_state *state; /* NULL: not known */
    PyObject *collect;               /* gc.collect */
    Py_ssize_t debt;                 /* objects that were moved and not gone through since */
    Py_ssize_t passes;               /* over older generations, when `debt` was counted */
} collector;

static Py_ssize_t
passes_of(int from)
{
    Py_ssize_t sum = 0;
    for (int i = from; i < NUM_GENERATIONS; i++) {
        sum += collector.state->generation_stats[i].collections;
    }
    return sum;
}

void
vnl_garbage_before_row(vnl_garbage_loop *self)
{
    const struct _gc_runtime_state *gc = collector.state;
    self->last = NULL;
    if (gc != NULL && gc->enabled && !gc->collecting && gc->generations[0].threshold > 0) {
        self->last = _PyGCHead_PREV(&collector.state->generations[0].head);
        self->passes = passes_of(0);
        self->count = gc->generations[0].count;
    }
}

/* To the end of the next generation. */
static void
move(PyGC_Head *first)
{
    struct gc_generation *young = &collector.state->generations[0], *next = young + 1;
    PyGC_Head *last = _PyGCHead_PREV(&young->head), *before = _PyGCHead_PREV(first);
    _PyGCHead_SET_NEXT(before, &young->head);
    _PyGCHead_SET_PREV(&young->head, before);
    before = _PyGCHead_PREV(&next->head);
    _PyGCHead_SET_NEXT(before, first);
    _PyGCHead_SET_PREV(first, before);
    _PyGCHead_SET_NEXT(last, &next->head);
    _PyGCHead_SET_PREV(&next->head, last);
}

/* Once a loop: the pass that the loops before it have made due. */
static int
pay(void)
{
    const struct gc_generation *young = collector.state->generations;
    if (collector.passes != passes_of(1)) {
        collector.debt = 0;
    }
    Py_ssize_t most = (Py_ssize_t)young[0].threshold * (young[1].threshold + 1) * PATIENCE;
    if (young[1].threshold == 0 || collector.debt < most) {
        return 0;
    }
    collector.debt = 0;
    PyObject *found = PyObject_CallFunction(collector.collect, "i", 1);
    Py_XDECREF(found);
    return found != NULL ? 0 : -1;
}

int
vnl_garbage_after_row(vnl_garbage_loop *self)
{
    if (self->last == NULL || self->passes != passes_of(0)) {
        return 0;
    }
    struct gc_generation *young = &collector.state->generations[0];
    PyGC_Head *first = _PyGCHead_NEXT((PyGC_Head *)self->last);
    int made = young->count - self->count;
    if (made <= 0 || first == &young->head) {
        return 0;
    }
    self->made += made;
    if (self->made <= young->threshold / 2) {
        return 0; /* a short loop: as ever */
    }
    move(first);
    young->count = self->count;
    int begins = self->moved == 0;
    self->moved += made;
    return begins ? pay() : 0;
}

void
vnl_garbage_end(vnl_garbage_loop *self)
{
    if (self->moved > 0) {
        collector.state->generations[1].count++;
        Py_ssize_t passes = passes_of(1);
        collector.debt = self->moved + (collector.passes == passes ? collector.debt : 0);
        collector.passes = passes;
    }
}

int
vnl_garbage_skip_finalizer(PyObject *object)
{
    _PyGC_SET_FINALIZED(object);
    return 1;
}

/* The collector's state, as a new object and the public functions tell: NULL
 * where it is not as expected. */
static struct _gc_runtime_state *
found_by(PyObject *object, PyObject *thresholds, PyObject *stats)
{
    PyGC_Head *head = _PyGCHead_NEXT(_Py_AS_GC(object));
    struct _gc_runtime_state *gc =
        (struct _gc_runtime_state *)((char *)head - offsetof(struct _gc_runtime_state, generations));
    if (gc->generation0 != head) {
        return NULL;
    }
    for (int i = 0; i < NUM_GENERATIONS; i++) {
        PyObject *dict = PyList_GetItem(stats, i);
        PyObject *passes = dict != NULL ? PyDict_GetItemString(dict, "collections") : NULL;
        if (passes == NULL || PyLong_AsSsize_t(passes) != gc->generation_stats[i].collections ||
            PyLong_AsLong(PyTuple_GetItem(thresholds, i)) != gc->generations[i].threshold) {
            return NULL;
        }
    }
    return gc;
}

int
vnl_garbage_setup(PyObject *module)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *thresholds = gc != NULL ? PyObject_CallMethod(gc, "get_threshold", NULL) : NULL;
    PyObject *stats = thresholds != NULL ? PyObject_CallMethod(gc, "get_stats", NULL) : NULL;
    PyObject *fresh = stats != NULL ? PyList_New(0) : NULL;
    int rc = -1;
    if (fresh != NULL && PyTuple_Check(thresholds) && PyList_Check(stats)) {
        Py_XSETREF(collector.collect, PyObject_GetAttrString(gc, "collect"));
        collector.state = collector.collect != NULL ? found_by(fresh, thresholds, stats) : NULL;
        rc = PyErr_Occurred() ? -1 : 0;
    }
    Py_XDECREF(fresh);
    Py_XDECREF(stats);
    Py_XDECREF(thresholds);
    Py_XDECREF(gc);
    return rc;
}

#else

void
vnl_garbage_before_row(vnl_garbage_loop *self)
{
    self->last = NULL;
}

int
vnl_garbage_after_row(vnl_garbage_loop *self)
{
    return 0;
}

void
vnl_garbage_end(vnl_garbage_loop *self)
{
}

int
vnl_garbage_skip_finalizer(PyObject *object)
{
    return 0;
}

int
vnl_garbage_setup(PyObject *module)
{
    return 0;
}

#endif
