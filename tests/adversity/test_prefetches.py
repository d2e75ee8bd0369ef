"""Statements that travel together, and what may happen to them on their way: each prefetch is right
or raises, and all that it used is whole again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from adversity_support import count
from adversity_support.cancelling import Canceller
from adversity_support.proxy import Proxy
from adversity_support.whole import (
    BACKENDS,
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    assert_server_idle,
    kill,
)
from django.db import OperationalError, connections, transaction
from django.db.models import FloatField, Prefetch
from django.db.models.expressions import RawSQL
from fix_engine import Engine, installed
from library.models import Author, Book
from prefetch_support import fill, tree

import vinyl
from vinyl import _core

postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
on_a_loop = pytest.mark.modes("asyncio", "uvloop")
CUTS = count(60, 600)


def flown() -> int:
    return _core.stats()["flown"]


def shelves(alias: str) -> Any:
    """Two flights of three, and what comes between."""
    books = Book.objects.using(alias).order_by("pk")
    return tree(list(books.prefetch_related("author__profile", "publisher__books", "genres")), {})


def in_a_block(alias: str) -> Any:
    with transaction.atomic(using=alias):
        return shelves(alias)


@on_a_loop
@postgresql_only
@pytest.mark.parametrize("work", [shelves, in_a_block])
async def test_cancelled_at_each_suspension(
    engine: Engine, postgres_admin: psycopg.Connection, work: Callable[[str], Any]
) -> None:
    alias = engine.alias
    await vinyl.run(fill)
    expected = await vinyl.run(work, alias)
    before = flown()
    assert await vinyl.run(work, alias) == expected
    assert flown() - before == 5
    landed = 0
    for soon, k in itertools.product((False, True), range(1, 6)):
        for _ in range(count(2, 20)):
            canceller = Canceller((k,), soon=soon)
            ended = await canceller.run(lambda _: vinyl.run(work, alias))
            assert isinstance(ended, asyncio.CancelledError) == bool(canceller.cancels), (k, soon)
            assert_nobody_holds_a_slot(alias)
            assert_server_idle(postgres_admin)
            assert await vinyl.run(work, alias) == expected
            landed += canceller.cancels
    assert landed > 0
    await assert_all_slots_work(alias)


def slow(seconds: str) -> Prefetch:
    """A lookup whose statement takes so long at the server."""
    wait = RawSQL(f"(SELECT 1.0 FROM pg_sleep({seconds}))", (), output_field=FloatField())
    return Prefetch("books", Book.objects.annotate(slept=wait), to_attr="slow")


def fetch(alias: str, *lookups: Any) -> list[Author]:
    return list(Author.objects.using(alias).order_by("pk").prefetch_related(*lookups))


def of_fetched(authors: list[Author]) -> list[int]:
    return [len(author.books.all()) for author in authors]


@on_a_loop
@postgresql_only
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("inside", [False, True])
async def test_a_backend_killed_in_flight(
    engine: Engine, postgres_admin: psycopg.Connection, at: int, inside: bool
) -> None:
    alias = engine.alias
    lookups: list[Any] = ["books", "profile"]
    lookups.insert(at, slow("60"))

    def work() -> None:
        if inside:
            with transaction.atomic(using=alias):
                fetch(alias, *lookups)
        else:
            fetch(alias, *lookups)

    await vinyl.run(fill)
    await vinyl.run(fetch, alias, "books", "profile")
    before = flown()
    task = asyncio.create_task(vinyl.run(work))
    asleep = f"{BACKENDS} AND wait_event = 'PgSleep'"
    while not (pids := postgres_admin.execute(asleep).fetchall()):
        await asyncio.sleep(0.001)
    assert flown() - before == 3
    kill(postgres_admin, [pid for (pid,) in pids])
    with pytest.raises(OperationalError):
        await task
    assert of_fetched(await vinyl.run(fetch, alias, "books", "profile")) == [0, 1, 2, 3]
    assert_nobody_holds_a_slot(alias)


@pytest.fixture
def options(engine: Engine, request: pytest.FixtureRequest) -> Iterator[None]:
    entry = engine.conf | {"OPTIONS": request.param}
    with installed({engine.alias: entry}):
        yield


@postgresql_only
@pytest.mark.parametrize("options", [{"command_timeout": 0.2}], indirect=True)
@pytest.mark.parametrize("inside", [False, True])
async def test_one_that_takes_too_long(
    engine: Engine, options: None, mode: str, inside: bool
) -> None:
    def work() -> None:
        with pytest.raises(OperationalError, match="command_timeout"):
            fetch("default", "profile", slow("60"), "books")

    def block() -> None:
        with transaction.atomic(), transaction.atomic():
            work()
            transaction.set_rollback(True)

    def again() -> None:
        assert of_fetched(fetch("default", "books", "profile")) == [0, 1, 2, 3]
        # Each of them has that long.
        before = flown()
        fetch("default", slow("0.04"), "profile", "books")
        assert flown() - before == 3

    await vinyl.run(fill)
    for _ in range(2):
        await vinyl.run(block if inside else work)
        await vinyl.run(again)


@on_a_loop
@postgresql_only
async def test_the_connection_is_cut(proxied: Engine, proxy: Proxy) -> None:
    """At every so many bytes of the server's answers."""
    alias = proxied.alias
    await vinyl.run(fill)
    expected = await vinyl.run(shelves, alias)
    (line,) = proxy.lines
    start = line.passed
    assert await vinyl.run(shelves, alias) == expected
    size = line.passed - start
    outcomes = {"right": 0, "lost": 0}
    for n in range(CUTS):
        line = proxy.lines[-1]
        line.cut_at = line.passed + 1 + size * n // CUTS
        try:
            answer = await vinyl.run(shelves, alias)
        except OperationalError:
            outcomes["lost"] += 1
        else:
            outcomes["right"] += 1
            assert answer == expected
        assert_nobody_holds_a_slot(alias)
        assert await vinyl.run(shelves, alias) == expected
    assert outcomes["lost"] > CUTS // 2, outcomes


@on_a_loop
@postgresql_only
@pytest.mark.parametrize("options", [{"pool": {"max_size": 1}}], indirect=True)
async def test_while_all_connections_are_in_use(engine: Engine, options: None) -> None:
    def hold() -> int:
        with transaction.atomic():
            authors = Author.objects.count()
            _core.await_(started.wait())
            return authors

    await vinyl.run(fill)
    expected = await vinyl.run(shelves, "default")
    for _ in range(3):
        started = asyncio.Event()
        holder = asyncio.create_task(vinyl.run(hold))
        await asyncio.sleep(0)
        readers = [asyncio.create_task(vinyl.run(shelves, "default")) for _ in range(9)]
        await asyncio.sleep(0)
        started.set()
        answers = await asyncio.gather(*readers)
        assert await holder == 4
        assert answers == [expected] * 9
    assert_nobody_holds_a_slot("default")


@on_a_loop
@postgresql_only
async def test_many_tasks(engine: Engine) -> None:
    await vinyl.run(fill)
    expected = await vinyl.run(shelves, engine.alias)
    before = flown()
    answers = await asyncio.gather(*[vinyl.run(shelves, engine.alias) for _ in range(200)])
    assert answers == [expected] * 200
    assert flown() - before == 5 * 200
    await assert_all_slots_work(engine.alias)
    assert_nobody_holds_a_slot(engine.alias)
    assert connections[engine.alias].vendor == "postgresql"
