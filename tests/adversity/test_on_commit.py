"""on_commit functions of a block whose task is cancelled: they are called if it was committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from adversity_support import count, report
from adversity_support.cancelling import Canceller
from adversity_support.whole import assert_nobody_holds_a_slot
from django.db import transaction
from fix_engine import Engine
from library.models import Author, Genre

import vinyl

pytestmark = pytest.mark.modes("asyncio", "uvloop")
ROUNDS = count(2, 30)


def found(alias: str, tag: str) -> bool:
    return Author.objects.using(alias).filter(name=tag).exists()


def stored(alias: str, tag: str) -> bool:
    return Genre.objects.using(alias).filter(name=tag).exists()


@pytest.mark.parametrize("in_fiber", [False, True], ids=["coroutine", "fiber"])
@pytest.mark.parametrize("later", [0, 1, 2])
async def test_at_every_suspension(
    engine: Engine, caplog: pytest.LogCaptureFixture, in_fiber: bool, later: int
) -> None:
    alias = engine.alias
    called: set[str] = set()

    async def block(tag: str) -> None:
        async with vinyl.atomic(alias):
            await Author.vinyl.using(alias).acreate(name=tag)
            vinyl.on_commit(lambda: called.add(tag), using=alias)

    def in_one(tag: str) -> None:
        with transaction.atomic(using=alias):
            Author.objects.using(alias).create(name=tag)
            transaction.on_commit(lambda: called.add(tag), using=alias)

    def work(tag: str) -> Coroutine[Any, Any, None]:
        async def run() -> None:
            await vinyl.run(in_one, tag)

        return run() if in_fiber else block(tag)

    clean = Canceller()
    await clean.run(lambda canceller: work("warm-up"))
    clean = Canceller()
    assert await clean.run(lambda canceller: work("clean")) is None
    assert "clean" in called
    committed = unknown = trials = 0
    with caplog.at_level(logging.WARNING, "vinyl"):
        for number in range(ROUNDS):
            for soon in (False, True):
                for k in range(1, clean.suspensions + 2):
                    tag = f"{number} {soon} {k}"
                    at = (k, k + later) if later else (k,)
                    canceller = Canceller(at, soon=soon)
                    caplog.clear()
                    ended = await canceller.run(lambda canceller, tag=tag: work(tag))
                    is_there = await vinyl.run(found, alias, tag)
                    doubt = any("not known" in text for text in caplog.messages)
                    assert is_there == (tag in called) or doubt, (tag, is_there)
                    assert (ended is None) == (canceller.cancels == 0), (tag, ended)
                    trials += 1
                    unknown += doubt
                    committed += is_there and canceller.cancels > 0
                    assert_nobody_holds_a_slot(alias, tag)
    report(
        "on_commit after a cancel", engine=engine.name, in_fiber=in_fiber, later=later,
        trials=trials, committed=committed, unknown=unknown,
    )  # fmt: skip


async def test_a_hook_may_work(engine: Engine) -> None:
    """A coroutine function awaits the database, with the CancelledError on its way."""
    alias = engine.alias
    outcomes = set()

    async def work(tag: str) -> None:
        async def store() -> None:
            await Genre.vinyl.using(alias).acreate(name=tag)

        async with vinyl.atomic(alias):
            await Author.vinyl.using(alias).acreate(name=tag)
            vinyl.on_commit(store, using=alias)

    clean = Canceller()
    await clean.run(lambda canceller: work("warm-up"))
    clean = Canceller()
    assert await clean.run(lambda canceller: work("clean")) is None
    for k in range(1, clean.suspensions + 1):
        tag = f"t{k}"
        canceller = Canceller((k,), soon=True)
        ended = await canceller.run(lambda canceller, tag=tag: work(tag))
        assert isinstance(ended, asyncio.CancelledError) == bool(canceller.cancels)
        there = await vinyl.run(found, alias, tag), await vinyl.run(stored, alias, tag)
        # (True, False): cancelled in the function itself, as any that fails.
        assert there != (False, True)
        outcomes.add(there)
    assert not await vinyl.run(stored, alias, "never")
    later = "the next block calls no function of an earlier one"
    await work(later)
    assert await Genre.vinyl.using(alias).filter(name=later).acount() == 1


async def test_no_function_is_kept_for_the_next_block(engine: Engine) -> None:
    """In one session: what a cancelled block leaves behind."""
    alias = engine.alias
    called: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in range(40):
            loop = asyncio.get_running_loop()
            try:
                async with vinyl.atomic(alias):
                    await Author.vinyl.using(alias).acreate(name=f"n{number}")
                    vinyl.on_commit(lambda number=number: called.append(f"n{number}"), using=alias)
                    if number % 2:
                        loop.call_soon(task.cancel)
            except asyncio.CancelledError:
                task.uncancel()

    ended = asyncio.create_task(work())
    await asyncio.wait([ended])
    if not ended.cancelled():
        ended.result()
    names = [author.name async for author in Author.vinyl.using(alias).order_by("pk")]
    assert called == names
