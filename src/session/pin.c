#include "session/pin.h"

#include "core/state.h"
#include "fiber/wait.h"
#include "reactor/poller.h"
#include "session/block.h"
#include "session/scope.h"

/* One fiber that waits for its turn. */
typedef struct {
    vnl_node link;
    vnl_event *event;
    vnl_fiber *fiber;
    int has_turn;
} pin_turn;

static vnl_pin *
pin_of(const vnl_fiber *fiber)
{
    return (vnl_pin *)((vnl_scope *)fiber->scope)->pin;
}

/* How many atomic blocks are open in a session, those of the test cases
 * themselves apart.  -1 with an exception. */
static Py_ssize_t
blocks_of(PyObject *session)
{
    PyObject *attribute = PyObject_GetAttr(session, vnl_core->str_atomic_blocks);
    PyObject *blocks = attribute == NULL ? NULL : PySequence_List(attribute);
    Py_ssize_t count = blocks == NULL ? -1 : 0;
    Py_XDECREF(attribute);
    for (Py_ssize_t i = 0; count >= 0 && i < PyList_GET_SIZE(blocks); i++) {
        PyObject *flag = PyObject_GetAttr(PyList_GET_ITEM(blocks, i), vnl_core->str_from_testcase);
        int from_testcase = flag == NULL ? -1 : PyObject_IsTrue(flag);
        Py_XDECREF(flag);
        count = from_testcase < 0 ? -1 : count + !from_testcase;
    }
    Py_XDECREF(blocks);
    return count;
}

static Py_ssize_t
open_blocks(vnl_pin *self)
{
    PyObject *sessions = PyDict_Values(self->sessions);
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; sessions != NULL && i < PyList_GET_SIZE(sessions); i++) {
        Py_ssize_t count = blocks_of(PyList_GET_ITEM(sessions, i));
        if (count < 0) {
            PyErr_WriteUnraisable(PyList_GET_ITEM(sessions, i));
            count = 0;
        }
        total += count;
    }
    Py_XDECREF(sessions);
    return total;
}

/* For messages: the aliases, joined.  New reference. */
static PyObject *
aliases_of(vnl_pin *self)
{
    PyObject *names = PyDict_Keys(self->sessions);
    PyObject *comma = PyUnicode_FromString("', '");
    PyObject *joined = names == NULL || comma == NULL ? NULL : PyUnicode_Join(comma, names);
    Py_XDECREF(names);
    Py_XDECREF(comma);
    return joined;
}

static int
may_enter(const vnl_pin *self, const vnl_fiber *fiber)
{
    return self->owner == NULL || self->owner == fiber->scope;
}

static void
begin_turn(vnl_pin *self, vnl_fiber *fiber)
{
    self->holder = fiber;
    if (self->owner == NULL) {
        self->depth = open_blocks(self);
    }
}

static void
pass_turn(vnl_pin *self)
{
    for (vnl_node *node = self->turns.next; node != &self->turns; node = node->next) {
        pin_turn *turn = VNL_CONTAINER(node, pin_turn, link);
        if (may_enter(self, turn->fiber)) {
            vnl_list_remove(node);
            turn->has_turn = 1;
            self->holder = turn->fiber;
            vnl_event_set(turn->event);
            return;
        }
    }
}

static void
raise_too_long(const vnl_pin *self)
{
    PyObject *seconds = PyFloat_FromDouble(self->seconds);
    if (seconds != NULL) {
        vnl_block_raise(
            "For %S s another task has had an atomic block open, and this test's tasks share one "
            "transaction, in which the blocks of different tasks take turns. Do not wait inside "
            "a block for what another task does with the database, or use "
            "vinyl.test.TransactionTestCase.",
            seconds);
        Py_DECREF(seconds);
    }
}

/* 0 with the turn, or -1. */
static int
turn_wait(vnl_pin *self, vnl_fiber *fiber)
{
    pin_turn *turn = PyMem_Calloc(1, sizeof(*turn));
    if (turn == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    turn->fiber = fiber;
    turn->event = vnl_event_new();
    if (turn->event == NULL) {
        PyMem_Free(turn);
        return -1;
    }
    vnl_list_append(&self->turns, &turn->link);
    int ready = 0;
    do {
        ready = vnl_event_wait(turn->event, vnl_now() + (int64_t)(self->seconds * 1e9));
    } while (ready == 0 && !turn->has_turn && may_enter(self, fiber)); /* a long statement, no block */
    vnl_list_remove(&turn->link);
    int has_turn = turn->has_turn;
    vnl_event_free(turn->event);
    PyMem_Free(turn);
    if (ready == 0 && !has_turn) {
        raise_too_long(self);
        return -1;
    }
    if (ready < 0 && has_turn) { /* the turn came together with the cancel */
        self->holder = NULL;
        pass_turn(self);
    }
    return ready < 0 ? -1 : 0;
}

/* A task that was started inside the open block would wait for its own end. */
static int
refuse_foreign(vnl_pin *self, vnl_fiber *fiber)
{
    int foreign = vnl_block_is_foreign(fiber->scope);
    if (foreign <= 0) {
        return foreign;
    }
    PyObject *aliases = aliases_of(self);
    if (aliases != NULL) {
        vnl_block_raise_foreign(aliases);
        Py_DECREF(aliases);
    }
    return -1;
}

int
vnl_pin_enter_wait(vnl_fiber *fiber)
{
    vnl_pin *self = pin_of(fiber);
    if (self->holder == fiber) {
        return 0;
    }
    if (self->holder != NULL || !may_enter(self, fiber)) {
        if (!may_enter(self, fiber) && refuse_foreign(self, fiber) < 0) {
            return -1;
        }
        Py_INCREF(self);
        int failed = turn_wait(self, fiber);
        Py_DECREF(self);
        if (failed < 0) {
            return -1;
        }
    }
    begin_turn(self, fiber);
    return 0;
}

static void
end_block(vnl_pin *self)
{
    PyObject *block = self->block;
    self->block = NULL;
    Py_CLEAR(self->owner);
    if (block != NULL) {
        Py_XDECREF(vnl_block_end(NULL, block));
        Py_DECREF(block);
    }
}

/* The fiber's task has a block open from here on, or no longer. */
static void
note_block(vnl_pin *self, vnl_fiber *fiber)
{
    Py_ssize_t depth = open_blocks(self);
    if (self->owner == NULL && depth > self->depth) {
        self->owner = Py_NewRef(fiber->scope);
        if (((vnl_scope *)fiber->scope)->block == NULL) { /* vinyl.atomic() has its own */
            self->block = vnl_block_open(fiber->scope);
        }
    }
    else if (self->owner == fiber->scope && depth <= self->depth) {
        end_block(self);
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(fiber->scope);
    }
}

void
vnl_pin_leave(vnl_fiber *fiber)
{
    vnl_pin *self = pin_of(fiber);
    if (self->holder != fiber) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_INCREF(self);
    note_block(self, fiber);
    self->holder = NULL;
    pass_turn(self);
    Py_DECREF(self);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

PyObject *
vnl_pin_exchange(PyObject *module, PyObject *pin)
{
    if (pin != Py_None && !Py_IS_TYPE(pin, vnl_core->pin_type)) {
        PyErr_SetString(PyExc_TypeError, "exchange_pin(pin): a Pin or None");
        return NULL;
    }
    PyObject *old = vnl_core->pin;
    vnl_core->pin = pin == Py_None ? NULL : Py_NewRef(pin);
    if (old != NULL && old != vnl_core->pin) {
        end_block((vnl_pin *)old); /* of a task that did not live to do it */
        if (PyErr_Occurred()) {
            Py_DECREF(old);
            return NULL;
        }
    }
    return old != NULL ? old : Py_NewRef(Py_None);
}

PyObject *
vnl_pin_current(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(vnl_core->pin != NULL ? vnl_core->pin : Py_None);
}

/* --- the type ------------------------------------------------------------- */

static PyObject *
pin_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sessions", "timeout", NULL};
    PyObject *sessions = NULL;
    double seconds = 30;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|d:Pin", names, &PyDict_Type, &sessions, &seconds)) {
        return NULL;
    }
    if (!(seconds >= 0 && seconds < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "Pin(sessions, timeout): a number of seconds");
        return NULL;
    }
    vnl_pin *self = PyObject_GC_New(vnl_pin, type);
    if (self == NULL) {
        return NULL;
    }
    self->sessions = Py_NewRef(sessions);
    self->owner = self->block = NULL;
    self->depth = 0;
    self->seconds = seconds;
    self->holder = NULL;
    vnl_list_init(&self->turns);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
pin_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_pin *self = (vnl_pin *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->sessions);
    Py_VISIT(self->owner);
    Py_VISIT(self->block);
    return 0;
}

static int
pin_clear(PyObject *op)
{
    vnl_pin *self = (vnl_pin *)op;
    Py_CLEAR(self->sessions);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->block);
    return 0;
}

static void
pin_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)pin_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyMemberDef pin_members[] = {
    {"sessions", Py_T_OBJECT_EX, offsetof(vnl_pin, sessions), Py_READONLY, "alias -> DatabaseWrapper"},
    {"owner", Py_T_OBJECT_EX, offsetof(vnl_pin, owner), Py_READONLY,
     "The Scope whose atomic block is open inside the test's transaction (AttributeError: none)."},
    {NULL},
};

static PyType_Slot pin_slots[] = {
    {Py_tp_doc,
     "Pin(sessions, timeout=30.0)\n--\n\nThe sessions that all tasks of a test share. While one of them has\n"
     "an atomic block open, an operation of another waits for its end, timeout seconds at most."},
    {Py_tp_new, pin_new},
    {Py_tp_traverse, pin_traverse},
    {Py_tp_clear, pin_clear},
    {Py_tp_dealloc, pin_dealloc},
    {Py_tp_members, pin_members},
    {0, NULL},
};

static PyType_Spec pin_spec = {
    .name = "vinyl._core.Pin",
    .basicsize = sizeof(vnl_pin),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pin_slots,
};

int
vnl_pin_setup(PyObject *module)
{
    vnl_core->pin_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pin_spec, NULL);
    return vnl_core->pin_type == NULL ? -1 : PyModule_AddType(module, vnl_core->pin_type);
}
