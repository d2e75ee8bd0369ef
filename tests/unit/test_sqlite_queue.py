"""SQLite's lock under many writers of one process: who comes first is served first."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlite_locked import locked
from sqlite_queue_support import (
    Holder,
    in_line,
    journals,
    make,
    names,
    on_a_loop,
    read,
    write,
    writers,
)
from sqlite_queue_support import database as database
from sqlite_queue_support import journaled as journaled
from sqlite_queue_support import memory as memory
from sqlite_support import Database, start, until, until_suspended

from vinyl import _core

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


@on_a_loop
@journals
async def test_another_process_has_the_lock(journaled: Database) -> None:
    with locked(journaled.config.database) as other:
        tasks = await in_line(*writers(journaled, range(5)))
        other.let_go()
        await asyncio.gather(*tasks)
    assert names(journaled) == list(range(5))
