#include "reactor/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "reactor/mailbox.h"

struct vnl_job {
    void (*fn)(void *);
    void *arg;
    void (*release)(void *);
    vnl_node queued; /* in its lane */
    pthread_mutex_t lock;
    pthread_cond_t finished;
    int done;
    int refs;             /* the waiter's and the thread's */
    vnl_mailbox *mailbox; /* whom to tell, or NULL */
    vnl_mail mail;
};

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    vnl_node jobs;
    int started;
} lane;

static lane lanes[VNL_LANES] = {
    {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER},
    {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER},
};

vnl_job *
vnl_job_new(void (*fn)(void *), void *arg, void (*release)(void *))
{
    vnl_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->finished, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&job->lock, NULL);
    job->fn = fn;
    job->arg = arg;
    job->release = release;
    job->refs = 1;
    vnl_list_init(&job->queued);
    vnl_mail_init(&job->mail);
    return job;
}

static void
job_unref(vnl_job *job)
{
    pthread_mutex_lock(&job->lock);
    int left = --job->refs;
    pthread_mutex_unlock(&job->lock);
    if (left == 0) {
        pthread_mutex_destroy(&job->lock);
        pthread_cond_destroy(&job->finished);
        free(job);
    }
}

void
vnl_job_free(vnl_job *job)
{
    if (job != NULL) {
        job_unref(job);
    }
}

static void
job_run(vnl_job *job)
{
    job->fn(job->arg);
    if (job->release != NULL) {
        job->release(job->arg);
    }
    pthread_mutex_lock(&job->lock);
    job->done = 1;
    if (job->mailbox != NULL) {
        vnl_mailbox_post(job->mailbox, &job->mail);
    }
    pthread_cond_broadcast(&job->finished);
    pthread_mutex_unlock(&job->lock);
    job_unref(job);
}

static void *
lane_main(void *arg)
{
    lane *own = arg;
    for (;;) {
        pthread_mutex_lock(&own->lock);
        while (vnl_list_empty(&own->jobs)) {
            pthread_cond_wait(&own->filled, &own->lock);
        }
        vnl_node *node = vnl_list_first(&own->jobs);
        vnl_list_remove(node);
        pthread_mutex_unlock(&own->lock);
        job_run(VNL_CONTAINER(node, vnl_job, queued));
    }
    return NULL;
}

static int
lane_start(lane *own)
{
    pthread_t thread;
    sigset_t all, old;
    vnl_list_init(&own->jobs);
    /* Signals belong to Python's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&thread, NULL, lane_main, own);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed == 0) {
        pthread_detach(thread);
        own->started = 1;
    }
    return failed;
}

int
vnl_job_start(vnl_job *job, int number)
{
    lane *own = &lanes[number];
    int failed = 0;
    pthread_mutex_lock(&own->lock);
    if (!own->started) {
        failed = lane_start(own);
    }
    if (!failed) {
        job->refs++;
        vnl_list_append(&own->jobs, &job->queued);
        pthread_cond_signal(&own->filled);
    }
    pthread_mutex_unlock(&own->lock);
    return failed;
}

void
vnl_job_notify(vnl_job *job, vnl_poller *poller, vnl_wake *wake)
{
    pthread_mutex_lock(&job->lock);
    job->mailbox = vnl_poller_mailbox(poller);
    job->mail.wake = wake;
    if (job->done) {
        vnl_mailbox_post(job->mailbox, &job->mail);
    }
    pthread_mutex_unlock(&job->lock);
}

void
vnl_job_forget(vnl_job *job)
{
    pthread_mutex_lock(&job->lock);
    if (job->mailbox != NULL) {
        vnl_mailbox_withdraw(job->mailbox, &job->mail);
        job->mailbox = NULL;
    }
    pthread_mutex_unlock(&job->lock);
}

int
vnl_job_join(vnl_job *job, int64_t deadline)
{
    int failed = 0;
    struct timespec until = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    pthread_mutex_lock(&job->lock);
    while (!job->done && failed != ETIMEDOUT) {
        failed = deadline == VNL_FOREVER ? pthread_cond_wait(&job->finished, &job->lock)
                                         : pthread_cond_timedwait(&job->finished, &job->lock, &until);
    }
    int done = job->done;
    pthread_mutex_unlock(&job->lock);
    return done;
}

int
vnl_job_done(vnl_job *job)
{
    pthread_mutex_lock(&job->lock);
    int done = job->done;
    pthread_mutex_unlock(&job->lock);
    return done;
}

void
vnl_jobs_after_fork(void)
{
    /* The threads exist in the parent only, and their locks may have been
     * held at the fork: start from nothing. */
    for (int i = 0; i < VNL_LANES; i++) {
        pthread_mutex_init(&lanes[i].lock, NULL);
        pthread_cond_init(&lanes[i].filled, NULL);
        lanes[i].started = 0;
    }
}
