/* The VFS "vinyl": the platform's own, whose fsync does not hold up the loop
 * and whose locks are queued for; "vinyl-memory", the same around "memdb".
 *
 * Everything passes through to the wrapped VFS; xSync, and an xDelete that
 * syncs its directory, run on the core's helper thread while the fiber is
 * suspended.  SQLite sees an ordinary, if slow, disk: commits, autocommitted
 * writes and checkpoints are covered without knowing of it.  The file object
 * lives on SQLite's heap, the job's arguments on ours.  Requests for locks go
 * by the file's gate.
 */
#include <stdlib.h>
#include <string.h>

#include "sqlite.h"

typedef struct vinyl_file {
    sqlite3_file base;
    sqlite3_file *real; /* right behind this struct */
    const char *path;   /* SQLite's, as long as the file is open; NULL: none */
    int in_memory;
    int journal; /* a rollback journal */
    vnl_sqlite_gate gate;
} vinyl_file;

/* Our own opcode for xFileControl: a connection takes charge of its file. */
#define TIE 0x766e6c

/* The bytes of the WAL index that are locked: see SQLite's walformat.html. */
#define WAL_WRITE_LOCK 0
#define WAL_CKPT_LOCK 1
#define WAL_FIRST_READ_LOCK 3

static sqlite3_vfs our_vfs, our_memory_vfs;
/* By iVersion; the last one is version 3 without shared memory. */
static sqlite3_io_methods io_tables[4];
static _Thread_local int direct;

#define REAL(file) (((vinyl_file *)(file))->real)
#define GATE(file) (&((vinyl_file *)(file))->gate)
#define REAL_VFS(vfs) ((sqlite3_vfs *)(vfs)->pAppData)

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

    if (((vinyl_file *)file)->in_memory || !may_switch() || (job = malloc(sizeof(*job))) == NULL) {
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
    sqlite3_vfs *vfs;
    char path[];
} delete_job;

static void
run_delete(void *arg)
{
    delete_job *job = arg;

    job->rc = job->vfs->xDelete(job->vfs, job->path, 1);
}

static int
v_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    sqlite3_vfs *real = REAL_VFS(vfs);
    delete_job *job;
    size_t len = strlen(path) + 1;
    int rc;

    if (!sync_dir || !may_switch() || real->xDelete == NULL || (job = malloc(sizeof(*job) + len)) == NULL) {
        return real->xDelete == NULL ? SQLITE_IOERR_DELETE : real->xDelete(real, path, sync_dir);
    }
    job->rc = SQLITE_IOERR_DELETE;
    job->vfs = real;
    memcpy(job->path, path, len);
    (void)vnl_sqlite_host_calls.core->job_wait(run_delete, job);
    rc = job->rc;
    free(job);
    return rc;
}

/* --- locks */

/* What a level of the rollback journal's locks is wanted for. */
static vnl_sqlite_want
want_of(const vnl_sqlite_gate *gate, int level)
{
    if (level == SQLITE_LOCK_RESERVED) {
        return VNL_WANT_WRITE;
    }
    /* The exclusive lock is a writer's, or a reader's that found a hot journal. */
    return level > SQLITE_LOCK_RESERVED && gate->writing ? VNL_WANT_ALONE : VNL_WANT_READ;
}

static int
x_lock(sqlite3_file *file, int level)
{
    vnl_sqlite_gate *gate = GATE(file);
    vnl_sqlite_want want = want_of(gate, level);
    int rc = SQLITE_BUSY;

    if (vnl_sqlite_gate_may(gate, want)) {
        rc = REAL(file)->pMethods->xLock(REAL(file), level);
    }
    vnl_sqlite_gate_answer(gate, want, rc);
    return rc;
}

static int
x_unlock(sqlite3_file *file, int level)
{
    int rc = REAL(file)->pMethods->xUnlock(REAL(file), level);

    if (level < SQLITE_LOCK_RESERVED) {
        vnl_sqlite_gate_write_ends(GATE(file));
    }
    if (level == SQLITE_LOCK_NONE) {
        vnl_sqlite_gate_read_ends(GATE(file));
    }
    return rc;
}

/* The write lock of a WAL. */
static int
write_lock(sqlite3_file *file, int flags)
{
    vnl_sqlite_gate *gate = GATE(file);
    int rc = SQLITE_BUSY;

    if (vnl_sqlite_gate_may(gate, VNL_WANT_WRITE)) {
        rc = REAL(file)->pMethods->xShmLock(REAL(file), WAL_WRITE_LOCK, 1, flags);
    }
    vnl_sqlite_gate_answer(gate, VNL_WANT_WRITE, rc);
    return rc;
}

static int
x_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    vnl_sqlite_gate *gate = GATE(file);
    int rc;

    if (offset == WAL_WRITE_LOCK && n == 1 && flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
        return write_lock(file, flags);
    }
    rc = REAL(file)->pMethods->xShmLock(REAL(file), offset, n, flags);
    if (rc != SQLITE_OK) {
        return rc;
    }
    if (flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) && offset >= WAL_FIRST_READ_LOCK) {
        vnl_sqlite_gate_answer(gate, VNL_WANT_READ, rc);
    }
    else if (flags & SQLITE_SHM_EXCLUSIVE && offset == WAL_CKPT_LOCK) {
        gate->checkpointing = (flags & SQLITE_SHM_LOCK) != 0;
    }
    else if (flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE) && offset == WAL_WRITE_LOCK) {
        vnl_sqlite_gate_write_ends(gate);
    }
    return rc;
}

static int
x_shm_unmap(sqlite3_file *file, int delete_flag)
{
    int rc = REAL(file)->pMethods->xShmUnmap(REAL(file), delete_flag);

    vnl_sqlite_gate_write_ends(GATE(file));
    return rc;
}

/* --- plain pass-through: files.  "memdb" leaves out what its databases need not. */

static int
x_close(sqlite3_file *file)
{
    int rc = REAL(file)->pMethods->xClose(REAL(file));

    vnl_sqlite_gate_untie(GATE(file));
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
x_check_reserved_lock(sqlite3_file *file, int *held)
{
    if (REAL(file)->pMethods->xCheckReservedLock == NULL) {
        *held = 0;
        return SQLITE_OK;
    }
    return REAL(file)->pMethods->xCheckReservedLock(REAL(file), held);
}

static int
x_file_control(sqlite3_file *file, int op, void *arg)
{
    vinyl_file *ours = (vinyl_file *)file;
    int rc;

    if (op == TIE) {
        vnl_sqlite_gate_tie(&ours->gate, arg, ours->path, ours->in_memory);
        return SQLITE_OK;
    }
    rc = ours->real->pMethods->xFileControl(ours->real, op, arg);
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
    return REAL(file)->pMethods->xSectorSize == NULL ? 0 : REAL(file)->pMethods->xSectorSize(REAL(file));
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

static void
x_shm_barrier(sqlite3_file *file)
{
    REAL(file)->pMethods->xShmBarrier(REAL(file));
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

/* The table whose methods the real file has as well. */
static const sqlite3_io_methods *
table_of(const sqlite3_io_methods *real)
{
    int version = real->iVersion < 1 ? 1 : real->iVersion > 3 ? 3 : real->iVersion;

    if (version >= 2 && real->xShmMap == NULL) {
        return &io_tables[version == 3 ? 3 : 0];
    }
    return &io_tables[version - 1];
}

static int
v_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags)
{
    sqlite3_vfs *real = REAL_VFS(vfs);
    vinyl_file *ours = (vinyl_file *)file;
    int rc;

    memset(ours, 0, sizeof(*ours) + (size_t)real->szOsFile);
    ours->real = (sqlite3_file *)(ours + 1);
    ours->path = flags & SQLITE_OPEN_MAIN_DB ? name : NULL;
    ours->in_memory = vfs == &our_memory_vfs;
    ours->journal = (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0;
    rc = real->xOpen(real, name, ours->real, flags, out_flags);
    if (ours->real->pMethods != NULL) {
        ours->base.pMethods = table_of(ours->real->pMethods);
    }
    return rc;
}

static int
v_access(sqlite3_vfs *vfs, const char *path, int flags, int *out)
{
    return REAL_VFS(vfs)->xAccess(REAL_VFS(vfs), path, flags, out);
}

static int
v_full_pathname(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    return REAL_VFS(vfs)->xFullPathname(REAL_VFS(vfs), path, n, out);
}

static void *
v_dl_open(sqlite3_vfs *vfs, const char *path)
{
    return REAL_VFS(vfs)->xDlOpen(REAL_VFS(vfs), path);
}

static void
v_dl_error(sqlite3_vfs *vfs, int n, char *out)
{
    REAL_VFS(vfs)->xDlError(REAL_VFS(vfs), n, out);
}

static void (*v_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
    return REAL_VFS(vfs)->xDlSym(REAL_VFS(vfs), handle, symbol);
}

static void
v_dl_close(sqlite3_vfs *vfs, void *handle)
{
    REAL_VFS(vfs)->xDlClose(REAL_VFS(vfs), handle);
}

static int
v_randomness(sqlite3_vfs *vfs, int n, char *out)
{
    return REAL_VFS(vfs)->xRandomness(REAL_VFS(vfs), n, out);
}

static int
v_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return REAL_VFS(vfs)->xSleep(REAL_VFS(vfs), microseconds);
}

static int
v_current_time(sqlite3_vfs *vfs, double *out)
{
    return REAL_VFS(vfs)->xCurrentTime(REAL_VFS(vfs), out);
}

static int
v_get_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    return REAL_VFS(vfs)->xGetLastError(REAL_VFS(vfs), n, out);
}

static int
v_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    return REAL_VFS(vfs)->xCurrentTimeInt64(REAL_VFS(vfs), out);
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

static void
fill_tables(void)
{
    for (int i = 0; i < 4; i++) {
        io_tables[i] = our_methods;
        io_tables[i].iVersion = i < 3 ? i + 1 : 3;
    }
    io_tables[3].xShmMap = NULL;
    io_tables[3].xShmLock = NULL;
    io_tables[3].xShmBarrier = NULL;
    io_tables[3].xShmUnmap = NULL;
}

/* Registers `ours` around `real`, which may be NULL.  Its name, or NULL. */
static const char *
wrap(sqlite3_vfs *ours, const char *name, sqlite3_vfs *real)
{
    if (ours->zName != NULL) {
        return ours->zName;
    }
    if (real == NULL || real->iVersion < 2) {
        return NULL;
    }
    fill_tables();
    *ours = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(vinyl_file) + real->szOsFile,
        .mxPathname = real->mxPathname,
        .pAppData = real,
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
    ours->zName = name;
    if (sqlite3_vfs_register(ours, 0) != SQLITE_OK) {
        ours->zName = NULL;
    }
    return ours->zName;
}

/* Called with the GIL held, so once at a time. */
const char *
vnl_sqlite_vfs(void)
{
    return wrap(&our_vfs, "vinyl", sqlite3_vfs_find(NULL));
}

const char *
vnl_sqlite_memory_vfs(void)
{
    return wrap(&our_memory_vfs, "vinyl-memory", sqlite3_vfs_find("memdb"));
}

void
vnl_sqlite_vfs_tie(vnl_sqlite_conn *conn, const char *schema)
{
    (void)sqlite3_file_control(conn->db, schema, TIE, conn);
}
