/* Blocking calls on helper threads.  Python-free.  There are two lanes of one
 * thread each, started on first use: calls into the file system, and calls to
 * servers that may never answer. */
#ifndef VNL_REACTOR_JOBS_H
#define VNL_REACTOR_JOBS_H

#include <stdint.h>
#include "reactor/poller.h"

typedef struct vnl_job vnl_job;

enum {
    VNL_LANE_FILES = 0,
    VNL_LANE_SERVERS = 1,
    VNL_LANES = 2
};

/* NULL when memory is out.  `release(arg)` (may be NULL) is called on the
 * helper thread when fn has ended. */
vnl_job *vnl_job_new(void (*fn)(void *), void *arg, void (*release)(void *));
/* 0, or an errno when no thread could be started (then nothing ran). */
int vnl_job_start(vnl_job *job, int lane);
/* Asks that `wake` becomes ready in `poller` when the job is done.  At once
 * when it is. Call vnl_job_forget before the wake or the poller goes. */
void vnl_job_notify(vnl_job *job, vnl_poller *poller, vnl_wake *wake);
void vnl_job_forget(vnl_job *job);
/* Blocks until done (1) or the deadline (0). */
int vnl_job_join(vnl_job *job, int64_t deadline);
int vnl_job_done(vnl_job *job);
/* Drops the waiting side's reference. */
void vnl_job_free(vnl_job *job);

/* In a forked child: the helper threads are not there any more. */
void vnl_jobs_after_fork(void);

#endif
