"""SQLite's queue where waiting ends otherwise: cancels, closed loops, threads, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlite_queue_support import (
    Holder,
    in_line,
    journals,
    make,
    names,
    on_a_loop,
    write,
    writers,
)
from sqlite_queue_support import database as database
from sqlite_queue_support import journaled as journaled
from sqlite_queue_support import memory as memory
from sqlite_support import Database, start, until_suspended

from vinyl import _core

# --- cancel, close, loops, threads, forks


@on_a_loop
@pytest.mark.parametrize("which", [0, 1, 2, 3])
async def test_cancel_in_the_queue(database: Database, which: int) -> None:
    """The first, one in the middle, the last: the others keep their places."""
    holder = Holder(database)
    tasks = await in_line(*writers(database, range(4)))
    tasks[which].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks.pop(which)
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(database) == ["holder", *[n for n in range(4) if n != which]]
    assert database.is_whole()


@on_a_loop
async def test_cancel_of_one_who_was_told(database: Database) -> None:
    """Between being told and asking: the turn goes to the next."""
    holder = Holder(database)
    first, second = await in_line(*writers(database, ["first", "second"]))
    holder.let_go()  # the bell has rung; the loop has not turned yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert names(database) == ["holder", "second"]
    assert database.is_whole()


@on_a_loop
async def test_cancel_of_the_holder(database: Database) -> None:
    def hold() -> None:
        link = database.link()
        try:
            link.execute("BEGIN IMMEDIATE")
            _core._sleep(60)
        finally:
            link.close()

    holder = start(hold)
    await until_suspended(1)
    tasks = await in_line(*writers(database, range(2)))
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    await asyncio.gather(*tasks)
    assert names(database) == [0, 1]


def test_a_loop_that_ends_with_waiters(database: Database, mode: str) -> None:
    import uvloop

    factory = uvloop.new_event_loop if mode == "uvloop" else asyncio.new_event_loop
    holder = Holder(database)

    async def leave_waiting() -> None:
        await in_line(*writers(database, ["never"] * 3))

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leave_waiting())
    # One that is only closed, and cancels nobody.
    loop = factory()
    loop.run_until_complete(leave_waiting())
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del pending, task
    gc.collect()
    assert database.pool.stats()["pool_size"] == 0
    holder.let_go()
    write(database, "then")
    assert names(database) == ["holder", "then"]


def in_threads(number: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@pytest.mark.parametrize("loops", [True, False], ids=["loops", "blocking"])
@journals
def test_threads_take_turns(journaled: Database, loops: bool) -> None:
    """None of four threads, each in a loop of its own or blocking, is left behind."""
    counts = [0] * 4
    goal = 15
    behind: list[int] = []
    ready = threading.Barrier(4)

    def loop(n: int) -> None:
        ready.wait()
        while min(counts) < goal:
            write(journaled, n)
            counts[n] += 1
        behind.append(max(counts) - min(counts))

    def work(n: int) -> None:
        if not loops:
            loop(n)
            return

        async def main() -> None:
            await _core.run(loop, n)

        asyncio.run(main())

    in_threads(4, work)
    assert sorted(names(journaled)) == sorted(n for n in range(4) for _ in range(counts[n]))
    # Alone they would be one apart at most; a thread that the machine stops for a quarter of a
    # second is passed by.
    assert max(counts) < 4 * goal, counts


def test_a_thread_whose_loop_is_held_up_is_passed_by(database: Database) -> None:
    """It is the first in line, is told, and does something else: the others go on without it."""
    waits, go_on = threading.Event(), threading.Event()
    holder = Holder(database)

    def stuck() -> None:
        async def main() -> None:
            task = start(write, database, "stuck")
            await until_suspended(1)
            waits.set()
            go_on.wait()  # blocks the loop
            await task

        asyncio.run(main())

    thread = threading.Thread(target=stuck)
    thread.start()
    waits.wait()
    holder.let_go()
    for n in range(3):
        write(database, n)  # within its timeout
    go_on.set()
    thread.join()
    assert names(database) == ["holder", 0, 1, 2, "stuck"]


def test_signals_end_a_blocking_wait(database: Database) -> None:
    import signal

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    holder = Holder(database)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stop):
            write(database, "never")
    finally:
        signal.signal(signal.SIGALRM, before)
    holder.let_go()
    write(database, "then")
    assert names(database) == ["holder", "then"]


@on_a_loop
async def test_a_fork_starts_with_empty_queues(database: Database) -> None:
    """The parent's waiters are none of the child's."""
    holder = Holder(database)
    tasks = await in_line(*writers(database, range(2)))
    other = f"{database.config.database}.child"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio._set_running_loop(None)
            # The parent has the lock: SQLite's, which the child meets like any other process.
            child = Database.at(database.config.database, timeout=0.05)
            try:
                write(child, "child")
            except sqlite3.OperationalError:
                code = 0
            own = make(other)
            write(own, "child")
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert names(Database.at(other)) == ["child"]
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(database) == ["holder", 0, 1]


async def test_a_fork_in_a_transaction_in_memory(memory: Database) -> None:
    """The child has a copy of the database, and nobody else's lock in it."""
    link = memory.link()
    link.execute("BEGIN IMMEDIATE")
    link.execute("INSERT INTO t (b) VALUES ('parent')")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio._set_running_loop(None)
            link.rollback()
            write(memory, "child")
            code = 0 if names(memory) == ["child"] else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    link.commit()
    link.close()
    assert names(memory) == ["parent"]
