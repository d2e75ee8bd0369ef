"""PgBouncer in transaction mode: every transaction may come to another server connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from adversity_support import count, report
from adversity_support.pgbouncer import PgBouncer
from adversity_support.whole import assert_nobody_holds_a_slot, one
from django.db import connections, transaction
from fix_engine import DATABASE, Engine, installed
from fix_postgres import waived
from library.models import Author, Book, Genre

import vinyl
from vinyl import _core

pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
on_a_loop = pytest.mark.modes("asyncio", "uvloop")
TASKS = 20


@pytest.fixture
def bounced(engine: Engine) -> Iterator[str]:
    """An alias with our defaults, through PgBouncer."""
    assert engine.server is not None
    if "pgbouncer" in waived():
        pytest.skip("PgBouncer waived by VINYL_TEST_WAIVE")
    with PgBouncer(engine.server, DATABASE) as bouncer:
        entry = engine.conf | {"HOST": "127.0.0.1", "PORT": str(bouncer.port)}
        with installed({"default": entry}):
            yield "default"


def changed_genres(alias: str, number: int) -> None:
    """BEGIN, what changes a many-to-many relation, and COMMIT travel together."""
    author = Author.objects.using(alias).create(name=f"m{number}")
    book = Book.objects.using(alias).create(title=f"m{number}", author=author)
    genres = [Genre.objects.using(alias).create(name=f"m{number} {each}") for each in range(3)]
    for _ in range(3):
        book.genres.add(*genres[:2])
        book.genres.set(genres[1:])
        assert {genre.pk for genre in book.genres.all()} == {genres[1].pk, genres[2].pk}
        book.genres.remove(genres[1])
        assert [genre.pk for genre in book.genres.all()] == [genres[2].pk]
        book.genres.clear()


def in_a_transaction(alias: str, number: int) -> None:
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            # Not prepared itself: the next ones are met inside the transaction, where an unknown
            # prepared statement would be its end.
            cursor.execute(f"SELECT {number}")
        author = Author.objects.using(alias).create(name=f"p{number}")
        Author.objects.using(alias).filter(pk=author.pk).update(name=f"q{number}")
        assert Author.objects.using(alias).get(pk=author.pk).name == f"q{number}"
        with transaction.atomic(using=alias):
            author.delete()


@on_a_loop
async def test_many_statements(bounced: str) -> None:
    turns = count(10, 80)
    statements = 0

    async def task(number: int) -> None:
        nonlocal statements
        for turn in range(turns):
            # Transactions first: a statement may be prepared for the first time in one.
            await vinyl.run(in_a_transaction, bounced, number * 1000 + turn)
            assert await vinyl.run(one, bounced, number * 1000 + turn) == number * 1000 + turn
            assert await Author.vinyl.filter(name=f"q{number}").count() == 0
            statements += 8

    errors = []
    for ended in await asyncio.gather(*map(task, range(TASKS)), return_exceptions=True):
        if ended is not None:
            errors.append(ended)
    assert not errors, (len(errors), errors[0])
    assert_nobody_holds_a_slot(bounced)
    report("pgbouncer, transaction mode", statements=statements, errors=len(errors))


@on_a_loop
async def test_many_to_many(bounced: str) -> None:
    before = _core.stats()["flights"]

    async def task(number: int) -> None:
        for turn in range(count(3, 30)):
            await vinyl.run(changed_genres, bounced, number * 1000 + turn)

    await asyncio.gather(*map(task, range(TASKS)))
    assert _core.stats()["flights"] - before > TASKS
    assert_nobody_holds_a_slot(bounced)


@on_a_loop
async def test_streams(bounced: str) -> None:
    """`iterator()` outside a transaction, where a cursor WITH HOLD would be somebody else's."""
    await vinyl.run(
        Author.objects.using(bounced).bulk_create, [Author(name=f"s{n:04}") for n in range(500)]
    )

    async def task() -> list[str]:
        rows = Author.vinyl.order_by("name").iterator(chunk_size=50)
        return [author.name async for author in rows]

    for names in await asyncio.gather(*[task() for _ in range(8)]):
        assert names == [f"s{n:04}" for n in range(500)]


@on_a_loop
async def test_cancelled_statements_hit_nobody_else(bounced: str) -> None:
    """A cancel request goes through PgBouncer too, and must end its own statement only."""

    def slow() -> None:
        with connections[bounced].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.2)")

    async def given_up() -> None:
        try:
            async with asyncio.timeout(0.02):
                await vinyl.run(slow)
        except TimeoutError:
            return
        raise AssertionError("not cancelled")

    async def kept(value: int) -> None:
        for turn in range(count(20, 200)):
            assert await vinyl.run(one, bounced, value + turn) == value + turn

    async def giving_up() -> None:
        for _ in range(count(5, 50)):
            await given_up()

    await asyncio.gather(giving_up(), giving_up(), *[kept(n * 1000) for n in range(8)])
    assert_nobody_holds_a_slot(bounced)


async def test_book_by_book(bounced: str) -> None:
    """The same in every mode, one statement after the other."""
    author = await Author.vinyl.create(name="x")
    for number in range(20):
        await Book.vinyl.create(title=f"t{number}", author=author)
        assert await Book.vinyl.filter(author=author).count() == number + 1
