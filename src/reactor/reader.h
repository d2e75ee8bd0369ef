/* What the loop itself watches of one lasting connection: a duplicate of its
 * descriptor, added with add_reader() at its first wait for an answer and left
 * there.  So an answer wakes the loop from the socket, with no epoll descriptor
 * between: that is a system call less, and the kernel still knows the wake-up as
 * one whose waker is about to sleep, and need not take another processor.
 *
 * Only asyncio's own loops do this: uvloop drops a reader by itself when the socket has an error.
 *
 * The duplicate is the reader's own.  When the connection is closed by another
 * thread than the loop's, the loop closes it at its next turn. */
#ifndef VNL_REACTOR_READER_H
#define VNL_REACTOR_READER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "reactor/reactor.h"

int vnl_reader_setup(PyObject *module);
/* Lets the reactor's loop watch it, if it can.  To be called on the loop's thread. */
void vnl_reader_attach(vnl_reactor *reactor, vnl_watch *watch);
/* The loop is gone. */
void vnl_reader_end_all(vnl_reactor *reactor);

#endif
