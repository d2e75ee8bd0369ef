#include "fiber/bridge.h"

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/wait.h"
#include "reactor/reactor.h"
#include "session/scope.h"

/* What `await` would iterate.  New reference. */
static PyObject *
awaitable_iterator(PyObject *awaitable)
{
    if (PyCoro_CheckExact(awaitable)) {
        return Py_NewRef(awaitable);
    }
    PyAsyncMethods *methods = Py_TYPE(awaitable)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        PyObject *inner = PyObject_GetAttr((PyObject *)Py_TYPE(awaitable), vnl_core->str_await);
        Py_XDECREF(inner);
        if (inner == NULL) {
            PyErr_Clear();
            /* Generators of types.coroutine(). */
            if (PyGen_CheckExact(awaitable)) {
                return Py_NewRef(awaitable);
            }
            PyErr_Format(PyExc_TypeError, "object %.100s can't be awaited", Py_TYPE(awaitable)->tp_name);
            return NULL;
        }
    }
    return methods != NULL && methods->am_await != NULL
               ? methods->am_await(awaitable)
               : PyObject_CallMethodNoArgs(awaitable, vnl_core->str_await);
}

/* One step of an awaited iterator: send(None), or throw of the exception that
 * is raised right now. */
static PySendResult
step(PyObject *iterator, int thrown, PyObject **result)
{
    if (!thrown) {
        return PyIter_Send(iterator, Py_None, result);
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *throw = PyObject_GetAttr(iterator, vnl_core->str_throw);
    *result = NULL;
    if (throw == NULL) { /* a plain iterator: the exception ends it */
        PyErr_SetRaisedException(exc);
        return PYGEN_ERROR;
    }
    *result = PyObject_CallOneArg(throw, exc);
    Py_DECREF(throw);
    Py_DECREF(exc);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *stop = PyErr_GetRaisedException();
        *result = PyObject_GetAttrString(stop, "value");
        Py_DECREF(stop);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    return PYGEN_ERROR;
}

/* Raises the error for something that only a loop can give, in the coroutine
 * that awaited it, so that its clean-up runs. */
static void
raise_needs_loop(PyObject *yielded)
{
    if (yielded == Py_None) {
        vnl_raise(
            "NeedsEventLoop",
            "asyncio.sleep(0), or another bare yield to the event loop, was awaited where no event loop "
            "runs (blocking mode): leave it out, or serve this code under ASGI.");
    }
    else if (strcmp(Py_TYPE(yielded)->tp_name, "_GatheringFuture") == 0) {
        vnl_raise("NeedsEventLoop",
                  "asyncio.gather() was awaited where no event loop runs (blocking mode): use "
                  "vinyl.gather(), or serve this code under ASGI.");
    }
    else {
        vnl_raise("NeedsEventLoop",
                  "%R was awaited where no event loop runs (blocking mode): await database operations only, "
                  "or serve this code under ASGI.",
                  yielded);
    }
}

/* Runs an awaitable to its end where no loop runs. */
static PyObject *
drive(PyObject *iterator)
{
    vnl_position before = vnl_here;
    PyObject *result = NULL;
    int thrown = 0;
    vnl_here.place = VNL_DRIVEN;
    vnl_here.fiber = NULL;
    while (step(iterator, thrown, &result) == PYGEN_NEXT) {
        raise_needs_loop(result);
        Py_CLEAR(result);
        thrown = 1;
    }
    vnl_here = before;
    return result;
}

PyObject *
vnl_bridge_drive(PyObject *module, PyObject *coroutine)
{
    PyObject *loop = vnl_running_loop();
    if (loop != NULL) {
        Py_DECREF(loop);
        PyErr_SetString(PyExc_RuntimeError,
                        "vinyl.drive() blocks, and an event loop runs in this thread: await the coroutine.");
        return NULL;
    }
    if (vnl_here.place == VNL_FIBER) {
        return vnl_bridge_await(module, coroutine);
    }
    PyObject *iterator = awaitable_iterator(coroutine);
    if (iterator == NULL) {
        return NULL;
    }
    PyObject *result = drive(iterator);
    Py_DECREF(iterator);
    return result;
}

/* Inside a fiber on a loop: what the awaitable yields goes up to the task, as
 * if the fiber's operation had awaited it. */
static PyObject *
await_in_fiber_wait(vnl_fiber *fiber, PyObject *iterator)
{
    PyObject *loop = ((vnl_reactor *)fiber->reactor)->loop;
    PyObject *result = NULL;
    int thrown = 0;
    vnl_scope_leave(fiber); /* operations of the awaitable may need the turn */
    for (;;) {
        if (vnl_show_loop(loop) < 0) {
            return NULL;
        }
        vnl_here.place = VNL_PLAIN;
        vnl_here.fiber = NULL;
        PyObject *lent = vnl_scope_lend(fiber, loop);
        PySendResult outcome = step(iterator, thrown, &result);
        vnl_scope_unlend(lent);
        vnl_here.place = VNL_FIBER;
        vnl_here.fiber = fiber;
        (void)vnl_show_loop(Py_None);
        if (outcome != PYGEN_NEXT) {
            break;
        }
        thrown = vnl_raise_put_off() < 0;
        if (thrown) {
            Py_DECREF(result);
        }
        else {
            thrown = vnl_fiber_suspend_wait(fiber, result) < 0;
        }
        result = NULL;
    }
    /* Cancelled here the fiber would go on, into its clean-up, while another
     * has the turn: the cancel is kept until the turn has come. */
    vnl_shield_enter();
    int failed = vnl_scope_reenter_wait(fiber);
    if (vnl_shield_leave() < 0 || failed < 0) {
        Py_CLEAR(result);
    }
    return result;
}

PyObject *
vnl_bridge_await(PyObject *module, PyObject *awaitable)
{
    if (vnl_where() != VNL_FIBER) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "vinyl.await_() is for code inside vinyl.run(): in a coroutine write 'await', in plain "
            "code use vinyl.drive().");
        return NULL;
    }
    PyObject *iterator = awaitable_iterator(awaitable);
    if (iterator == NULL) {
        return NULL;
    }
    PyObject *result = vnl_here.fiber != NULL && !vnl_here.fiber->dying
                           ? await_in_fiber_wait(vnl_here.fiber, iterator)
                           : drive(iterator);
    Py_DECREF(iterator);
    return result;
}

/* --- the calling frame ---------------------------------------------------- */

static int
is_transparent(PyCodeObject *code)
{
    const char *name = PyUnicode_AsUTF8(code->co_name);
    return name != NULL && name[0] == '<' &&
           (strcmp(name, "<lambda>") == 0 || strcmp(name, "<listcomp>") == 0 ||
            strcmp(name, "<setcomp>") == 0 || strcmp(name, "<dictcomp>") == 0 ||
            strcmp(name, "<genexpr>") == 0);
}

/* The Python frame `depth` + 1 above the running one.  New reference, or NULL
 * without an exception. */
static PyFrameObject *
frame_above(PyObject *const *args, Py_ssize_t nargs)
{
    long depth = nargs > 0 ? PyLong_AsLong(args[0]) : 0;
    if (depth == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    Py_XINCREF(frame);
    for (long i = 0; frame != NULL && i <= depth; i++) {
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    return frame;
}

static int
has_constant(PyFrameObject *frame, PyCodeObject *constant)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *constants = PyObject_GetAttrString((PyObject *)code, "co_consts");
    int found = 0;
    Py_DECREF(code);
    if (constants == NULL) {
        PyErr_Clear();
        return 0;
    }
    for (Py_ssize_t i = 0; !found && i < PyTuple_GET_SIZE(constants); i++) {
        found = PyTuple_GET_ITEM(constants, i) == (PyObject *)constant;
    }
    Py_DECREF(constants);
    return found;
}

/* The running frame in whose text the lambda or comprehension stands, whoever
 * calls it; else the one that calls it.  New reference, or NULL. */
static PyFrameObject *
frame_of_writer(PyFrameObject *frame, PyCodeObject *code)
{
    PyFrameObject *caller = PyFrame_GetBack(frame);
    PyFrameObject *writer = (PyFrameObject *)Py_XNewRef((PyObject *)caller);
    while (writer != NULL && !has_constant(writer, code)) {
        Py_SETREF(writer, PyFrame_GetBack(writer));
    }
    if (writer == NULL) {
        return caller;
    }
    Py_XDECREF(caller);
    return writer;
}

PyObject *
vnl_frame_in_coroutine(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyFrameObject *frame = frame_above(args, nargs);
    int answer = 0;
    while (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        answer = (code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE)) != 0;
        int look_further = !answer && is_transparent(code);
        PyFrameObject *next = look_further ? frame_of_writer(frame, code) : NULL;
        Py_DECREF(code);
        if (!look_further) {
            break;
        }
        Py_SETREF(frame, next);
    }
    Py_XDECREF(frame);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(answer);
}

PyObject *
vnl_frame_awaits(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyFrameObject *frame = frame_above(args, nargs);
    if (frame == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    int at = PyFrame_GetLasti(frame); /* in bytes */
    Py_DECREF(frame);
    PyObject *bytes = PyCode_GetCode(code);
    Py_DECREF(code);
    if (bytes == NULL) {
        return NULL;
    }
    const unsigned char *ops = (const unsigned char *)PyBytes_AS_STRING(bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    Py_ssize_t next = at + 2;
    while (next + 1 < size && ops[next] == vnl_core->op_cache) {
        next += 2;
    }
    int answer = at >= 0 && next + 1 < size && ops[next] == vnl_core->op_get_awaitable;
    Py_DECREF(bytes);
    return PyBool_FromLong(answer);
}
