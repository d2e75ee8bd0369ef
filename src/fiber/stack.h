/* Where on the thread's C stack fibers begin: below all that the loop has there.
 *
 * While a fiber runs, greenlet keeps elsewhere what others have where its stack lies.  Code that is
 * only returned to never knows.  But libuv keeps addresses of its frames while it calls back, and
 * what it is asked for meanwhile (add_reader(), the end of a transport) goes to them.  So whatever a
 * fiber calls, the loop's frames have to be in their place.
 *
 * A fiber begins a gap below the frame that resumes the outermost fiber.  Between a loop's run and
 * whom it calls back lies less than half of that: such a fiber may be resumed from anywhere in that
 * run, or in another one that begins no more than the other half deeper. */
#ifndef VNL_FIBER_STACK_H
#define VNL_FIBER_STACK_H

#include <stddef.h>

/* How far below `frame` the next new fiber of this thread begins.  `outer` is the frame that resumes
 * the outermost fiber. */
size_t vnl_stack_gap(const char *outer, const char *frame);
/* Whether a fiber that began at `start` may have another call, in a fiber resumed from `outer`. */
int vnl_stack_fits(const char *outer, const char *start);

#endif
