"""Cancelled at every suspension point, once and twice: all of it or nothing, and all that was used
is whole again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from adversity_support import count, report
from adversity_support.cancelling import Canceller
from adversity_support.whole import (
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    assert_server_idle,
    others_end,
)
from django.db import transaction
from fix_engine import Engine
from library.models import Author, Book, Genre, Publisher

import vinyl

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
#: In which a cancel landed; for each of 4 variants, 2 engines, 2 loops.
TRIALS = count(40, 640)


def twelve(alias: str, tag: str) -> None:
    """Twelve statements in plain Django: five rows made, one of them deleted, one changed."""
    with transaction.atomic(using=alias):
        author = Author.objects.using(alias).create(name=tag)
        publisher = Publisher.objects.using(alias).create(name=tag)
        book = Book.objects.using(alias).create(title=tag, author=author, publisher=publisher)
        Book.objects.using(alias).filter(pk=book.pk).update(pages=7)
        with transaction.atomic(using=alias):  # SAVEPOINT, RELEASE
            second = Author.objects.using(alias).create(name=tag)
            assert Author.objects.using(alias).get(pk=second.pk).name == tag
        assert Author.objects.using(alias).filter(name=tag).count() == 2
        Author.objects.using(alias).filter(pk=second.pk)._raw_delete(alias)
        author.name = f"{tag}."
        author.save(using=alias)
        Genre.objects.using(alias).create(name=tag)


async def in_a_coroutine(canceller: Canceller, alias: str, tag: str) -> None:
    async with vinyl.atomic(alias):
        author = await Author.vinyl.create(name=tag)
        publisher = await Publisher.vinyl.create(name=tag)
        book = await Book.vinyl.create(title=tag, author=author, publisher=publisher)
        await Book.vinyl.filter(pk=book.pk).update(pages=7)
        async with vinyl.atomic(alias):
            second = await Author.vinyl.create(name=tag)
            assert (await Author.vinyl.get(pk=second.pk)).name == tag
        assert await Author.vinyl.filter(name=tag).count() == 2
        await vinyl.run(Author.objects.using(alias).filter(pk=second.pk)._raw_delete, alias)
        author.name = f"{tag}."
        await author.save()
        await Genre.vinyl.create(name=tag)


async def in_a_fiber(canceller: Canceller, alias: str, tag: str) -> None:
    await vinyl.run(twelve, alias, tag)


async def gathered(canceller: Canceller, alias: str, tag: str) -> None:
    def watched(*operations: Any) -> list[Any]:
        # The operations belong to the task that makes them; gathered, each gets a task of its own.
        return [canceller.watch(operation) for operation in operations]

    async with vinyl.atomic(alias):
        author = await Author.vinyl.create(name=tag)
        publisher, genre, second = await asyncio.gather(
            *watched(
                Publisher.vinyl.create(name=tag),
                Genre.vinyl.create(name=tag),
                Author.vinyl.create(name=tag),
            )
        )
        author.name = f"{tag}."
        counted, *_ = await asyncio.gather(
            *watched(
                Author.vinyl.count(),
                Book.vinyl.create(title=tag, author=author, publisher=publisher, pages=7),
                author.save(),
                Genre.vinyl.filter(pk=genre.pk).exists(),
                Publisher.vinyl.get(pk=publisher.pk),
            )
        )
        assert counted >= 2
        async with vinyl.atomic(alias):
            await asyncio.gather(*watched(second.delete(), Book.vinyl.filter(pages=7).exists()))


async def beside_tasks(canceller: Canceller, alias: str, tag: str) -> None:
    """Operations of the block run on in tasks of their own, which nobody cancels."""

    async def meanwhile(*operations: Any) -> None:
        await asyncio.wait([canceller.start(operation) for operation in operations])

    async def inner(publisher: Publisher, author: Author) -> None:
        book = Book(title=tag, author=author, publisher=publisher, pages=7)
        await meanwhile(book.save(), Book.vinyl.count(), Author.vinyl.filter(pk=author.pk).exists())

    def in_fiber() -> None:
        with transaction.atomic(using=alias):
            author = Author.objects.using(alias).create(name=tag)
            publisher = Publisher.objects.using(alias).create(name=tag)
            vinyl.await_(inner(publisher, author))
            author.name = f"{tag}."
            author.save(using=alias)
            Genre.objects.using(alias).create(name=tag)

    await vinyl.run(in_fiber)


VARIANTS = [in_a_coroutine, in_a_fiber, gathered, beside_tasks]


def found(alias: str, tag: str) -> tuple[int, ...]:
    return (
        Author.objects.using(alias).filter(name=tag).count(),
        Author.objects.using(alias).filter(name=f"{tag}.").count(),
        Publisher.objects.using(alias).filter(name=tag).count(),
        Book.objects.using(alias).filter(title=tag, pages=7).count(),
        Book.objects.using(alias).filter(title=tag).count(),
        Genre.objects.using(alias).filter(name=tag).count(),
    )


NOTHING = (0, 0, 0, 0, 0, 0)
ALL = (0, 1, 1, 1, 1, 1)


def plans(suspensions: int) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Where to cancel: at every point once, then twice with the second one, two, three later."""
    points = range(1, suspensions + 1)
    for soon in (False, True):
        yield from (((k,), soon) for k in points)
    for later, soon in itertools.product((1, 2, 3), (False, True)):
        yield from (((k, k + later), soon) for k in points)


@on_a_loop
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
async def test_all_or_nothing(
    engine: Engine, request: pytest.FixtureRequest, variant: Callable[..., Any]
) -> None:
    alias = engine.alias
    admin = request.getfixturevalue("postgres_admin") if engine.name == "postgresql" else None

    def work(tag: str) -> Callable[[Canceller], Coroutine[Any, Any, Any]]:
        return lambda canceller: variant(canceller, alias, tag)

    for number in range(2):  # the first one connects
        clean = Canceller()
        assert await clean.run(work(f"clean{number}")) is None
        assert await vinyl.run(found, alias, f"clean{number}") == ALL
    assert clean.suspensions > 0

    every = itertools.cycle(plans(clean.suspensions))
    if len(list(plans(clean.suspensions))) > TRIALS:
        # In a short run each point and kind has its turn all the same, spread out.
        every = itertools.islice(every, 0, None, 7)
    outcomes = {"all": 0, "nothing": 0, "second": 0}
    landed = missed = 0
    for number, (at, soon) in enumerate(every):
        tag = f"t{number}"
        canceller = Canceller(at, soon=soon)
        ended = await canceller.run(work(tag))
        await others_end()
        rows = await vinyl.run(found, alias, tag)
        trial = f"{at} soon={soon} of {clean.suspensions}: {ended!r}, rows {rows}"
        assert rows in (NOTHING, ALL), f"torn: {trial}"
        assert_nobody_holds_a_slot(alias, trial)
        if admin is not None:
            assert_server_idle(admin)
        if not canceller.cancels:  # it was quicker this time
            assert ended is None, trial
            assert rows == ALL, trial
            missed += 1
            assert missed < 2 * TRIALS
            continue
        assert isinstance(ended, asyncio.CancelledError), f"swallowed: {trial}"
        outcomes["all" if rows == ALL else "nothing"] += 1
        outcomes["second"] += canceller.cancels > 1
        landed += 1
        if landed == TRIALS:
            break
    await assert_all_slots_work(alias)
    assert outcomes["nothing"] > 0
    report(
        "cancel sweep", engine=engine.name, variant=variant.__name__, trials=TRIALS,
        suspensions=clean.suspensions, missed=missed, **outcomes,
    )  # fmt: skip
