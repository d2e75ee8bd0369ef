/* The VFS "vinyl": the platform's own, whose fsync does not hold up the loop.
 *
 * Everything passes through to the wrapped VFS; xSync, and an xDelete that
 * syncs its directory, run on the core's helper thread while the fiber is
 * suspended.  SQLite sees an ordinary, if slow, disk: commits, autocommitted
 * writes and checkpoints are covered without knowing of it.  The file object
 * lives on SQLite's heap, the job's arguments on ours.
 */
#include <stdlib.h>
#include <string.h>

#include "sqlite.h"

typedef struct vinyl_file {
    sqlite3_file base;
    sqlite3_file *real; /* right behind this struct */
    int journal;        /* a rollback journal */
} vinyl_file;

static sqlite3_vfs *real_vfs;
static sqlite3_vfs our_vfs;
static sqlite3_io_methods io_tables[3];
static _Thread_local int direct;

#define REAL(file) (((vinyl_file *)(file))->real)

void
vnl_sqlite_vfs_direct(int enter)
{
    direct += enter;
}

int
vnl_sqlite_vfs_is_direct(void)
{
    return direct > 0;
}

/* Whether a blocking call may be handed to the helper: with an exception
 * pending it must not be, for the fiber is on its way out. */
static int
may_switch(void)
{
    const vnl_sqlite_host *host = &vnl_sqlite_host_calls;

    return direct == 0 && host->core->can_suspend() && !host->error_pending();
}

/* --- the calls that leave the loop free */

typedef struct sync_job {
    sqlite3_file *file;
    int flags;
    int rc;
} sync_job;

static void
run_sync(void *arg)
{
    sync_job *job = arg;

    job->rc = job->file->pMethods->xSync(job->file, job->flags);
}

static int
x_sync(sqlite3_file *file, int flags)
{
    const vnl_sqlite_host *host = &vnl_sqlite_host_calls;
    sync_job *job;
    int rc;

    if (!may_switch() || (job = malloc(sizeof(*job))) == NULL) {
        return REAL(file)->pMethods->xSync(REAL(file), flags);
    }
    *job = (sync_job){.file = REAL(file), .flags = flags, .rc = SQLITE_IOERR_FSYNC};
    (void)host->core->job_wait(run_sync, job);
    rc = job->rc;
    free(job);
    /* A cancel that came meanwhile stays pending.  As long as the journal is
     * not whole the transaction can still go back; later SQLite finishes what
     * it is doing, and the statement ends after that. */
    if (rc == SQLITE_OK && host->error_pending() && ((vinyl_file *)file)->journal) {
        rc = SQLITE_IOERR_FSYNC;
    }
    return rc;
}

typedef struct delete_job {
    int rc;
    char path[];
} delete_job;

static void
run_delete(void *arg)
{
    delete_job *job = arg;

    job->rc = real_vfs->xDelete(real_vfs, job->path, 1);
}

static int
v_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    delete_job *job;
    size_t len = strlen(path) + 1;
    int rc;

    if (!sync_dir || !may_switch() || (job = malloc(sizeof(*job) + len)) == NULL) {
        return real_vfs->xDelete(real_vfs, path, sync_dir);
    }
    job->rc = SQLITE_IOERR_DELETE;
    memcpy(job->path, path, len);
    (void)vnl_sqlite_host_calls.core->job_wait(run_delete, job);
    rc = job->rc;
    free(job);
    return rc;
}

/* --- plain pass-through: files */

static int
x_close(sqlite3_file *file)
{
    int rc = REAL(file)->pMethods->xClose(REAL(file));

    file->pMethods = NULL;
    return rc;
}

static int
x_read(sqlite3_file *file, void *to, int amount, sqlite3_int64 offset)
{
    return REAL(file)->pMethods->xRead(REAL(file), to, amount, offset);
}

static int
x_write(sqlite3_file *file, const void *from, int amount, sqlite3_int64 offset)
{
    return REAL(file)->pMethods->xWrite(REAL(file), from, amount, offset);
}

static int
x_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return REAL(file)->pMethods->xTruncate(REAL(file), size);
}

static int
x_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return REAL(file)->pMethods->xFileSize(REAL(file), size);
}

static int
x_lock(sqlite3_file *file, int level)
{
    return REAL(file)->pMethods->xLock(REAL(file), level);
}

static int
x_unlock(sqlite3_file *file, int level)
{
    return REAL(file)->pMethods->xUnlock(REAL(file), level);
}

static int
x_check_reserved_lock(sqlite3_file *file, int *held)
{
    return REAL(file)->pMethods->xCheckReservedLock(REAL(file), held);
}

static int
x_file_control(sqlite3_file *file, int op, void *arg)
{
    int rc = REAL(file)->pMethods->xFileControl(REAL(file), op, arg);

    if (op == SQLITE_FCNTL_VFSNAME && rc == SQLITE_OK && arg != NULL) {
        char **name = arg;
        char *whole = sqlite3_mprintf("vinyl/%z", *name);
        *name = whole;
    }
    return rc;
}

static int
x_sector_size(sqlite3_file *file)
{
    return REAL(file)->pMethods->xSectorSize(REAL(file));
}

static int
x_device_characteristics(sqlite3_file *file)
{
    return REAL(file)->pMethods->xDeviceCharacteristics(REAL(file));
}

static int
x_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **to)
{
    return REAL(file)->pMethods->xShmMap(REAL(file), page, size, extend, to);
}

static int
x_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    return REAL(file)->pMethods->xShmLock(REAL(file), offset, n, flags);
}

static void
x_shm_barrier(sqlite3_file *file)
{
    REAL(file)->pMethods->xShmBarrier(REAL(file));
}

static int
x_shm_unmap(sqlite3_file *file, int delete_flag)
{
    return REAL(file)->pMethods->xShmUnmap(REAL(file), delete_flag);
}

static int
x_fetch(sqlite3_file *file, sqlite3_int64 offset, int amount, void **to)
{
    return REAL(file)->pMethods->xFetch(REAL(file), offset, amount, to);
}

static int
x_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *from)
{
    return REAL(file)->pMethods->xUnfetch(REAL(file), offset, from);
}

/* --- plain pass-through: the VFS.  Its other calls take the sqlite3_vfs, so
 * they are forwarded with the real one. */

static int
v_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags)
{
    vinyl_file *ours = (vinyl_file *)file;
    int rc, version;

    ours->real = (sqlite3_file *)(ours + 1);
    ours->base.pMethods = NULL;
    ours->journal = (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0;
    memset(ours->real, 0, (size_t)real_vfs->szOsFile);
    rc = real_vfs->xOpen(real_vfs, name, ours->real, flags, out_flags);
    if (ours->real->pMethods != NULL) {
        version = ours->real->pMethods->iVersion;
        version = version < 1 ? 1 : version > 3 ? 3 : version;
        ours->base.pMethods = &io_tables[version - 1];
    }
    return rc;
}

static int
v_access(sqlite3_vfs *vfs, const char *path, int flags, int *out)
{
    return real_vfs->xAccess(real_vfs, path, flags, out);
}

static int
v_full_pathname(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    return real_vfs->xFullPathname(real_vfs, path, n, out);
}

static void *
v_dl_open(sqlite3_vfs *vfs, const char *path)
{
    return real_vfs->xDlOpen(real_vfs, path);
}

static void
v_dl_error(sqlite3_vfs *vfs, int n, char *out)
{
    real_vfs->xDlError(real_vfs, n, out);
}

static void (*v_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
    return real_vfs->xDlSym(real_vfs, handle, symbol);
}

static void
v_dl_close(sqlite3_vfs *vfs, void *handle)
{
    real_vfs->xDlClose(real_vfs, handle);
}

static int
v_randomness(sqlite3_vfs *vfs, int n, char *out)
{
    return real_vfs->xRandomness(real_vfs, n, out);
}

static int
v_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return real_vfs->xSleep(real_vfs, microseconds);
}

static int
v_current_time(sqlite3_vfs *vfs, double *out)
{
    return real_vfs->xCurrentTime(real_vfs, out);
}

static int
v_get_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    return real_vfs->xGetLastError(real_vfs, n, out);
}

static int
v_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    return real_vfs->xCurrentTimeInt64(real_vfs, out);
}

static const sqlite3_io_methods our_methods = {
    .iVersion = 3,
    .xClose = x_close,
    .xRead = x_read,
    .xWrite = x_write,
    .xTruncate = x_truncate,
    .xSync = x_sync,
    .xFileSize = x_file_size,
    .xLock = x_lock,
    .xUnlock = x_unlock,
    .xCheckReservedLock = x_check_reserved_lock,
    .xFileControl = x_file_control,
    .xSectorSize = x_sector_size,
    .xDeviceCharacteristics = x_device_characteristics,
    .xShmMap = x_shm_map,
    .xShmLock = x_shm_lock,
    .xShmBarrier = x_shm_barrier,
    .xShmUnmap = x_shm_unmap,
    .xFetch = x_fetch,
    .xUnfetch = x_unfetch,
};

/* Called with the GIL held, so once at a time. */
const char *
vnl_sqlite_vfs(void)
{
    if (real_vfs != NULL) {
        return our_vfs.zName;
    }
    real_vfs = sqlite3_vfs_find(NULL);
    if (real_vfs == NULL || real_vfs->iVersion < 2) {
        real_vfs = NULL;
        return NULL;
    }
    for (int i = 0; i < 3; i++) {
        io_tables[i] = our_methods;
        io_tables[i].iVersion = i + 1;
    }
    our_vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(vinyl_file) + real_vfs->szOsFile,
        .mxPathname = real_vfs->mxPathname,
        .zName = "vinyl",
        .xOpen = v_open,
        .xDelete = v_delete,
        .xAccess = v_access,
        .xFullPathname = v_full_pathname,
        .xDlOpen = v_dl_open,
        .xDlError = v_dl_error,
        .xDlSym = v_dl_sym,
        .xDlClose = v_dl_close,
        .xRandomness = v_randomness,
        .xSleep = v_sleep,
        .xCurrentTime = v_current_time,
        .xGetLastError = v_get_last_error,
        .xCurrentTimeInt64 = v_current_time_int64,
    };
    if (sqlite3_vfs_register(&our_vfs, 0) != SQLITE_OK) {
        real_vfs = NULL;
        return NULL;
    }
    return our_vfs.zName;
}
