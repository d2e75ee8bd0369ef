"""The SQLite engine on a loop: long statements take turns, locks and fsync leave the loop free."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import time
import tracemalloc
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import COUNT, Database, start, until, until_suspended

from vinyl import _core

# Seconds of CPU between two turns of the loop; the sanitizers cost about ten times as much.
LONGEST = 0.2 if os.environ.get("VINYL_ASAN") else 0.005

pytestmark = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "a.sqlite3")
    link = database.own()
    link.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    link.close()
    return database


async def longest_hold(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """The result, and the most CPU seconds this thread spent between two turns of the loop.

    CPU time, for the machine may give the wall's to others; without Python's garbage collector,
    whose passes over many rows are not ours.
    """
    gc.collect()
    gc.disable()
    try:
        return await _longest_hold(awaitable)
    finally:
        gc.enable()


async def _longest_hold(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    task = asyncio.ensure_future(awaitable)
    longest = 0.0
    for _ in range(3):
        await asyncio.sleep(0)
    last = time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest = max(longest, now - last)
        last = now
    return await task, longest


# --- turns


async def test_interleaved_scans_answer_rightly(database: Database) -> None:
    def scan(n: int) -> int:
        return database.link().execute(COUNT, (n,)).fetchone()[0]

    sizes = [30_000 + 1_000 * n for n in range(10)]
    before = _core.stats()["suspends"]
    sums = await asyncio.gather(*[_core.run(scan, n) for n in sizes])
    assert sums == [n * (n + 1) // 2 for n in sizes]
    assert _core.stats()["suspends"] - before > 50
    assert database.is_whole()


async def test_a_long_scan_does_not_hold_the_loop(database: Database) -> None:
    def scan() -> int:
        return database.link().execute(COUNT, (1_000_000,)).fetchone()[0]

    total, longest = await longest_hold(_core.run(scan))
    assert total == 1_000_000 * 1_000_001 // 2
    assert longest < LONGEST


async def test_ten_scans_at_once_do_not_hold_the_loop(database: Database) -> None:
    def scan() -> int:
        return database.link().execute(COUNT, (100_000,)).fetchone()[0]

    _, longest = await longest_hold(asyncio.gather(*[_core.run(scan) for _ in range(10)]))
    assert longest < LONGEST


async def test_fetching_many_rows_does_not_hold_the_loop(database: Database) -> None:
    def fetch() -> list[tuple[int]]:
        return database.link().execute(COUNT.replace("sum(x)", "x"), (200_000,)).fetchall()

    rows, longest = await longest_hold(_core.run(fetch))
    assert len(rows) == 200_000
    assert longest < LONGEST


async def test_rows_are_not_gathered_while_they_stream(database: Database) -> None:
    def stream() -> int:
        cursor = database.link().execute(
            COUNT.replace("sum(x)", "x, hex(zeroblob(5000))"), (10_000,)
        )
        tracemalloc.start()
        while cursor.fetchmany(100):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # The rows are 100 MB, 100 of them 1 MB.
    assert await _core.run(stream) < 5_000_000


async def test_executemany_takes_turns(database: Database) -> None:
    def insert() -> None:
        link = database.link()
        link.execute("BEGIN")
        link.executemany("INSERT INTO t (b) VALUES (?)", ((n,) for n in range(100_000)))
        link.rollback()

    _, longest = await longest_hold(_core.run(insert))
    assert longest < LONGEST
    assert database.is_whole()


async def test_many_short_statements_do_not_hold_the_loop(database: Database) -> None:
    def ask() -> int:
        link = database.link()
        return sum(link.execute("SELECT 1").fetchone()[0] for _ in range(20_000))

    total, longest = await longest_hold(_core.run(ask))
    assert total == 20_000
    assert longest < LONGEST


async def test_a_shared_cache_takes_turns_between_rows_only(tmp_path: Path) -> None:
    database = Database.at(f"file:{tmp_path}/s.sqlite3?cache=shared")
    link = database.own()

    def fetch() -> list[tuple[int]]:
        return database.link().execute(COUNT.replace("sum(x)", "x"), (50_000,)).fetchall()

    rows, longest = await longest_hold(asyncio.gather(*[_core.run(fetch) for _ in range(3)]))
    assert rows == [[(n,) for n in range(1, 50_001)]] * 3
    assert longest < LONGEST
    link.close()


# --- locks


async def test_writers_take_turns(database: Database) -> None:
    def write(n: int) -> None:
        link = database.link()
        for _ in range(5):
            link.execute("BEGIN IMMEDIATE")
            link.execute("INSERT INTO t (b) VALUES (?)", (n,))
            link.commit()

    await asyncio.gather(*[_core.run(write, n) for n in range(8)])
    assert database.ask("SELECT count(*), count(DISTINCT b) FROM t") == (40, 8)
    assert database.is_whole()


async def test_a_lock_held_too_long(tmp_path: Path, database: Database) -> None:
    impatient = Database.at(database.config.database, timeout=0.05)
    holder = database.own()
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO t (b) VALUES (1)")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
        await _core.run(impatient.do, "INSERT INTO t (b) VALUES (2)")
    assert time.monotonic() - began >= 0.05
    assert caught.value.sqlite_errorname == "SQLITE_BUSY"
    holder.rollback()
    holder.close()
    assert impatient.is_whole()


async def test_a_lock_that_is_let_go_in_time(database: Database) -> None:
    holder = database.own()
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO t (b) VALUES (1)")
    task = start(database.do, "INSERT INTO t (b) VALUES (2)")
    await until_suspended(3)
    assert not task.done()
    holder.commit()
    holder.close()
    await task
    assert database.ask("SELECT count(*) FROM t") == (2,)


async def test_a_snapshot_that_is_too_old_does_not_wait(database: Database) -> None:
    database.ask("PRAGMA journal_mode = WAL")

    def read_then_write() -> None:
        link = database.link()
        link.execute("BEGIN")
        link.execute("SELECT count(*) FROM t").fetchall()
        database.ask("INSERT INTO t (b) VALUES (1) RETURNING a")
        began = time.monotonic()
        try:
            with pytest.raises(sqlite3.OperationalError) as caught:
                link.execute("INSERT INTO t (b) VALUES (2)")
        finally:
            link.rollback()
        assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
        assert time.monotonic() - began < 2

    await _core.run(read_then_write)
    assert database.is_whole()


async def test_a_locked_table_of_a_shared_cache_is_waited_for(tmp_path: Path) -> None:
    database = Database.at("file:vinyl_wait?mode=memory&cache=shared")
    holder = database.own()
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO t VALUES (1)")

    def read() -> int:
        return database.link().execute("SELECT count(*) FROM t").fetchone()[0]

    task = start(read)
    await until_suspended(3)
    assert not task.done()
    holder.commit()
    assert await task == 1
    holder.close()


# --- cancel


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until_jobs(task: asyncio.Task[Any], count: int) -> None:
    await until(lambda: task.done() or _core.stats()["jobs"] >= count)


async def test_cancel_a_scan(database: Database) -> None:
    reached: list[int] = []
    database.config.setup = lambda link: link.create_function("mark", 1, reached.append)
    endless = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT count(CASE WHEN x = 1000 THEN mark(x) END) FROM c"
    )
    task = start(database.do, endless)
    await until(lambda: bool(reached))
    await until_suspended(2)
    await cancelled(task)
    assert database.is_whole()
    assert await _core.run(lambda: database.link().execute("SELECT 1").fetchone()) == (1,)


async def test_cancel_a_scan_in_a_transaction(database: Database) -> None:
    def work() -> None:
        link = database.link()
        try:
            link.execute("BEGIN")
            link.execute("INSERT INTO t (b) VALUES (1)")
            link.execute(COUNT, (10**12,))
        finally:
            link.rollback()

    task = start(work)
    await until_suspended(5)
    await cancelled(task)
    assert database.ask("SELECT count(*) FROM t") == (0,)
    assert database.is_whole()


async def test_cancel_a_wait_for_a_lock(database: Database) -> None:
    holder = database.own()
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("INSERT INTO t (b) VALUES (1)")
    task = start(database.do, "INSERT INTO t (b) VALUES (2)")
    await until_suspended(2)
    await cancelled(task)
    holder.rollback()
    holder.close()
    assert database.is_whole()
    assert database.ask("SELECT count(*) FROM t") == (0,)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
async def test_cancel_while_the_disk_syncs(database: Database, journal: str) -> None:
    database.ask(f"PRAGMA journal_mode = {journal}")

    def write() -> None:
        link = database.link()
        try:
            link.execute("BEGIN")
            link.execute("INSERT INTO t (b) VALUES (1)")
            link.execute("INSERT INTO t (b) VALUES (2)")
            link.commit()
        except BaseException:
            link.rollback()
            raise

    for sync in range(6):
        before = database.ask("SELECT count(*) FROM t")[0]
        jobs = _core.stats()["jobs"]
        task = start(write)
        await until(
            lambda jobs=jobs, sync=sync, task=task: (
                task.done() or _core.stats()["jobs"] > jobs + sync
            )
        )
        if task.done():
            await task
            continue
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        # Both rows or none; none when it was cancelled while the journal was not yet whole.
        assert isinstance(outcome, asyncio.CancelledError)
        after = database.ask("SELECT count(*) FROM t")[0]
        assert after - before in (0, 2)
        if sync == 0 and journal == "DELETE":
            assert after == before
        assert database.is_whole()
    assert database.ask("PRAGMA integrity_check") == ("ok",)


async def until_suspends(goal: int, tasks: list[asyncio.Task[Any]]) -> None:
    await until(lambda: _core.stats()["suspends"] >= goal or all(task.done() for task in tasks))


async def test_cancel_anywhere(database: Database) -> None:
    def write() -> None:
        link = database.link()
        try:
            link.execute("BEGIN IMMEDIATE")
            link.execute("INSERT INTO t (b) VALUES (1)")
            link.execute(COUNT, (20_000,)).fetchall()
            link.execute("INSERT INTO t (b) VALUES (2)")
            link.commit()
        except BaseException:
            link.rollback()
            raise

    chance = random.Random(4)
    for _ in range(60):
        tasks = [start(write) for _ in range(3)]
        goal = _core.stats()["suspends"] + chance.randrange(1, 40)
        await until_suspends(goal, tasks)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        assert database.is_whole()
        count, ones = database.ask("SELECT count(*), total(b = 1) FROM t")
        assert count == 2 * ones
    assert database.ask("PRAGMA integrity_check") == ("ok",)


def test_a_loop_that_ends_in_the_middle(database: Database, mode: str) -> None:
    import uvloop

    factory = uvloop.new_event_loop if mode == "uvloop" else asyncio.new_event_loop

    async def leave_running() -> None:
        task = start(database.do, COUNT, 10**12)
        await until_suspended(2)
        assert not task.done()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(leave_running())
    gc.collect()
    assert database.pool.stats()["pool_size"] == 0
    assert database.ask("SELECT 1") == (1,)


# --- exceptions out of callbacks


async def test_a_cancel_inside_a_function(database: Database) -> None:
    event = asyncio.Event()

    async def wait() -> None:
        await event.wait()

    database.config.setup = lambda link: link.create_function(
        "wait", 0, lambda: _core.await_(wait())
    )
    task = start(database.do, "SELECT wait() + 1")
    await until_suspended()
    await cancelled(task)
    assert database.is_whole()


async def test_a_function_that_raises(database: Database) -> None:
    def setup(link: Any) -> None:
        link.create_function("fail", 0, lambda: 1 / 0)
        link.create_function("huge", 0, lambda: 2**64)
        link.create_function("odd", 0, object)

    database.config.setup = setup
    for call, error in (
        ("fail", "raised exception"),
        ("huge", "too big"),
        ("odd", "raised exception"),
    ):
        with pytest.raises(sqlite3.Error, match=error):
            await _core.run(database.do, f"SELECT {call}()")
    assert database.is_whole()


# --- the helper thread


async def test_a_commit_leaves_the_loop_its_turns(database: Database) -> None:
    threads = len(os.listdir("/proc/self/task"))
    jobs = _core.stats()["jobs"]
    task = start(database.do, "INSERT INTO t (b) VALUES (1)")
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert _core.stats()["jobs"] - jobs >= 2
    assert turns > 2
    await asyncio.gather(
        *[_core.run(database.do, "INSERT INTO t (b) VALUES (1)") for _ in range(20)]
    )
    assert len(os.listdir("/proc/self/task")) <= threads + 1
