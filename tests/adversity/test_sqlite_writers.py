"""SQLite: many tasks, and more than one process, that write to one file and never pause."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from adversity_support import count, report
from adversity_support.whole import assert_nobody_holds_a_slot
from django.db import transaction
from fix_engine import Engine, installed
from library.models import Author

import vinyl

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_a_loop = pytest.mark.modes("asyncio", "uvloop")
TASKS = 64


@pytest.fixture(params=["DELETE", "WAL"])
def journal(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    set_journal(engine, request.param)
    yield request.param
    set_journal(engine, "DELETE")


def set_journal(engine: Engine, mode: str) -> None:
    with closing(sqlite3.connect(engine.conf["NAME"])) as db:
        assert db.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode.lower(),)


@pytest.fixture
def immediate(engine: Engine) -> Iterator[str]:
    options = {"OPTIONS": {"transaction_mode": "IMMEDIATE"}}
    with installed({"default": engine.conf | options}):
        yield "default"


def add_one(alias: str, pk: int) -> None:
    with transaction.atomic(using=alias):
        counter = Author.objects.using(alias).get(pk=pk)
        counter.name = str(int(counter.name) + 1)
        counter.save()


@on_a_loop
async def test_tasks_that_read_and_then_write(engine: Engine, journal: str, immediate: str) -> None:
    """With transaction_mode IMMEDIATE such blocks come one after the other: no error, none lost."""
    counter = await Author.vinyl.create(name="0")
    turns = count(3, 20)

    async def task() -> None:
        for turn in range(turns):
            if turn % 2:
                await vinyl.run(add_one, immediate, counter.pk)
                continue
            async with vinyl.atomic(immediate):
                mine = await Author.vinyl.get(pk=counter.pk)
                mine.name = str(int(mine.name) + 1)
                await mine.save()

    await asyncio.gather(*[task() for _ in range(TASKS)])
    assert (await Author.vinyl.get(pk=counter.pk)).name == str(TASKS * turns)
    assert_nobody_holds_a_slot(immediate)
    report("sqlite read, then write", journal=journal, blocks=TASKS * turns, locked=0)


@on_a_loop
async def test_tasks_that_never_pause(engine: Engine, journal: str) -> None:
    """Each of 64 has its turns; how long the longest wait was."""
    turns = count(3, 20)
    waits: list[float] = []
    left = TASKS
    first_done_at = 0

    async def task(number: int) -> None:
        nonlocal left, first_done_at
        for turn in range(turns):
            began = time.monotonic()
            async with vinyl.atomic(engine.alias):
                await Author.vinyl.create(name=f"{number}.{turn}")
                await Author.vinyl.create(name=f"{number}.{turn}")
            waits.append(time.monotonic() - began)
        if left == TASKS:
            first_done_at = len(waits)
        left -= 1

    await asyncio.gather(*[task(number) for number in range(TASKS)])
    assert await Author.vinyl.count() == 2 * TASKS * turns
    # When the first has had all its turns the others have had most of theirs.
    assert first_done_at > TASKS * turns / 2
    report(
        "sqlite never pausing", journal=journal, blocks=TASKS * turns, locked=0,
        longest_wait_ms=round(max(waits) * 1000),
    )  # fmt: skip


WRITERS = """
import asyncio, json, os, sys, time
sys.path[:0] = sys.argv[3:]
os.environ["DJANGO_SETTINGS_MODULE"] = "library.settings"
from django.conf import settings
settings.DATABASES = {"default": {"ENGINE": "vinyl.backends.sqlite3", "NAME": sys.argv[1]}}
import django
django.setup()
import vinyl
from django.db import OperationalError
from library.models import Author

done = locked = 0
longest = 0.0

async def task(end):
    global done, locked, longest
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            async with vinyl.atomic():
                await Author.vinyl.create(name=str(os.getpid()))
                await Author.vinyl.create(name=str(os.getpid()))
            done += 2
        except OperationalError as error:
            assert "locked" in str(error)
            locked += 1
        longest = max(longest, time.monotonic() - began)

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + float(sys.argv[2])
    await asyncio.gather(*[task(end) for _ in range(8)])

asyncio.run(main())
print(json.dumps({"pid": os.getpid(), "done": done, "locked": locked, "longest": longest}))
"""


def test_processes_that_never_pause(engine: Engine, journal: str) -> None:
    """Each leaves the lock to the others now and then: nobody waits for his whole timeout."""
    path = engine.conf["NAME"]
    tests = str(Path(__file__).parent.parent)
    seconds = count(2, 20)
    command = [sys.executable, "-c", WRITERS, path, str(seconds), tests]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        said.append(json.loads(process.communicate()[0]))
        assert process.returncode == 0
    with closing(sqlite3.connect(path)) as db:
        rows = dict(db.execute("SELECT name, count(*) FROM library_author GROUP BY name"))
    assert rows == {str(one["pid"]): one["done"] for one in said}
    assert [one["locked"] for one in said] == [0, 0], said
    assert all(one["done"] > 0 for one in said), said
    report(
        "sqlite two processes", journal=journal, seconds=seconds, locked=0,
        rows=[one["done"] for one in said],
        longest_wait_ms=round(max(one["longest"] for one in said) * 1000),
    )  # fmt: skip
