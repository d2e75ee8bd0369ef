/* The pool: physical connections of one database, for each event loop apart.
 * Each state of a connection is a list, one function moves between them. */
#ifndef VNL_POOL_POOL_H
#define VNL_POOL_POOL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "core_api.h"

int vnl_pool_setup(PyObject *module);
/* A connection that is open and the caller's by `terms`, or NULL with an exception. */
vnl_slot *vnl_pool_take_wait(PyObject *pool, vnl_slot_terms *terms);
/* Gives it back; not reusable: closes it. */
void vnl_pool_give(vnl_slot *slot, int reusable);
void *vnl_slot_conn(vnl_slot *slot);
void vnl_slot_offer(vnl_slot *slot, int room);
void vnl_slot_hand_over(vnl_slot *slot);
void vnl_slot_waited(vnl_slot *slot, int64_t nanoseconds);
void vnl_slot_note_line(vnl_slot *slot);
void vnl_slot_warn_dropped(vnl_slot *slot, const char *state);

#endif
