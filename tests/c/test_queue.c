/* The queue of SQLite's lock. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "driver/sqlite/queue.h"

#define MS 1000000

typedef struct {
    vnl_sqlite_request request;
    atomic_int told;
} waiter;

static void
count_told(vnl_sqlite_request *request)
{
    VNL_CONTAINER(request, waiter, request)->told++;
}

static waiter
new_waiter(void)
{
    return (waiter){.request = {.tell = count_told}};
}

/* Joins and waits, as a busy handler does; the length of its wait. */
static int64_t
wait_in(vnl_sqlite_queue *queue, waiter *who, vnl_sqlite_want want, int64_t now)
{
    vnl_sqlite_queue_join(queue, &who->request, want);
    return vnl_sqlite_queue_pause(&who->request, MS, now);
}

static void
get(vnl_sqlite_queue *queue, waiter *who, int64_t now)
{
    vnl_sqlite_queue_took(queue, now);
    vnl_sqlite_queue_leave(&who->request, now);
}

static void
test_one_queue_for_each_database(void)
{
    vnl_sqlite_queue *a = vnl_sqlite_queue_open(1, 2, NULL);
    vnl_sqlite_queue *again = vnl_sqlite_queue_open(1, 2, NULL);
    vnl_sqlite_queue *other = vnl_sqlite_queue_open(1, 3, NULL);
    vnl_sqlite_queue *memory = vnl_sqlite_queue_open(0, 0, "/one");
    vnl_sqlite_queue *same = vnl_sqlite_queue_open(0, 0, "/one");
    vnl_sqlite_queue *two = vnl_sqlite_queue_open(0, 0, "/two");
    vnl_sqlite_queue *nil = vnl_sqlite_queue_open(0, 0, NULL);

    CHECK(a == again && a != other && memory == same && memory != two && nil != memory);
    vnl_sqlite_queue_close(a);
    a = vnl_sqlite_queue_open(1, 2, NULL);
    CHECK(a == again); /* the second reference kept it */
    vnl_sqlite_queue_close(a);
    vnl_sqlite_queue_close(again);
    vnl_sqlite_queue_close(other);
    vnl_sqlite_queue_close(memory);
    vnl_sqlite_queue_close(same);
    vnl_sqlite_queue_close(two);
    vnl_sqlite_queue_close(nil);
    vnl_sqlite_queue_close(NULL);
}

static void
test_writers_come_in_order(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter a = new_waiter(), b = new_waiter(), holder = new_waiter();

    CHECK(vnl_sqlite_queue_may_write(queue, &holder.request, 0));
    get(queue, &holder, 0);
    CHECK(wait_in(queue, &a, VNL_WANT_WRITE, 1) > MS); /* it will be told */
    CHECK(wait_in(queue, &b, VNL_WANT_WRITE, 2) > MS);
    vnl_sqlite_queue_released(queue, 3);
    CHECK(a.told == 1 && b.told == 0);
    /* Whoever comes now, the last holder too, stands behind them. */
    CHECK(!vnl_sqlite_queue_may_write(queue, &holder.request, 4));
    CHECK(!vnl_sqlite_queue_may_write(queue, &b.request, 4));
    CHECK(vnl_sqlite_queue_may_write(queue, &a.request, 4));
    CHECK(wait_in(queue, &holder, VNL_WANT_WRITE, 4) > MS);
    get(queue, &a, 5);
    CHECK(b.told == 0); /* the lock is taken */
    vnl_sqlite_queue_released(queue, 6);
    CHECK(b.told == 1 && holder.told == 0);
    get(queue, &b, 7);
    vnl_sqlite_queue_released(queue, 8);
    CHECK(holder.told == 1);
    get(queue, &holder, 9);
    vnl_sqlite_queue_released(queue, 10);
    CHECK(vnl_sqlite_queue_may_write(queue, &a.request, 11));
    CHECK(a.told == 1 && b.told == 1);
    vnl_sqlite_queue_close(queue);
}

static void
test_one_who_gives_up(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter a = new_waiter(), b = new_waiter(), c = new_waiter(), holder = new_waiter();

    get(queue, &holder, 0);
    (void)wait_in(queue, &a, VNL_WANT_WRITE, 1);
    (void)wait_in(queue, &b, VNL_WANT_WRITE, 1);
    (void)wait_in(queue, &c, VNL_WANT_WRITE, 1);
    vnl_sqlite_queue_leave(&b.request, 2); /* from the middle */
    CHECK(b.request.queue == NULL && a.told == 0 && c.told == 0);
    vnl_sqlite_queue_leave(&b.request, 2); /* once more does nothing */
    vnl_sqlite_queue_released(queue, 3);
    CHECK(a.told == 1 && c.told == 0);
    vnl_sqlite_queue_leave(&a.request, 4); /* told, and cancelled at once */
    CHECK(c.told == 1);
    CHECK(vnl_sqlite_queue_may_write(queue, &c.request, 5));
    vnl_sqlite_queue_leave(&c.request, 6);
    vnl_sqlite_queue_close(queue);
}

static void
test_readers_go_before_a_newcomer(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter reader = new_waiter(), second = new_waiter(), writer = new_waiter(), holder = new_waiter();

    get(queue, &holder, 0);
    CHECK(wait_in(queue, &reader, VNL_WANT_READ, 1) > MS);
    (void)wait_in(queue, &writer, VNL_WANT_WRITE, 1);
    (void)wait_in(queue, &second, VNL_WANT_READ, 1);
    vnl_sqlite_queue_released(queue, 2);
    CHECK(reader.told == 1 && second.told == 1 && writer.told == 1);
    /* One who waited need not let readers go first, who are let in beside it. */
    CHECK(vnl_sqlite_queue_may_write(queue, &writer.request, 3));
    vnl_sqlite_queue_leave(&writer.request, 3);
    CHECK(!vnl_sqlite_queue_may_write(queue, &holder.request, 3));
    vnl_sqlite_queue_leave(&reader.request, 4);
    vnl_sqlite_queue_leave(&second.request, 4);
    CHECK(vnl_sqlite_queue_may_write(queue, &holder.request, 5));
    vnl_sqlite_queue_close(queue);
}

static void
test_a_lock_of_another_process_is_asked_for_again(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter first = new_waiter(), next = new_waiter(), reader = new_waiter();

    CHECK(wait_in(queue, &first, VNL_WANT_WRITE, 1) == MS); /* nobody here has it */
    CHECK(wait_in(queue, &next, VNL_WANT_WRITE, 1) > MS);   /* the first one asks */
    CHECK(wait_in(queue, &reader, VNL_WANT_READ, 1) == MS);
    CHECK(wait_in(queue, &first, VNL_WANT_WRITE, 2) == MS); /* keeps its place */
    CHECK(!vnl_sqlite_queue_may_write(queue, &next.request, 3));
    vnl_sqlite_queue_leave(&first.request, 3);
    CHECK(next.told == 1 && reader.told == 0);
    vnl_sqlite_queue_leave(&next.request, 3);
    vnl_sqlite_queue_leave(&reader.request, 3);
    vnl_sqlite_queue_close(queue);
}

static void
test_one_who_is_stuck_is_passed_by(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter stuck = new_waiter(), next = new_waiter(), newcomer = new_waiter();

    (void)wait_in(queue, &stuck, VNL_WANT_WRITE, 0);
    (void)wait_in(queue, &next, VNL_WANT_WRITE, 100 * MS);
    CHECK(!vnl_sqlite_queue_may_write(queue, &next.request, 100 * MS));
    (void)wait_in(queue, &next, VNL_WANT_WRITE, 300 * MS);
    CHECK(vnl_sqlite_queue_may_write(queue, &next.request, 300 * MS));
    CHECK(!vnl_sqlite_queue_may_write(queue, &newcomer.request, 300 * MS)); /* behind next */
    get(queue, &next, 301 * MS);
    vnl_sqlite_queue_released(queue, 302 * MS);
    CHECK(stuck.told == 1); /* it has kept its place, and a fresh chance */
    CHECK(!vnl_sqlite_queue_may_write(queue, &newcomer.request, 303 * MS));
    CHECK(vnl_sqlite_queue_may_write(queue, &newcomer.request, 600 * MS));
    vnl_sqlite_queue_leave(&stuck.request, 601 * MS);
    vnl_sqlite_queue_close(queue);
}

/* Handed on for a quarter of a second, the lock is left to other processes. */
static void
test_a_rest_after_a_run(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter one = new_waiter(), two = new_waiter();
    waiter *holder = &one, *next = &two;
    int64_t now = 1000 * MS;
    int turns = 0;

    get(queue, holder, now);
    for (; turns < 100; turns++) {
        waiter *last = holder;
        (void)wait_in(queue, next, VNL_WANT_WRITE, now);
        vnl_sqlite_queue_released(queue, now += 10 * MS);
        if (!vnl_sqlite_queue_may_write(queue, &next->request, now)) {
            break;
        }
        get(queue, next, now);
        holder = next;
        next = last;
    }
    CHECK(turns == 25);
    CHECK(next->told > 0);
    CHECK(!vnl_sqlite_queue_may_write(queue, &holder->request, now + MS));
    CHECK(wait_in(queue, next, VNL_WANT_WRITE, now + MS) == MS); /* nobody will tell it */
    CHECK(vnl_sqlite_queue_may_write(queue, &next->request, now + 10 * MS));
    get(queue, next, now + 10 * MS);
    (void)wait_in(queue, holder, VNL_WANT_WRITE, now + 10 * MS);
    vnl_sqlite_queue_released(queue, now + 20 * MS);
    CHECK(vnl_sqlite_queue_may_write(queue, &holder->request, now + 20 * MS)); /* a new run */
    vnl_sqlite_queue_leave(&holder->request, now + 20 * MS);
    /* Alone it does as SQLite does. */
    now += 30 * MS;
    for (int64_t end = now + 1000 * MS; now < end; now += MS) {
        CHECK(vnl_sqlite_queue_may_write(queue, &next->request, now));
        get(queue, next, now);
        vnl_sqlite_queue_released(queue, now);
    }
    vnl_sqlite_queue_close(queue);
}

static void
test_the_committer_hears_of_readers(void)
{
    vnl_sqlite_queue *queue = vnl_sqlite_queue_open(1, 1, NULL);
    waiter committer = new_waiter();

    get(queue, &committer, 0);
    vnl_sqlite_queue_reader_left(queue, 1); /* nobody waits */
    CHECK(wait_in(queue, &committer, VNL_WANT_ALONE, 2) == MS);
    vnl_sqlite_queue_reader_left(queue, 3);
    vnl_sqlite_queue_reader_left(queue, 3);
    CHECK(committer.told == 1);
    CHECK(wait_in(queue, &committer, VNL_WANT_ALONE, 4) == MS);
    vnl_sqlite_queue_reader_left(queue, 5);
    CHECK(committer.told == 2);
    vnl_sqlite_queue_leave(&committer.request, 6);
    vnl_sqlite_queue_reader_left(queue, 7);
    CHECK(committer.told == 2);
    vnl_sqlite_queue_close(queue);
}

/* A move from one database's queue to another's, as ATTACH makes possible. */
static void
test_one_place_at_a_time(void)
{
    vnl_sqlite_queue *main = vnl_sqlite_queue_open(1, 1, NULL);
    vnl_sqlite_queue *attached = vnl_sqlite_queue_open(1, 2, NULL);
    waiter who = new_waiter(), other = new_waiter();

    (void)wait_in(main, &who, VNL_WANT_WRITE, 1);
    (void)wait_in(main, &other, VNL_WANT_WRITE, 1);
    (void)wait_in(attached, &who, VNL_WANT_WRITE, 2);
    CHECK(who.request.queue == attached && other.told == 1);
    vnl_sqlite_queue_leave(&who.request, 3);
    vnl_sqlite_queue_leave(&other.request, 3);
    vnl_sqlite_queue_close(main);
    vnl_sqlite_queue_close(attached);
}

/* Threads that take a lock only as the queue allows: each gets it as often. */
static vnl_sqlite_queue *shared;
static atomic_int held, wrong, taken;

static void *
take_turns(void *arg)
{
    waiter *me = arg;

    for (int64_t now = 0; atomic_load(&taken) < 2000; now++) {
        int none = 0;
        if (!vnl_sqlite_queue_may_write(shared, &me->request, 0) ||
            !atomic_compare_exchange_strong(&held, &none, 1)) {
            (void)wait_in(shared, me, VNL_WANT_WRITE, 0);
            sched_yield();
            continue;
        }
        vnl_sqlite_queue_took(shared, 0);
        vnl_sqlite_queue_leave(&me->request, 0);
        atomic_fetch_add(&taken, 1);
        if (atomic_exchange(&held, 0) != 1) {
            atomic_fetch_add(&wrong, 1);
        }
        vnl_sqlite_queue_released(shared, 0);
    }
    vnl_sqlite_queue_leave(&me->request, 0);
    return NULL;
}

static void
test_threads(void)
{
    pthread_t threads[4];
    waiter waiters[4];

    shared = vnl_sqlite_queue_open(1, 1, NULL);
    for (int i = 0; i < 4; i++) {
        waiters[i] = new_waiter();
        CHECK(pthread_create(&threads[i], NULL, take_turns, &waiters[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(wrong == 0 && taken >= 2000);
    waiter last = new_waiter();
    CHECK(vnl_sqlite_queue_may_write(shared, &last.request, 0)); /* nobody is left in it */
    vnl_sqlite_queue_close(shared);
}

/* The parent's queue may be locked and full: the child has another one. */
static void
test_after_a_fork(void)
{
    vnl_sqlite_queue *parents = vnl_sqlite_queue_open(1, 1, NULL);
    waiter there = new_waiter(), here = new_waiter();

    (void)wait_in(parents, &there, VNL_WANT_WRITE, 0);
    vnl_sqlite_queues_after_fork();
    vnl_sqlite_queue *own = vnl_sqlite_queue_open(1, 1, NULL);
    CHECK(own != parents && vnl_sqlite_queue_may_write(own, &here.request, 0));
    vnl_sqlite_queue_close(own);
    vnl_sqlite_queue_leave(&there.request, 1); /* for the leak sanitizer */
    vnl_sqlite_queue_close(parents);
}

int
main(void)
{
    test_one_queue_for_each_database();
    test_writers_come_in_order();
    test_one_who_gives_up();
    test_readers_go_before_a_newcomer();
    test_a_lock_of_another_process_is_asked_for_again();
    test_one_who_is_stuck_is_passed_by();
    test_a_rest_after_a_run();
    test_the_committer_hears_of_readers();
    test_one_place_at_a_time();
    test_threads();
    test_after_a_fork();
    return checked();
}
