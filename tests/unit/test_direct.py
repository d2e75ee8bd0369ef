"""A statement past Django's cursor: only where nobody would see it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, ProgrammingError, connections, transaction
from django.db.backends import utils
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.db.models import Max
from django.test.utils import CaptureQueriesContext
from library.models import Author, Book, Genre, Note

import vinyl
from vinyl import direct
from vinyl.exceptions import NotFetched


def session() -> Any:
    return connections["default"]


def answer(sql: str = "SELECT %s", params: Any = (7,)) -> list[Any]:
    cursor = direct.execute(session(), sql, params)
    try:
        return cursor.fetchall()
    finally:
        cursor.close()


async def test_an_answer(engine: Any) -> None:
    def work() -> tuple[bool, list[Any]]:
        return direct.unseen(session()), answer("SELECT 1 + 1", ())

    assert await vinyl.run(work) == (True, [(2,)])
    assert await vinyl.run(answer, "SELECT CAST(%s AS varchar(9))", ("x",)) == [("x",)]


def test_in_plain_code(engine: Any) -> None:
    assert direct.unseen(session())
    assert answer("SELECT 3", ()) == [(3,)]


async def test_errors_are_djangos(engine: Any) -> None:
    with pytest.raises(DatabaseError) as raised:
        await vinyl.run(answer, "SELECT nope", ())
    assert raised.value.__cause__ is not None
    assert await vinyl.run(lambda: session().errors_occurred)


async def test_refused_in_a_coroutine(engine: Any) -> None:
    with pytest.raises(NotFetched, match="default"):
        direct.execute(session(), "SELECT 1", ())


async def test_a_thread_that_is_not_its_own(engine: Any) -> None:
    def work() -> None:
        session()._thread_ident += 1
        try:
            with pytest.raises(DatabaseError, match="created in thread id"):
                answer()
        finally:
            session()._thread_ident -= 1

    await vinyl.run(work)


async def test_a_broken_transaction(engine: Any) -> None:
    def work() -> list[bool]:
        seen = []
        with transaction.atomic():
            seen.append(direct.unseen(session()))
            transaction.set_rollback(True)
            seen.append(direct.unseen(session()))
        return [*seen, direct.unseen(session())]

    assert await vinyl.run(work) == [True, False, True]


def replaced(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def do(patch: pytest.MonkeyPatch) -> None:
        target = owner() if callable(owner) and not isinstance(owner, type) else owner
        before = getattr(target, name)
        patch.setattr(target, name, lambda *args, **kwargs: before(*args, **kwargs))

    return do


def property_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BaseDatabaseWrapper, "queries_logged", property(lambda self: False))


def class_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(utils, "CursorWrapper", type("Mine", (CursorWrapper,), {}))


WATCHERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the session's cursor": replaced(session, "cursor"),
    "its _cursor": replaced(session, "_cursor"),
    "its make_cursor": replaced(session, "make_cursor"),
    "its make_debug_cursor": replaced(session, "make_debug_cursor"),
    "its ensure_connection": replaced(session, "ensure_connection"),
    "its _prepare_cursor": replaced(session, "_prepare_cursor"),
    "every cursor()": replaced(BaseDatabaseWrapper, "cursor"),
    "every ensure_connection()": replaced(BaseDatabaseWrapper, "ensure_connection"),
    "every execute()": replaced(CursorWrapper, "execute"),
    "every _execute()": replaced(CursorWrapper, "_execute"),
    "every _execute_with_wrappers()": replaced(CursorWrapper, "_execute_with_wrappers"),
    "queries_logged": property_replaced,
    "the class of cursors": class_replaced,
    "the flag": lambda patch: patch.setattr(session(), "force_debug_cursor", True),
    "DEBUG": lambda patch: patch.setattr(settings, "DEBUG", True),
    "a wrapper": lambda patch: patch.setattr(session(), "execute_wrappers", [lambda *args: None]),
    "apps that are not ready": lambda patch: patch.setattr(apps, "ready", False),
}


@pytest.mark.parametrize("name", WATCHERS)
async def test_whoever_watches(engine: Any, name: str) -> None:
    def work() -> list[bool]:
        seen = [direct.unseen(session())]
        with pytest.MonkeyPatch.context() as patch:
            WATCHERS[name](patch)
            seen.append(direct.unseen(session()))
        return [*seen, direct.unseen(session())]

    assert await vinyl.run(work) == [True, False, True]


async def test_captured(engine: Any) -> None:
    with CaptureQueriesContext(session()):
        assert not await vinyl.run(lambda: direct.unseen(session()))
    assert await vinyl.run(lambda: direct.unseen(session()))


async def test_an_engine_with_a_cursor_of_its_own(engine: Any) -> None:
    def work() -> bool:
        mine = session()
        cls = type(mine)
        mine.__class__ = type("Mine", (cls,), {"make_cursor": lambda self, cursor: cursor})
        try:
            return direct.unseen(mine)
        finally:
            mine.__class__ = cls

    assert not await vinyl.run(work)


async def test_a_connection_that_fell_out(engine: Any) -> None:
    """CONN_HEALTH_CHECKS: the first statement of a request looks at its connection."""

    def work() -> tuple[list[Any], bool]:
        mine = session()
        mine.ensure_connection()
        mine.health_check_enabled, mine.health_check_done = True, False
        return answer("SELECT 5", ()), mine.health_check_done

    rows, done = await vinyl.run(work)
    assert rows == [(5,)]
    assert done


def test_closed_in_a_block(engine: Any) -> None:
    mine = session()
    mine.ensure_connection()
    link, mine.connection = mine.connection, None
    mine.in_atomic_block = mine.closed_in_transaction = True
    with pytest.raises(ProgrammingError, match="in an atomic block"):
        answer()
    mine.in_atomic_block = mine.closed_in_transaction = False
    mine.connection = link


# --- who attaches to a connection as it is made


def with_a_wrapper(mine: Any, seen: list[str]) -> None:
    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    mine.execute_wrappers.append(watch)


def with_the_flag(mine: Any, seen: list[str]) -> None:
    mine.force_debug_cursor = True
    mine.queries_log.clear()


def with_a_cursor(mine: Any, seen: list[str]) -> None:
    cursor = mine.cursor

    class Seeing(CursorWrapper):
        def execute(self, sql: str, params: Any = None) -> Any:
            seen.append(sql)
            return self.cursor.execute(sql, params)

    mine.cursor = lambda: Seeing(cursor(), mine)


TRACERS = (with_a_wrapper, with_the_flag, with_a_cursor)


def statements() -> dict[str, Callable[[], object]]:
    genre, other = Genre.objects.order_by("pk")[:2]
    book = Book.objects.first()
    assert book is not None
    return {
        "get": lambda: Genre.vinyl.get(pk=genre.pk),
        "filter": lambda: list(Genre.vinyl.filter(name__gt="a")),
        "values": lambda: list(Genre.vinyl.filter(name__gt="a").values_list("name", flat=True)),
        "count": lambda: Genre.vinyl.filter(name__gt="a").count(),
        "exists": lambda: Genre.vinyl.filter(name__gt="a").exists(),
        "aggregate": lambda: Genre.vinyl.aggregate(Max("name")),
        "update": lambda: Note.vinyl.filter(text="a").update(text="b"),
        "delete": lambda: Note.vinyl.filter(text="c").delete(),
        "create": lambda: Note.vinyl.create(subject=book, text="d"),
        "save": lambda: genre.save(),
        "add": lambda: book.genres.set([genre]) or book.genres.set([other]),
        "bulk_create": lambda: Note.vinyl.bulk_create(
            [Note(subject=book, text=f"{n}") for n in range(6)], batch_size=2
        ),
        "bulk_update": lambda: Genre.vinyl.bulk_update([genre, other] * 3, ["name"], batch_size=2),
    }


@pytest.mark.parametrize("attach", TRACERS)
async def test_who_attaches_as_the_connection_is_made(engine: Any, attach: Any) -> None:
    """The first statement is seen too."""

    def seen_of(run: Callable[[], object], *, late: bool) -> tuple[Any, list[str]]:
        mine, seen = session(), []
        mine.close()

        def attached(*, connection: Any, **_: Any) -> None:
            assert connection is mine
            attach(mine, seen)

        if late:
            connection_created.connect(attached)
        else:
            attach(mine, seen)
        try:
            answer = run()
        finally:
            connection_created.disconnect(attached)
            mine.execute_wrappers.clear()
            mine.force_debug_cursor = False
            mine.__dict__.pop("cursor", None)
        return answer, seen or [each["sql"] for each in mine.queries_log]

    def work() -> None:
        book = Book.objects.create(title="t", author=Author.objects.create(name="n"))
        Genre.objects.bulk_create([Genre(name="a1"), Genre(name="b1")])
        runs = statements()
        for run in runs.values():
            for _ in range(3):
                run()
        for name, run in runs.items():
            expected = seen_of(run, late=False)
            found = seen_of(run, late=True)
            assert expected[1], name
            assert [each.partition("VALUES")[0] for each in found[1]] == [
                each.partition("VALUES")[0] for each in expected[1]
            ], name
            if name not in ("create", "bulk_create"):
                assert found[0] == expected[0], name
        assert book.genres.count() == 1

    await vinyl.run(work)
