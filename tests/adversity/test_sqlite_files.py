"""SQLite: locked, full, read-only, corrupt, cancelled in its busy wait, killed in a transaction."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from adversity_support import count, report
from adversity_support.whole import assert_nobody_holds_a_slot, one
from django.db import DatabaseError, OperationalError, connections, transaction
from fix_engine import Engine, installed
from library.models import Author
from sqlite_locked import locked

import vinyl
from vinyl.backends.base import close_pools

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_a_loop = pytest.mark.modes("asyncio", "uvloop")


def make(alias: str, name: str, rows: int = 1) -> None:
    with transaction.atomic(using=alias):
        for _ in range(rows):
            Author.objects.using(alias).create(name=name)


def number_of(alias: str, name: str) -> int:
    return Author.objects.using(alias).filter(name=name).count()


@on_a_loop
async def test_locked_by_another_process(engine: Engine) -> None:
    """The task waits, the loop goes on, and the statement is done when the lock is free."""
    with locked(engine.conf["NAME"]) as other:
        writing = asyncio.create_task(Author.vinyl.create(name="late"))
        turns = 0
        while turns < 50:
            await asyncio.sleep(0.002)
            assert await vinyl.run(one, engine.alias, turns) == turns  # readers are not kept out
            turns += 1
        assert not writing.done()
        other.let_go()
        await writing
    assert await vinyl.run(number_of, engine.alias, "late") == 1


@on_a_loop
async def test_cancelled_in_the_busy_wait(engine: Engine) -> None:
    with locked(engine.conf["NAME"]):
        for _ in range(count(3, 20)):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await vinyl.run(make, engine.alias, "never", 2)
            assert time.monotonic() - began < 0.6
            assert_nobody_holds_a_slot(engine.alias)
    assert await vinyl.run(number_of, engine.alias, "never") == 0
    await vinyl.run(make, engine.alias, "then")


async def test_locked_too_long(engine: Engine) -> None:
    with locked(engine.conf["NAME"]):
        await vinyl.run(_set_busy_timeout, engine.alias)
        with pytest.raises(OperationalError, match="locked"):
            await vinyl.run(make, engine.alias, "never")
    assert await vinyl.run(number_of, engine.alias, "never") == 0


def _set_busy_timeout(alias: str) -> None:
    connections[alias].close()
    close_pools(alias)
    connections.settings[alias]["OPTIONS"] = {"timeout": 0.2}
    connections[alias].settings_dict["OPTIONS"] = {"timeout": 0.2}


@pytest.fixture
def small_disk(engine: Engine, tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB with a copy of the database."""
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs can be mounted by root only")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        path = place / "full.sqlite3"
        path.write_bytes(Path(engine.conf["NAME"]).read_bytes())
        with installed({"default": engine.conf | {"NAME": str(path)}}):
            yield path
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


async def test_full_disk(engine: Engine, small_disk: Path) -> None:
    alias = "default"
    await vinyl.run(make, alias, "before", 3)
    with pytest.raises(OperationalError, match=r"full|disk I/O error"):
        await vinyl.run(make, alias, "x" * 100_000, 30)
    assert await vinyl.run(number_of, alias, "x" * 100_000) == 0
    # Room again: the same session goes on.
    await vinyl.run(make, alias, "after", 3)
    assert await vinyl.run(number_of, alias, "before") == 3
    assert await vinyl.run(number_of, alias, "after") == 3
    assert await vinyl.run(integrity, alias) == "ok"


@contextmanager
def nearly_full(disk: Path, free: int) -> Iterator[None]:
    """Another file leaves ``free`` bytes on the disk."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free)
    try:
        yield
    finally:
        filler.unlink()


async def too_much(alias: str, created: list[Author]) -> None:
    async with vinyl.atomic(alias):
        for _ in range(6):
            created.append(await Author.vinyl.create(name="x" * 100_000))


@on_a_loop
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
async def test_full_disk_in_the_middle_of_commit(
    engine: Engine, small_disk: Path, journal: str
) -> None:
    """The statements find room, in memory; the COMMIT that writes them to the file does not."""
    alias = "default"
    set_journal(small_disk, journal)
    await vinyl.run(make, alias, "before", 3)
    for _ in range(count(2, 20)):
        with nearly_full(small_disk.parent, 200_000):
            created: list[Author] = []
            with pytest.raises(OperationalError, match=r"full|disk I/O error"):
                await too_much(alias, created)
            assert len(created) == 6  # so it was the COMMIT
            assert_nobody_holds_a_slot(alias)
            assert await Author.vinyl.count() == 3
            await vinyl.run(make, alias, "small")  # there is room for this
            await Author.vinyl.filter(name="small").delete()
        await vinyl.run(close_all, alias)  # and a checkpoint
    await vinyl.run(make, alias, "x" * 100_000, 3)
    assert await vinyl.run(integrity, alias) == "ok"
    # What the file has, not what the connection remembers.
    assert on_disk(small_disk) == {"before": 3, "x" * 100_000: 3}
    report("sqlite full in COMMIT", journal=journal, commits=count(2, 20), torn=0)


@on_a_loop
async def test_full_disk_in_a_checkpoint(engine: Engine, small_disk: Path) -> None:
    """What was committed to the WAL stays so, whether or not it can be copied to the file."""
    alias = "default"
    set_journal(small_disk, "WAL")
    trials = count(2, 20)
    for _ in range(trials):
        await vinyl.run(make, alias, "x" * 10_000, 20)
        # The file has still to grow by what is in the WAL.
        with nearly_full(small_disk.parent, 40_000):
            # The checkpoint that SQLite begins by itself, after a COMMIT, is nobody's error.
            await vinyl.run(commit_and_checkpoint, alias, "small")
            with pytest.raises(OperationalError, match=r"full|disk I/O error"):
                await vinyl.run(statement, alias, "PRAGMA wal_checkpoint(TRUNCATE)")
            assert await vinyl.run(number_of, alias, "small") == 1
            await vinyl.run(close_all, alias)  # the last connection tries to as well
            assert_nobody_holds_a_slot(alias)
            assert await vinyl.run(number_of, alias, "small") == 1
            assert await vinyl.run(number_of, alias, "x" * 10_000) == 20
        assert (await vinyl.run(statement, alias, "PRAGMA wal_checkpoint(TRUNCATE)"))[0] == 0
        assert on_disk(small_disk) == {"small": 1, "x" * 10_000: 20}
        await Author.vinyl.all().delete()
        await vinyl.run(shrink, alias)
    assert await vinyl.run(integrity, alias) == "ok"
    report("sqlite full in a checkpoint", checkpoints=3 * trials, lost=0)


def set_journal(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode.lower(),)


def on_disk(path: Path) -> dict[str, int]:
    """The names and how often, as another connection sees them."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(db.execute("SELECT name, count(*) FROM library_author GROUP BY name"))


def close_all(alias: str) -> None:
    connections[alias].close()
    close_pools(alias)


def statement(alias: str, sql: str) -> tuple[Any, ...]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def commit_and_checkpoint(alias: str, name: str) -> None:
    statement(alias, "PRAGMA wal_autocheckpoint = 1")
    make(alias, name)
    statement(alias, "PRAGMA wal_autocheckpoint = 1000")


def shrink(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def integrity(alias: str) -> str:
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        return cursor.fetchone()[0]


@pytest.fixture
def read_only(engine: Engine) -> Iterator[str]:
    uri = f"file:{engine.conf['NAME']}?mode=ro"
    with installed({"default": engine.conf | {"NAME": uri, "OPTIONS": {"uri": True}}}):
        yield "default"


async def test_read_only(engine: Engine, read_only: str) -> None:
    for _ in range(3):
        with pytest.raises(OperationalError, match="readonly"):
            await vinyl.run(make, read_only, "never", 2)
        assert await vinyl.run(number_of, read_only, "never") == 0


@pytest.fixture
def corrupt(engine: Engine, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "corrupt.sqlite3"
    good = bytearray(Path(engine.conf["NAME"]).read_bytes())
    dice = random.Random(1)
    for at in range(100, len(good)):
        if dice.random() < 0.05:
            good[at] = dice.randrange(256)
    path.write_bytes(good)
    with installed({"default": engine.conf | {"NAME": str(path)}}):
        yield "default"


async def test_corrupt(engine: Engine, corrupt: str) -> None:
    for _ in range(3):
        with pytest.raises(DatabaseError, match=r"malformed|not a database|corrupt"):
            await vinyl.run(use_or_raise, corrupt)


def use_or_raise(alias: str) -> None:
    make(alias, "never", 50)
    if integrity(alias) != "ok":
        raise DatabaseError("malformed, says integrity_check")


async def test_no_database_at_all(engine: Engine, not_a_database: str) -> None:
    with pytest.raises(DatabaseError, match="not a database"):
        await vinyl.run(number_of, not_a_database, "x")


@pytest.fixture
def not_a_database(engine: Engine, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "text.sqlite3"
    path.write_bytes(b"This is text, not a database. " * 500)
    with installed({"default": engine.conf | {"NAME": str(path)}}):
        yield "default"


VICTIM = """
import asyncio, os, sys, threading
sys.path[:0] = sys.argv[2:]
os.environ["DJANGO_SETTINGS_MODULE"] = "library.settings"
from django.conf import settings
settings.DATABASES = {"default": {"ENGINE": "vinyl.backends.sqlite3", "NAME": sys.argv[1]}}
import django
django.setup()
import vinyl
from library.models import Author
from sqlite_locked import locked

async def task(number):
    for turn in range(10**9):
        name = f"{os.getpid()}.{number}.{turn}"
        async with vinyl.atomic():
            await Author.vinyl.create(name=name)
            await Author.vinyl.create(name=name)
        os.write(1, f"{name}\\n".encode())

async def main():
    await asyncio.gather(*[task(number) for number in range(4)])

asyncio.run(main())
"""


def test_killed_in_a_transaction(engine: Engine) -> None:
    """SIGKILL at any moment: each pair of rows is there or not, the acknowledged ones are."""
    path = engine.conf["NAME"]
    acknowledged: set[str] = set()
    dice = random.Random(2)
    kills = count(3, 30)
    tests = str(Path(__file__).parent.parent)
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, path, tests], stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            for _ in range(1 + dice.randrange(30)):
                acknowledged.add(victim.stdout.readline().strip())
            victim.send_signal(signal.SIGKILL)
            # A line cut short by the kill is none.
            acknowledged.update(line[:-1] for line in victim.stdout if line.endswith("\n"))
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT name, count(*) FROM library_author GROUP BY name").fetchall()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    assert {number for _, number in rows} == {2}, "torn"
    assert acknowledged <= {name for name, _ in rows}, "lost commits"
    report("sqlite killed", kills=kills, acknowledged=len(acknowledged), committed=len(rows))
