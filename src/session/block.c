#include "session/block.h"

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/operation.h"
#include "fiber/wait.h"
#include "session/scope.h"

/* In blocking mode: the innermost open block of the thread's own sessions, or NULL.  Owned. */
static _Thread_local PyObject *driven_block;

static int
is_driven(void)
{
    return vnl_here.place == VNL_DRIVEN || (vnl_here.place == VNL_FIBER && vnl_here.fiber == NULL);
}

/* The block that the running context has: new reference, or NULL for none. */
static int
get_context_block(PyObject **block)
{
    *block = NULL;
    if (PyContextVar_Get(vnl_core->block_variable, NULL, block) < 0) {
        return -1;
    }
    if (*block == Py_None) {
        Py_CLEAR(*block);
    }
    return 0;
}

void
vnl_block_raise(const char *format, PyObject *name)
{
    PyObject *module = PyImport_ImportModule("django.db.transaction");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "TransactionManagementError");
    if (type != NULL) {
        PyErr_Format(type, format, name);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
}

/* The innermost block from `block` outwards that is of `scope` and open, and in which operations may
 * begin if that is asked for.  Borrowed, or NULL. */
static PyObject *
innermost(PyObject *block, PyObject *scope, int unsealed)
{
    for (; block != NULL; block = ((vnl_block *)block)->outer) {
        vnl_block *self = (vnl_block *)block;
        if (self->open && self->scope == scope && !(unsealed && self->sealed)) {
            break;
        }
    }
    return block;
}

PyObject *
vnl_block_of_scope(PyObject *scope)
{
    PyObject *block = scope != NULL ? ((vnl_scope *)scope)->block : is_driven() ? driven_block : NULL;
    return Py_XNewRef(innermost(block, scope, 1));
}

static int
goes_on(const vnl_block *self)
{
    return self->open && !self->sealed;
}

int
vnl_block_check_operation(PyObject *op)
{
    PyObject *block = vnl_operation_block(op);
    if (block == NULL || goes_on((vnl_block *)block)) {
        return 0;
    }
    PyObject *name = vnl_operation_name(op);
    if (name != NULL) {
        vnl_block_raise("%U() was created inside an atomic block and awaited after its end: await it inside.",
                        name);
        Py_DECREF(name);
    }
    return -1;
}

int
vnl_block_let_in(PyObject *block)
{
    if (!goes_on((vnl_block *)block)) {
        return -1;
    }
    ((vnl_block *)block)->running++;
    return 0;
}

void
vnl_block_let_go(PyObject *block)
{
    vnl_block *self = (vnl_block *)block;
    self->running--;
    if (self->idle != NULL) {
        vnl_event_set(self->idle);
    }
}

static vnl_block *
block_new(PyObject *scope)
{
    vnl_block *self = PyObject_GC_New(vnl_block, vnl_core->block_type);
    if (self != NULL) {
        self->scope = Py_XNewRef(scope);
        self->outer = NULL;
        self->idle = NULL;
        self->running = 0;
        self->open = 1;
        self->sealed = 0;
        PyObject_GC_Track(self);
    }
    return self;
}

PyObject *
vnl_block_open(PyObject *scope)
{
    vnl_block *self = block_new(scope);
    PyObject *token = NULL;
    if (self == NULL) {
        return NULL;
    }
    if (get_context_block(&self->outer) < 0 ||
        (token = PyContextVar_Set(vnl_core->block_variable, (PyObject *)self)) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(token);
    Py_XSETREF(((vnl_scope *)scope)->block, Py_NewRef((PyObject *)self));
    return (PyObject *)self;
}

/* begin_block(): the current scope has entered a transaction, or a savepoint. */
PyObject *
vnl_block_begin(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *scope = vnl_scope_current();
    if (scope == NULL && !PyErr_Occurred() && is_driven()) {
        vnl_block *self = block_new(NULL);
        if (self != NULL) {
            self->outer = driven_block;
            driven_block = Py_NewRef((PyObject *)self);
        }
        return (PyObject *)self;
    }
    if (scope == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *block = vnl_block_open(scope);
    Py_DECREF(scope);
    return block;
}

/* end_block(block): its transaction is over. */
PyObject *
vnl_block_end(PyObject *module, PyObject *op)
{
    if (!Py_IS_TYPE(op, vnl_core->block_type)) {
        Py_RETURN_NONE;
    }
    vnl_block *self = (vnl_block *)op;
    self->open = 0;
    if (self->scope == NULL) {
        if (driven_block == op) {
            Py_SETREF(driven_block, Py_XNewRef(innermost(self->outer, NULL, 0)));
        }
        Py_RETURN_NONE;
    }
    if (((vnl_scope *)self->scope)->block == op) {
        Py_XSETREF(((vnl_scope *)self->scope)->block, Py_XNewRef(innermost(self->outer, self->scope, 0)));
    }
    /* The owner's context goes back to what it had; copies of it in other
     * tasks see that the block is closed. */
    PyObject *current = NULL;
    if (get_context_block(&current) < 0) {
        return NULL;
    }
    if (current == op) {
        PyObject *outer = self->outer;
        while (outer != NULL && !((vnl_block *)outer)->open) {
            outer = ((vnl_block *)outer)->outer;
        }
        PyObject *token = PyContextVar_Set(vnl_core->block_variable, outer != NULL ? outer : Py_None);
        Py_XDECREF(token);
    }
    Py_XDECREF(current);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* seal_block(block): it is being committed or rolled back. */
PyObject *
vnl_block_seal(PyObject *module, PyObject *op)
{
    if (Py_IS_TYPE(op, vnl_core->block_type)) {
        ((vnl_block *)op)->sealed = 1;
    }
    Py_RETURN_NONE;
}

/* Until the other operations of the block have ended.  They need the turn for it.  0 or -1. */
static int
others_wait(vnl_block *self, vnl_fiber *fiber, Py_ssize_t own)
{
    while (self->running > own && self->idle == NULL) {
        self->idle = vnl_event_new();
        if (self->idle == NULL) {
            return -1;
        }
        vnl_scope_leave(fiber);
        int ready = vnl_event_wait(self->idle, VNL_FOREVER);
        vnl_event_free(self->idle);
        self->idle = NULL;
        /* As after await_(): a cancel is kept until the turn has come. */
        vnl_shield_enter();
        int failed = vnl_scope_reenter_wait(fiber);
        if (vnl_shield_leave() < 0 || failed < 0 || ready < 0) {
            return -1;
        }
    }
    return 0;
}

/* settle_block(block): waits for the operations that have begun in it, and seals it. */
PyObject *
vnl_block_settle(PyObject *module, PyObject *op)
{
    if (!Py_IS_TYPE(op, vnl_core->block_type)) {
        Py_RETURN_NONE;
    }
    vnl_fiber *fiber = vnl_here.fiber;
    int failed = 0;
    Py_INCREF(op);
    if (fiber != NULL) {
        failed = others_wait((vnl_block *)op, fiber, vnl_operation_block(fiber->operation) == op);
    }
    if (failed == 0) {
        ((vnl_block *)op)->sealed = 1;
    }
    Py_DECREF(op);
    return failed < 0 ? NULL : Py_NewRef(Py_None);
}

int
vnl_block_is_foreign(PyObject *scope)
{
    PyObject *block = NULL;
    int foreign = 0;
    if (get_context_block(&block) < 0) {
        return -1;
    }
    PyObject *root = vnl_scope_root(scope);
    for (PyObject *at = block; at != NULL; at = ((vnl_block *)at)->outer) {
        vnl_block *self = (vnl_block *)at;
        if (self->open && vnl_scope_root(self->scope) != root) {
            foreign = 1;
            break;
        }
    }
    Py_XDECREF(block);
    return foreign;
}

void
vnl_block_raise_foreign(PyObject *alias)
{
    vnl_block_raise(
        "This task was started inside an atomic block of another task, which is still open, and uses "
        "the database '%S': its statements are not part of that transaction. Create the operation "
        "in the task that owns the block, or use 'async with vinyl.independent():' for a "
        "connection of its own.",
        alias);
}

/* check_session(alias): whether code right here may use its session. */
PyObject *
vnl_block_check_session(PyObject *module, PyObject *alias)
{
    vnl_place place = vnl_where();
    if (place == VNL_LOOP || place == VNL_DRIVEN) {
        vnl_raise(
            "NotFetched",
            "Synchronous code in a coroutine needs the database '%S': await the operation (Model.vinyl, "
            "instance.save(), ...), or run the code with 'await vinyl.run(fn, ...)'.",
            alias);
        return NULL;
    }
    if (place == VNL_FIBER && vnl_here.fiber != NULL && vnl_here.fiber->scope != NULL) {
        int foreign = vnl_block_is_foreign(vnl_here.fiber->scope);
        if (foreign > 0) {
            vnl_block_raise_foreign(alias);
        }
        if (foreign != 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* hide_blocks(): the context forgets the blocks it is in; show_blocks() gives
 * them back. */
PyObject *
vnl_block_hide(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *block = NULL;
    if (get_context_block(&block) < 0) {
        return NULL;
    }
    PyObject *token = PyContextVar_Set(vnl_core->block_variable, Py_None);
    if (token == NULL) {
        Py_XDECREF(block);
        return NULL;
    }
    Py_DECREF(token);
    return block != NULL ? block : Py_NewRef(Py_None);
}

PyObject *
vnl_block_show(PyObject *module, PyObject *block)
{
    if (block != Py_None && !Py_IS_TYPE(block, vnl_core->block_type)) {
        PyErr_SetString(PyExc_TypeError, "show_blocks(block): what hide_blocks() gave");
        return NULL;
    }
    PyObject *token = PyContextVar_Set(vnl_core->block_variable, block);
    if (token == NULL) {
        return NULL;
    }
    Py_DECREF(token);
    Py_RETURN_NONE;
}

static int
block_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_block *self = (vnl_block *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->scope);
    Py_VISIT(self->outer);
    return 0;
}

static int
block_clear(PyObject *op)
{
    vnl_block *self = (vnl_block *)op;
    Py_CLEAR(self->scope);
    Py_CLEAR(self->outer);
    return 0;
}

static void
block_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)block_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef block_members[] = {
    {"open", Py_T_INT, offsetof(vnl_block, open), Py_READONLY, "Whether the transaction goes on."},
    {NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_doc, "An open transaction of a Scope."},
    {Py_tp_traverse, block_traverse},
    {Py_tp_clear, block_clear},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_members, block_members},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "vinyl._core.Block",
    .basicsize = sizeof(vnl_block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = block_slots,
};

int
vnl_block_setup(PyObject *module)
{
    vnl_core->block_variable = PyContextVar_New("vinyl_block", Py_None);
    vnl_core->block_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &block_spec, NULL);
    return vnl_core->block_variable == NULL || vnl_core->block_type == NULL ? -1 : 0;
}
