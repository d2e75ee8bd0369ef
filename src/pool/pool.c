#include "pool/pool.h"

#include <math.h>
#include <stdlib.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/wait.h"
#include "pool/shard.h"
#include "reactor/reactor.h"
#include "session/scope.h"

typedef struct {
    PyObject_HEAD
    const vnl_driver *driver;
    PyObject *capsule; /* owned: keeps the driver */
    PyObject *config;  /* owned: what the driver opens connections with */
    PyObject *name;    /* owned: the alias, for messages */
    int threads;       /* threads without a loop share connections too */
    vnl_pool_limits limits;
    vnl_node shards;
} vnl_pool;

/* --- making one ----------------------------------------------------------- */

static int
seconds_option(double seconds, const char *key, int64_t *out)
{
    if (isnan(seconds) || seconds < 0) {
        vnl_raise_django("ImproperlyConfigured", "OPTIONS['pool']['%s'] must be a number of seconds >= 0.",
                         key);
        return -1;
    }
    *out = seconds > 9e9 ? VNL_FOREVER / 4 : (int64_t)(seconds * 1e9);
    return 0;
}

static int
pool_limits(vnl_pool *self, double timeout, double max_lifetime, double max_idle)
{
    vnl_pool_limits *limits = &self->limits;
    if (seconds_option(timeout, "timeout", &limits->timeout) < 0 ||
        seconds_option(max_lifetime, "max_lifetime", &limits->max_lifetime) < 0 ||
        seconds_option(max_idle, "max_idle", &limits->max_idle) < 0) {
        return -1;
    }
    if (limits->min_size < 0 || limits->max_size < 1 || limits->max_size < limits->min_size ||
        limits->max_waiting < 0) {
        vnl_raise_django(
            "ImproperlyConfigured",
            "OPTIONS['pool']: 0 <= min_size <= max_size, 1 <= max_size and 0 <= max_waiting must hold "
            "(min_size=%d, max_size=%d, max_waiting=%d).",
            limits->min_size, limits->max_size, limits->max_waiting);
        return -1;
    }
    return 0;
}

static int
pool_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "driver",      "config",       "name",     "threads",           "min_size",    "max_size", "timeout",
        "max_waiting", "max_lifetime", "max_idle", "reconnect_timeout", "num_workers", NULL};
    vnl_pool *self = (vnl_pool *)op;
    PyObject *capsule = NULL, *config = NULL, *name = NULL;
    double timeout = 30, max_lifetime = 3600, max_idle = 600, reconnect_timeout = 300;
    int num_workers = 3;
    self->limits.min_size = 1;
    self->limits.max_size = 10;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$Upiididddi:Pool", names, &capsule, &config, &name,
                                     &self->threads, &self->limits.min_size, &self->limits.max_size, &timeout,
                                     &self->limits.max_waiting, &max_lifetime, &max_idle, &reconnect_timeout,
                                     &num_workers)) {
        return -1;
    }
    if (self->driver != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Pool is initialised already");
        return -1;
    }
    const vnl_driver *driver = PyCapsule_GetPointer(capsule, VNL_DRIVER_CAPSULE);
    if (driver == NULL) {
        return -1;
    }
    if (driver->abi != VNL_CORE_ABI) {
        PyErr_Format(PyExc_ImportError, "the %s engine was built for another version of vinyl", driver->name);
        return -1;
    }
    if (pool_limits(self, timeout, max_lifetime, max_idle) < 0) {
        return -1;
    }
    self->driver = driver;
    self->capsule = Py_NewRef(capsule);
    self->config = Py_NewRef(config);
    self->name = name != NULL ? Py_NewRef(name) : PyUnicode_FromString(driver->name);
    return self->name == NULL ? -1 : 0;
}

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    vnl_pool *self = (vnl_pool *)type->tp_alloc(type, 0);
    if (self != NULL) {
        vnl_list_init(&self->shards);
    }
    return (PyObject *)self;
}

/* --- shards --------------------------------------------------------------- */

static vnl_shard *
find_shard(vnl_pool *self, void *owner)
{
    for (vnl_node *node = self->shards.next; node != &self->shards; node = node->next) {
        vnl_shard *shard = VNL_CONTAINER(node, vnl_shard, link);
        if (shard->owner == owner && !shard->closed) {
            return shard;
        }
    }
    return NULL;
}

static void
free_when_unused(vnl_shard *shard)
{
    if (shard->closed && shard->size == 0) {
        vnl_list_remove(&shard->link);
        free(shard);
    }
}

static vnl_shard *
shard_at(vnl_pool *self, PyObject *address)
{
    void *pointer = PyLong_AsVoidPtr(address);
    for (vnl_node *node = self->shards.next; node != &self->shards; node = node->next) {
        if (VNL_CONTAINER(node, vnl_shard, link) == pointer) {
            return pointer;
        }
    }
    return NULL; /* its loop has ended */
}

/* self = (pool, address of shard).  New reference. */
static PyObject *
bind_to_shard(vnl_pool *self, vnl_shard *shard, PyMethodDef *def)
{
    PyObject *pair = Py_BuildValue("(ON)", (PyObject *)self, PyLong_FromVoidPtr(shard));
    PyObject *bound = pair == NULL ? NULL : PyCFunction_New(def, pair);
    Py_XDECREF(pair);
    return bound;
}

/* The end of a loop: on_close callback with self = (pool, address of shard). */
static PyObject *
shard_end(PyObject *pair, PyObject *Py_UNUSED(ignored))
{
    vnl_shard *shard = shard_at((vnl_pool *)PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    if (shard != NULL) {
        shard->closed = 1;
        vnl_shard_close_idle(shard);
        free_when_unused(shard);
    }
    Py_RETURN_NONE;
}

static PyMethodDef shard_end_def = {"end", shard_end, METH_NOARGS, NULL};

static int
tell_reactor(vnl_pool *self, vnl_shard *shard, PyObject *reactor)
{
    PyObject *end = bind_to_shard(self, shard, &shard_end_def);
    int failed = end == NULL || PyList_Append(((vnl_reactor *)reactor)->on_close, end) < 0;
    Py_XDECREF(end);
    return failed ? -1 : 0;
}

static void call_janitor_later(vnl_pool *self, vnl_shard *shard);

/* Closes what has been idle too long, and comes again while there is more. */
static PyObject *
janitor(PyObject *pair, PyObject *Py_UNUSED(ignored))
{
    vnl_pool *self = (vnl_pool *)PyTuple_GET_ITEM(pair, 0);
    vnl_shard *shard = shard_at(self, PyTuple_GET_ITEM(pair, 1));
    if (shard != NULL && shard->generation == vnl_fork_generation) {
        shard->janitor = 0;
        if (vnl_shard_drop_stale(shard, &self->limits, vnl_now()) > 0 && shard->available > 0) {
            call_janitor_later(self, shard);
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef janitor_def = {"janitor", janitor, METH_NOARGS, NULL};

static void
call_janitor_later(vnl_pool *self, vnl_shard *shard)
{
    PyObject *raised = PyErr_GetRaisedException(); /* connections come back in clean-ups too */
    PyObject *call = bind_to_shard(self, shard, &janitor_def);
    PyObject *loop = ((vnl_reactor *)shard->owner)->loop;
    double seconds = (double)self->limits.max_idle / 1e9;
    PyObject *handle = call == NULL ? NULL : PyObject_CallMethod(loop, "call_later", "dO", seconds, call);
    if (handle == NULL) {
        PyErr_Clear(); /* a loop that ends closes them anyway */
    }
    else {
        shard->janitor = 1;
    }
    Py_XDECREF(call);
    Py_XDECREF(handle);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

/* The shard of where we are, made on first use.  Borrowed. */
static vnl_shard *
pool_shard(vnl_pool *self)
{
    PyObject *reactor = vnl_can_suspend() ? vnl_here.fiber->reactor : NULL;
    vnl_shard *shard = find_shard(self, reactor);
    if (shard != NULL) {
        if (shard->generation != vnl_fork_generation) {
            vnl_shard_abandon(shard, vnl_fork_generation);
        }
        return shard;
    }
    shard = vnl_shard_new(reactor, self->driver, vnl_fork_generation);
    if (shard == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (reactor != NULL && tell_reactor(self, shard, reactor) < 0) {
        free(shard);
        return NULL;
    }
    vnl_list_append(&self->shards, &shard->link);
    return shard;
}

/* --- taking --------------------------------------------------------------- */

static void
wake(vnl_request *request)
{
    if (request != NULL) {
        vnl_event_set(request->event);
    }
}

/* Room is reserved: opens a connection. */
static vnl_slot *
open_slot_wait(vnl_pool *self, vnl_shard *shard)
{
    int64_t began = vnl_now();
    void *conn = self->driver->open_wait(self->config);
    vnl_slot *slot = conn == NULL ? NULL : calloc(1, sizeof(*slot));
    shard->count.connections++;
    shard->count.connect_ns += vnl_now() - began;
    if (slot == NULL) {
        if (conn != NULL) {
            self->driver->close(conn);
            PyErr_NoMemory();
        }
        shard->count.connections_errors++;
        vnl_shard_opened(shard, NULL);
        wake(vnl_shard_pass_room(shard, &self->limits));
        free_when_unused(shard);
        return NULL;
    }
    int64_t now = vnl_now();
    vnl_list_init(&slot->link);
    slot->shard = shard;
    slot->conn = conn;
    /* Up to 5 % earlier, so that connections of one burst do not all end at once. */
    slot->expires = now + self->limits.max_lifetime - self->limits.max_lifetime / 20 * (rand() % 100) / 100;
    slot->since = now;
    slot->generation = vnl_fork_generation;
    slot->epoch = shard->epoch;
    vnl_shard_opened(shard, slot);
    return slot;
}

/* "Task-7 (2.1 s)": who uses a slot, and for how long.  New reference. */
static PyObject *
describe_holder(const vnl_slot *slot, int64_t now)
{
    PyObject *task = NULL, *name = NULL;
    long tenths = (long)((now - slot->since) / 100000000);
    if (slot->holder != NULL && PyWeakref_GetRef(slot->holder, &task) > 0) {
        name = PyObject_CallMethod(task, "get_name", NULL);
        Py_DECREF(task);
    }
    if (name == NULL) {
        PyErr_Clear();
        name = PyUnicode_FromString("a task that has ended");
    }
    PyObject *text =
        name == NULL ? NULL : PyUnicode_FromFormat("%S (%ld.%ld s)", name, tenths / 10, tenths % 10);
    Py_XDECREF(name);
    return text;
}

/* The holders of all used slots, the longest first, five at most.  New
 * reference. */
static PyObject *
describe_holders(const vnl_shard *shard)
{
    PyObject *texts = PyList_New(0);
    PyObject *comma = PyUnicode_FromString(", ");
    PyObject *joined = NULL;
    int64_t now = vnl_now();
    const vnl_node *node = shard->used.next;
    for (; texts != NULL && node != &shard->used && PyList_GET_SIZE(texts) < 5; node = node->next) {
        PyObject *text = describe_holder(VNL_CONTAINER(node, vnl_slot, link), now);
        int failed = text == NULL || PyList_Append(texts, text) < 0;
        Py_XDECREF(text);
        if (failed) {
            Py_CLEAR(texts);
        }
    }
    if (texts != NULL && comma != NULL) {
        joined = PyUnicode_Join(comma, texts);
    }
    Py_XDECREF(texts);
    Py_XDECREF(comma);
    return joined;
}

static void
raise_timeout(vnl_pool *self, vnl_shard *shard)
{
    PyObject *holders = describe_holders(shard);
    if (holders == NULL) {
        return;
    }
    vnl_raise(
        "PoolTimeout",
        "No connection of database '%U' became free within %d.%d s: all %d (OPTIONS['pool']['max_size']) are "
        "in use, by %U, and %d others wait.",
        self->name, (int)(self->limits.timeout / 1000000000), (int)(self->limits.timeout / 100000000 % 10),
        self->limits.max_size, holders, shard->waiting);
    Py_DECREF(holders);
}

/* Queues until a slot is handed over or room to open one. */
static vnl_slot *
queue_wait(vnl_pool *self, vnl_shard *shard)
{
    vnl_slot *slot = NULL;
    if (self->limits.max_waiting > 0 && shard->waiting >= self->limits.max_waiting) {
        shard->count.errors++;
        vnl_raise("PoolTimeout",
                  "%d operations wait for a connection of database '%U' already "
                  "(OPTIONS['pool']['max_waiting']).",
                  shard->waiting, self->name);
        return NULL;
    }
    vnl_request *request = PyMem_Calloc(1, sizeof(*request));
    if (request == NULL || (request->event = vnl_event_new()) == NULL) {
        PyMem_Free(request);
        return PyErr_Occurred() ? NULL : (vnl_slot *)PyErr_NoMemory();
    }
    int64_t began = vnl_now();
    vnl_list_append(&shard->queue, &request->link);
    shard->waiting++;
    shard->count.queued++;
    int ready = vnl_event_wait(request->event, began + self->limits.timeout);
    shard->count.wait_ns += vnl_now() - began;
    slot = request->slot;
    int served = request->served;
    if (!served) {
        vnl_list_remove(&request->link);
        shard->waiting--;
    }
    vnl_event_free(request->event);
    PyMem_Free(request);
    if (!served) {
        if (ready == 0) {
            raise_timeout(self, shard);
        }
        shard->count.errors++;
        return NULL;
    }
    if (ready < 0) { /* served and cancelled at once */
        if (slot != NULL) {
            wake(vnl_shard_give(shard, slot, 1, vnl_now()));
        }
        else {
            vnl_shard_opened(shard, NULL);
        }
        wake(vnl_shard_pass_room(shard, &self->limits));
        return NULL;
    }
    if (slot != NULL) {
        slot->since = vnl_now();
        return slot;
    }
    return open_slot_wait(self, shard);
}

vnl_slot *
vnl_pool_take_wait(PyObject *op)
{
    if (!PyObject_TypeCheck(op, vnl_core->pool_type)) {
        PyErr_SetString(PyExc_TypeError, "a vinyl Pool is needed");
        return NULL;
    }
    vnl_pool *self = (vnl_pool *)op;
    vnl_shard *shard = pool_shard(self);
    vnl_slot *slot = NULL;
    if (shard == NULL) {
        return NULL;
    }
    Py_INCREF(self);
    shard->count.requests++;
    if (vnl_list_empty(&shard->queue)) {
        slot = vnl_shard_take_idle(shard, &self->limits, vnl_now());
        if (slot == NULL) {
            if (shard->owner == NULL && !self->threads) {
                /* A thread's connection is its own: nothing to share or limit. */
                shard->size++;
                shard->opening++;
                slot = open_slot_wait(self, shard);
            }
            else {
                slot = vnl_shard_reserve(shard, &self->limits) ? open_slot_wait(self, shard)
                                                               : queue_wait(self, shard);
            }
        }
    }
    else {
        slot = queue_wait(self, shard);
    }
    if (slot == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    PyObject *scope = vnl_can_suspend() ? vnl_here.fiber->scope : NULL;
    slot->holder = scope != NULL ? Py_XNewRef(((vnl_scope *)scope)->task) : NULL;
    slot->pool = self; /* the reference goes with the slot */
    return slot;
}

void
vnl_pool_give(vnl_slot *slot, int reusable)
{
    vnl_pool *self = slot->pool;
    vnl_shard *shard = slot->shard;
    PyObject *holder = slot->holder;
    slot->pool = slot->holder = NULL;
    Py_XDECREF(holder);
    if (slot->generation != vnl_fork_generation) {
        self->driver->abandon(slot->conn);
        vnl_list_remove(&slot->link);
        free(slot);
        Py_DECREF(self);
        return;
    }
    if (shard->owner == NULL && !self->threads) {
        reusable = reusable ? 2 : 0;
        slot->epoch = shard->epoch - 1; /* closed, and not counted as bad */
    }
    wake(vnl_shard_give(shard, slot, reusable, vnl_now()));
    wake(vnl_shard_pass_room(shard, &self->limits));
    if (shard->available > 0 && shard->size > self->limits.min_size && shard->owner != NULL &&
        !shard->janitor) {
        call_janitor_later(self, shard);
    }
    free_when_unused(shard);
    Py_DECREF(self);
}

void *
vnl_slot_conn(vnl_slot *slot)
{
    return slot->conn;
}

/* --- seen from Python ----------------------------------------------------- */

static void
add_counts(vnl_pool_counts *sum, const vnl_pool_counts *part)
{
    sum->requests += part->requests;
    sum->queued += part->queued;
    sum->errors += part->errors;
    sum->returns_bad += part->returns_bad;
    sum->connections += part->connections;
    sum->connections_errors += part->connections_errors;
    sum->connections_lost += part->connections_lost;
    sum->usage_ns += part->usage_ns;
    sum->wait_ns += part->wait_ns;
    sum->connect_ns += part->connect_ns;
}

static PyObject *
pool_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_pool *self = (vnl_pool *)op;
    vnl_pool_counts sum = {0};
    int size = 0, available = 0, waiting = 0;
    for (vnl_node *node = self->shards.next; node != &self->shards; node = node->next) {
        vnl_shard *shard = VNL_CONTAINER(node, vnl_shard, link);
        add_counts(&sum, &shard->count);
        size += shard->size;
        available += shard->available;
        waiting += shard->waiting;
    }
    return Py_BuildValue(
        "{si si si si si sL sK sK sL sK sK sK sL sK sK}", "pool_min", self->limits.min_size, "pool_max",
        self->limits.max_size, "pool_size", size, "pool_available", available, "requests_waiting", waiting,
        "usage_ms", (long long)(sum.usage_ns / 1000000), "requests_num", (unsigned long long)sum.requests,
        "requests_queued", (unsigned long long)sum.queued, "requests_wait_ms",
        (long long)(sum.wait_ns / 1000000), "requests_errors", (unsigned long long)sum.errors, "returns_bad",
        (unsigned long long)sum.returns_bad, "connections_num", (unsigned long long)sum.connections,
        "connections_ms", (long long)(sum.connect_ns / 1000000), "connections_errors",
        (unsigned long long)sum.connections_errors, "connections_lost",
        (unsigned long long)sum.connections_lost);
}

static PyObject *
pool_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    vnl_pool *self = (vnl_pool *)op;
    for (vnl_node *node = self->shards.next; node != &self->shards; node = node->next) {
        vnl_shard *shard = VNL_CONTAINER(node, vnl_shard, link);
        if (shard->generation == vnl_fork_generation) {
            vnl_shard_close_idle(shard);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
pool_repr(PyObject *op)
{
    vnl_pool *self = (vnl_pool *)op;
    return PyUnicode_FromFormat("<vinyl pool of '%S', max_size=%d>", self->name, self->limits.max_size);
}

static int
pool_traverse(PyObject *op, visitproc visit, void *arg)
{
    vnl_pool *self = (vnl_pool *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->capsule);
    Py_VISIT(self->config);
    return 0;
}

static int
pool_clear(PyObject *op)
{
    Py_CLEAR(((vnl_pool *)op)->config);
    return 0;
}

static void
pool_dealloc(PyObject *op)
{
    vnl_pool *self = (vnl_pool *)op;
    PyTypeObject *type = Py_TYPE(op);
    vnl_node *node = NULL;
    PyObject_GC_UnTrack(op);
    /* Used slots hold a reference to the pool: there are none. */
    while ((node = vnl_list_first(&self->shards)) != NULL) {
        vnl_shard *shard = VNL_CONTAINER(node, vnl_shard, link);
        if (shard->generation == vnl_fork_generation) {
            vnl_shard_close_idle(shard);
        }
        else {
            vnl_shard_abandon(shard, vnl_fork_generation);
        }
        vnl_list_remove(node);
        free(shard);
    }
    (void)pool_clear(op);
    Py_CLEAR(self->name);
    Py_CLEAR(self->capsule);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef pool_methods[] = {
    {"stats", pool_stats, METH_NOARGS,
     "A dict with the keys of psycopg_pool's get_stats(); times in milliseconds."},
    {"close", pool_close, METH_NOARGS,
     "Closes idle connections now and the others when they come back. The pool opens new ones when asked."},
    {NULL},
};

static PyMemberDef pool_members[] = {
    {"config", Py_T_OBJECT_EX, offsetof(vnl_pool, config), Py_READONLY, "What connections are opened with."},
    {"name", Py_T_OBJECT_EX, offsetof(vnl_pool, name), Py_READONLY, "The alias."},
    {NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc,
     "Pool(driver, config, *, name='', threads=False, min_size=1, max_size=10, timeout=30.0, max_waiting=0,\n"
     "     max_lifetime=3600.0, max_idle=600.0, reconnect_timeout=300.0, num_workers=3)\n--\n\n"
     "Physical connections of one database, at most max_size per event loop. Times in seconds.\n"
     "threads: code without a loop shares connections through the pool too; otherwise each of its\n"
     "sessions opens and closes its own."},
    {Py_tp_new, pool_new},
    {Py_tp_init, pool_init},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_repr, pool_repr},
    {Py_tp_methods, pool_methods},
    {Py_tp_members, pool_members},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "vinyl._core.Pool",
    .basicsize = sizeof(vnl_pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

int
vnl_pool_setup(PyObject *module)
{
    vnl_core->pool_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    return vnl_core->pool_type == NULL ? -1 : PyModule_AddType(module, vnl_core->pool_type);
}
