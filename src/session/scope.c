#include "session/scope.h"

#include "core/state.h"
#include "fiber/wait.h"
#include "session/pin.h"

/* One fiber that waits for its turn. */
typedef struct {
    vnl_node link;
    vnl_event *event;
    vnl_fiber *fiber;
    int has_turn;
} scope_turn;

/* In blocking mode: the scope that a driven coroutine has put in place of its
 * thread's own sessions, or NULL.  Owned. */
static _Thread_local PyObject *driven_scope;

vnl_scope *
vnl_scope_new(PyObject *parent, PyObject *pin)
{
    vnl_scope *self = PyObject_GC_New(vnl_scope, vnl_core->scope_type);
    if (self == NULL) {
        return NULL;
    }
    self->parent = Py_XNewRef(parent);
    self->block = NULL;
    self->task = NULL;
    self->dict = NULL;
    self->weakrefs = NULL;
    self->holder = NULL;
    vnl_list_init(&self->turns);
    self->pin = Py_XNewRef(pin);
    self->sessions = pin != NULL ? Py_NewRef(((vnl_pin *)pin)->sessions) : PyDict_New();
    PyObject_GC_Track(self);
    if (self->sessions == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static PyObject *
scope_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Scope", names)) {
        return NULL;
    }
    return (PyObject *)vnl_scope_new(NULL, NULL);
}

PyObject *
vnl_scope_of_task(PyObject *loop)
{
    PyObject *task = PyObject_CallOneArg(vnl_core->current_task, loop);
    if (task == NULL || task == Py_None) {
        Py_XDECREF(task);
        return NULL;
    }
    /* The scope lives on its task and ends with it. */
    PyObject *scope = PyObject_GetAttr(task, vnl_core->str_scope);
    if (scope != NULL && Py_IS_TYPE(scope, vnl_core->scope_type) &&
        ((vnl_scope *)scope)->pin != vnl_core->pin) {
        Py_CLEAR(scope); /* of another test, or of the time before this one */
    }
    else if (scope == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
    }
    if (scope == NULL && !PyErr_Occurred()) {
        scope = (PyObject *)vnl_scope_new(NULL, vnl_core->pin);
        if (scope != NULL) {
            ((vnl_scope *)scope)->task = PyWeakref_NewRef(task, NULL);
            if (((vnl_scope *)scope)->task == NULL) {
                PyErr_Clear(); /* an unusual task type: it stays unnamed */
            }
        }
        if (scope != NULL && PyObject_SetAttr(task, vnl_core->str_scope, scope) < 0) {
            Py_CLEAR(scope);
        }
    }
    Py_DECREF(task);
    return scope;
}

PyObject *
vnl_scope_current(void)
{
    PyObject *loop = vnl_running_loop();
    if (loop != NULL) {
        PyObject *scope = vnl_scope_of_task(loop);
        Py_DECREF(loop);
        if (scope == NULL) {
            PyErr_Clear();
        }
        return scope;
    }
    if (vnl_here.fiber != NULL) {
        return Py_XNewRef(vnl_here.fiber->scope);
    }
    return vnl_here.place == VNL_PLAIN ? NULL : Py_XNewRef(driven_scope);
}

PyObject *
vnl_scope_exchange(PyObject *module, PyObject *scope)
{
    PyObject *old = NULL;
    if (scope != Py_None && !PyObject_TypeCheck(scope, vnl_core->scope_type)) {
        PyErr_SetString(PyExc_TypeError, "exchange_scope(scope): a Scope or None");
        return NULL;
    }
    PyObject *loop = vnl_running_loop();
    if (loop == NULL) {
        if (vnl_here.place != VNL_DRIVEN) {
            PyErr_SetString(PyExc_RuntimeError, "exchange_scope() is for coroutines");
            return NULL;
        }
        old = driven_scope;
        driven_scope = scope == Py_None ? NULL : Py_NewRef(scope);
        return old != NULL ? old : Py_NewRef(Py_None);
    }
    PyObject *task = PyObject_CallOneArg(vnl_core->current_task, loop);
    Py_DECREF(loop);
    if (task == NULL || task == Py_None) {
        Py_XDECREF(task);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    old = PyObject_GetAttr(task, vnl_core->str_scope);
    if (old == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        old = Py_NewRef(Py_None);
    }
    int failed = old == NULL        ? -1
                 : scope != Py_None ? PyObject_SetAttr(task, vnl_core->str_scope, scope)
                                    : (old != Py_None ? PyObject_DelAttr(task, vnl_core->str_scope) : 0);
    Py_DECREF(task);
    if (failed < 0) {
        Py_CLEAR(old);
    }
    return old;
}

PyObject *
vnl_scope_root(PyObject *scope)
{
    while (scope != NULL && ((vnl_scope *)scope)->parent != NULL) {
        scope = ((vnl_scope *)scope)->parent;
    }
    return scope;
}

PyObject *
vnl_scope_lend(vnl_fiber *fiber, PyObject *loop)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *own = fiber->scope == NULL ? NULL : vnl_scope_of_task(loop);
    PyObject *before = NULL;
    if (own != NULL && vnl_scope_root(own) != vnl_scope_root(fiber->scope)) {
        before = vnl_scope_exchange(NULL, vnl_scope_root(fiber->scope));
    }
    Py_XDECREF(own);
    PyErr_Clear(); /* no task, or an unusual one: then it is as it was */
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return before;
}

void
vnl_scope_unlend(PyObject *before)
{
    if (before == NULL) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(vnl_scope_exchange(NULL, before));
    Py_DECREF(before);
    PyErr_Clear();
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

/* 1 when a session of the scope is inside an atomic block, 0, or -1. */
static int
in_block(vnl_scope *self)
{
    PyObject *alias = NULL, *session = NULL;
    Py_ssize_t pos = 0;
    while (PyDict_Next(self->sessions, &pos, &alias, &session)) {
        PyObject *flag = PyObject_GetAttr(session, vnl_core->str_in_atomic_block);
        int truth = flag == NULL ? -1 : PyObject_IsTrue(flag);
        Py_XDECREF(flag);
        if (truth != 0) {
            return truth;
        }
    }
    return 0;
}

/* First come, first served.  0 with the turn, or -1. */
static int
turn_wait(vnl_scope *self, vnl_fiber *fiber)
{
    scope_turn *turn = PyMem_Calloc(1, sizeof(*turn));
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
    int ready = vnl_event_wait(turn->event, VNL_FOREVER);
    vnl_list_remove(&turn->link);
    int has_turn = turn->has_turn;
    vnl_event_free(turn->event);
    PyMem_Free(turn);
    if (ready < 0 && has_turn) {
        vnl_scope_leave(fiber); /* the turn came together with the cancel */
    }
    return ready < 0 ? -1 : 0;
}

int
vnl_scope_enter_wait(vnl_fiber *fiber)
{
    vnl_scope *self = (vnl_scope *)fiber->scope;
    if (self == NULL) {
        return 0;
    }
    if (self->pin != NULL) {
        return vnl_pin_enter_wait(fiber);
    }
    if (self->holder == NULL) {
        self->holder = fiber;
        return 0;
    }
    int waits = in_block(self);
    if (waits < 0) {
        return -1;
    }
    if (waits) {
        Py_INCREF(self);
        int failed = turn_wait(self, fiber);
        Py_DECREF(self);
        return failed;
    }
    vnl_scope *overflow = vnl_scope_new((PyObject *)self, NULL);
    if (overflow == NULL) {
        return -1;
    }
    overflow->task = Py_XNewRef(self->task);
    overflow->holder = fiber;
    Py_SETREF(fiber->scope, (PyObject *)overflow);
    return 0;
}

int
vnl_scope_reenter_wait(vnl_fiber *fiber)
{
    vnl_scope *self = (vnl_scope *)fiber->scope;
    if (self != NULL && self->pin != NULL) {
        return vnl_pin_enter_wait(fiber);
    }
    if (self == NULL || self->holder == fiber) {
        return 0;
    }
    if (self->holder == NULL) {
        self->holder = fiber;
        return 0;
    }
    Py_INCREF(self);
    int failed = turn_wait(self, fiber);
    Py_DECREF(self);
    return failed;
}

void
vnl_scope_leave(vnl_fiber *fiber)
{
    vnl_scope *self = (vnl_scope *)fiber->scope;
    if (self != NULL && self->pin != NULL) {
        vnl_pin_leave(fiber);
        return;
    }
    if (self == NULL || self->holder != fiber) {
        return;
    }
    self->holder = NULL;
    vnl_node *node = vnl_list_first(&self->turns);
    if (node != NULL) {
        scope_turn *turn = VNL_CONTAINER(node, scope_turn, link);
        vnl_list_remove(node);
        turn->has_turn = 1;
        self->holder = turn->fiber;
        vnl_event_set(turn->event);
    }
}

static PyObject *
scope_in_block(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    int truth = in_block((vnl_scope *)op);
    return truth < 0 ? NULL : PyBool_FromLong(truth);
}

static int
scope_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_scope *self = (vnl_scope *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->sessions);
    Py_VISIT(self->parent);
    Py_VISIT(self->block);
    Py_VISIT(self->pin);
    Py_VISIT(self->task);
    Py_VISIT(self->dict);
    return 0;
}

static int
scope_clear(PyObject *op)
{
    vnl_scope *self = (vnl_scope *)op;
    Py_CLEAR(self->sessions);
    Py_CLEAR(self->parent);
    Py_CLEAR(self->block);
    Py_CLEAR(self->pin);
    Py_CLEAR(self->task);
    Py_CLEAR(self->dict);
    return 0;
}

static void
scope_dealloc(PyObject *op)
{
    vnl_scope *self = (vnl_scope *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)scope_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef scope_methods[] = {
    {"in_block", scope_in_block, METH_NOARGS, "Whether a session of this scope is inside an atomic block."},
    {NULL},
};

static PyMemberDef scope_members[] = {
    {"sessions", Py_T_OBJECT_EX, offsetof(vnl_scope, sessions), Py_READONLY, "alias -> DatabaseWrapper"},
    {"pin", Py_T_OBJECT_EX, offsetof(vnl_scope, pin), Py_READONLY,
     "The Pin whose sessions it shares (AttributeError: it has its own)."},
    {"parent", Py_T_OBJECT_EX, offsetof(vnl_scope, parent), Py_READONLY,
     "The scope whose overflow this is (AttributeError: none)."},
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(vnl_scope, dict), Py_READONLY, NULL},
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(vnl_scope, weakrefs), Py_READONLY, NULL},
    {NULL},
};

static PyGetSetDef scope_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, "Scope()\n--\n\nThe database sessions of one task."},
    {Py_tp_new, scope_tp_new},
    {Py_tp_traverse, scope_traverse},
    {Py_tp_clear, scope_clear},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_methods, scope_methods},
    {Py_tp_members, scope_members},
    {Py_tp_getset, scope_getset},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "vinyl._core.Scope",
    .basicsize = sizeof(vnl_scope),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};

int
vnl_scope_setup(PyObject *module)
{
    vnl_core->scope_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &scope_spec, NULL);
    return vnl_core->scope_type == NULL ? -1 : PyModule_AddType(module, vnl_core->scope_type);
}
