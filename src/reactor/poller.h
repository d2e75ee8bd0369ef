/* The Python-free half of the reactor: descriptors, deadlines and the mailbox
 * of finished jobs behind one descriptor that an event loop can watch. */
#ifndef VNL_REACTOR_POLLER_H
#define VNL_REACTOR_POLLER_H

#include <stdint.h>
#include "base/list.h"
#include "core_api.h"

typedef struct vnl_poller vnl_poller;
typedef struct vnl_wake vnl_wake;
typedef struct vnl_reader vnl_reader;

/* One wait: armed, it is in at most one watch and one timer list; once it has
 * fired or was disarmed it is in neither. */
struct vnl_wake {
    vnl_watch *watch;
    int64_t deadline;
    vnl_node timer; /* in the poller's timers */
    vnl_node ready; /* in the poller's ready list: over, not yet taken */
    int events;     /* what ended it: events of its watch, 0 for the deadline */
};

void vnl_wake_init(vnl_wake *wake);

struct vnl_watch {
    int fd;
    int armed;          /* VNL_READ | VNL_WRITE as registered with the poller */
    vnl_poller *poller; /* where it is registered, or NULL */
    vnl_node link;      /* in the poller's watches */
    vnl_wake *wake;     /* who waits, or NULL */
    int want;           /* for which events */
    int lasting;        /* of a connection that will wait often: worth a reader */
    vnl_reader *reader; /* what the loop itself watches (reader.h), or NULL */
    void (*forget)(vnl_reader *reader);
};

vnl_poller *vnl_poller_new(void); /* NULL with errno */
void vnl_poller_free(vnl_poller *poller);
int vnl_poller_fd(const vnl_poller *poller);
/* Collects what is ready.  Take it one by one with vnl_poller_next (NULL: no
 * more); what is not taken stays for the next time. */
void vnl_poller_collect(vnl_poller *poller);
vnl_wake *vnl_poller_next(vnl_poller *poller);

/* Arms `wake` for events of a watch (NULL: none) and a deadline; where the watch has a
 * reader, reading is left to that.  0, or -1 with errno. */
int vnl_poller_arm(vnl_poller *poller, vnl_wake *wake, vnl_watch *watch, int events, int64_t deadline);
void vnl_wake_disarm(vnl_wake *wake);
/* Makes an armed (or idle) wake ready now; for the poller's own thread. */
void vnl_poller_ready(vnl_poller *poller, vnl_wake *wake, int events);

vnl_watch *vnl_watch_new(int fd, int lasting);
void vnl_watch_free(vnl_watch *watch);

int64_t vnl_now(void);

/* Where other threads post wakes of this poller. */
struct vnl_mailbox *vnl_poller_mailbox(vnl_poller *poller);

#endif
