/* The waits themselves, for the core's own tests. */
#include "core/testing.h"

#include <time.h>

#include "core_api.h"
#include "fiber/strand.h"
#include "fiber/wait.h"
#include "reactor/reactor.h"

static PyObject *
testing_sleep(PyObject *module, PyObject *seconds)
{
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (vnl_sleep_wait((int64_t)(value * 1e9)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
testing_turn(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (vnl_turn_wait() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
testing_watch(PyObject *module, PyObject *args)
{
    int fd = -1, events = 0, lasting = 0;
    double seconds = -1;
    if (!PyArg_ParseTuple(args, "ii|dp", &fd, &events, &seconds, &lasting)) {
        return NULL;
    }
    vnl_watch *watch = vnl_watch_new(fd, lasting);
    if (watch == NULL) {
        return PyErr_NoMemory();
    }
    int64_t deadline = seconds < 0 ? VNL_FOREVER : vnl_now() + (int64_t)(seconds * 1e9);
    int ready = vnl_watch_wait(watch, events, deadline);
    vnl_watch_free(watch);
    return ready < 0 ? NULL : PyLong_FromLong(ready);
}

/* Calls fn() behind a shield. */
static PyObject *
testing_shield(PyObject *module, PyObject *fn)
{
    vnl_shield_enter();
    PyObject *result = PyObject_CallNoArgs(fn);
    if (vnl_shield_leave() < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static void
job_sleep(void *arg)
{
    struct timespec ts = *(struct timespec *)arg;
    nanosleep(&ts, NULL);
}

static PyObject *
testing_job(PyObject *module, PyObject *seconds)
{
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    struct timespec *ts = PyMem_Malloc(sizeof(*ts));
    if (ts == NULL) {
        return PyErr_NoMemory();
    }
    ts->tv_sec = (time_t)value;
    ts->tv_nsec = (long)((value - (double)ts->tv_sec) * 1e9);
    int failed = vnl_job_wait(job_sleep, ts);
    PyMem_Free(ts);
    if (failed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* A statement that is parked, and a driver that is written in Python. */
typedef struct {
    vnl_park park;
    PyObject *fly, *label; /* borrowed of who is parked */
    PyObject *result;      /* owned */
} testing_parked;

static int
testing_fly_wait(vnl_park **parks, int n)
{
    PyObject *fly = ((testing_parked *)parks[0])->fly;
    PyObject *labels = PyList_New(n);
    PyObject *results = NULL;
    for (int i = 0; labels != NULL && i < n; i++) {
        PyList_SET_ITEM(labels, i, Py_NewRef(((testing_parked *)parks[i])->label));
    }
    if (labels != NULL) {
        results = PyObject_CallOneArg(fly, labels);
    }
    for (int i = 0; results != NULL && i < n; i++) {
        ((testing_parked *)parks[i])->result = PySequence_GetItem(results, i);
        if (((testing_parked *)parks[i])->result == NULL) {
            Py_CLEAR(results);
        }
    }
    Py_XDECREF(labels);
    Py_XDECREF(results);
    return results == NULL ? -1 : 0;
}

static PyObject *
testing_park(PyObject *module, PyObject *args)
{
    PyObject *fly = NULL, *label = NULL;
    if (!PyArg_ParseTuple(args, "OO", &fly, &label)) {
        return NULL;
    }
    testing_parked *parked = PyMem_Calloc(1, sizeof(*parked));
    if (parked == NULL) {
        return PyErr_NoMemory();
    }
    parked->park = (vnl_park){testing_fly_wait, fly};
    parked->fly = fly;
    parked->label = label;
    int failed = vnl_strand_park_wait(&parked->park);
    PyObject *result = parked->result;
    PyMem_Free(parked);
    if (failed < 0) {
        Py_CLEAR(result);
        return NULL;
    }
    return result != NULL ? result : Py_NewRef(Py_None);
}

static PyObject *
testing_parks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(vnl_strand_parks());
}

static PyMethodDef testing_methods[] = {
    {"_sleep", testing_sleep, METH_O, "The wait for a deadline, in seconds. For tests."},
    {"_turn", testing_turn, METH_NOARGS, "The wait for the loop's next turn. For tests."},
    {"_watch", testing_watch, METH_VARARGS,
     "_watch(fd, events, seconds=-1): the wait for a descriptor. For tests."},
    {"_shield", testing_shield, METH_O, "Calls fn() behind a shield. For tests."},
    {"_job", testing_job, METH_O, "Sleeps on the helper thread, in seconds. For tests."},
    {"_park", testing_park, METH_VARARGS,
     "_park(fly, label): parks the running strand; fly(labels) gives the results of those that fly\n"
     "together, None is that of one alone. For tests."},
    {"_parks", testing_parks, METH_NOARGS, "Whether a statement would park here. For tests."},
    {NULL},
};

int
vnl_testing_setup(PyObject *module)
{
    return PyModule_AddFunctions(module, testing_methods);
}
