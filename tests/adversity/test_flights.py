"""What a many-to-many relation's changes send together with BEGIN and COMMIT: cut, fragmented,
killed. All of it or nothing, and nobody is told of what did not take place."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from adversity_support import count, report
from adversity_support.proxy import Line, Proxy
from adversity_support.whole import assert_server_idle
from django.db import InterfaceError, OperationalError, connections
from fix_engine import Engine
from library.models import Author, Book, Genre

import vinyl
from vinyl import _core
from vinyl.backends.base import close_pools

pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

Change = Callable[[Book, list[Genre]], None]
CHANGES: dict[str, Change] = {
    "add": lambda book, genres: book.genres.add(genres[1], genres[2]),
    "remove": lambda book, genres: book.genres.remove(genres[0]),
    "set": lambda book, genres: book.genres.set(genres[1:3]),
    "clearing set": lambda book, genres: book.genres.set(genres[1:3], clear=True),
}


def make(alias: str) -> tuple[Book, list[Genre]]:
    author = Author.objects.using(alias).create(name="a")
    book = Book.objects.using(alias).create(title="b", author=author)
    return book, [Genre.objects.using(alias).create(name=name) for name in "xyz"]


def reset(book: Book, genres: list[Genre]) -> None:
    book.genres.set(genres[:1], clear=True)


def warm(book: Book, genres: list[Genre], change: Change) -> int:
    """It runs on this connection as often as it takes; how many flights it takes."""
    for _ in range(3):
        reset(book, genres)
        before = _core.stats()["flights"]
        change(book, genres)
        flights = _core.stats()["flights"] - before
    reset(book, genres)
    return flights


def end(alias: str) -> None:
    connections[alias].close()
    close_pools(alias)


def stored(admin: psycopg.Connection) -> list[int]:
    rows = admin.execute("SELECT genre_id FROM library_book_genres ORDER BY 1").fetchall()
    return [key for (key,) in rows]


@pytest.mark.parametrize("change", CHANGES)
async def test_cut_anywhere(
    proxied: Engine, proxy: Proxy, postgres_admin: psycopg.Connection, change: str
) -> None:
    """The server's stream ends after n bytes of its answer, n from 0 until nothing is cut."""
    alias = proxied.alias
    book, genres = await vinyl.run(make, alias)
    errors = torn = whole = 0
    step = count(23, 1)
    for at in range(0, 10_000, step):
        await vinyl.run(end, alias)
        assert await vinyl.run(warm, book, genres, CHANGES[change]) == 1
        before = stored(postgres_admin)
        assert before == [genres[0].pk]
        cuts = proxy.cuts
        (line,) = _open(proxy)
        line.cut_at = line.passed + at
        try:
            await vinyl.run(CHANGES[change], book, genres)
            done = True
        except (OperationalError, InterfaceError):
            done = False
            errors += 1
        await vinyl.run(end, alias)
        found = stored(postgres_admin)
        expected = {
            "add": [each.pk for each in genres],
            "remove": [],
        }.get(change, [each.pk for each in genres[1:]])
        torn += found not in (before, expected)
        whole += found == expected
        assert not done or found == expected
        if proxy.cuts == cuts and done:
            break
    else:
        raise AssertionError("it was cut for ever")
    assert torn == 0
    assert errors > 0
    assert_server_idle(postgres_admin)
    report(f"flights cut at any byte, {change}", points=at // step, errors=errors, took_place=whole)


def _open(proxy: Proxy) -> list[Line]:
    return [line for line in proxy.lines if not line.is_cancel]


@pytest.mark.parametrize("change", CHANGES)
async def test_one_byte_at_a_time(
    proxied: Engine, proxy: Proxy, postgres_admin: psycopg.Connection, change: str
) -> None:
    book, genres = await vinyl.run(make, proxied.alias)
    assert await vinyl.run(warm, book, genres, CHANGES[change]) == 1
    proxy.fragment = 1
    await vinyl.run(CHANGES[change], book, genres)
    assert stored(postgres_admin) != [genres[0].pk]
