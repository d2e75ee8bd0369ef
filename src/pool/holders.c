/* Who uses a pool's connections: for the message of a PoolTimeout, and for one that was dropped. */
#include "pool/pool.h"

#include "core/state.h"
#include "pool/inside.h"
#include "reactor/reactor.h"

#define HOLDERS_NAMED 5

PyObject *
vnl_pool_seconds(int64_t nanoseconds)
{
    char *text = PyOS_double_to_string((double)nanoseconds / 1e9, 'g', 4, 0, NULL);
    PyObject *seconds = text != NULL ? PyUnicode_FromString(text) : NULL;
    PyMem_Free(text);
    return seconds;
}

/* The task that has the slot, by name.  New reference. */
static PyObject *
holder_name(const vnl_slot *slot)
{
    PyObject *task = NULL, *name = NULL;
    if (slot->holder == NULL) {
        return PyUnicode_FromString("a thread");
    }
    if (PyWeakref_GetRef(slot->holder, &task) > 0) {
        name = PyObject_CallMethod(task, "get_name", NULL);
        Py_DECREF(task);
    }
    if (name == NULL) {
        PyErr_Clear();
        name = PyUnicode_FromString("a task that has ended");
    }
    return name;
}

/* "Task-7 (for 2.1 s, since shop/views.py:31)".  New reference. */
static PyObject *
describe_holder(const vnl_slot *slot, int64_t now)
{
    PyObject *text = NULL;
    PyObject *name = holder_name(slot);
    PyObject *seconds = vnl_pool_seconds((now - slot->since) / 100000000 * 100000000);
    PyObject *place = vnl_line_text(&slot->line);
    if (name != NULL && seconds != NULL && place != NULL) {
        text = PyUnicode_GET_LENGTH(place) > 0
                   ? PyUnicode_FromFormat("%S (for %U s, taken at %U)", name, seconds, place)
                   : PyUnicode_FromFormat("%S (for %U s)", name, seconds);
    }
    Py_XDECREF(name);
    Py_XDECREF(seconds);
    Py_XDECREF(place);
    return text;
}

PyObject *
vnl_pool_describe_holders(const vnl_shard *shard)
{
    PyObject *texts = PyList_New(0);
    PyObject *comma = PyUnicode_FromString(", ");
    PyObject *joined = NULL;
    int64_t now = vnl_now();
    const vnl_node *node = shard->used.next;
    for (; texts != NULL && node != &shard->used && PyList_GET_SIZE(texts) < HOLDERS_NAMED;
         node = node->next) {
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

void
vnl_slot_note_line(vnl_slot *slot)
{
    vnl_line found = {.code = NULL};
    vnl_line_find(&found);
    if (found.code != NULL) { /* else the line that awaits the operation stays */
        vnl_line_copy(&slot->line, &found);
        vnl_line_clear(&found);
    }
}

void
vnl_slot_warn_dropped(vnl_slot *slot, const char *state)
{
    if (slot->generation != vnl_fork_generation) {
        return; /* the parent has it still */
    }
    PyObject *raised = PyErr_GetRaisedException();
    vnl_pool *pool = slot->pool;
    PyObject *line = vnl_line_text(&slot->line);
    const char *format = line != NULL && PyUnicode_GET_LENGTH(line) > 0
                             ? "A connection of database '%S' was dropped %s. It was taken at %U."
                             : "A connection of database '%S' was dropped %s.";
    if (line == NULL || PyErr_WarnFormat(PyExc_ResourceWarning, 1, format, pool->name, state, line) < 0) {
        PyErr_WriteUnraisable((PyObject *)pool);
    }
    Py_XDECREF(line);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}
