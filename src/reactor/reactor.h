/* The reactor: one epoll descriptor per event loop, registered with the loop
 * once.  Deadlines (a timerfd), finished helper jobs (an eventfd) and sockets
 * come through it, but for the answers of lasting connections (reader.h); what
 * becomes ready wakes its task straight from the loop's reader callback. */
#ifndef VNL_REACTOR_REACTOR_H
#define VNL_REACTOR_REACTOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "base/list.h"
#include "reactor/poller.h"

typedef struct {
    PyObject_HEAD
    PyObject *loop;  /* owned */
    PyObject *guard; /* owned: what notices the loop's end */
    PyObject *weakrefs;
    PyObject *on_close; /* owned list: callables that the end of the loop calls */
    vnl_poller *poller;
    vnl_node fibers;     /* live ones, through vnl_fiber.link */
    vnl_node readers;    /* what the loop watches besides the poller (reader.c) */
    int selects;         /* the loop is one of asyncio's own: it may have readers */
    unsigned generation; /* of forks, when it was made */
    int closed;
} vnl_reactor;

int vnl_reactor_setup(PyObject *module);
/* The reactor of a loop, made on first use.  New reference. */
vnl_reactor *vnl_reactor_of(PyObject *loop);

/* Counted up in a forked child: what was made in an earlier generation
 * belongs to the parent. */
extern unsigned vnl_fork_generation;

#endif
