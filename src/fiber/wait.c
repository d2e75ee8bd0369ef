#include "fiber/wait.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "core/state.h"
#include "fiber/fiber.h"
#include "fiber/waiter.h"
#include "reactor/jobs.h"
#include "reactor/mailbox.h"
#include "reactor/reactor.h"
#include "reactor/reader.h"

/* How long a blocked thread goes without looking for signals. */
#define SIGNAL_CHECK_NS 100000000

/* An exception that was raised when a shield was entered, put aside. */
typedef struct shelved {
    PyObject *exc;
    struct shelved *below;
} shelved;

static _Thread_local shelved *shelf; /* of the thread, outside fibers */
static _Thread_local int thread_shield;

int
vnl_can_suspend(void)
{
    return vnl_here.fiber != NULL && !vnl_here.fiber->dying;
}

const void *
vnl_who(void)
{
    return vnl_here.fiber != NULL ? (const void *)vnl_here.fiber : (const void *)&vnl_here;
}

static int
shielded(void)
{
    return vnl_here.fiber != NULL ? vnl_here.fiber->shield > 0 : thread_shield > 0;
}

static int
check_signals(void)
{
    return shielded() ? 0 : PyErr_CheckSignals();
}

/* --- suspending ----------------------------------------------------------- */

/* The fiber's waiter, armed.  Borrowed. */
static vnl_waiter *
arm_waiter(vnl_fiber *fiber, int sheltered)
{
    vnl_reactor *reactor = (vnl_reactor *)fiber->reactor;
    if (reactor->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return NULL;
    }
    if (fiber->waiter == NULL) {
        fiber->waiter = (PyObject *)vnl_waiter_new(reactor);
        if (fiber->waiter == NULL) {
            return NULL;
        }
    }
    vnl_waiter *waiter = (vnl_waiter *)fiber->waiter;
    vnl_waiter_arm(waiter, sheltered || fiber->shield > 0);
    return waiter;
}

/* Suspends until the armed waiter has fired or something is thrown in. */
static int
suspend_until_fired_wait(vnl_fiber *fiber, vnl_waiter *waiter)
{
    int failed = 0;
    do {
        waiter->blocking = 1;
        Py_CLEAR(waiter->callback);
        Py_CLEAR(waiter->context);
        failed = vnl_fiber_suspend_wait(fiber, Py_NewRef((PyObject *)waiter));
    } while (failed == 0 && waiter->status == VNL_WAITER_ARMED && !fiber->dying);
    vnl_wake_disarm(&waiter->wake);
    waiter->status = VNL_WAITER_IDLE;
    return failed;
}

static int
fiber_watch_wait(vnl_fiber *fiber, vnl_watch *watch, int events, int64_t deadline)
{
    vnl_waiter *waiter = arm_waiter(fiber, 0);
    if (waiter == NULL) {
        return -1;
    }
    vnl_reactor *reactor = (vnl_reactor *)fiber->reactor;
    if (watch != NULL && watch->lasting && events == VNL_READ) {
        vnl_reader_attach(reactor, watch);
    }
    if (vnl_poller_arm(reactor->poller, &waiter->wake, watch, events, deadline) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (suspend_until_fired_wait(fiber, waiter) < 0) {
        return -1;
    }
    return waiter->wake.events;
}

/* --- blocking ------------------------------------------------------------- */

static int
blocking_poll_wait(int fd, int events, int64_t deadline)
{
    for (;;) {
        struct pollfd pfd = {.fd = fd};
        pfd.events = (short)((events & VNL_READ ? POLLIN : 0) | (events & VNL_WRITE ? POLLOUT : 0));
        int64_t left = deadline == VNL_FOREVER ? SIGNAL_CHECK_NS : deadline - vnl_now();
        left = left < 0 ? 0 : left > SIGNAL_CHECK_NS ? SIGNAL_CHECK_NS : left;
        int n = 0;
        Py_BEGIN_ALLOW_THREADS n = poll(&pfd, fd >= 0 ? 1 : 0, (int)((left + 999999) / 1000000));
        Py_END_ALLOW_THREADS if (n > 0)
        {
            int ready = (pfd.revents & POLLIN ? VNL_READ : 0) | (pfd.revents & POLLOUT ? VNL_WRITE : 0);
            return pfd.revents & ~(POLLIN | POLLOUT) ? events : ready;
        }
        if (n < 0 && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (check_signals() < 0) {
            return -1;
        }
        if (deadline != VNL_FOREVER && vnl_now() >= deadline) {
            return 0;
        }
    }
}

/* --- the api -------------------------------------------------------------- */

int
vnl_put_off(void)
{
    vnl_fiber *fiber = vnl_here.fiber;
    if (fiber == NULL || !PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception)) {
        return 0;
    }
    if (fiber->kept == NULL) {
        fiber->kept = PyErr_GetRaisedException();
    }
    else {
        PyErr_Clear();
    }
    return 1;
}

int
vnl_raise_put_off(void)
{
    vnl_fiber *fiber = vnl_here.fiber;
    if (fiber == NULL || fiber->kept == NULL || fiber->shield > 0) {
        return 0;
    }
    PyErr_SetRaisedException(fiber->kept);
    fiber->kept = NULL;
    return -1;
}

int
vnl_watch_wait(vnl_watch *watch, int events, int64_t deadline)
{
    if (vnl_raise_put_off() < 0) {
        return -1;
    }
    if (vnl_can_suspend()) {
        return fiber_watch_wait(vnl_here.fiber, watch, events, deadline);
    }
    return blocking_poll_wait(watch->fd, events, deadline);
}

/* Wakes the task of a waiter at the loop's next turn.  Keeps a raised exception. */
static void
fire_soon(vnl_waiter *waiter)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (vnl_waiter_fire_soon(waiter) < 0) {
        PyErr_WriteUnraisable((PyObject *)waiter); /* its loop is closed */
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

void
vnl_watch_ring(vnl_watch *watch)
{
    if (watch->wake != NULL) {
        vnl_waiter *waiter = VNL_CONTAINER(watch->wake, vnl_waiter, wake);
        waiter->wake.events = watch->want;
        fire_soon(waiter);
    }
}

int
vnl_turn_wait(void)
{
    if (vnl_raise_put_off() < 0) {
        return -1;
    }
    if (vnl_can_suspend()) {
        return vnl_fiber_suspend_wait(vnl_here.fiber, NULL);
    }
    return check_signals();
}

int
vnl_sleep_wait(int64_t nanoseconds)
{
    if (vnl_raise_put_off() < 0) {
        return -1;
    }
    int64_t deadline = vnl_now() + nanoseconds;
    if (vnl_can_suspend()) {
        return fiber_watch_wait(vnl_here.fiber, NULL, 0, deadline);
    }
    return blocking_poll_wait(-1, 0, deadline);
}

void
vnl_shield_enter(void)
{
    shelved **top = &shelf;
    if (vnl_here.fiber != NULL) {
        vnl_here.fiber->shield++;
        top = (shelved **)&vnl_here.fiber->shelf;
    }
    else {
        thread_shield++;
    }
    shelved *entry = PyMem_Malloc(sizeof(*entry));
    if (entry == NULL) {
        Py_FatalError("out of memory in a clean-up");
    }
    entry->exc = PyErr_GetRaisedException();
    entry->below = *top;
    *top = entry;
}

int
vnl_shield_leave(void)
{
    shelved **top = &shelf;
    PyObject *kept = NULL;
    if (vnl_here.fiber != NULL) {
        top = (shelved **)&vnl_here.fiber->shelf;
        if (--vnl_here.fiber->shield == 0) {
            kept = vnl_here.fiber->kept;
            vnl_here.fiber->kept = NULL;
        }
    }
    else {
        thread_shield--;
    }
    shelved *entry = *top;
    PyObject *exc = entry->exc;
    *top = entry->below;
    PyMem_Free(entry);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        Py_XDECREF(kept);
        return 0;
    }
    if (kept == NULL) {
        return 0;
    }
    if (PyErr_Occurred()) {
        Py_DECREF(kept);
        return 0;
    }
    PyErr_SetRaisedException(kept);
    return -1;
}

/* --- helper threads ------------------------------------------------------- */

/* Suspends the fiber until the job is done (1) or the deadline (0); whatever
 * is thrown meanwhile is left raised, and the wait goes on. */
static int
fiber_job_wait(vnl_fiber *fiber, vnl_job *job, int64_t deadline)
{
    PyObject *raised = NULL;
    vnl_waiter *waiter = arm_waiter(fiber, 1);
    if (waiter == NULL) {
        return vnl_job_join(job, deadline);
    }
    vnl_poller *poller = ((vnl_reactor *)fiber->reactor)->poller;
    (void)vnl_poller_arm(poller, &waiter->wake, NULL, 0, deadline);
    vnl_job_notify(job, poller, &waiter->wake);
    while (waiter->status == VNL_WAITER_ARMED && !fiber->dying) {
        waiter->blocking = 1;
        Py_CLEAR(waiter->callback);
        Py_CLEAR(waiter->context);
        if (vnl_fiber_suspend_wait(fiber, Py_NewRef((PyObject *)waiter)) < 0) {
            Py_XSETREF(raised, PyErr_GetRaisedException());
        }
    }
    vnl_job_forget(job);
    vnl_wake_disarm(&waiter->wake);
    waiter->status = VNL_WAITER_IDLE;
    int done = fiber->dying ? vnl_job_join(job, deadline) : vnl_job_done(job);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return done;
}

static int
lane_wait(int lane, void (*fn)(void *), void *arg, void (*release)(void *), int64_t deadline)
{
    vnl_job *job = vnl_job_new(fn, arg, release);
    int done = 0;
    if (job == NULL || vnl_job_start(job, lane) != 0) {
        vnl_job_free(job);
        return -2;
    }
    vnl_core->count.jobs++;
    if (vnl_can_suspend()) {
        done = fiber_job_wait(vnl_here.fiber, job, deadline);
    }
    else {
        Py_BEGIN_ALLOW_THREADS done = vnl_job_join(job, deadline);
        Py_END_ALLOW_THREADS
    }
    vnl_job_free(job);
    return done;
}

int
vnl_job_wait(void (*fn)(void *), void *arg)
{
    if (vnl_can_suspend() && lane_wait(VNL_LANE_FILES, fn, arg, NULL, VNL_FOREVER) != -2) {
        return PyErr_Occurred() ? -1 : 0;
    }
    /* Blocking mode, or no thread to be had: here, slower but the same. */
    Py_BEGIN_ALLOW_THREADS fn(arg);
    Py_END_ALLOW_THREADS return check_signals();
}

int
vnl_side_job_wait(void (*fn)(void *), void *arg, void (*release)(void *), int64_t deadline)
{
    int done = lane_wait(VNL_LANE_SERVERS, fn, arg, release, deadline);
    if (done == -2) {
        if (release != NULL) {
            release(arg);
        }
        return 0;
    }
    return PyErr_Occurred() ? -1 : done;
}

/* --- events --------------------------------------------------------------- */

struct vnl_event {
    atomic_int set;
    vnl_waiter *waiter;   /* owned while a fiber waits */
    vnl_mailbox *mailbox; /* of its loop: where another thread finds it */
    vnl_mail mail;
    pthread_mutex_t lock; /* of mailbox, and of changed */
    pthread_cond_t changed;
};

vnl_event *
vnl_event_new(void)
{
    vnl_event *event = PyMem_Calloc(1, sizeof(*event));
    if (event == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&event->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&event->lock, NULL);
    vnl_mail_init(&event->mail);
    return event;
}

void
vnl_event_free(vnl_event *event)
{
    if (event != NULL) {
        pthread_mutex_destroy(&event->lock);
        pthread_cond_destroy(&event->changed);
        PyMem_Free(event);
    }
}

static int
fiber_event_wait(vnl_fiber *fiber, vnl_event *event, int64_t deadline)
{
    vnl_waiter *waiter = arm_waiter(fiber, 0);
    if (waiter == NULL) {
        return -1;
    }
    vnl_poller *poller = ((vnl_reactor *)fiber->reactor)->poller;
    (void)vnl_poller_arm(poller, &waiter->wake, NULL, 0, deadline);
    event->waiter = (vnl_waiter *)Py_NewRef((PyObject *)waiter);
    pthread_mutex_lock(&event->lock);
    event->mailbox = vnl_poller_mailbox(poller);
    event->mail.wake = &waiter->wake;
    if (event->set) { /* by another thread, just now */
        vnl_mailbox_post(event->mailbox, &event->mail);
    }
    pthread_mutex_unlock(&event->lock);
    int failed = suspend_until_fired_wait(fiber, waiter);
    pthread_mutex_lock(&event->lock);
    vnl_mailbox_withdraw(event->mailbox, &event->mail);
    event->mailbox = NULL;
    pthread_mutex_unlock(&event->lock);
    Py_CLEAR(event->waiter);
    return failed < 0 ? -1 : event->set;
}

static int
thread_event_wait(vnl_event *event, int64_t deadline)
{
    while (!event->set) {
        int64_t now = vnl_now();
        if (deadline <= now) {
            return 0;
        }
        int64_t until = deadline - now > SIGNAL_CHECK_NS ? now + SIGNAL_CHECK_NS : deadline;
        struct timespec ts = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&event->lock);
        if (!event->set) {
            pthread_cond_timedwait(&event->changed, &event->lock, &ts);
        }
        pthread_mutex_unlock(&event->lock);
        Py_END_ALLOW_THREADS if (check_signals() < 0)
        {
            return -1;
        }
    }
    return 1;
}

int
vnl_event_wait(vnl_event *event, int64_t deadline)
{
    if (event->set) {
        return 1;
    }
    if (vnl_raise_put_off() < 0) {
        return -1;
    }
    if (vnl_can_suspend()) {
        return fiber_event_wait(vnl_here.fiber, event, deadline);
    }
    return thread_event_wait(event, deadline);
}

void
vnl_event_set(vnl_event *event)
{
    if (event->waiter != NULL) {
        event->set = 1;
        fire_soon(event->waiter);
        return;
    }
    pthread_mutex_lock(&event->lock);
    event->set = 1;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->lock);
}

void
vnl_event_ring(vnl_event *event)
{
    pthread_mutex_lock(&event->lock);
    if (!event->set) {
        event->set = 1;
        if (event->mailbox != NULL) {
            vnl_mailbox_post(event->mailbox, &event->mail);
        }
        else {
            pthread_cond_broadcast(&event->changed);
        }
    }
    pthread_mutex_unlock(&event->lock);
}

void
vnl_event_clear(vnl_event *event)
{
    event->set = 0;
}
