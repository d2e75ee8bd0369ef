/* Strands: parts of one piece of synchronous code that take turns, each in a greenlet of its own.
 *
 * One runs at a time, in order.  A strand that comes to a statement which may travel with those of the others
 * parks; when each has parked or ended, what is parked flies, and they go on in order.  Any other wait inside
 * a strand suspends its whole fiber, or blocks the thread: to the others it is as if no time had passed. */
#ifndef VNL_FIBER_STRAND_H
#define VNL_FIBER_STRAND_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "core_api.h"

typedef struct vnl_strand vnl_strand;

int vnl_strand_setup(PyObject *module);

/* together(calls): calls each in a strand; a new list of what they return. */
PyObject *vnl_strand_together(PyObject *module, PyObject *calls);

/* Of vnl_core_api. */
int vnl_strand_parks(void);
int vnl_strand_park_wait(vnl_park *park);

#endif
