/* The janitor: closes connections that have been idle for max_idle, on a loop. */
#include "core/state.h"
#include "pool/inside.h"
#include "reactor/reactor.h"

/* Closes what has been idle too long, and comes again while there is more. */
static PyObject *
janitor(PyObject *pair, PyObject *Py_UNUSED(ignored))
{
    vnl_pool *self = (vnl_pool *)PyTuple_GET_ITEM(pair, 0);
    vnl_shard *shard = vnl_pool_shard_at(self, PyTuple_GET_ITEM(pair, 1));
    if (shard != NULL && shard->generation == vnl_fork_generation) {
        shard->janitor = 0;
        if (vnl_shard_drop_stale(shard, &self->limits, vnl_now()) > 0 && shard->available > 0) {
            vnl_janitor_call_later(self, shard);
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef janitor_def = {"janitor", janitor, METH_NOARGS, NULL};

void
vnl_janitor_call_later(vnl_pool *self, vnl_shard *shard)
{
    PyObject *raised = PyErr_GetRaisedException(); /* connections come back in clean-ups too */
    PyObject *call = vnl_pool_bind(self, shard, &janitor_def);
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
