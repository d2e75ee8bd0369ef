"""Many tasks cancelled hard, a server restarted under load, forks, loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from adversity_support import FULL, count, report
from adversity_support.whole import (
    BACKENDS,
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    assert_server_idle,
    one,
    others_end,
)
from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connections, transaction
from fix_engine import Engine, installed
from library.models import Author, Book
from private_postgres import PrivatePostgres

import vinyl
from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


def request_work(alias: str, name: str) -> None:
    """What a request does: reads, a transaction, reads again."""
    list(Author.objects.using(alias).all()[:5])
    with transaction.atomic(using=alias):
        author = Author.objects.using(alias).create(name=name)
        Book.objects.using(alias).create(title=name, author=author)
    Book.objects.using(alias).filter(title=name).count()


async def awaited_work(alias: str, name: str) -> None:
    async for _ in Author.vinyl.order_by("pk")[:5]:
        pass
    async with vinyl.atomic(alias):
        author = await Author.vinyl.create(name=name)
        await Book.vinyl.create(title=name, author=author)
    await asyncio.gather(
        Book.vinyl.filter(title=name).count(), Author.vinyl.filter(name=name).count()
    )


async def in_a_fiber(alias: str, name: str) -> None:
    await vinyl.run(request_work, alias, name)


def halves(alias: str) -> tuple[set[str], set[str]]:
    return (
        set(Author.objects.using(alias).values_list("name", flat=True)),
        set(Book.objects.using(alias).values_list("title", flat=True)),
    )


@on_a_loop
async def test_tasks_cancelled_hard(engine: Engine, request: pytest.FixtureRequest) -> None:
    alias = engine.alias
    total = count(200, 2500)  # ended by their cancel; for each of 2 engines and 2 loops
    dice = random.Random(7)
    swallowed: list[BaseException] = []
    cancelled = number = 0
    while cancelled < total:
        # How many the cancel overtakes depends on the machine's speed.
        assert number <= 20 * total
        tasks = []
        for _ in range(50):
            number += 1
            name = f"h{number}"
            work: Any = awaited_work if number % 2 else in_a_fiber
            tasks.append(asyncio.create_task(work(alias, name)))
        for task in dice.sample(tasks, len(tasks)):
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            asked = task.cancel()
            if asked and dice.random() < 0.3:  # impatient
                asyncio.get_running_loop().call_soon(task.cancel)
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            cancelled += isinstance(ended, asyncio.CancelledError)
            if not isinstance(ended, asyncio.CancelledError | None):
                swallowed.append(ended)
        await others_end()
        assert_nobody_holds_a_slot(alias, f"after {number}")
    assert not swallowed, (len(swallowed), swallowed[0])
    authors, books = await vinyl.run(halves, alias)
    assert authors == books, "torn"
    await assert_all_slots_work(alias)
    if engine.name == "postgresql":
        assert_server_idle(request.getfixturevalue("postgres_admin"))
    report("cancelled hard", engine=engine.name, tasks=number, cancelled=cancelled)


@pytest.fixture
def restarted() -> Iterator[tuple[PrivatePostgres, str]]:
    """A server for this test alone, durable, that may be restarted."""
    with PrivatePostgres({"fsync": "on", "synchronous_commit": "on"}) as server:
        server.psql("CREATE DATABASE restarted")
        with installed({"default": server.django("django.db.backends.postgresql", "restarted")}):
            call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)
        with installed({"default": server.django("vinyl.backends.postgresql", "restarted")}):
            yield server, "default"


@on_a_loop
async def test_restart_under_load(restarted: tuple[PrivatePostgres, str]) -> None:
    server, alias = restarted
    stop = False
    acknowledged: set[str] = set()
    errors: list[Exception] = []

    async def task(number: int) -> None:
        turn = 0
        while not stop:
            turn += 1
            name = f"{number}.{turn}"
            try:
                async with vinyl.atomic(alias):
                    await Author.vinyl.create(name=name)
                    await Author.vinyl.create(name=name)
                acknowledged.add(name)
            except Exception as error:
                errors.append(error)
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(task(number)) for number in range(20)]
    for _ in range(count(1, 5)):
        done = len(acknowledged)
        while len(acknowledged) < done + 100:
            await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, server.restart)
        done = len(acknowledged)
        while len(acknowledged) < done + 20:  # it goes on by itself
            await asyncio.sleep(0.01)
    stop = True
    _, hung = await asyncio.wait(tasks, timeout=30)
    assert not hung
    foreign = [e for e in errors if not isinstance(e, OperationalError | InterfaceError)]
    assert not foreign, foreign[:3]
    assert errors
    names = await vinyl.run(
        lambda: list(Author.objects.using(alias).values_list("name", flat=True))
    )
    assert acknowledged <= set(names), "lost commits"
    assert {names.count(name) for name in set(names)} == {2}, "torn"
    await assert_all_slots_work(alias)
    report("restart under load", acknowledged=len(acknowledged), errors=len(errors))


@postgresql_only
async def test_forks(engine: Engine, mode: str, postgres_admin: psycopg.Connection) -> None:
    """Children work on connections of their own; the parent's are the ones it had."""
    if mode != "blocking":
        await assert_all_slots_work(engine.alias)
    assert await vinyl.run(one, engine.alias, 1) == 1
    before = sorted(postgres_admin.execute(BACKENDS).fetchall())
    forks = count(5, 100)
    for number in range(forks):
        pid = os.fork()
        if pid == 0:
            _child(engine.alias, number)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await vinyl.run(one, engine.alias, number) == number
    deadline = time.monotonic() + 10
    while sorted(postgres_admin.execute(BACKENDS).fetchall()) != before:
        assert time.monotonic() < deadline, "the parent has other backends than before"
        time.sleep(0.01)
    report("forks", mode=mode, forks=forks, backends=len(before))


def _child(alias: str, number: int) -> None:
    code = 1
    try:
        asyncio._set_running_loop(None)

        async def work() -> list[Any]:
            return await asyncio.gather(*[_awaited_one(alias, number + n) for n in range(3)])

        if asyncio.run(work()) == [number, number + 1, number + 2]:
            code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


async def _awaited_one(alias: str, value: int) -> Any:
    return await vinyl.run(one, alias, value)


def test_loops_come_and_go(engine: Engine) -> None:
    """One loop after the other, some of them closed with work in the middle of a transaction."""
    alias = engine.alias

    def hold() -> None:
        with transaction.atomic(using=alias):
            Author.objects.using(alias).create(name="unfinished")
            _core._sleep(60)

    async def left_behind() -> None:
        task = asyncio.create_task(_run(hold))
        await vinyl.run(one, alias)
        await asyncio.sleep(0.005)
        assert not task.done()

    for number in range(count(5, 50)):
        loop = asyncio.new_event_loop()
        try:
            if number % 2:
                loop.run_until_complete(left_behind())
                # Closed without asyncio.run()'s care: nobody cancels what is pending.
                pending = asyncio.all_tasks(loop)
                assert pending
                for task in pending:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
            else:
                assert loop.run_until_complete(_awaited_one(alias, number)) == number
        finally:
            loop.close()
    del pending, task
    gc.collect()  # a task that nobody can resume any more is a cycle
    assert Author.objects.using(alias).filter(name="unfinished").count() == 0
    connections[alias].close()
    assert_nobody_holds_a_slot(alias)


async def _run(fn: Any) -> None:
    await vinyl.run(fn)


def test_two_loops_at_once(engine: Engine) -> None:
    """In two threads, each with a loop: each has connections of its own."""
    import threading

    alias = engine.alias
    answers: dict[int, list[int]] = {}

    def thread(number: int) -> None:
        async def main() -> list[int]:
            found = []
            for turn in range(count(20, 200)):
                values = [number * 1000 + turn * 3 + n for n in range(3)]
                found += await asyncio.gather(*[_awaited_one(alias, v) for v in values])
            return found

        answers[number] = asyncio.run(main())

    threads = [threading.Thread(target=thread, args=(number,)) for number in (1, 2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    turns = count(20, 200)
    assert answers == {n: [n * 1000 + value for value in range(3 * turns)] for n in (1, 2)}


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def slope(points: list[tuple[float, int]]) -> float:
    """Bytes a second, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )


@pytest.mark.modes("asyncio")
async def test_soak(engine: Engine) -> None:
    """64 tasks of mixed work, one in eight cancelled, for VINYL_SOAK_SECONDS."""
    alias = engine.alias
    seconds = float(os.environ.get("VINYL_SOAK_SECONDS", "60" if FULL else "3"))
    warm_up = seconds / 3
    began = time.monotonic()
    points: list[tuple[float, int]] = []
    opened: list[int] = []
    dice = random.Random(11)
    finished = 0

    async def task(number: int) -> None:
        nonlocal finished
        while time.monotonic() - began < seconds:
            name = f"k{number}"
            work: Any = awaited_work if dice.random() < 0.5 else in_a_fiber
            job = asyncio.create_task(work(alias, name))
            if dice.random() < 0.125:
                await asyncio.sleep(dice.random() * 0.01)
                job.cancel()
            await asyncio.wait([job])
            if not job.cancelled():
                job.result()
                finished += 1
            await vinyl.run(Author.objects.using(alias).filter(name=name).delete)

    tasks = [asyncio.create_task(task(number)) for number in range(64)]
    while time.monotonic() - began < seconds:
        await asyncio.sleep(min(1.0, seconds / 20))
        elapsed = time.monotonic() - began
        if elapsed > warm_up:
            points.append((elapsed, resident()))
            opened.append(descriptors())
    await asyncio.gather(*tasks)
    assert_nobody_holds_a_slot(alias)
    grows = slope(points)
    report(
        "soak", engine=engine.name, seconds=seconds, requests=finished,
        rss_slope_kib_per_s=round(grows / 1024, 2), descriptors=(min(opened), max(opened)),
    )  # fmt: skip
    # In a short run only the descriptors say something.
    assert max(opened) - min(opened) <= 20
    if seconds >= 60:
        assert grows < 1024, f"{grows / 1024:.1f} KiB/s"
