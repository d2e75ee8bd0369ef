/* Fibers: greenlets that run plain synchronous code and can be suspended from
 * C.  One fiber runs one operation at a time and is then kept for the next. */
#ifndef VNL_FIBER_FIBER_H
#define VNL_FIBER_FIBER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "base/list.h"
#include "fiber/line.h"

/* Where the calling thread is (vinyl._core.where()). */
typedef enum {
    VNL_PLAIN = 0,  /* no loop runs here and nothing is driven */
    VNL_LOOP = 1,   /* a loop runs in this thread */
    VNL_DRIVEN = 2, /* a coroutine under drive() */
    VNL_FIBER = 3   /* inside an operation */
} vnl_place;

typedef enum {
    VNL_FIBER_IDLE,
    VNL_FIBER_RUNNING,
    VNL_FIBER_SUSPENDED,
    VNL_FIBER_ENDED /* its call returned or raised: result or error is set */
} vnl_fiber_status;

typedef struct vnl_fiber {
    PyObject_HEAD
    PyObject *greenlet;   /* owned */
    char *start;          /* where on the C stack it began, NULL before */
    unsigned long thread; /* whose stack that is */
    PyObject *resumer;    /* owned while running: where a switch out goes */
    PyObject *reactor;    /* owned while in use */
    PyObject *scope;      /* owned while in use, or NULL */
    PyObject *waiter;     /* owned, made on first wait, reused for every wait */
    PyObject *operation;  /* borrowed: whose fiber it is */
    PyObject *fn, *args, *kwargs;
    PyObject *result;  /* owned: what fn returned */
    PyObject *error;   /* owned: the exception it raised */
    PyObject *yielded; /* owned: what the awaiting task is to wait for */
    PyObject *context; /* owned: of who resumes it, until it is taken over */
    PyObject *shared;  /* not owned, only compared: the context taken over last */
    PyObject *thrown;  /* owned: raised in the fiber when it is resumed */
    PyObject *sent;    /* owned: the value it is resumed with */
    PyObject *kept;    /* owned: thrown while shielded, or put off */
    void *shelf;       /* exceptions put aside by shields, innermost first */
    vnl_line line;     /* the line that awaits its operation */
    /* The one of its strands that runs, or NULL, and that one's greenlet; both borrowed. */
    struct vnl_strand *strand;
    PyObject *at;
    int shield;
    int dying; /* its loop is gone or it is being closed: waits block */
    int quit;  /* ends instead of waiting for its next call */
    vnl_fiber_status status;
    vnl_node link; /* in the reactor's list of live fibers, or the idle list */
} vnl_fiber;

/* The calling thread's position; saved and restored around every switch. */
typedef struct {
    int place;        /* VNL_PLAIN, VNL_DRIVEN or VNL_FIBER; a visible loop overrides */
    vnl_fiber *fiber; /* borrowed; NULL in blocking mode */
    char *outer;      /* the frame that resumed the outermost fiber that runs, or NULL */
} vnl_position;

extern _Thread_local vnl_position vnl_here;

int vnl_fiber_setup(PyObject *module);

/* New reference to an idle fiber given fn(*args, **kwargs) to run; takes new
 * references to all arguments.  `scope` and `kwargs` may be NULL. */
vnl_fiber *vnl_fiber_take(PyObject *reactor, PyObject *scope, PyObject *fn, PyObject *args, PyObject *kwargs);
/* Runs the fiber until it suspends or ends.  `thrown` (stolen, may be NULL)
 * is raised inside it; otherwise `sent` (borrowed, may be NULL) is what its
 * suspension gives.  0, or -1 when the switch itself failed. */
int vnl_fiber_resume(vnl_fiber *fiber, PyObject *sent, PyObject *thrown);
/* Ends the use of an ended fiber: keeps it for reuse or drops it.  Steals. */
void vnl_fiber_give(vnl_fiber *fiber);

/* Ends the idle fibers of this thread. */
void vnl_fiber_drop_idle(void);

/* Inside a fiber: hands `yielded` (stolen; NULL for a bare yield) to the task
 * and switches out.  0 when resumed, -1 with an exception thrown in. */
int vnl_fiber_suspend_wait(vnl_fiber *fiber, PyObject *yielded);

/* Shows asyncio's running loop, or hides it (None).  Keeps a raised exception.
 * 0 or -1. */
int vnl_show_loop(PyObject *loop);
/* The running loop of this thread: new reference, or NULL without an
 * exception when none is visible. */
PyObject *vnl_running_loop(void);
vnl_place vnl_where(void);

#endif
