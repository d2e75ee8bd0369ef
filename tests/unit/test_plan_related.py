"""Related managers' querysets start planned: their SQL, results and errors are Django's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, models
from django.db.models import Max, Q
from django.db.models.lookups import Exact
from django.test.utils import CaptureQueriesContext, override_settings
from library.models import Author, Book, Genre, Publisher
from plan_support import fill, fresh_plans, outcome, registered  # noqa: F401

import vinyl
from vinyl.plan import statement as statements
from vinyl.plan.query import PlannedQuery

#: Of an author, a book, a genre and a number.
CALLS: dict[str, Callable[[Any, Any, Any, int], Any]] = {
    "all": lambda author, book, genre, n: author.books.all(),
    "filtered": lambda author, book, genre, n: author.books.filter(pages__gte=n),
    "ordered": lambda author, book, genre, n: author.books.order_by("-pages", "author__name"),
    "slice": lambda author, book, genre, n: author.books.filter(pages__gte=n)[:1],
    "first": lambda author, book, genre, n: [author.books.first()],
    "get": lambda author, book, genre, n: [author.books.get(pages=n)],
    "none to get": lambda author, book, genre, n: [author.books.get(pages=n + 70)],
    "count": lambda author, book, genre, n: author.books.count(),
    "exists": lambda author, book, genre, n: author.books.filter(title="a").exists(),
    "aggregate": lambda author, book, genre, n: author.books.aggregate(Max("pages")),
    "update": lambda author, book, genre, n: author.books.filter(pages__gte=n).update(title="z"),
    "values": lambda author, book, genre, n: list(author.books.values("title", "author__name")),
    "author of": lambda author, book, genre, n: [each.author for each in author.books.all()],
    "in bulk": lambda author, book, genre, n: author.books.in_bulk([n, n + 1]),
    "contains": lambda author, book, genre, n: author.books.contains(book),
    "genres": lambda author, book, genre, n: book.genres.all(),
    "genres of a name": lambda author, book, genre, n: book.genres.filter(name="ab"[n % 2]),
    "not that one": lambda author, book, genre, n: book.genres.exclude(name="ab"[n % 2]),
    "books": lambda author, book, genre, n: genre.books.filter(pages__gt=n),
    "books by": lambda author, book, genre, n: genre.books.filter(author=author).order_by("-pk"),
    "books of genres": lambda author, book, genre, n: genre.books.filter(genres__name="a"),
    "books of both": lambda author, book, genre, n: genre.books.filter(genres__name="a").filter(
        genres__name="b"
    ),
    "two ways": lambda author, book, genre, n: genre.books.filter(Q(pages=n) | Q(genres__pk=n)),
    # The step after the manager's own filter forgets which join that made.
    "genres in order": lambda author, book, genre, n: book.genres.order_by("name").filter(
        books__pages__gte=n
    ),
    "all its genres": lambda author, book, genre, n: (
        book.genres.all().all().filter(books__pages__gte=n)
    ),
    "genres in part": lambda author, book, genre, n: book.genres.only("name").exclude(
        books__title="a"
    ),
    "number of genres": lambda author, book, genre, n: book.genres.count(),
    "either": lambda author, book, genre, n: author.books.filter(pages=n) | author.books.all(),
    "within": lambda author, book, genre, n: genre.books.filter(pk__in=author.books.all()),
    "with their authors": lambda author, book, genre, n: genre.books.select_related("author"),
    "publisher's": lambda author, book, genre, n: [
        list(each.books.all()) for each in Publisher.objects.all()
    ],
    "prefetched": lambda author, book, genre, n: [
        list(each.books.all()) for each in Author.objects.prefetch_related("books__genres")
    ],
    "no such field": lambda author, book, genre, n: author.books.filter(nope=n),
}


def sent(call: Callable[..., Any], number: int) -> Any:
    """The outcome, and the statements."""
    author, book = Author.objects.get(name="abc"[number - 1]), Book.objects.get(pages=number)
    genre = Genre.objects.get(name="ab"[number % 2])
    with CaptureQueriesContext(connections["default"]) as captured:
        result = outcome(lambda: call(author, book, genre, number))
    return result, [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize("name", CALLS)
async def test_calls(engine: Any, name: str) -> None:
    def work() -> None:
        fill()
        for number in (1, 2, 3):
            with override_settings(VINYL={"PLAN_CACHE": False}):
                theirs = sent(CALLS[name], number)
            for planning in (True, "check", True):
                with override_settings(VINYL={"PLAN_CACHE": planning}):
                    assert sent(CALLS[name], number) == theirs
            # And where nobody looks, straight to the driver.
            author = Author.objects.get(name="abc"[number - 1])
            book, genre = Book.objects.get(pages=number), Genre.objects.get(name="ab"[number % 2])
            for planning in (True, "check", False):
                with override_settings(VINYL={"PLAN_CACHE": planning}):
                    assert outcome(lambda: CALLS[name](author, book, genre, number)) == theirs[0]  # noqa: B023

    await vinyl.run(work)


async def test_awaited(engine: Any, planning: Any, executed: list[str]) -> None:
    await vinyl.run(fill)
    authors = await Author.vinyl.order_by("name")
    statements.stats.update(hits=0, misses=0, uncached=0)
    for author in authors:
        assert type(author.books.all()._query) is PlannedQuery
        books = await author.books.filter(pages__gte=0)
        assert len(books) == 2
        assert all(book.author is author for book in books)
        assert await author.books.count() == 2
        assert [genre.name for genre in await books[0].genres.filter(name="a")] in (["a"], [])
    assert statements.stats == {"hits": 6, "misses": 3, "uncached": 0}
    assert len(executed) == 6


async def test_in_bulk(engine: Any, planning: Any, executed: list[str]) -> None:
    await vinyl.run(fill)
    executed.clear()
    for number in (1, 2, 3):
        found = await Book.vinyl.in_bulk([number, number + 1])
        assert {key: book.pk for key, book in found.items()} == {
            number: number,
            number + 1: number + 1,
        }
        names = await Publisher.vinyl.in_bulk(["press", f"{number}"], field_name="name")
        assert list(names) == ["press"]
    assert len(executed) == 4
    assert await Book.vinyl.in_bulk([]) == {}


async def test_an_author_that_is_not_saved(engine: Any, planning: Any) -> None:
    await vinyl.run(fill)
    for _ in range(2):
        with pytest.raises(ValueError, match="primary key"):
            await Author(name="x").books.all()
        assert len(await Author(pk=1).books.all()) == 2
        assert len(await Author(pk=99).books.all()) == 0


async def test_a_manager_that_starts_otherwise(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_queryset = models.Manager.get_queryset

    def long_ones(self: Any) -> Any:
        return get_queryset(self).filter(pages__gt=2) if self.model is Book else get_queryset(self)

    await vinyl.run(fill)
    author = await Author.vinyl.get(name="a")
    for _ in range(2):
        assert len(await author.books.all()) == 2
    with monkeypatch.context() as patch:
        patch.setattr(models.manager.BaseManager, "get_queryset", long_ones)
        for _ in range(2):
            assert [book.pages for book in await author.books.all()] == [3]
    assert len(await author.books.all()) == 2


@pytest.mark.parametrize("name", ["_clone", "_chain", "_filter_or_exclude"])
async def test_a_queryset_that_filters_by_itself(
    engine: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method = getattr(models.QuerySet, name)

    def long_ones(self: Any, *args: Any, **kwargs: Any) -> Any:
        clone = method(self, *args, **kwargs)
        if self.model is Book and not clone._query.where:
            clone._query.add_q(Q(pages__gt=2))
        return clone

    await vinyl.run(fill)
    author = await Author.vinyl.get(name="a")
    genre = await Genre.vinyl.get(name="a")

    async def numbers(planning: Any) -> list[list[int]]:
        with override_settings(VINYL={"PLAN_CACHE": planning}):
            found = [await author.books.all(), await genre.books.order_by("pages")]
        return [[book.pages for book in books] for books in found]

    assert await numbers(True) == await numbers(True) == [[0, 3], [0, 2, 4]]
    with monkeypatch.context() as patch:
        patch.setattr(models.QuerySet, name, long_ones)
        theirs = await numbers(False)
        # Without a copy on the way Django's manager does not notice.
        assert theirs[1] == [4] or name == "_clone"
        for planning in (True, "check", True):
            assert await numbers(planning) == theirs
    assert await numbers(True) == [[0, 3], [0, 2, 4]]


async def test_a_manager_whose_filter_is_not_planned(engine: Any, planning: Any) -> None:
    class Same(Exact):
        """Its SQL could depend on the value, for all that a plan knows."""

    await vinyl.run(fill)
    book = await Book.vinyl.get(pages=1)
    with registered(Book._meta.pk, Same):
        for _ in range(2):
            assert [genre.name for genre in await book.genres.all()] == ["b"]
            assert [genre.name async for genre in book.genres.all()] == ["b"]
            assert await book.genres.exists()
    # Known by now as a filter that is not planned.
    assert [genre.name for genre in await book.genres.all()] == ["b"]
