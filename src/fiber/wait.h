/* The waits: the only place where a fiber is suspended for the outside world,
 * or, in blocking mode, a thread.  These are the functions of vnl_core_api. */
#ifndef VNL_FIBER_WAIT_H
#define VNL_FIBER_WAIT_H

#include "core_api.h"

int vnl_can_suspend(void);
const void *vnl_who(void);
int vnl_watch_wait(vnl_watch *watch, int events, int64_t deadline);
void vnl_watch_ring(vnl_watch *watch);
int vnl_turn_wait(void);
int vnl_sleep_wait(int64_t nanoseconds);
int vnl_job_wait(void (*fn)(void *), void *arg);
int vnl_side_job_wait(void (*fn)(void *), void *arg, void (*release)(void *), int64_t deadline);
void vnl_shield_enter(void);
int vnl_shield_leave(void);
int vnl_put_off(void);
/* Raises what was put off, now that the fiber is about to wait.  0, or -1. */
int vnl_raise_put_off(void);
vnl_event *vnl_event_new(void);
void vnl_event_free(vnl_event *event);
int vnl_event_wait(vnl_event *event, int64_t deadline);
void vnl_event_set(vnl_event *event);
void vnl_event_ring(vnl_event *event);
void vnl_event_clear(vnl_event *event);

#endif
