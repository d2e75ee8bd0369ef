"""Between the driver and the server: cut, delayed, frozen, fragmented, garbled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from adversity_support import count, report
from adversity_support.cancelling import Canceller
from adversity_support.proxy import Proxy, garbler
from adversity_support.whole import (
    BACKENDS,
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    assert_server_idle,
    kill,
    one,
)
from django.db import (
    DatabaseError,
    Error,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from fix_engine import Engine, installed
from library.models import Author, Sample

import vinyl
from vinyl.backends.base import close_pools

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
ROWS = 30


def fill(alias: str) -> None:
    Author.objects.using(alias).bulk_create([Author(name=f"n{n}" * 20) for n in range(ROWS)])


def read(alias: str) -> list[str]:
    return list(Author.objects.using(alias).order_by("pk").values_list("name", flat=True))


NAMES = [f"n{n}" * 20 for n in range(ROWS)]


def write(alias: str, name: str) -> None:
    with transaction.atomic(using=alias):
        Author.objects.using(alias).create(name=name)
        Author.objects.using(alias).create(name=name)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.2f} s, {seconds} s allowed"


async def test_one_byte_at_a_time(proxied: Engine, proxy: Proxy) -> None:
    alias = proxied.alias
    await vinyl.run(fill, alias)
    proxy.fragment = 1
    for number in range(3):  # the third time prepared
        assert await vinyl.run(read, alias) == NAMES
        await vinyl.run(write, alias, f"w{number}")
        await vinyl.run(Author.objects.using(alias).filter(name=f"w{number}").delete)


@on_a_loop
async def test_delayed(proxied: Engine, proxy: Proxy) -> None:
    proxy.delay = 0.01

    async def task(value: int) -> int:
        return await vinyl.run(one, proxied.alias, value)

    async with asyncio.timeout(30):
        assert await asyncio.gather(*map(task, range(64))) == list(range(64))


async def test_cut_anywhere(
    proxied: Engine, proxy: Proxy, postgres_admin: psycopg.Connection
) -> None:
    """The server's stream ends after n bytes, from the first one of the start-up on."""
    alias = proxied.alias
    await vinyl.run(fill, alias)
    everything = 20_000
    points = random.Random(3).sample(range(1, everything), count(12, 150))
    errors = 0
    for number, cut_at in enumerate(points):
        await vinyl.run(close_all, alias)
        proxy.cut_at = cut_at
        name = f"c{number}"
        try:
            for _ in range(3):
                assert await vinyl.run(read, alias) == NAMES
                await vinyl.run(write, alias, name)
                await vinyl.run(Author.objects.using(alias).filter(name=name).delete)
        except (OperationalError, InterfaceError):
            errors += 1
        proxy.cut_at = None
        rows = postgres_admin.execute(
            "SELECT count(*) FROM library_author WHERE name = %s", [name]
        ).fetchone()
        assert rows is not None
        assert rows[0] in (0, 2), f"torn at {cut_at}"
        # A broken thread's session is Django's to close; a task's heals itself.
        await vinyl.run(close_all, alias)
        assert await vinyl.run(one, alias, 5) == 5
        postgres_admin.execute("DELETE FROM library_author WHERE name = %s", [name])
    assert_server_idle(postgres_admin)
    assert errors == proxy.cuts > 0
    report("cut at any byte", points=len(points), errors=errors)


def close_all(alias: str) -> None:
    """This session's connection, and those in the pool."""
    connections[alias].close()
    close_pools(alias)


@on_a_loop
async def test_farewell_before_the_end(
    proxied: Engine, proxy: Proxy, postgres_admin: psycopg.Connection
) -> None:
    """A backend's last words arrive some time before its socket is closed."""
    proxy.hold_ends = True
    await assert_all_slots_work(proxied.alias)
    before = [line.passed for line in proxy.lines]
    kill(postgres_admin, [pid for (pid,) in postgres_admin.execute(BACKENDS).fetchall()])
    while any(line.passed == passed for line, passed in zip(proxy.lines, before, strict=True)):
        await asyncio.sleep(0.001)
    assert await vinyl.run(one, proxied.alias, 3) == 3


def sleeps(alias: str, seconds: float) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@on_a_loop
async def test_stranded_in_a_statement(proxied: Engine, proxy: Proxy) -> None:
    alias = proxied.alias
    assert await vinyl.run(one, alias) == 1
    for _ in range(count(1, 5)):
        asyncio.get_running_loop().call_later(0.2, proxy.freeze)
        with within(1.5), pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await vinyl.run(sleeps, alias, 0.6)
        began = time.monotonic()
        assert await vinyl.run(one, alias, 2) == 2
        next_query = time.monotonic() - began
        assert next_query < 0.5
        assert_nobody_holds_a_slot(alias)
    report("stranded: next query", milliseconds=round(next_query * 1000, 1))


@on_a_loop
@pytest.mark.parametrize("where", ["statement", "commit", "rollback"])
async def test_stranded_in_a_block(proxied: Engine, proxy: Proxy, where: str) -> None:
    alias = proxied.alias
    assert await vinyl.run(one, alias) == 1
    blocked: list[float] = []

    async def work() -> None:
        async with vinyl.atomic(alias):
            await Author.vinyl.create(name="stranded")
            proxy.freeze()
            blocked.append(time.monotonic())
            if where == "statement":
                await Author.vinyl.create(name="stranded")
            if where == "rollback":
                raise RuntimeError("undo")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await work()
    took = time.monotonic() - began
    assert took < 1.5, f"back after {took:.2f} s"
    with within(0.5):
        assert await vinyl.run(one, alias, 2) == 2
    assert_nobody_holds_a_slot(alias)
    report("stranded in a block", where=where, back_after=round(took, 2))


@pytest.fixture
def narrow(proxied: Engine) -> Iterator[Engine]:
    """One connection: of more, the next trial would meet one that was made silent, too."""
    entry = proxied.databases[proxied.alias] | {"OPTIONS": {"pool": {"max_size": 1}}}
    with installed({proxied.alias: entry}):
        yield proxied


@on_a_loop
@pytest.mark.parametrize("where", ["statement", "block", "commit"])
async def test_told_of_the_cancel(narrow: Engine, proxy: Proxy, where: str) -> None:
    """How long after cancel() the task has its CancelledError, the server being silent."""
    alias = narrow.alias
    asked = asyncio.Event()
    cancelled: list[float] = []
    told: list[float] = []

    async def work() -> None:
        try:
            if where == "statement":
                proxy.freeze()
                asked.set()
                await vinyl.run(one, alias)
                return
            async with vinyl.atomic(alias):
                await Author.vinyl.create(name="stranded")
                proxy.freeze()
                asked.set()
                if where == "block":
                    await Author.vinyl.create(name="stranded")
        except asyncio.CancelledError:
            told.append(time.monotonic())
            raise

    trials = count(5, 100)
    for trial in range(trials):
        assert await vinyl.run(one, alias, trial) == trial
        asked.clear()
        task = asyncio.create_task(work())
        await asked.wait()
        await asyncio.sleep(0)  # the statement that is never answered is sent
        cancelled.append(time.monotonic())
        task.cancel()
        if trial % 2:  # a second one changes nothing
            asyncio.get_running_loop().call_later(0.02, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_nobody_holds_a_slot(alias)
    assert await vinyl.run(one, alias, -1) == -1
    took = sorted((end - begin) * 1000 for begin, end in zip(cancelled, told, strict=True))
    report(
        "told of the cancel", where=where, trials=trials, median=round(took[trials // 2], 1),
        p90=round(took[trials * 9 // 10], 1), most=round(took[-1], 1),
    )  # fmt: skip
    assert took[trials // 2] < 100


@pytest.fixture
def hasty(proxied: Engine) -> Iterator[Engine]:
    entry = proxied.databases[proxied.alias] | {"OPTIONS": {"command_timeout": 0.3}}
    with installed({proxied.alias: entry}):
        yield proxied


async def test_a_cancel_that_comes_to_nothing(
    hasty: Engine, proxy: Proxy, postgres_admin: psycopg.Connection
) -> None:
    """The connection is closed and the server asked again: the statement would run on for good."""
    alias = hasty.alias
    asleep = (
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%'"
        " AND pid <> pg_backend_pid()"
    )

    def sleep() -> None:
        with pytest.raises(OperationalError, match="command_timeout"):
            sleeps(alias, 600)
        assert proxy.lose_cancels == 0

    assert await vinyl.run(one, alias) == 1
    proxy.lose_cancels = 1
    await vinyl.run(sleep)
    began = time.monotonic()
    while postgres_admin.execute(asleep).fetchall():
        assert time.monotonic() - began < 5
        await vinyl.run(one, alias)


@on_a_loop
async def test_all_stranded(proxied: Engine, proxy: Proxy) -> None:
    """All ten connections are silent: every task is back in time, and the pool is of use."""
    alias = proxied.alias
    assert await vinyl.run(one, alias) == 1  # now it has a pool
    await assert_all_slots_work(alias)
    proxy.freeze()

    async def task() -> None:
        async with asyncio.timeout(1):
            await vinyl.run(one, alias)

    with within(2.5):
        ended = await asyncio.gather(*[task() for _ in range(10)], return_exceptions=True)
    assert {type(error) for error in ended} == {TimeoutError}
    with within(1):
        await assert_all_slots_work(alias)


@on_a_loop
async def test_stopped_backend(engine: Engine, postgres_admin: psycopg.Connection) -> None:
    """SIGSTOP: the socket is there, nobody answers."""
    alias = engine.alias
    assert await vinyl.run(one, alias) == 1
    pids = [pid for (pid,) in postgres_admin.execute(BACKENDS).fetchall()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with within(1.5), pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await vinyl.run(one, alias)
        with within(0.5):
            assert await vinyl.run(one, alias, 2) == 2
        assert_nobody_holds_a_slot(alias)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_silent_port(silent: str) -> None:
    with within(4), pytest.raises(OperationalError, match="connect_timeout"):
        await vinyl.run(one, silent)


@on_a_loop
async def test_cancelled_while_connecting(silent: str) -> None:
    with within(1), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await vinyl.run(one, silent)
    assert assert_nobody_holds_a_slot(silent)["pool_size"] == 0


def many_types(alias: str) -> list[tuple[object, ...]]:
    return list(Sample.objects.using(alias).order_by("pk").values_list())


@on_a_loop
async def test_garbled(proxied: Engine, proxy: Proxy) -> None:
    """Nothing crashes or hangs, whatever bytes come; the next connection is fine.

    What is damaged inside a value, and is still a value, nobody can notice without TLS.
    """
    import datetime
    import decimal
    import uuid

    alias = proxied.alias
    await vinyl.run(fill, alias)
    for number in range(20):
        await Sample.vinyl.create(
            flag=True, small=number, big=2**40, real=1.5, exact=decimal.Decimal("1.25"),
            text="text", data=b"data", day=datetime.date(2026, 1, 1), clock=datetime.time(1, 2, 3),
            moment=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            span=datetime.timedelta(days=1), ident=uuid.UUID(int=1), document={"a": [1, 2]},
            address="::1",
        )  # fmt: skip
    outcomes = {"fine": 0, "database error": 0, "timeout": 0, "other": 0}
    others: list[BaseException] = []
    for seed in range(count(25, 200)):
        proxy.change = garbler(seed, first=random.Random(seed).randrange(2_000), chance=0.003)
        try:
            async with asyncio.timeout(0.3):
                for _ in range(3):
                    await vinyl.run(many_types, alias)
                    await vinyl.run(read, alias)
        except (DatabaseError, Error):
            outcomes["database error"] += 1
        except TimeoutError:
            outcomes["timeout"] += 1
        except (ValueError, UnicodeDecodeError, OverflowError, TypeError) as error:
            outcomes["other"] += 1  # a value that is none: as the decoders of psycopg raise
            others.append(error)
        else:
            outcomes["fine"] += 1
        proxy.change = None
        assert_nobody_holds_a_slot(alias, f"seed {seed}")
        await vinyl.run(close_all, alias)
        assert await vinyl.run(read, alias) == NAMES
    report("garbled", **outcomes)
    print(outcomes, {repr(error)[:80] for error in others})


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "answered"])
@pytest.mark.parametrize("left", ["aclose", "break", "break, then a statement"])
@on_a_loop
async def test_cancelled_while_a_cursor_left_early_is_closed(
    proxied: Engine, proxy: Proxy, left: str, frozen: bool
) -> None:
    """The close may be a generator's finalizer, out of which no exception comes."""
    alias = proxied.alias
    await vinyl.run(fill, alias)
    reached = []

    def now() -> None:
        canceller.at = (canceller.suspensions + 1,)
        if frozen:
            proxy.freeze()

    async def in_a_coroutine(_: Canceller) -> None:
        rows = Author.vinyl.iterator(chunk_size=1)
        await anext(rows)
        now()
        await rows.aclose()
        reached.append(left)

    def sync() -> None:
        for _ in Author.objects.using(alias).iterator(chunk_size=1):
            now()
            break
        if "statement" in left:
            one(alias)
            reached.append(left)

    async def in_a_fiber(_: Canceller) -> None:
        await vinyl.run(sync)
        reached.append(left)

    def cursors() -> list[str]:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT name FROM pg_cursors")
            return [name for (name,) in cursor.fetchall()]

    canceller = Canceller()
    outcome = await canceller.run(in_a_coroutine if left == "aclose" else in_a_fiber)
    assert isinstance(outcome, asyncio.CancelledError)
    assert canceller.cancels == 1
    assert reached == []
    assert await vinyl.run(cursors) == []
    assert_nobody_holds_a_slot(alias)
