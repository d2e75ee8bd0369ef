#include "fiber/stack.h"

#include <pthread.h>
#include <stdint.h>

#define GAP ((size_t)256 * 1024)
/* Of what is left of a small thread's stack, the gap is no more than this part. */
#define PART 4

/* The thread's stack ends there; 0: not known, and UINTPTR_MAX: not asked yet. */
static _Thread_local uintptr_t stack_end = UINTPTR_MAX;
static _Thread_local size_t gap;
static _Thread_local uintptr_t origin; /* where new fibers begin, 0 before the first */

static uintptr_t
find_stack_end(void)
{
    pthread_attr_t attr;
    void *end = NULL;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attr) != 0) {
        return 0;
    }
    int failed = pthread_attr_getstack(&attr, &end, &size);
    pthread_attr_destroy(&attr);
    return failed ? 0 : (uintptr_t)end;
}

int
vnl_stack_fits(const char *outer, const char *start)
{
    uintptr_t above = (uintptr_t)outer, below = (uintptr_t)start;
    /* Not too deep either: it leaves the call less of the stack than it would have. */
    return gap == 0 || (below <= above && above - below >= gap / 2 && above - below <= 2 * gap);
}

size_t
vnl_stack_gap(const char *outer, const char *frame)
{
    if (stack_end == UINTPTR_MAX) {
        stack_end = find_stack_end();
    }
    if (origin == 0 || !vnl_stack_fits(outer, (const char *)origin)) {
        size_t left = stack_end != 0 && (uintptr_t)outer > stack_end ? (uintptr_t)outer - stack_end : 0;
        gap = left / PART < GAP ? left / PART : GAP;
        origin = (uintptr_t)outer - gap;
    }
    return (uintptr_t)frame > origin ? (uintptr_t)frame - origin : 0;
}
