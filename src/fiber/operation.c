#include "fiber/operation.h"

#include "core/state.h"
#include "fiber/chain.h"
#include "fiber/fiber.h"
#include "fiber/unawaited.h"
#include "reactor/reactor.h"
#include "session/block.h"
#include "session/scope.h"

typedef enum {
    CREATED,
    STARTED,
    FINISHED
} operation_status;

typedef struct {
    PyObject_HEAD
    PyObject *fn, *args, *kwargs; /* owned until started */
    PyObject *name;               /* owned: for messages, or NULL */
    PyObject *scope;              /* owned: of the task that made it, or NULL */
    PyObject *block;              /* owned: the open block it was made in, or NULL */
    vnl_fiber *fiber;             /* owned while started on a loop */
    PyObject *weakrefs;
    operation_status status;
    int executing;
    int let_in;   /* counted by its block */
    int iterable; /* __await__() has given it: it is an iterator to whoever asked */
} vnl_operation;

PyObject *
vnl_operation_new(PyObject *fn, PyObject *args, PyObject *kwargs)
{
    vnl_operation *self = PyObject_GC_New(vnl_operation, vnl_core->operation_type);
    if (self == NULL) {
        return NULL;
    }
    self->fn = Py_NewRef(fn);
    self->args = Py_NewRef(args);
    self->kwargs = Py_XNewRef(kwargs);
    self->name = NULL;
    self->scope = vnl_scope_current();
    self->block = vnl_block_of_scope(self->scope);
    self->fiber = NULL;
    self->weakrefs = NULL;
    self->status = CREATED;
    self->executing = 0;
    self->let_in = 0;
    self->iterable = 0;
    PyObject_GC_Track(self);
    vnl_core->count.operations++;
    return (PyObject *)self;
}

static PyObject *
operation_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", "args", "kwargs", NULL};
    PyObject *fn = NULL, *fn_args = NULL, *fn_kwargs = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O!O:Operation", names, &fn, &PyTuple_Type, &fn_args,
                                     &fn_kwargs)) {
        return NULL;
    }
    if (!PyCallable_Check(fn) || (fn_kwargs != Py_None && !PyDict_Check(fn_kwargs))) {
        PyErr_SetString(PyExc_TypeError,
                        "Operation(fn, args=(), kwargs=None): fn must be callable, kwargs a dict");
        return NULL;
    }
    PyObject *empty = fn_args == NULL ? PyTuple_New(0) : Py_NewRef(fn_args);
    if (empty == NULL) {
        return NULL;
    }
    PyObject *self = vnl_operation_new(fn, empty, fn_kwargs == Py_None ? NULL : fn_kwargs);
    Py_DECREF(empty);
    return self;
}

PyObject *
vnl_operation_name(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    if (self->name == NULL && self->fn != NULL) {
        self->name = PyObject_GetAttrString(self->fn, "__qualname__");
        if (self->name == NULL) {
            PyErr_Clear();
        }
    }
    return self->name != NULL ? Py_NewRef(self->name) : PyUnicode_FromString("operation");
}

PyObject *
vnl_operation_block(PyObject *op)
{
    return op == NULL ? NULL : ((vnl_operation *)op)->block;
}

/* --- running -------------------------------------------------------------- */

static void
leave_block(vnl_operation *self)
{
    if (self->let_in) {
        self->let_in = 0;
        vnl_block_let_go(self->block);
    }
    Py_CLEAR(self->block);
}

static void
operation_finish(vnl_operation *self)
{
    self->status = FINISHED;
    Py_CLEAR(self->fn);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->scope);
    leave_block(self);
    if (self->fiber != NULL) {
        vnl_fiber *fiber = self->fiber;
        self->fiber = NULL;
        fiber->operation = NULL;
        vnl_fiber_give(fiber);
    }
}

/* As a coroutine does: StopIteration would end the awaiting loop silently. */
static void
mask_stop_iteration(void)
{
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *cause = PyErr_GetRaisedException();
        PyErr_SetString(PyExc_RuntimeError, "operation raised StopIteration");
        PyObject *error = PyErr_GetRaisedException();
        PyException_SetContext(error, Py_NewRef(cause));
        PyException_SetCause(error, cause);
        PyErr_SetRaisedException(error);
    }
}

static PySendResult
operation_outcome(vnl_operation *self, PyObject **result)
{
    vnl_fiber *fiber = self->fiber;
    if (fiber->status == VNL_FIBER_SUSPENDED) {
        *result = fiber->yielded != NULL ? fiber->yielded : Py_NewRef(Py_None);
        fiber->yielded = NULL;
        return PYGEN_NEXT;
    }
    PyObject *value = fiber->result;
    PyObject *error = fiber->error;
    fiber->result = fiber->error = NULL;
    operation_finish(self);
    if (error != NULL) {
        vnl_chain_context(error);
        PyErr_SetRaisedException(error);
        mask_stop_iteration();
        *result = NULL;
        return PYGEN_ERROR;
    }
    *result = value;
    return PYGEN_RETURN;
}

/* Another thread leaves it to its own.  0, or -1 with an exception. */
static int
check_thread(const vnl_operation *self)
{
    if (self->fiber->thread != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "the operation runs in another thread, that of its event loop");
        return -1;
    }
    return 0;
}

static PySendResult
operation_resume(vnl_operation *self, PyObject *sent, PyObject *thrown, PyObject **result)
{
    *result = NULL;
    if (check_thread(self) < 0) {
        Py_XDECREF(thrown);
        return PYGEN_ERROR;
    }
    self->executing = 1;
    Py_INCREF(self);
    int failed = vnl_fiber_resume(self->fiber, sent, thrown);
    self->executing = 0;
    PySendResult outcome = PYGEN_ERROR;
    if (failed == 0) {
        outcome = operation_outcome(self, result);
    }
    else {
        operation_finish(self);
    }
    Py_DECREF(self);
    return outcome;
}

/* Without a loop: right here, waits block. */
static PyObject *
operation_run_inline(vnl_operation *self)
{
    vnl_position before = vnl_here;
    PyObject *fn = Py_NewRef(self->fn);
    PyObject *args = Py_NewRef(self->args);
    PyObject *kwargs = Py_XNewRef(self->kwargs);
    self->executing = 1;
    vnl_here.place = VNL_FIBER;
    vnl_here.fiber = NULL;
    PyObject *value = PyObject_Call(fn, args, kwargs);
    vnl_here = before;
    self->executing = 0;
    Py_DECREF(fn);
    Py_DECREF(args);
    Py_XDECREF(kwargs);
    operation_finish(self);
    if (value == NULL) {
        mask_stop_iteration();
    }
    return value;
}

static PySendResult
operation_start(vnl_operation *self, PyObject **result)
{
    self->status = STARTED;
    if (vnl_block_check_operation((PyObject *)self) < 0) {
        operation_finish(self);
        *result = NULL;
        return PYGEN_ERROR;
    }
    self->let_in = self->block != NULL && vnl_block_let_in(self->block) == 0;
    PyObject *loop = vnl_running_loop();
    if (loop == NULL) {
        *result = operation_run_inline(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    self->executing = 1; /* the loop's Python code may let others run */
    PyObject *reactor = (PyObject *)vnl_reactor_of(loop);
    *result = NULL;
    if (reactor != NULL && self->scope == NULL) {
        self->scope = vnl_scope_of_task(loop);
    }
    if (reactor != NULL && !PyErr_Occurred()) {
        self->fiber = vnl_fiber_take(reactor, self->scope, self->fn, self->args, self->kwargs);
    }
    Py_DECREF(loop);
    Py_XDECREF(reactor);
    self->executing = 0;
    if (self->fiber == NULL) {
        operation_finish(self);
        return PYGEN_ERROR;
    }
    self->fiber->operation = (PyObject *)self;
    vnl_line_find(&self->fiber->line);
    return operation_resume(self, NULL, NULL, result);
}

static PySendResult
operation_send(PyObject *op, PyObject *value, PyObject **result)
{
    vnl_operation *self = (vnl_operation *)op;
    *result = NULL;
    if (self->executing) {
        PyErr_SetString(PyExc_ValueError, "operation already executing");
        return PYGEN_ERROR;
    }
    switch (self->status) {
    case CREATED:
        return operation_start(self, result);
    case STARTED:
        return operation_resume(self, value, NULL, result);
    default:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited operation");
        return PYGEN_ERROR;
    }
}

/* --- the coroutine protocol ----------------------------------------------- */

static PyObject *
return_or_yield(PySendResult outcome, PyObject *result)
{
    if (outcome != PYGEN_RETURN) {
        return result;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
operation_send_method(PyObject *op, PyObject *value)
{
    PyObject *result = NULL;
    PySendResult outcome = operation_send(op, value, &result);
    return return_or_yield(outcome, result);
}

static PyObject *
operation_iternext(PyObject *op)
{
    return operation_send_method(op, Py_None);
}

/* The exception that throw(type, value, traceback) means.  New reference. */
static PyObject *
exception_to_throw(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *exc = NULL;
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    if (PyExceptionInstance_Check(args[0])) {
        exc = Py_NewRef(args[0]);
    }
    else if (value != NULL && PyExceptionInstance_Check(value)) {
        exc = Py_NewRef(value);
    }
    else if (PyExceptionClass_Check(args[0])) {
        exc = value != NULL ? PyObject_CallOneArg(args[0], value) : PyObject_CallNoArgs(args[0]);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    }
    if (exc != NULL && nargs == 3 && args[2] != Py_None && PyException_SetTraceback(exc, args[2]) < 0) {
        Py_CLEAR(exc);
    }
    return exc;
}

static PyObject *
operation_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    vnl_operation *self = (vnl_operation *)op;
    if (self->executing) {
        PyErr_SetString(PyExc_ValueError, "operation already executing");
        return NULL;
    }
    PyObject *exc = exception_to_throw(args, nargs);
    if (exc == NULL) {
        return NULL;
    }
    if (self->status != STARTED) {
        operation_finish(self);
        PyErr_SetRaisedException(exc);
        return NULL;
    }
    PyObject *result = NULL;
    PySendResult outcome = operation_resume(self, NULL, exc, &result);
    return return_or_yield(outcome, result);
}

/* Ends a suspended fiber: GeneratorExit is thrown in and its clean-up waits
 * block.  0, or -1 with the exception that came out. */
static int
operation_end_fiber(vnl_operation *self)
{
    PyObject *result = NULL;
    if (check_thread(self) < 0) {
        return -1;
    }
    self->fiber->dying = 1;
    PyObject *exc = PyObject_CallNoArgs(PyExc_GeneratorExit);
    if (exc == NULL) {
        return -1;
    }
    PySendResult outcome = operation_resume(self, NULL, exc, &result);
    Py_XDECREF(result);
    if (outcome == PYGEN_NEXT) {
        PyErr_SetString(PyExc_RuntimeError, "operation ignored GeneratorExit");
        return -1;
    }
    if (outcome == PYGEN_ERROR) {
        if (PyErr_ExceptionMatches(PyExc_GeneratorExit) || PyErr_ExceptionMatches(PyExc_StopIteration)) {
            PyErr_Clear();
            return 0;
        }
        return -1;
    }
    return 0;
}

void
vnl_operation_end(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    Py_INCREF(op);
    if (self->status == STARTED && !self->executing && operation_end_fiber(self) < 0) {
        PyErr_WriteUnraisable(op);
    }
    Py_DECREF(op);
}

static PyObject *
operation_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_operation *self = (vnl_operation *)op;
    if (self->executing) {
        PyErr_SetString(PyExc_ValueError, "operation already executing");
        return NULL;
    }
    if (self->status == STARTED) {
        if (operation_end_fiber(self) < 0) {
            return NULL;
        }
    }
    else {
        operation_finish(self);
    }
    Py_RETURN_NONE;
}

static PyObject *
operation_await(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    if (self->status != CREATED) {
        PyErr_SetString(PyExc_RuntimeError, self->status == STARTED
                                                ? "operation is being awaited already"
                                                : "cannot reuse already awaited operation");
        return NULL;
    }
    return Py_NewRef(op);
}

/* Called by Python, as by a queryset's own __await__(). */
static PyObject *
operation_await_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *iterator = operation_await(op);
    if (iterator != NULL) {
        ((vnl_operation *)op)->iterable = 1;
    }
    return iterator;
}

/* The asyncio of Python 3.11 says `yield from` of what __await__() gives, which asks for its iterator. */
static PyObject *
operation_iter(PyObject *op)
{
    return ((vnl_operation *)op)->iterable ? Py_NewRef(op) : vnl_unawaited_iter(op);
}

/* --- how it is shown ------------------------------------------------------ */

static Py_hash_t
operation_hash(PyObject *op)
{
    return (Py_hash_t)((uintptr_t)op >> 4);
}

static PyObject *
operation_repr(PyObject *op)
{
    static const char *const words[] = {"not awaited", "running", "done"};
    PyObject *name = vnl_operation_name(op);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text =
        PyUnicode_FromFormat("<vinyl operation %U, %s>", name, words[((vnl_operation *)op)->status]);
    Py_DECREF(name);
    return text;
}

/* --- life ----------------------------------------------------------------- */

static void
operation_finalize(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    PyObject *raised = PyErr_GetRaisedException();
    if (self->status == CREATED) {
        PyObject *name = vnl_operation_name((PyObject *)self);
        const char *cure = vnl_where() == VNL_PLAIN ? ": vinyl.drive() runs it to its end here" : "";
        if (name == NULL ||
            PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "operation '%U' was never awaited%s", name, cure) < 0) {
            PyErr_WriteUnraisable(op);
        }
        Py_XDECREF(name);
    }
    else if (self->status == STARTED && self->fiber != NULL && !self->executing) {
        if (operation_end_fiber(self) < 0) {
            PyErr_WriteUnraisable(op);
        }
        if (self->fiber != NULL) {
            operation_finish(self); /* another thread's */
        }
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

static int
operation_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_operation *self = (vnl_operation *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->fn);
    Py_VISIT(self->args);
    Py_VISIT(self->kwargs);
    Py_VISIT(self->scope);
    Py_VISIT(self->block);
    Py_VISIT(self->fiber);
    return 0;
}

static int
operation_clear(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    Py_CLEAR(self->fn);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->name);
    Py_CLEAR(self->scope);
    leave_block(self);
    return 0;
}

static void
operation_dealloc(PyObject *op)
{
    vnl_operation *self = (vnl_operation *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)operation_clear(op);
    Py_CLEAR(self->fiber);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef operation_methods[] = {
    {"send", operation_send_method, METH_O, "Starts or resumes the operation, as a coroutine's send()."},
    {"throw", (PyCFunction)(void *)operation_throw, METH_FASTCALL,
     "Raises an exception where the operation waits, as a coroutine's throw()."},
    {"close", operation_close, METH_NOARGS,
     "Ends the operation; what it has begun is rolled back. A dropped operation may be closed to say so."},
    {"__await__", operation_await_method, METH_NOARGS | METH_COEXIST, NULL},
    {NULL},
};

static PyMemberDef operation_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(vnl_operation, weakrefs), Py_READONLY, NULL},
    {NULL},
};

static PyType_Slot operation_slots[] = {
    {Py_tp_doc,
     "Operation(fn, args=(), kwargs=None)\n--\n\n"
     "An awaitable that runs fn(*args, **kwargs), plain synchronous Django code, so that its\n"
     "database I/O suspends the awaiting task. It can be awaited once, and belongs to the task\n"
     "that made it. asyncio takes it as a coroutine. Any use but awaiting raises NotFetched."},
    {Py_tp_new, operation_tp_new},
    {Py_tp_traverse, operation_traverse},
    {Py_tp_clear, operation_clear},
    {Py_tp_finalize, operation_finalize},
    {Py_tp_dealloc, operation_dealloc},
    {Py_tp_getattro, vnl_unawaited_getattro},
    {Py_tp_richcompare, vnl_unawaited_richcompare},
    {Py_tp_hash, operation_hash},
    {Py_tp_repr, operation_repr},
    {Py_tp_str, vnl_unawaited_str},
    {Py_tp_iter, operation_iter},
    {Py_tp_iternext, operation_iternext},
    {Py_nb_bool, vnl_unawaited_bool},
    {Py_mp_length, vnl_unawaited_length},
    {Py_mp_subscript, vnl_unawaited_subscript},
    {Py_sq_contains, vnl_unawaited_contains},
    {Py_am_await, operation_await},
    {Py_am_send, operation_send},
    {Py_tp_methods, operation_methods},
    {Py_tp_members, operation_members},
    {0, NULL},
};

static PyType_Spec operation_spec = {
    .name = "vinyl._core.Operation",
    .basicsize = sizeof(vnl_operation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = operation_slots,
};

int
vnl_operation_setup(PyObject *module)
{
    vnl_core->operation_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &operation_spec, NULL);
    if (vnl_core->operation_type == NULL) {
        return -1;
    }
    return PyModule_AddType(module, vnl_core->operation_type);
}
