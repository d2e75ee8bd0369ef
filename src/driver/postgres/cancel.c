/* Cancel on the server.  PQcancel opens a second connection and blocks (libpq
 * below 17), so that it runs on the core's side thread, within a bound. */
#include "pg.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct cancel_job {
    PGcancel *cancel;
    int done;
    atomic_int users; /* the waiter and the thread; the last one frees */
    char error[256];
} cancel_job;

static void
job_run(void *arg)
{
    cancel_job *job = arg;
    job->done = PQcancel(job->cancel, job->error, (int)sizeof(job->error));
}

static void
job_release(void *arg)
{
    cancel_job *job = arg;
    if (atomic_fetch_sub(&job->users, 1) == 1) {
        PQfreeCancel(job->cancel);
        free(job);
    }
}

int
vnl_pg_cancel_request_wait(vnl_pg_conn *conn, int64_t deadline)
{
    cancel_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return 0;
    }
    job->cancel = PQgetCancel(conn->pg);
    if (job->cancel == NULL) {
        free(job);
        return 0;
    }
    atomic_init(&job->users, 2);
    int ended = vnl_pg_core->side_job_wait(job_run, job, job_release, deadline);
    int done = ended == 1 && job->done;
    job_release(job);
    return done;
}

vnl_pg_status
vnl_pg_cancel_wait(vnl_pg_conn *conn, int64_t deadline)
{
    if (conn->ahead.sent) {
        /* What was ended waited for it and was not sent. */
        int64_t now = vnl_pg_core->now();
        vnl_pg_status status = vnl_pg_ahead_settle_wait(conn, now + (deadline - now) / 2);
        if (status != VNL_PG_TIMEOUT) {
            return status;
        }
    }
    if (!conn->inflight) {
        return PQstatus(conn->pg) == CONNECTION_OK ? VNL_PG_OK : VNL_PG_LOST;
    }
    vnl_pg_status status = VNL_PG_OK;
    int runs_on = 0;
    do { /* a request is for the one that runs, not for those behind it */
        if (!vnl_pg_cancel_request_wait(conn, deadline)) {
            return VNL_PG_TIMEOUT;
        }
        runs_on = 0;
        status = vnl_pg_drain_wait(conn, deadline, &runs_on);
    } while (status == VNL_PG_OK && runs_on);
    if (status == VNL_PG_TIMEOUT) {
        /* A request that the server meets before it has begun the statement comes to nothing, and the
         * statement would run on, with its locks, after its connection is closed: once more.  Nobody
         * waits for that. */
        (void)vnl_pg_cancel_request_wait(conn, vnl_pg_core->now());
    }
    return status;
}
