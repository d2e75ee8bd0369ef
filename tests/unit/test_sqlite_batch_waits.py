"""An INSERT of a batch where it waits: turns, cancels, locks, ends of a process."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fix_adapters import Celsius
from sqlite_locked import locked
from sqlite_queue_support import Holder, in_line, names
from sqlite_support import Database, start, until, until_suspended
from vinyl._sqlite3 import Batch

from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "a.sqlite3")
    link = database.own()
    link.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    link.close()
    return database


INSERT = "INSERT INTO t (b) SELECT c0 FROM sqlite_vinyl_batch(?)"


def many(count: int = 200_000) -> Batch:
    return Batch([list(range(count))])


@on_a_loop
async def test_a_long_one_gives_the_loop_its_turns(database: Database) -> None:
    before = _core.stats()["suspends"]
    await start(database.do, INSERT, many())
    assert _core.stats()["suspends"] > before + 20
    assert database.ask("SELECT count(*) FROM t") == (200_000,)
    assert database.is_whole()


@on_a_loop
@pytest.mark.parametrize("turns", [1, 3, 10, 40])
async def test_cancelled_on_its_way(database: Database, turns: int) -> None:
    task = start(database.do, INSERT, many())
    await until_suspended(turns)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.ask("SELECT count(*) FROM t") == (0,)
    await start(database.do, INSERT, many(2000))
    assert database.ask("SELECT count(*) FROM t") == (2000,)
    assert database.is_whole()


async def test_an_adapter_that_asks_the_database(database: Database, adapters: Any) -> None:
    """It may even suspend its fiber while the batch is made."""
    adapters(Celsius, lambda value: database.link().execute("SELECT count(*) FROM t").fetchone()[0])
    await _core.run(database.do, INSERT, Batch([[Celsius(n) for n in range(3)]]))
    assert names(database) == [0, 0, 0]


async def cancelled_at(reached: list[int], link: Any, sql: str, batch: Batch) -> None:
    """The INSERT is cancelled when it suspends after something has been reached."""
    task = start(link.execute, sql, (batch,))
    await until(lambda: bool(reached))
    await until_suspended()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def begin(link: Any) -> None:
    link.execute("BEGIN")
    link.execute("INSERT INTO t (b) VALUES ('first')")


@on_a_loop
async def test_cancelled_inside_a_block(database: Database) -> None:
    """SQLite rolls the whole block back when an INSERT is interrupted, and the link says so."""
    link = database.link()
    reached: list[int] = []

    def told(value: int) -> int:
        reached.append(value)
        return value

    link.create_function("told", 1, told)
    await start(begin, link)
    sql = "INSERT INTO t (b) SELECT CASE WHEN c0 = 9 THEN told(c0) END FROM sqlite_vinyl_batch(?)"
    await cancelled_at(reached, link, sql, many())
    assert link.in_transaction
    with pytest.raises(sqlite3.OperationalError, match="rolled this transaction back"):
        await start(link.execute, INSERT, (many(2),))
    await start(link.rollback)
    await start(link.execute, INSERT, (many(2),))
    assert names(database) == [0, 1]
    await start(link.close)
    assert database.is_whole()


@on_a_loop
async def test_cancelled_while_the_batch_is_made(database: Database, adapters: Any) -> None:
    """Nothing was run yet: the block goes on."""
    link = database.link()
    reached: list[int] = []
    adapters(Celsius, lambda value: reached.append(value.degrees))
    await start(begin, link)
    await cancelled_at(reached, link, INSERT, Batch([[Celsius(9), *range(1_000_000)]]))
    await start(link.execute, INSERT, (many(2),))
    await start(link.commit)
    assert names(database) == ["first", 0, 1]
    await start(link.close)
    assert database.is_whole()


async def test_command_timeout(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "a.sqlite3", command_timeout=0.02)
    await _core.run(database.do, "CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    batch = many(1_000_000)
    with pytest.raises(sqlite3.OperationalError, match="command_timeout"):
        await _core.run(database.do, INSERT, batch)
    assert database.ask("SELECT count(*) FROM t") == (0,)


@on_a_loop
async def test_stands_in_line_for_the_lock(database: Database) -> None:
    holder = Holder(database)
    tasks = await in_line(*(
        lambda n=n: start(database.do, INSERT, Batch([[n, n]])) for n in range(4)
    ))  # fmt: skip
    holder.let_go()
    await asyncio.gather(*tasks)
    assert names(database) == ["holder", 0, 0, 1, 1, 2, 2, 3, 3]
    assert database.is_whole()


async def test_another_process_has_the_lock(database: Database) -> None:
    with locked(database.config.database) as other:
        impatient = Database.at(database.config.database, timeout=0.05)
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            await _core.run(impatient.do, INSERT, many(3))
        other.let_go()
        await _core.run(database.do, INSERT, many(3))
    assert names(database) == [0, 1, 2]


KILLED = """
import sys
sys.path[:0] = {path!r}
from sqlite_support import Database
from vinyl._sqlite3 import Batch
database = Database.at(sys.argv[1])
link = database.own()
def told(n):
    if n == 90_000:
        print("on the way", flush=True)
        sys.stdin.read()
    return n
link.create_function("told", 1, told)
link.execute("PRAGMA cache_size = 10")  # so that pages are written before the end
batch = Batch([list(range(100_000))])
link.execute("INSERT INTO t (b) SELECT told(c0) FROM sqlite_vinyl_batch(?)", (batch,))
"""


def test_killed_on_its_way(database: Database) -> None:
    path = database.config.database
    before = Path(path).stat().st_size
    with subprocess.Popen(
        [sys.executable, "-c", KILLED.format(path=sys.path), path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "on the way\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Path(path).stat().st_size > before
    assert database.ask("SELECT count(*) FROM t") == (0,)
    assert database.ask("PRAGMA integrity_check") == ("ok",)


async def test_fibers_at_once(database: Database) -> None:
    def work(n: int) -> None:
        link = database.link()
        for _ in range(5):
            link.execute(INSERT, (Batch([[n] * 300]),))
        link.close()

    if _core.where() == _core.DRIVEN:
        for n in range(6):
            await _core.run(work, n)
    else:
        tasks = [start(work, n) for n in range(6)]
        await until(lambda: all(task.done() for task in tasks))
        await asyncio.gather(*tasks)
    counted = "SELECT count(*), count(DISTINCT b), min(b), max(b) FROM t"
    assert database.ask(counted) == (9000, 6, 0, 5)
    assert database.is_whole()
