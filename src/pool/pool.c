#include "pool/pool.h"

#include <math.h>
#include <stdlib.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/wait.h"
#include "pool/inside.h"
#include "reactor/reactor.h"

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
check_limits(const vnl_pool_limits *limits)
{
    if (limits->num_workers < 1) {
        vnl_raise_django("ImproperlyConfigured", "OPTIONS['pool']['num_workers'] must be at least 1, not %d.",
                         limits->num_workers);
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
        "driver",           "config",      "name",         "threads",  "min_size",          "max_size",
        "timeout",          "max_waiting", "max_lifetime", "max_idle", "reconnect_timeout", "num_workers",
        "reconnect_failed", NULL};
    vnl_pool *self = (vnl_pool *)op;
    vnl_pool_limits *limits = &self->limits;
    PyObject *capsule = NULL, *config = NULL, *name = NULL, *failed = Py_None;
    double timeout = 30, max_lifetime = 3600, max_idle = 600, reconnect_timeout = 300;
    limits->min_size = 1;
    limits->max_size = 10;
    limits->num_workers = 3;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$UpiididddiO:Pool", names, &capsule, &config, &name,
                                     &self->threads, &limits->min_size, &limits->max_size, &timeout,
                                     &limits->max_waiting, &max_lifetime, &max_idle, &reconnect_timeout,
                                     &limits->num_workers, &failed)) {
        return -1;
    }
    if (failed != Py_None && !PyCallable_Check(failed)) {
        vnl_raise_django("ImproperlyConfigured", "OPTIONS['pool']['reconnect_failed'] must be callable.");
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
    if (seconds_option(timeout, "timeout", &limits->timeout) < 0 ||
        seconds_option(max_lifetime, "max_lifetime", &limits->max_lifetime) < 0 ||
        seconds_option(max_idle, "max_idle", &limits->max_idle) < 0 ||
        seconds_option(reconnect_timeout, "reconnect_timeout", &limits->reconnect_timeout) < 0 ||
        check_limits(limits) < 0) {
        return -1;
    }
    self->driver = driver;
    self->capsule = Py_NewRef(capsule);
    self->config = Py_NewRef(config);
    self->reconnect_failed = failed != Py_None ? Py_NewRef(failed) : NULL;
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

void
vnl_pool_free_when_unused(vnl_shard *shard)
{
    if (shard->closed && shard->size == 0 && shard->fillers == 0) {
        vnl_list_remove(&shard->link);
        free(shard);
    }
}

vnl_shard *
vnl_pool_shard_at(vnl_pool *self, PyObject *address)
{
    void *pointer = PyLong_AsVoidPtr(address);
    for (vnl_node *node = self->shards.next; node != &self->shards; node = node->next) {
        if (VNL_CONTAINER(node, vnl_shard, link) == pointer) {
            return pointer;
        }
    }
    return NULL; /* its loop has ended */
}

PyObject *
vnl_pool_bind(vnl_pool *self, vnl_shard *shard, PyMethodDef *def)
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
    vnl_shard *shard = vnl_pool_shard_at((vnl_pool *)PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    if (shard != NULL) {
        shard->closed = 1;
        vnl_filler_stop_all(shard);
        vnl_shard_close_idle(shard);
        vnl_pool_free_when_unused(shard);
    }
    Py_RETURN_NONE;
}

static PyMethodDef shard_end_def = {"end", shard_end, METH_NOARGS, NULL};

static int
tell_reactor(vnl_pool *self, vnl_shard *shard, PyObject *reactor)
{
    PyObject *end = vnl_pool_bind(self, shard, &shard_end_def);
    int failed = end == NULL || PyList_Append(((vnl_reactor *)reactor)->on_close, end) < 0;
    Py_XDECREF(end);
    return failed ? -1 : 0;
}

vnl_shard *
vnl_pool_shard(vnl_pool *self)
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
        if (shard->generation != vnl_fork_generation) {
            continue; /* the parent's */
        }
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
    Py_VISIT(self->reconnect_failed);
    return 0;
}

static int
pool_clear(PyObject *op)
{
    Py_CLEAR(((vnl_pool *)op)->config);
    Py_CLEAR(((vnl_pool *)op)->reconnect_failed);
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
     "     max_lifetime=3600.0, max_idle=600.0, reconnect_timeout=300.0, num_workers=3,\n"
     "     reconnect_failed=None)\n--\n\n"
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
    if (vnl_core->pool_type == NULL || vnl_filler_setup(module) < 0) {
        return -1;
    }
    return PyModule_AddType(module, vnl_core->pool_type);
}
