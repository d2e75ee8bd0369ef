/* The core, as the engine modules see it.
 *
 * vinyl._core publishes one `vnl_core_api` in the capsule "vinyl._core._api";
 * an engine module imports it once with vnl_core_import() and reaches fibers,
 * waiting, the helper thread and the pool only through it.  This header is
 * free of Python.h so that Python-free rooms may include it; `PyObject` is
 * named only as an opaque struct.
 *
 * Every call needs the GIL.  Calls named `_wait` may switch the fiber: hold
 * no borrowed reference, lock or address of a stack variable that others can
 * see across them.  They return -1 (or NULL) with a Python exception set when
 * the wait was ended from outside: CancelledError, GeneratorExit or, in
 * blocking mode, whatever a signal handler raised.
 */
#ifndef VNL_CORE_API_H
#define VNL_CORE_API_H

#include <stdint.h>

struct _object;

#define VNL_CORE_ABI 6
#define VNL_CORE_CAPSULE "vinyl._core._api"
#define VNL_DRIVER_CAPSULE "vinyl.driver"

/* Deadlines are absolute CLOCK_MONOTONIC nanoseconds. */
#define VNL_FOREVER INT64_MAX

/* Events of a descriptor. */
#define VNL_READ 1
#define VNL_WRITE 2

typedef struct vnl_watch vnl_watch; /* interest in one descriptor */
typedef struct vnl_event vnl_event; /* set once, waited for by one */
typedef struct vnl_slot vnl_slot;   /* a physical connection's place in a pool */

/* How a connection may be had, and was. */
typedef enum {
    VNL_SLOT_ALONE,  /* it is the caller's alone */
    VNL_SLOT_SHARED, /* asked: with others would do, where none is to be had alone.
                        Answered: it is another's, who has offered room */
    VNL_SLOT_LAST,   /* answered: it is the caller's alone, and the next would have to wait */
} vnl_slot_terms;

/* What a pool needs to know of an engine.  `conn` is the engine's own struct. */
typedef struct vnl_driver {
    int abi;
    const char *name;
    /* Opens a physical connection described by `config` (the object given to
     * Pool()).  NULL with an exception set on failure. May switch. */
    void *(*open_wait)(struct _object *config);
    /* Closes for good.  Never blocks, never raises, takes NULL. */
    void (*close)(void *conn);
    /* 1 when an idle connection is still good, 0 when it is dead.  Looks at
     * what is known and at the socket, sends nothing, never waits. */
    int (*check)(void *conn);
    /* A forked child drops its copy: frees descriptors and memory without a
     * word to the server. */
    void (*abandon)(void *conn);
} vnl_driver;

/* A statement that waits to be sent together with those of other strands (fiber/strand.h). */
typedef struct vnl_park {
    /* Sends `n` > 1 of them, in their strands' order; what comes of each its own part knows.  -1 with an
     * exception: that is raised in the first one's strand. */
    int (*fly_wait)(struct vnl_park **parks, int n);
    const void *key; /* those with the same one are sent together */
} vnl_park;

/* The rows of an engine's cursor, without a tuple for each. */
typedef struct vnl_row_source {
    /* How many columns; 0 where the cursor is to be iterated. */
    int (*columns)(struct _object *cursor);
    /* Fills in new references to the values of the next rows, `rows` at most of
     * `columns` each: how many rows, 0 at the end, -1 with an exception (and
     * nothing filled in).  May switch. */
    int (*next_wait)(struct _object *cursor, struct _object **cells, int columns, int rows);
} vnl_row_source;

typedef struct vnl_core_api {
    int abi;

    /* 1 inside a fiber on a running loop: waits suspend the task.
     * 0 elsewhere: waits block the thread with the GIL released. */
    int (*can_suspend)(void);
    int64_t (*now)(void);
    /* The running fiber, or the thread outside of them: to be compared only. */
    const void *(*who)(void);

    /* --- descriptors.  A watch belongs to the connection that owns the
     * descriptor; it is registered with the loop on first use and stays so
     * (`lasting`: for many waits, in a way that pays then).
     * Free it before the descriptor is closed.  watch_wait: the events that
     * are ready (> 0), 0 at the deadline, -1 with an exception. */
    vnl_watch *(*watch_new)(int fd, int lasting);
    void (*watch_free)(vnl_watch *watch);
    int (*watch_wait)(vnl_watch *watch, int events, int64_t deadline);
    /* A fiber that waits for it goes on as if it were ready. */
    void (*watch_ring)(vnl_watch *watch);

    /* Gives the loop one turn.  Blocking mode: only looks for signals. */
    int (*turn_wait)(void);
    int (*sleep_wait)(int64_t nanoseconds);

    /* Runs fn(arg) on the helper thread while the fiber is suspended; in
     * blocking mode right here with the GIL released.  `arg` must live on the
     * heap and fn must not touch Python.  Always waits for fn to end; a cancel
     * that arrives meanwhile is reported afterwards (-1). */
    int (*job_wait)(void (*fn)(void *arg), void *arg);
    /* The same, on a second thread kept for calls that talk to a server that
     * may not answer (PQcancel): gives up waiting at the deadline (returns 0;
     * 1 when done).  `release(arg)` is called when the job has ended, whoever
     * still waits, on that thread. */
    int (*side_job_wait)(void (*fn)(void *arg), void *arg, void (*release)(void *arg), int64_t deadline);

    /* Between shield_enter and shield_leave an exception thrown into the fiber
     * is kept back; a wait ends only by its event or deadline.  shield_leave
     * returns -1 with the kept exception set when nothing else is raised, and
     * 0 otherwise (the kept exception is then dropped in favour of the one
     * that is set). */
    void (*shield_enter)(void);
    int (*shield_leave)(void);

    /* For a clean-up that may run where exceptions are lost, as in the finalizer of
     * a generator.  1: the one that is raised was an order to end (a cancel), and is put off
     * until the fiber's next wait or the end of its call.  0: it is still raised. */
    int (*put_off)(void);

    /* --- events: a flag for one waiter.  event_wait: 1 set, 0 at the deadline,
     * -1 exception.  event_set: by the waiter's own thread.  event_ring: by any
     * thread, needs no GIL.  event_clear: by the waiter, before it waits again. */
    vnl_event *(*event_new)(void);
    void (*event_free)(vnl_event *event);
    int (*event_wait)(vnl_event *event, int64_t deadline);
    void (*event_set)(vnl_event *event);
    void (*event_ring)(vnl_event *event);
    void (*event_clear)(vnl_event *event);

    /* --- the pool.  `pool` is a vinyl._core.Pool.  take: a slot whose
     * connection is open and yours by `terms` (NULL: alone), or NULL with an
     * exception.  give: reusable = 0 closes the connection (after an error, when
     * its state is unknown).  Never switches, never fails. */
    vnl_slot *(*pool_take_wait)(struct _object *pool, vnl_slot_terms *terms);
    void (*pool_give)(vnl_slot *slot, int reusable);
    void *(*slot_conn)(vnl_slot *slot);
    /* How many more may share it now: whoever waits and would is told.  Until the next offer, or its end. */
    void (*slot_offer)(vnl_slot *slot, int room);
    /* The running task is who uses it from now on. */
    void (*slot_hand_over)(vnl_slot *slot);
    /* So long has one waited who shares it. */
    void (*slot_waited)(vnl_slot *slot, int64_t nanoseconds);
    /* For who keeps it longer than one statement: remembers which line of the user's code it is for. */
    void (*slot_note_line)(vnl_slot *slot);
    /* Its holder was dropped, not closed: a ResourceWarning that names that line.  `state` goes on with
     * "A connection … was dropped …".  Keeps a raised exception. */
    void (*slot_warn_dropped)(vnl_slot *slot, const char *state);

    /* --- strands.  strand_parks: whether what runs is one and may wait for the others here.
     * strand_park_wait: waits until all are parked and have flown; one that is parked alone is not flown, nor
     * is one outside. `park` lives on the heap.  -1 with an exception: its statement is not wanted any more,
     * or the flight failed. */
    int (*strand_parks)(void);
    int (*strand_park_wait)(vnl_park *park);

    /* Counters for vinyl._core.stats(). */
    void (*count_statement)(void);
    /* So many of them (> 1) were sent together. */
    void (*count_flight)(int statements);

    /* How the core's loops over rows read the cursors of that exact type. */
    void (*rows_register)(struct _object *cursor_type, const vnl_row_source *source);
} vnl_core_api;

#endif
