"""`iterator()` with its next chunk under way: cancelled, cut, frozen, other statements between."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import psycopg
import pytest
from adversity_support import count, report
from adversity_support.cancelling import Canceller
from adversity_support.proxy import Proxy
from adversity_support.whole import (
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    assert_server_idle,
    one,
    others_end,
)
from django.db import IntegrityError, OperationalError, transaction
from fix_engine import Engine
from library.models import Author

import vinyl

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
NAMES = [f"{n:02}" for n in range(11)]
TRIALS = count(40, 400)


def fill(alias: str) -> None:
    Author.objects.using(alias).bulk_create([Author(name=name) for name in NAMES])


def rows() -> Any:
    return Author.vinyl.filter(name__lt="x").order_by("name").iterator(chunk_size=2)


async def between(alias: str, number: int, first: int) -> None:
    """What a loop's body does between two rows."""
    match number % 4:
        case 0:
            assert await Author.vinyl.filter(name="00").count() == 1
        case 1:
            async with vinyl.atomic(alias):
                await Author.vinyl.create(name=f"x{number}")
        case 2:
            try:
                async with vinyl.atomic(alias):
                    await Author.vinyl.create(name=f"lost{number}")
                    raise LookupError
            except LookupError:
                pass
        case 3:
            async with vinyl.atomic(alias):
                await Author.vinyl.create(name=f"x{number}")
                with pytest.raises(IntegrityError):
                    async with vinyl.atomic(alias):
                        await Author.vinyl.create(name=f"lost{number}", pk=first)


async def test_statements_between_the_rows(engine: Engine, mode: str) -> None:
    alias = engine.alias
    await vinyl.run(fill, alias)
    found = []
    async for author in rows():
        found.append(author.name)
        await between(alias, len(found), author.pk)
    assert found == NAMES
    assert await Author.vinyl.filter(name__startswith="x").count() == 6
    assert await Author.vinyl.filter(name__startswith="lost").count() == 0
    if mode != "blocking":
        assert_nobody_holds_a_slot(alias)


def in_plain_django(alias: str) -> list[str]:
    found = []
    authors = Author.objects.using(alias).filter(name__lt="x").order_by("name")
    for author in authors.iterator(chunk_size=2):
        found.append(author.name)
        with transaction.atomic(using=alias):
            Author.objects.using(alias).create(name=f"x{author.name}")
            if len(found) % 2:
                transaction.set_rollback(True, using=alias)
    return found


async def test_in_plain_django(engine: Engine, mode: str) -> None:
    await vinyl.run(fill, engine.alias)
    assert await vinyl.run(in_plain_django, engine.alias) == NAMES
    assert await Author.vinyl.filter(name__startswith="x").count() == 5


@on_a_loop
async def test_cancelled_anywhere(engine: Engine, postgres_admin: psycopg.Connection) -> None:
    alias = engine.alias
    await vinyl.run(fill, alias)
    found: list[str] = []
    swallowed = 0

    async def work(_: Canceller) -> None:
        nonlocal swallowed
        found.clear()
        async for author in rows():
            found.append(author.name)
            try:
                await vinyl.run(one, alias)
            except asyncio.CancelledError:
                swallowed += 1

    for _ in range(2):  # the first one connects
        clean = Canceller()
        assert await clean.run(work) is None
        assert found == NAMES
    plans = itertools.cycle(itertools.product(range(1, clean.suspensions + 1), (False, True)))
    outcomes = {"ended": 0, "went on": 0, "lost": 0}
    for at, soon in itertools.islice(plans, 0, 7 * TRIALS, 7):
        before = swallowed
        canceller = Canceller((at,), soon=soon)
        ended = await canceller.run(work)
        await others_end()
        trial = f"{at} soon={soon}: {ended!r}, {found}"
        if ended is None:
            # A cancelled statement of the body takes no row of the loop with it.
            assert found == NAMES, trial
            outcomes["went on"] += swallowed - before
        else:
            # A server that has not confirmed a cancel in time, on a busy machine, costs the
            # connection; and the loop, which goes on, is told so.
            lost = swallowed > before and "is gone" in str(ended)
            assert isinstance(ended, OperationalError if lost else asyncio.CancelledError), trial
            assert found == NAMES[: len(found)], trial
            outcomes["lost" if lost else "ended"] += 1
        assert_nobody_holds_a_slot(alias, trial)
        assert_server_idle(postgres_admin)
    await assert_all_slots_work(alias)
    assert min(outcomes["ended"], outcomes["went on"]) > 0, outcomes
    assert outcomes["lost"] <= TRIALS / 4, outcomes
    report("stream: cancel sweep", trials=TRIALS, suspensions=clean.suspensions, **outcomes)


@on_a_loop
@pytest.mark.parametrize("waits", ["for rows", "for a statement between"])
async def test_cancelled_on_a_frozen_server(proxied: Engine, proxy: Proxy, waits: str) -> None:
    alias = proxied.alias
    await vinyl.run(fill, alias)
    waiting = asyncio.Event()

    async def work() -> None:
        async for _ in rows():
            # The rows under way are held up too.
            proxy.freeze()
            waiting.set()
            if "between" in waits:
                await vinyl.run(one, alias)

    proxy.delay = 0.02  # so that they are under way still
    task = asyncio.create_task(work())
    await waiting.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    took = time.monotonic() - began
    assert took < 0.3, took
    proxy.delay = 0.0
    await others_end()
    assert await vinyl.run(one, alias) == 1
    assert_nobody_holds_a_slot(alias)


@pytest.mark.parametrize("left", ["whole", "early"])
async def test_fragmented(proxied: Engine, proxy: Proxy, left: str, mode: str) -> None:
    alias = proxied.alias
    await vinyl.run(fill, alias)
    proxy.fragment = 1
    found = []
    stream = rows()
    async for author in stream:
        found.append(author.name)
        assert await vinyl.run(one, alias) == 1
        if left == "early" and len(found) == 3:
            break
    await stream.aclose()
    assert found == (NAMES if left == "whole" else NAMES[:3])
    if mode != "blocking":
        assert_nobody_holds_a_slot(alias)


async def test_cut(proxied: Engine, proxy: Proxy, mode: str) -> None:
    alias = proxied.alias
    await vinyl.run(fill, alias)
    for after in range(1, 5):
        found: list[str] = []

        async def read(found: list[str], after: int) -> None:
            async for author in rows():
                found.append(author.name)
                if len(found) == after:
                    proxy.cut()

        with pytest.raises(OperationalError):
            await read(found, after)
        assert found == NAMES[: len(found)]
        assert len(found) < len(NAMES)
        assert await vinyl.run(one, alias) == 1
    if mode != "blocking":
        assert_nobody_holds_a_slot(alias)


@on_a_loop
async def test_others_have_their_turn(engine: Engine) -> None:
    """Also where each chunk is there before it is asked for."""
    await vinyl.run(fill, engine.alias)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    chunks = 0
    async for author in rows():
        if int(author.name) % 2 == 0:
            chunks += 1
            assert turns >= chunks
            time.sleep(0.005)
    task.cancel()
    assert chunks == 6
