"""SQLite's lock under many writers of one process: who comes first is served first."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import Database, start, until, until_suspended

from vinyl import _core, _sqlite3

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
journals = pytest.mark.parametrize("journal", ["DELETE", "WAL", "MEMORY"])


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return make(tmp_path / "a.sqlite3")


@pytest.fixture
def journaled(tmp_path: Path, journal: str) -> Database:
    return make(tmp_path / "a.sqlite3", journal)


def make(path: Path | str, journal: str = "DELETE", **options: Any) -> Database:
    database = Database.at(path, **options)
    database.ask(f"PRAGMA journal_mode = {journal}")
    database.ask("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    return database


@pytest.fixture
def memory() -> Any:
    """A database in memory, shared by its name, and a connection that keeps it."""
    vfs = _sqlite3.install_memory_vfs()
    database = Database.at(f"file:/queue-{os.getpid()}-{time.monotonic_ns()}?vfs={vfs}")
    keeper = database.own()
    keeper.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield database
    keeper.close()


def write(database: Database, name: Any, begin: str = "BEGIN IMMEDIATE") -> None:
    link = database.link()
    try:
        link.execute(begin)
        link.execute("INSERT INTO t (b) VALUES (?)", (name,))
        link.commit()
    finally:
        link.close()


def read(database: Database) -> int:
    link = database.link()
    try:
        return link.execute("SELECT count(*) FROM t").fetchone()[0]
    finally:
        link.close()


def names(database: Database) -> list[Any]:
    link = database.own()
    try:
        return [name for (name,) in link.execute("SELECT b FROM t ORDER BY a").fetchall()]
    finally:
        link.close()


def writers(
    database: Database, names: Iterable[Any], begin: str = "BEGIN IMMEDIATE"
) -> list[Callable[[], asyncio.Task[Any]]]:
    return [partial(start, write, database, name, begin) for name in names]


class Holder:
    """Has the write lock, in this process, until ``let_go``."""

    def __init__(self, database: Database) -> None:
        self.link = database.own()
        self.link.execute("BEGIN IMMEDIATE")
        self.link.execute("INSERT INTO t (b) VALUES ('holder')")

    def let_go(self) -> None:
        self.link.commit()
        self.link.close()


async def in_line(*starters: Callable[[], asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Each task started when those before it wait."""
    tasks = []
    for starter in starters:
        tasks.append(starter())
        await until_suspended(1)
    assert not any(task.done() for task in tasks)
    return tasks


# --- order


@on_a_loop
@journals
async def test_first_come_first_served(journaled: Database) -> None:
    for begin in ("BEGIN IMMEDIATE", "BEGIN"):
        journaled.ask("DELETE FROM t")
        holder = Holder(journaled)
        tasks = await in_line(*writers(journaled, range(8), begin))
        holder.let_go()
        await asyncio.gather(*tasks)
        assert names(journaled) == ["holder", *range(8)]
    assert journaled.is_whole()


@on_a_loop
async def test_autocommit_stands_in_line_too(database: Database) -> None:
    insert = "INSERT INTO t (b) VALUES (?)"
    holder = Holder(database)
    tasks = await in_line(
        lambda: start(write, database, 0),
        lambda: start(database.do, insert, 1),
        lambda: start(write, database, 2, "BEGIN EXCLUSIVE"),
        lambda: start(database.do, insert, 3),
    )
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(database) == ["holder", 0, 1, 2, 3]


@on_a_loop
async def test_first_come_first_served_in_memory(memory: Database) -> None:
    holder = Holder(memory)
    tasks = await in_line(*writers(memory, range(8)))
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(memory) == ["holder", *range(8)]


@on_a_loop
async def test_one_queue_by_whatever_path(tmp_path: Path) -> None:
    """A symbolic link, another directory, a URI: the file is one."""
    database = make(tmp_path / "a.sqlite3")
    (tmp_path / "link.sqlite3").symlink_to(tmp_path / "a.sqlite3")
    (tmp_path / "sub").mkdir()
    ways = [
        database,
        Database.at(tmp_path / "link.sqlite3"),
        Database.at(tmp_path / "sub" / ".." / "a.sqlite3"),
        Database.at(f"file:{tmp_path}/a.sqlite3?mode=rw"),
    ]
    holder = Holder(database)
    tasks = await in_line(*[partial(start, write, ways[n % 4], n) for n in range(8)])
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(database) == ["holder", *range(8)]


@on_a_loop
async def test_an_attached_database_has_its_own_queue(tmp_path: Path, database: Database) -> None:
    other = make(tmp_path / "other.sqlite3")
    other.ask("CREATE TABLE u (b)")

    def write_there(name: int) -> None:
        link = database.own()
        try:
            link.execute("ATTACH ? AS there", (str(tmp_path / "other.sqlite3"),))
            link.execute("INSERT INTO there.u VALUES (?)", (name,))
        finally:
            link.close()

    holder = Holder(other)
    tasks = [start(write_there, n) for n in range(3)]
    await until_suspended(6)
    await _core.run(write, database, "meanwhile")
    assert not any(task.done() for task in tasks)
    holder.let_go()
    await asyncio.gather(*tasks)
    link = other.own()
    assert sorted(link.execute("SELECT b FROM u").fetchall()) == [(0,), (1,), (2,)]
    link.close()


# --- nobody starves


@on_a_loop
@journals
@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
async def test_a_writer_that_never_pauses(journaled: Database, begin: str) -> None:
    """Others write as often as it does."""
    stop = False
    greedy = 0

    def never_pause() -> None:
        nonlocal greedy
        while not stop:
            write(journaled, "greedy", begin)
            greedy += 1

    task = start(never_pause)
    await until(lambda: greedy > 2)
    for _ in range(20):
        before = greedy
        await _core.run(write, journaled, "modest", begin)
        # One that was under way, one that was before us, one that may end before we look.
        assert greedy - before <= 3
    stop = True
    await task
    assert names(journaled).count("modest") == 20


async def read_beside(database: Database, write_greedily: Callable[[], None]) -> None:
    """Twenty reads beside one who writes and never pauses: none waits for many writes."""
    stop = False
    greedy = 0

    def never_pause() -> None:
        nonlocal greedy
        while not stop:
            write_greedily()
            greedy += 1

    task = start(never_pause)
    await until(lambda: greedy > 2)
    for _ in range(20):
        before = greedy
        assert await _core.run(read, database) >= before
        assert greedy - before <= 3
    stop = True
    await task


@on_a_loop
async def test_readers_beside_a_writer_that_never_pauses(database: Database) -> None:
    await read_beside(database, lambda: write(database, "greedy"))


@on_a_loop
async def test_readers_beside_one_in_memory(memory: Database) -> None:
    def write_greedily() -> None:
        link = memory.link()
        link.execute("BEGIN IMMEDIATE")
        link.execute("INSERT INTO t (b) VALUES ('greedy')")
        _core._turn()  # it holds the lock while others look
        link.commit()
        link.close()

    await read_beside(memory, write_greedily)


@on_a_loop
async def test_a_commit_hears_when_the_last_reader_is_gone(database: Database) -> None:
    reader = database.own()
    for n in range(10):
        database.ask("INSERT INTO t (b) VALUES (?)", n)
    cursor = reader.execute("SELECT a FROM t")
    cursor.fetchone()
    task = start(write, database, "w")
    await until_suspended(3)
    assert not task.done()
    cursor.fetchall()
    reader.close()
    await task
    assert names(database)[-1] == "w"


@on_a_loop
async def test_a_checkpoint_waits_in_line(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite3", "WAL")
    stop = False
    greedy = 0

    def never_pause() -> None:
        nonlocal greedy
        while not stop:
            write(database, "greedy")
            greedy += 1

    def checkpoint() -> tuple[int, int, int]:
        link = database.link()
        try:
            return link.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            link.close()

    task = start(never_pause)
    await until(lambda: greedy > 2)
    for _ in range(5):
        busy, _, _ = await _core.run(checkpoint)
        assert busy == 0
    stop = True
    await task


# --- SQLite's own rules


@on_a_loop
async def test_two_upgrading_readers_fail_at_once(database: Database) -> None:
    """SQLite sees that they would wait for each other; the queue does not make them wait."""
    first, second = database.own(), database.own()
    for link in (first, second):
        link.execute("BEGIN")
        link.execute("SELECT count(*) FROM t").fetchall()
    first.execute("INSERT INTO t (b) VALUES ('first')")
    waiting = start(write, database, "behind")  # somebody in the queue
    await until_suspended(2)

    def upgrade() -> float:
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
            second.execute("INSERT INTO t (b) VALUES ('second')")
        assert caught.value.sqlite_errorname == "SQLITE_BUSY"
        return time.monotonic() - began

    assert await _core.run(upgrade) < 1
    second.rollback()
    first.commit()
    await waiting
    assert names(database) == ["first", "behind"]
    first.close()
    second.close()


@on_a_loop
@journals
async def test_an_upgrade_overtakes_those_who_can_wait(journaled: Database, journal: str) -> None:
    """With the lock free it must not fail for a queue that SQLite knows nothing of."""
    reader = journaled.own()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchall()
    holder = Holder(journaled)
    tasks = await in_line(*writers(journaled, range(2)))
    holder.link.rollback()  # they are told, but have not run yet
    holder.link.close()
    reader.execute("INSERT INTO t (b) VALUES ('upgraded')")
    reader.commit()
    reader.close()
    await asyncio.gather(*tasks)
    assert names(journaled) == ["upgraded", 0, 1]


@on_a_loop
async def test_a_snapshot_that_is_too_old_does_not_stand_in_line(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite3", "WAL")
    old = database.own()
    old.execute("BEGIN")
    old.execute("SELECT count(*) FROM t").fetchall()
    database.ask("INSERT INTO t (b) VALUES (0)")
    holder = Holder(database)
    (waiting,) = await in_line(*writers(database, [1]))
    for error in ("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT"):
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
            old.execute("INSERT INTO t (b) VALUES ('old')")
        assert caught.value.sqlite_errorname == error
        assert time.monotonic() - began < 1
        if error == "SQLITE_BUSY":
            holder.let_go()  # the lock is free, and others are told
    old.rollback()
    old.close()
    await waiting


async def test_timeout_bounds_the_wait_in_line(database: Database) -> None:
    impatient = Database.at(database.config.database, timeout=0.1)

    def work() -> float:
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
            write(impatient, "never")
        assert caught.value.sqlite_errorname == "SQLITE_BUSY"
        return time.monotonic() - began

    holder = Holder(database)
    for _ in range(3):
        assert 0.1 <= await _core.run(work) < 2
    holder.let_go()
    await _core.run(write, impatient, "then")
    assert names(database) == ["holder", "then"]
    assert impatient.is_whole()


@on_a_loop
async def test_the_first_gives_up_the_second_does_not(database: Database) -> None:
    impatient = Database.at(database.config.database, timeout=0.05)
    holder = Holder(database)
    first, second = await in_line(
        lambda: start(write, impatient, "first"),
        lambda: start(write, database, "second"),
    )
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await first
    assert not second.done()
    holder.let_go()
    await second
    assert names(database) == ["holder", "second"]


async def test_no_timeout_no_wait(database: Database) -> None:
    hasty = Database.at(database.config.database, timeout=0)
    holder = Holder(database)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await _core.run(write, hasty, "never")
    holder.let_go()


# --- the lock of another process

LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read(1)
db.execute("COMMIT")
"""


@on_a_loop
@journals
async def test_another_process_has_the_lock(journaled: Database) -> None:
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, journaled.config.database],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        tasks = await in_line(*writers(journaled, range(5)))
        other.stdin.write("x")
        other.stdin.flush()
        await asyncio.gather(*tasks)
    assert names(journaled) == list(range(5))


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
