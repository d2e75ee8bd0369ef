#include "reactor/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "reactor/mailbox.h"

#define EVENTS_AT_ONCE 128

struct vnl_poller {
    int epoll_fd;
    int timer_fd;
    int mail_fd;
    int64_t timer_set; /* what timer_fd is set to, or VNL_FOREVER */
    vnl_node timers;   /* vnl_wake.timer, earliest deadline first */
    vnl_node ready;    /* vnl_wake.ready, first come first served */
    vnl_node watches;  /* vnl_watch.link */
    vnl_mailbox *mailbox;
};

int64_t
vnl_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
vnl_wake_init(vnl_wake *wake)
{
    wake->watch = NULL;
    wake->deadline = VNL_FOREVER;
    wake->events = 0;
    vnl_list_init(&wake->timer);
    vnl_list_init(&wake->ready);
}

static int
add_own_fd(vnl_poller *poller, int fd)
{
    /* The address of the member tells the poller's own descriptors apart. */
    struct epoll_event event = {.events = EPOLLIN};
    event.data.ptr = fd == poller->timer_fd ? (void *)&poller->timer_fd : (void *)&poller->mail_fd;
    return epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

vnl_poller *
vnl_poller_new(void)
{
    vnl_poller *poller = calloc(1, sizeof(*poller));
    if (poller == NULL) {
        return NULL;
    }
    poller->timer_set = VNL_FOREVER;
    vnl_list_init(&poller->timers);
    vnl_list_init(&poller->ready);
    vnl_list_init(&poller->watches);
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    poller->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poller->epoll_fd < 0 || poller->timer_fd < 0 || poller->mail_fd < 0) {
        goto fail;
    }
    if (add_own_fd(poller, poller->timer_fd) < 0 || add_own_fd(poller, poller->mail_fd) < 0) {
        goto fail;
    }
    poller->mailbox = vnl_mailbox_new(poller->mail_fd);
    if (poller->mailbox == NULL) {
        errno = ENOMEM;
        goto fail;
    }
    return poller;

fail:
    vnl_poller_free(poller);
    return NULL;
}

static void
close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void
vnl_poller_free(vnl_poller *poller)
{
    if (poller == NULL) {
        return;
    }
    vnl_node *node = NULL;
    while ((node = vnl_list_first(&poller->watches)) != NULL) {
        vnl_watch *watch = VNL_CONTAINER(node, vnl_watch, link);
        vnl_list_remove(node);
        watch->poller = NULL;
        watch->armed = 0;
        watch->wake = NULL;
    }
    while ((node = vnl_list_first(&poller->timers)) != NULL) {
        vnl_list_remove(node);
    }
    while ((node = vnl_list_first(&poller->ready)) != NULL) {
        vnl_list_remove(node);
    }
    vnl_mailbox_free(poller->mailbox);
    close_fd(poller->mail_fd);
    close_fd(poller->timer_fd);
    close_fd(poller->epoll_fd);
    free(poller);
}

int
vnl_poller_fd(const vnl_poller *poller)
{
    return poller->epoll_fd;
}

vnl_mailbox *
vnl_poller_mailbox(vnl_poller *poller)
{
    return poller->mailbox;
}

static void
set_timer(vnl_poller *poller)
{
    vnl_node *first = vnl_list_first(&poller->timers);
    if (first == NULL) {
        return; /* an old setting fires for nothing, once */
    }
    int64_t deadline = VNL_CONTAINER(first, vnl_wake, timer)->deadline;
    if (deadline >= poller->timer_set) {
        return; /* it fires earlier and is then set anew */
    }
    struct itimerspec spec = {
        .it_value = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000}};
    if (deadline <= 0) {
        spec.it_value.tv_nsec = 1;
    }
    timerfd_settime(poller->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    poller->timer_set = deadline;
}

static void
watch_forget(vnl_watch *watch)
{
    if (watch->poller != NULL) {
        if (watch->armed) {
            epoll_ctl(watch->poller->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
        }
        watch->armed = 0;
        watch->poller = NULL;
        vnl_list_remove(&watch->link);
    }
}

static int
watch_arm(vnl_poller *poller, vnl_watch *watch, int events)
{
    if (watch->poller != poller) {
        watch_forget(watch);
    }
    if (watch->armed == events) {
        return 0;
    }
    struct epoll_event event = {.events = 0, .data = {.ptr = watch}};
    event.events = (events & VNL_READ ? EPOLLIN | EPOLLRDHUP : 0) | (events & VNL_WRITE ? EPOLLOUT : 0);
    int op = watch->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(poller->epoll_fd, op, watch->fd, &event) < 0) {
        return -1;
    }
    if (watch->poller == NULL) {
        watch->poller = poller;
        vnl_list_append(&poller->watches, &watch->link);
    }
    watch->armed = events;
    return 0;
}

int
vnl_poller_arm(vnl_poller *poller, vnl_wake *wake, vnl_watch *watch, int events, int64_t deadline)
{
    if (watch != NULL) {
        int read_by_loop = watch->reader != NULL && events == VNL_READ;
        if (!read_by_loop && watch_arm(poller, watch, events) < 0) {
            return -1;
        }
        watch->wake = wake;
        watch->want = events;
    }
    wake->watch = watch;
    wake->events = 0;
    wake->deadline = deadline;
    if (deadline != VNL_FOREVER) {
        /* Deadlines mostly come in rising order: look from the end. */
        vnl_node *at = &poller->timers;
        while (at->prev != &poller->timers && VNL_CONTAINER(at->prev, vnl_wake, timer)->deadline > deadline) {
            at = at->prev;
        }
        vnl_list_insert(at, &wake->timer);
        set_timer(poller);
    }
    return 0;
}

void
vnl_wake_disarm(vnl_wake *wake)
{
    if (wake->watch != NULL) {
        if (wake->watch->wake == wake) {
            wake->watch->wake = NULL;
        }
        wake->watch = NULL;
    }
    vnl_list_remove(&wake->timer);
    vnl_list_remove(&wake->ready);
}

void
vnl_poller_ready(vnl_poller *poller, vnl_wake *wake, int events)
{
    vnl_wake_disarm(wake);
    wake->events = events;
    vnl_list_append(&poller->ready, &wake->ready);
}

static void
watch_event(vnl_poller *poller, vnl_watch *watch, uint32_t bits)
{
    int events = (bits & (EPOLLIN | EPOLLRDHUP) ? VNL_READ : 0) | (bits & EPOLLOUT ? VNL_WRITE : 0);
    if (bits & (EPOLLERR | EPOLLHUP)) {
        events |= VNL_READ | VNL_WRITE;
    }
    if (watch->wake != NULL && (events & watch->want)) {
        vnl_poller_ready(poller, watch->wake, events & watch->want);
    }
    else {
        /* Nobody waits: be silent until somebody does. Deleted, not modified,
         * since a hang-up is reported whatever was asked for. */
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
        watch->armed = 0;
    }
}

static void
timers_due(vnl_poller *poller)
{
    uint64_t expirations = 0;
    (void)!read(poller->timer_fd, &expirations, sizeof(expirations));
    poller->timer_set = VNL_FOREVER;
    int64_t now = vnl_now();
    vnl_node *node = NULL;
    while ((node = vnl_list_first(&poller->timers)) != NULL) {
        vnl_wake *wake = VNL_CONTAINER(node, vnl_wake, timer);
        if (wake->deadline > now) {
            break;
        }
        vnl_poller_ready(poller, wake, 0);
    }
    set_timer(poller);
}

static void
mail_due(vnl_poller *poller)
{
    uint64_t posted = 0;
    (void)!read(poller->mail_fd, &posted, sizeof(posted));
    vnl_wake *wake = NULL;
    while ((wake = vnl_mailbox_take(poller->mailbox)) != NULL) {
        vnl_poller_ready(poller, wake, 1);
    }
}

void
vnl_poller_collect(vnl_poller *poller)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = epoll_wait(poller->epoll_fd, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == &poller->timer_fd) {
            timers_due(poller);
        }
        else if (events[i].data.ptr == &poller->mail_fd) {
            mail_due(poller);
        }
        else {
            watch_event(poller, events[i].data.ptr, events[i].events);
        }
    }
}

vnl_wake *
vnl_poller_next(vnl_poller *poller)
{
    vnl_node *node = vnl_list_first(&poller->ready);
    if (node == NULL) {
        return NULL;
    }
    vnl_list_remove(node);
    return VNL_CONTAINER(node, vnl_wake, ready);
}

vnl_watch *
vnl_watch_new(int fd, int lasting)
{
    vnl_watch *watch = calloc(1, sizeof(*watch));
    if (watch != NULL) {
        watch->fd = fd;
        watch->lasting = lasting;
        vnl_list_init(&watch->link);
    }
    return watch;
}

void
vnl_watch_free(vnl_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    if (watch->wake != NULL) {
        watch->wake->watch = NULL;
    }
    watch_forget(watch);
    if (watch->reader != NULL) {
        watch->forget(watch->reader);
    }
    free(watch);
}
