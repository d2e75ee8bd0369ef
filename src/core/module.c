/* vinyl._core: fibers, operations, waiting, sessions and the pool. */
#include "core/state.h"

#include "core/testing.h"
#include "core_api.h"
#include "fiber/bridge.h"
#include "fiber/fiber.h"
#include "fiber/operation.h"
#include "fiber/strand.h"
#include "fiber/wait.h"
#include "fiber/waiter.h"
#include "model/garbage.h"
#include "model/hydrate.h"
#include "model/rows.h"
#include "plan/plan.h"
#include "pool/pool.h"
#include "reactor/reactor.h"
#include "reactor/reader.h"
#include "session/block.h"
#include "session/pin.h"
#include "session/scope.h"
#include "session/session_map.h"

vnl_state *vnl_core;

static void
raise_of(const char *module_name, const char *name, const char *format, va_list args)
{
    PyObject *text = PyUnicode_FromFormatV(format, args);
    PyObject *module = text == NULL ? NULL : PyImport_ImportModule(module_name);
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    if (type != NULL) {
        PyErr_SetObject(type, text);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_XDECREF(text);
}

void
vnl_raise(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    raise_of("vinyl.exceptions", name, format, args);
    va_end(args);
}

void
vnl_raise_django(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    raise_of("django.core.exceptions", name, format, args);
    va_end(args);
}

/* --- functions ------------------------------------------------------------ */

/* Whether calling `fn` makes a coroutine: an async def, also as a method. */
static int
makes_coroutine(PyObject *fn)
{
    PyObject *function = PyMethod_Check(fn) ? PyMethod_GET_FUNCTION(fn) : fn;
    if (!PyFunction_Check(function)) {
        return 0;
    }
    return (((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags & CO_COROUTINE) != 0;
}

static PyObject *
core_run(PyObject *module, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) < 1 || !PyCallable_Check(PyTuple_GET_ITEM(args, 0))) {
        PyErr_SetString(PyExc_TypeError, "run(fn, *args, **kwargs): fn must be callable");
        return NULL;
    }
    if (makes_coroutine(PyTuple_GET_ITEM(args, 0))) {
        return PyErr_Format(
            PyExc_TypeError,
            "vinyl.run() is for synchronous functions; %R makes a coroutine: await it itself.",
            PyTuple_GET_ITEM(args, 0));
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args));
    if (rest == NULL) {
        return NULL;
    }
    PyObject *operation = vnl_operation_new(PyTuple_GET_ITEM(args, 0), rest, kwargs);
    Py_DECREF(rest);
    return operation;
}

static PyObject *
core_where(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(vnl_where());
}

static PyObject *
core_current_scope(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *scope = vnl_scope_current();
    return scope != NULL ? scope : Py_NewRef(Py_None);
}

static PyObject *
core_release_turn(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (vnl_here.fiber != NULL) {
        vnl_scope_leave(vnl_here.fiber);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_is_pinned(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(vnl_core->pin != NULL);
}

static PyObject *
core_stats(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const vnl_counters *count = &vnl_core->count;
    return Py_BuildValue(
        "{sK sK sK sK sK sK sK sK sK sK}", "fibers_created", (unsigned long long)count->fibers_created,
        "fibers_live", (unsigned long long)count->fibers_live, "fibers_idle",
        (unsigned long long)count->fibers_idle, "operations", (unsigned long long)count->operations,
        "suspends", (unsigned long long)count->suspends, "statements", (unsigned long long)count->statements,
        "shared", (unsigned long long)count->shared, "flights", (unsigned long long)count->flights, "flown",
        (unsigned long long)count->flown, "jobs", (unsigned long long)count->jobs);
}

PyDoc_STRVAR(run_doc,
             "run(fn, /, *args, **kwargs)\n--\n\n"
             "An Operation of synchronous code: awaited, its database I/O suspends the task.");
PyDoc_STRVAR(await_doc,
             "await_(awaitable, /)\n--\n\n"
             "Waits for an awaitable from inside code that vinyl.run() runs, as part of the same task.\n"
             "RuntimeError anywhere else.");
PyDoc_STRVAR(drive_doc,
             "drive(coroutine, /)\n--\n\n"
             "Runs a coroutine to its end with no event loop and returns its result; database waits block.\n"
             "NeedsEventLoop is raised in it where it awaits what only a loop can give.");

static PyMethodDef core_methods[] = {
    {"run", (PyCFunction)(void *)core_run, METH_VARARGS | METH_KEYWORDS, run_doc},
    {"await_", vnl_bridge_await, METH_O, await_doc},
    {"drive", vnl_bridge_drive, METH_O, drive_doc},
    {"where", core_where, METH_NOARGS, "where()\n--\n\nPLAIN, LOOP, DRIVEN or FIBER."},
    {"written_in_coroutine", (PyCFunction)(void *)vnl_frame_in_coroutine, METH_FASTCALL,
     "written_in_coroutine(depth=0, /)\n--\n\nWhether the frame depth levels above the caller of this "
     "function's\n"
     "caller belongs to a coroutine; its lambdas and comprehensions count as part of it."},
    {"awaited_expression", (PyCFunction)(void *)vnl_frame_awaits, METH_FASTCALL,
     "awaited_expression(depth=0, /)\n--\n\nWhether that frame awaits the value it is computing right now."},
    {"current_scope", core_current_scope, METH_NOARGS,
     "current_scope()\n--\n\nThe Scope of the running task or fiber, or None in plain code."},
    {"exchange_scope", vnl_scope_exchange, METH_O,
     "exchange_scope(scope, /)\n--\n\nMakes scope the running task's (None: one made on demand); the old "
     "one, or None."},
    {"begin_block", vnl_block_begin, METH_NOARGS,
     "begin_block()\n--\n\nThe current scope has entered a transaction: what to give to end_block(), or "
     "None."},
    {"end_block", vnl_block_end, METH_O, "end_block(block, /)\n--\n\nThe transaction is over."},
    {"seal_block", vnl_block_seal, METH_O,
     "seal_block(block, /)\n--\n\nThe transaction is being ended: nothing more may begin in it."},
    {"settle_block", vnl_block_settle, METH_O,
     "settle_block(block, /)\n--\n\nWaits until all operations that have begun in it are done; seals it."},
    {"check_session", vnl_block_check_session, METH_O,
     "check_session(alias, /)\n--\n\nRaises where synchronous code may not use its session: NotFetched in a\n"
     "coroutine, TransactionManagementError in a task started inside another task's open block."},
    {"hide_blocks", vnl_block_hide, METH_NOARGS,
     "hide_blocks()\n--\n\nThe running context forgets the open blocks it is in; what show_blocks() gives "
     "back."},
    {"show_blocks", vnl_block_show, METH_O, "show_blocks(block, /)\n--\n\nUndoes hide_blocks()."},
    {"release_turn", core_release_turn, METH_NOARGS,
     "release_turn()\n--\n\nThe running operation uses no session from here on: others of its task need not "
     "wait."},
    {"is_pinned", core_is_pinned, METH_NOARGS,
     "is_pinned()\n--\n\nWhether a test makes all tasks share its sessions."},
    {"current_pin", vnl_pin_current, METH_NOARGS, "current_pin()\n--\n\nThe Pin in force, or None."},
    {"exchange_pin", vnl_pin_exchange, METH_O,
     "exchange_pin(pin, /)\n--\n\nMakes all tasks share the sessions of this Pin (None: each has its own\n"
     "again); the one that was in force, or None. For tests."},
    {"together", vnl_strand_together, METH_O,
     "together(calls, /)\n--\n\nCalls each, in order, and gives a list of what they return. One that comes "
     "to a\n"
     "statement which may travel with others' stops there until all the others have, or have ended: then\n"
     "these statements are sent together. What the first to raise has raised ends the others."},
    {"stats", core_stats, METH_NOARGS, "stats()\n--\n\nCounters since the start of the process, as a dict."},
    {NULL},
};

/* --- set-up --------------------------------------------------------------- */

static void
count_statement(void)
{
    vnl_core->count.statements++;
}

static void
count_flight(int statements)
{
    vnl_core->count.flights++;
    vnl_core->count.flown += (uint64_t)statements;
}

static const vnl_core_api core_api = {
    .abi = VNL_CORE_ABI,
    .can_suspend = vnl_can_suspend,
    .now = vnl_now,
    .who = vnl_who,
    .watch_new = vnl_watch_new,
    .watch_free = vnl_watch_free,
    .watch_wait = vnl_watch_wait,
    .watch_ring = vnl_watch_ring,
    .turn_wait = vnl_turn_wait,
    .sleep_wait = vnl_sleep_wait,
    .job_wait = vnl_job_wait,
    .side_job_wait = vnl_side_job_wait,
    .shield_enter = vnl_shield_enter,
    .shield_leave = vnl_shield_leave,
    .put_off = vnl_put_off,
    .event_new = vnl_event_new,
    .event_free = vnl_event_free,
    .event_wait = vnl_event_wait,
    .event_set = vnl_event_set,
    .event_ring = vnl_event_ring,
    .event_clear = vnl_event_clear,
    .pool_take_wait = vnl_pool_take_wait,
    .slot_offer = vnl_slot_offer,
    .slot_hand_over = vnl_slot_hand_over,
    .slot_waited = vnl_slot_waited,
    .pool_give = vnl_pool_give,
    .slot_conn = vnl_slot_conn,
    .slot_note_line = vnl_slot_note_line,
    .slot_warn_dropped = vnl_slot_warn_dropped,
    .count_statement = count_statement,
    .count_flight = count_flight,
    .rows_register = vnl_rows_register,
    .strand_parks = vnl_strand_parks,
    .strand_park_wait = vnl_strand_park_wait,
};

static int
intern_names(vnl_state *state)
{
    const struct {
        PyObject **where;
        const char *text;
    } names[] = {
        {&state->str_call_soon, "call_soon"},
        {&state->str_context, "context"},
        {&state->str_throw, "throw"},
        {&state->str_await, "__await__"},
        {&state->str_scope, "_vinyl_scope"},
        {&state->str_reactor, "_vinyl_reactor"},
        {&state->str_in_atomic_block, "in_atomic_block"},
        {&state->str_state, "_state"},
        {&state->str_adding, "adding"},
        {&state->str_db, "db"},
        {&state->str_fetch_mode, "fetch_mode"},
        {&state->str_fields_cache, "fields_cache"},
        {&state->str_peers, "peers"},
        {&state->str_field, "field"},
        {&state->str_attname, "attname"},
        {&state->str_vinyl_read, "_vinyl_read"},
        {&state->str_ops, "ops"},
        {&state->str_as_sql, "as_sql"},
        {&state->str_utcoffset, "utcoffset"},
        {&state->str_resolve_expression, "resolve_expression"},
        {&state->str_prepare_database_save, "prepare_database_save"},
        {&state->str_atomic_blocks, "atomic_blocks"},
        {&state->str_from_testcase, "_from_testcase"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL) {
            return -1;
        }
    }
    state->kw_context = PyTuple_Pack(1, state->str_context);
    PyObject *connection = PyUnicode_InternFromString("connection");
    state->kw_connection = connection != NULL ? PyTuple_Pack(1, connection) : NULL;
    Py_XDECREF(connection);
    return state->kw_context == NULL || state->kw_connection == NULL ? -1 : 0;
}

static int
import_asyncio(vnl_state *state)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio == NULL) {
        return -1;
    }
    state->get_running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
    state->set_running_loop = PyObject_GetAttrString(asyncio, "_set_running_loop");
    state->current_task = PyObject_GetAttrString(asyncio, "current_task");
    state->cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    Py_DECREF(asyncio);
    return PyErr_Occurred() ? -1 : 0;
}

static int
opcode_number(PyObject *opmap, const char *name)
{
    PyObject *number = PyMapping_GetItemString(opmap, name);
    int value = number == NULL ? -1 : (int)PyLong_AsLong(number);
    Py_XDECREF(number);
    return value;
}

static int
read_opcodes(vnl_state *state)
{
    PyObject *opcode = PyImport_ImportModule("opcode");
    PyObject *opmap = opcode == NULL ? NULL : PyObject_GetAttrString(opcode, "opmap");
    Py_XDECREF(opcode);
    if (opmap == NULL) {
        return -1;
    }
    state->op_get_awaitable = opcode_number(opmap, "GET_AWAITABLE");
    state->op_cache = 0; /* CACHE, in every CPython since 3.11 */
    Py_DECREF(opmap);
    return PyErr_Occurred() ? -1 : 0;
}

static int
core_exec(PyObject *module)
{
    if (vnl_core != NULL && vnl_core->fiber_type != NULL) {
        PyErr_SetString(PyExc_ImportError, "vinyl._core can be loaded once per process, as greenlet can");
        return -1;
    }
    vnl_core = PyModule_GetState(module);
    if (intern_names(vnl_core) < 0 || import_asyncio(vnl_core) < 0 || read_opcodes(vnl_core) < 0 ||
        vnl_fiber_setup(module) < 0 || vnl_waiter_setup(module) < 0 || vnl_reactor_setup(module) < 0 ||
        vnl_reader_setup(module) < 0 || vnl_operation_setup(module) < 0 || vnl_scope_setup(module) < 0 ||
        vnl_pin_setup(module) < 0 || vnl_block_setup(module) < 0 || vnl_session_map_setup(module) < 0 ||
        vnl_pool_setup(module) < 0 || vnl_hydrator_setup(module) < 0 || vnl_converter_setup(module) < 0 ||
        vnl_testing_setup(module) < 0 || vnl_attribute_setup(module) < 0 || vnl_columns_setup(module) < 0 ||
        vnl_parameters_setup(module) < 0 || vnl_row_plan_setup(module) < 0 || vnl_known_setup(module) < 0 ||
        vnl_value_rows_setup(module) < 0 || vnl_guard_setup(module) < 0 || vnl_shapes_setup(module) < 0 ||
        vnl_binder_setup(module) < 0 || vnl_aggregates_setup(module) < 0 || vnl_garbage_setup(module) < 0 ||
        vnl_initial_setup(module) < 0 || vnl_strand_setup(module) < 0) {
        return -1;
    }
    if (PyModule_AddIntConstant(module, "PLAIN", VNL_PLAIN) < 0 ||
        PyModule_AddIntConstant(module, "LOOP", VNL_LOOP) < 0 ||
        PyModule_AddIntConstant(module, "DRIVEN", VNL_DRIVEN) < 0 ||
        PyModule_AddIntConstant(module, "FIBER", VNL_FIBER) < 0) {
        return -1;
    }
    PyObject *capsule = PyCapsule_New((void *)&core_api, VNL_CORE_CAPSULE, NULL);
    int failed = capsule == NULL || PyModule_AddObjectRef(module, "_api", capsule) < 0;
    Py_XDECREF(capsule);
    return failed ? -1 : 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    vnl_state *state = PyModule_GetState(module);
    Py_VISIT(state->operation_type);
    Py_VISIT(state->waiter_type);
    Py_VISIT(state->reactor_type);
    Py_VISIT(state->reader_type);
    Py_VISIT(state->scope_type);
    Py_VISIT(state->session_map_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->filler_type);
    Py_VISIT(state->fiber_type);
    Py_VISIT(state->strand_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->block_variable);
    Py_VISIT(state->pin_type);
    Py_VISIT(state->pin);
    return 0;
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

/* The state is never cleared: fibers of other threads may outlive the module
 * object at the end of the process. */
static struct PyModuleDef core_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "vinyl._core",
    .m_doc = "Fibers, operations, waiting, sessions and the pool.",
    .m_size = sizeof(vnl_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
