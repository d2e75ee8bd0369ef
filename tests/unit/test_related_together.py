"""The statements of a many-to-many relation's changes: what is sent together on PostgreSQL, and
that it is what Django does."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractContextManager
from typing import Any

import flight_support
import psycopg
import pytest
from adversity_support.cancelling import Canceller
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import QuerySet, signals
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from library.models import Author, Book, Genre

import vinyl
from vinyl import _core

Through: Any = Book.genres.through
CHANGES = {
    "add": lambda book, *genres: book.genres.add(*genres),
    "remove": lambda book, *genres: book.genres.remove(*genres),
    "set": lambda book, *genres: book.genres.set(genres),
    "clear": lambda book, *genres: book.genres.clear(),
    "clearing set": lambda book, *genres: book.genres.set(genres, clear=True),
    "other end": lambda book, *genres: genres[0].books.add(book),
}


def sent(engine: Engine, *expected: int) -> AbstractContextManager[None]:
    """On PostgreSQL so many statements were in each flight, or alone."""
    if engine.name == "postgresql":
        return flight_support.sent(*expected)
    return contextlib.nullcontext()


def book_and_genres(alias: str) -> tuple[Book, list[Genre]]:
    author = Author.objects.using(alias).create(name="a")
    book = Book.objects.using(alias).create(title="b", author=author)
    genres = [Genre.objects.using(alias).create(name=name) for name in "wxyz"]
    return book, genres


def names(book: Book) -> list[str]:
    return sorted(genre.name for genre in book.genres.all())


def known(book: Book, genres: list[Genre]) -> None:
    """All that is done in a test has been done on the connection before."""
    first, second, *_ = genres
    for _ in range(2):
        for change in CHANGES.values():
            for some in ([first], [first, second], [second]):
                change(book, *some)
        book.genres.set([first])
        book.genres.set([second])
        book.genres.remove(first, second)
        book.genres.clear()
        names(book)


async def test_round_trips(engine: Engine, mode: str) -> None:
    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        first, second, third, _ = genres
        known(book, genres)
        with sent(engine, 2):
            book.genres.add(first)
        with sent(engine, 2):
            book.genres.add(second, third)
        with sent(engine, 2):
            second.books.add(book)
        with sent(engine, 1):
            assert names(book) == ["w", "x", "y"]
        with sent(engine, 2):
            book.genres.remove(third)
        with sent(engine, 1, 3):
            book.genres.set([third, first])
        with sent(engine, 1, 1):  # BEGIN goes with the SELECT; nothing is to be changed
            book.genres.set([third, first])
        with sent(engine, 1):
            assert names(book) == ["w", "y"]
        with sent(engine, 2):
            book.genres.clear()
        with sent(engine, 3):
            book.genres.set([first, second], clear=True)
        with sent(engine, 1):
            assert names(book) == ["w", "x"]

    await vinyl.run(work)


async def test_in_a_coroutine(engine: Engine, mode: str) -> None:
    book, genres = await vinyl.run(book_and_genres, engine.alias)
    await vinyl.run(known, book, genres)
    with sent(engine, 2):
        await book.genres.add(genres[0])
    with sent(engine, 2):
        await book.genres.aadd(genres[1])
    with sent(engine, 1, 3):
        await book.genres.aset([genres[1], genres[2]])
    with sent(engine, 2):
        await book.genres.remove(genres[2])
    assert [genre.name async for genre in book.genres.all()] == ["x"]
    with sent(engine, 2):
        await book.genres.clear()
    with sent(engine, 2):
        await genres[3].books.add(book)
    assert await vinyl.run(names, book) == ["z"]


async def test_inside_a_block(engine: Engine, mode: str) -> None:
    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        first, second, third, _ = genres
        known(book, genres)
        with sent(engine, 1, 1, 1, 1), transaction.atomic(using=engine.alias):
            book.genres.add(first)
            book.genres.add(second, third)
            book.genres.remove(first)
        with sent(engine, 1, 2, 1), transaction.atomic(using=engine.alias):
            book.genres.set([first, second])
        outer, inner = (transaction.atomic(using=engine.alias) for _ in range(2))
        with sent(engine, 1, 2, 1, 1), outer, inner:  # BEGIN goes with SAVEPOINT
            book.genres.set([second], clear=True)
        assert names(book) == ["x"]
        with contextlib.suppress(KeyError), transaction.atomic(using=engine.alias):
            book.genres.add(first)
            raise KeyError
        assert names(book) == ["x"]

    await vinyl.run(work)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("have", ["", "w", "wx", "xyz"])
@pytest.mark.parametrize("given", ["w", "x", "wx", "zyx"])
async def test_what_django_does(
    engine: Engine, mode: str, change: str, have: str, given: str
) -> None:
    expected = {
        "add": set(have + given),
        "remove": set(have) - set(given),
        "set": set(given),
        "clear": set(),
        "clearing set": set(given),
        "other end": set(have + given[0]),
    }[change]

    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        by_name = {genre.name: genre for genre in genres}
        for _ in range(3):
            Through.objects.using(engine.alias).all().delete()
            book.genres.add(*[by_name[name] for name in have])
            CHANGES[change](book, *[by_name[name] for name in given])
            assert set(names(book)) == expected
            assert Through.objects.using(engine.alias).count() == len(expected)

    await vinyl.run(work)


async def test_errors(engine: Engine, mode: str) -> None:
    def work() -> None:
        alias = engine.alias
        book, genres = book_and_genres(alias)
        first, second, *_ = genres
        known(book, genres)
        session: Any = connections[alias]
        called = []
        # A foreign key, checked by COMMIT.
        with pytest.raises(IntegrityError):
            book.genres.add(12345)
        assert not session.needs_rollback
        assert not session.in_atomic_block
        with pytest.raises(IntegrityError):
            book.genres.set([12345, second])
        assert names(book) == []
        # The same, checked where it is inserted.
        if engine.name == "postgresql":
            with transaction.atomic(using=alias):
                with session.cursor() as cursor:
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                transaction.on_commit(lambda: called.append(1), using=alias)
                with pytest.raises(IntegrityError) as caught:
                    book.genres.add(12345)
                assert isinstance(caught.value.__cause__, psycopg.errors.ForeignKeyViolation)
                assert session.needs_rollback
                with pytest.raises(transaction.TransactionManagementError):
                    names(book)
            with transaction.atomic(using=alias):
                with session.cursor() as cursor:
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                with pytest.raises(IntegrityError), transaction.atomic(using=alias):
                    book.genres.add(12345)
                assert not session.needs_rollback
                book.genres.add(first)
        assert called == []
        # One of Django's own, after a statement that is held.
        with transaction.atomic(using=alias):
            with pytest.raises(ValueError, match="Field 'id' expected a number"):
                book.genres.set([first, "text"], clear=True)
            assert session.needs_rollback
        with pytest.raises(TypeError, match="instance expected"):
            book.genres.add(book)
        with pytest.raises(ValueError, match=r"needs to have a"):
            Book(title="new").genres.add(first)

    await vinyl.run(work)


async def test_a_unique_index_of_the_projects_own(engine: Engine, mode: str) -> None:
    table = Through._meta.db_table

    def run(*statements: str) -> None:
        with connections[engine.alias].cursor() as cursor:
            for sql in statements:
                cursor.execute(sql)

    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        known(book, genres)
        # ON CONFLICT DO NOTHING does not know of a CHECK.
        run(f"ALTER TABLE {table} ADD CONSTRAINT small CHECK (genre_id <> {genres[1].pk})")
        try:
            known(book, [genres[0], genres[0]])
            called: list[int] = []
            with pytest.raises(IntegrityError) as caught:
                book.genres.set([genres[0], genres[1]])
            assert caught.value.__cause__.diag.constraint_name == "small"
            assert names(book) == []

            def both() -> None:
                with transaction.atomic(using=engine.alias):
                    transaction.on_commit(lambda: called.append(1), using=engine.alias)
                    book.genres.add(genres[0])
                    book.genres.add(genres[1])

            with pytest.raises(IntegrityError):
                both()
            assert names(book) == []
            assert called == []
            with transaction.atomic(using=engine.alias):
                transaction.on_commit(lambda: called.append(2), using=engine.alias)
                book.genres.add(genres[0])
            assert called == [2]
        finally:
            run(f"ALTER TABLE {table} DROP CONSTRAINT small")

    if engine.name == "postgresql":
        await vinyl.run(work)


async def test_where_somebody_would_notice(
    engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        alias = engine.alias
        book, genres = book_and_genres(alias)
        known(book, genres)
        session: Any = connections[alias]

        def alone() -> None:
            before = _core.stats()
            book.genres.add(genres[0])
            book.genres.remove(genres[0])
            after = _core.stats()
            assert after["flights"] == before["flights"]

        for signal in (signals.m2m_changed, signals.pre_delete, signals.post_save):
            seen: list[Any] = []

            def receiver(action: str = "", seen: list[Any] = seen, **kwargs: Any) -> None:
                seen.append(action)

            signal.connect(receiver, sender=Through)
            try:
                alone()
            finally:
                signal.disconnect(receiver, sender=Through)
            if signal is signals.m2m_changed:
                assert seen == ["pre_add", "post_add", "pre_remove", "post_remove"]
        with CaptureQueriesContext(session) as captured:
            alone()
        texts = [query["sql"] for query in captured.captured_queries]
        assert sum(sql.startswith("INSERT ") for sql in texts) == 1
        assert sum(sql.startswith("DELETE ") for sql in texts) == 1
        with session.execute_wrapper(lambda execute, *args: execute(*args)):
            alone()

        def delete(self: Any, *args: Any) -> Any:
            return original(self, *args)

        original = QuerySet.delete
        with monkeypatch.context() as patch:
            patch.setattr(QuerySet, "delete", delete)
            alone()
        manager = type(book.genres).__bases__[1]
        own = manager.remove

        def remove(self: Any, *objs: Any) -> None:
            own(self, *objs)

        with monkeypatch.context() as patch:
            patch.setattr(manager, "_remove_items", manager._remove_items)
            patch.setattr(manager, "remove", remove)
            alone()
        with sent(engine, 2):
            book.genres.add(genres[0])

    await vinyl.run(work)


async def test_the_first_time(engine: Engine, mode: str) -> None:
    """What has not run on the connection before is sent at once."""

    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        with sent(engine, 1, 1):
            book.genres.add(genres[0])
        with sent(engine, 2):
            book.genres.add(genres[1])

    await vinyl.run(work)


async def test_a_killed_backend(engine: Engine, mode: str) -> None:
    if engine.server is None:
        return
    server = engine.server

    def work() -> None:
        book, genres = book_and_genres(engine.alias)
        known(book, genres)

        def kill() -> None:
            with connections[engine.alias].cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pid = cursor.fetchone()[0]
            server.psql(f"SELECT pg_terminate_backend({pid}, 10000)")

        for before in (False, True):

            def block(before: bool = before) -> None:
                with transaction.atomic(using=engine.alias):
                    if before:
                        book.genres.add(genres[0])
                    kill()
                    book.genres.set([genres[1]])

            with pytest.raises(OperationalError):
                block()
            assert names(book) == []
        book.genres.add(genres[2])
        assert names(book) == ["y"]

    await vinyl.run(work)


@pytest.mark.modes("asyncio", "uvloop")
@pytest.mark.parametrize("soon", [False, True])
@pytest.mark.parametrize("change", CHANGES)
async def test_cancelled_at_each_step(engine: Engine, mode: str, change: str, soon: bool) -> None:
    """All of it or nothing, and what on_commit() was given is called if it was all."""
    book, genres = await vinyl.run(book_and_genres, engine.alias)
    await vinyl.run(known, book, genres)
    called: list[int] = []

    def reset() -> None:
        Through.objects.using(engine.alias).all().delete()
        book.genres.add(genres[0], genres[2])
        called.clear()

    def work() -> None:
        with transaction.atomic(using=engine.alias):
            transaction.on_commit(lambda: called.append(1), using=engine.alias)
            CHANGES[change](book, genres[1], genres[2])

    async def run(canceller: Canceller) -> None:
        if soon:
            await vinyl.run(CHANGES[change], book, genres[1], genres[2])
        else:
            await vinyl.run(work)

    await vinyl.run(reset)
    before = await vinyl.run(names, book)
    assert await Canceller().run(run) is None
    after = await vinyl.run(names, book)
    for at in range(1, 40):
        await vinyl.run(reset)
        canceller = Canceller((at,), soon=soon)
        error = await canceller.run(run)
        assert error is None or isinstance(error, asyncio.CancelledError)
        found = await vinyl.run(names, book)
        assert found in (before, after)
        assert soon or (found == after) == bool(called)
        if canceller.cancels == 0:
            assert error is None
            break
    else:
        raise AssertionError("it did not end")


@pytest.mark.modes("asyncio", "uvloop")
async def test_two_tasks(engine: Engine, mode: str) -> None:
    book, genres = await vinyl.run(book_and_genres, engine.alias)
    await vinyl.run(known, book, genres)

    async def change(number: int) -> None:
        for _ in range(5):
            await book.genres.add(genres[number])
            assert genres[number].name in await vinyl.run(names, book)
            await book.genres.remove(genres[number])

    await asyncio.gather(*[asyncio.create_task(change(number)) for number in range(4)])
    assert await vinyl.run(names, book) == []

    async with vinyl.atomic():
        # Side by side in one block, where they take turns.
        await asyncio.gather(*[book.genres.add(genre) for genre in genres])
        await asyncio.gather(book.genres.remove(genres[0]), book.genres.set(genres[:2]))
    assert set(await vinyl.run(names, book)) <= {"w", "x"}


def test_in_plain_code(engine: Engine) -> None:
    book, genres = book_and_genres(engine.alias)
    known(book, genres)
    called: list[int] = []
    with sent(engine, 2):
        book.genres.add(genres[0])
    with sent(engine, 1, 3):
        book.genres.set(genres[1:3])
    with sent(engine, 1, 1), transaction.atomic(using=engine.alias):
        transaction.on_commit(lambda: called.append(1), using=engine.alias)
        book.genres.remove(genres[1])
    assert called == [1]
    assert names(book) == ["y"]
    with pytest.raises(IntegrityError):
        book.genres.add(12345)
    assert names(book) == ["y"]
    connections[engine.alias].close()
    book.genres.clear()
    assert names(book) == []
    connections[engine.alias].close()
