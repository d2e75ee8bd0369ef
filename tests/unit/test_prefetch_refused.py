"""A prefetch that fails raises what Django's raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DataError, InternalError, transaction
from django.db import models as django_models
from django.db.models import Prefetch
from django.db.models.expressions import RawSQL
from fix_engine import Engine
from library.models import Author, Book, Genre
from prefetch_support import Trips, fill, one_after_the_other

from vinyl import _core

Authors, Books = Author.objects, Book.objects
ZERO = RawSQL("1 / (pages - pages)", ())


def error_of(query: Callable[[], Any]) -> tuple[type[BaseException], str, Any]:
    """The error of a prefetch, and what the instances had got by then."""
    instances = list(Books.order_by("pk"))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is compared
        django_models.prefetch_related_objects(instances, *query())
    had = [sorted(getattr(each, "_prefetched_objects_cache", ())) for each in instances]
    cached = [sorted(each._state.fields_cache) for each in instances]
    return caught.type, str(caught.value), (had, cached)


@pytest.mark.parametrize(
    "lookups",
    [
        ("genres", "author", "wrong"),
        ("genres", "author", "pages"),
        ("genres", "notes", "author__wrong"),
        ("genres", "author", "genres__wrong", "notes"),
        ("wrong", "genres", "author"),
        ("genres", "author", "genres__"),
        ("genres", "author", Prefetch("genres", Genre.objects.filter(pk=1))),
    ],
)
async def test_errors_are_djangos(
    engine: Engine, mode: str, lookups: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare() -> None:
        fill()
        with one_after_the_other(monkeypatch):
            slow = error_of(lambda: lookups)
        fast = error_of(lambda: lookups)
        assert fast[:2] == slow[:2]
        if "wrong" in str(lookups[-1]):
            assert fast[2] == slow[2]

    await _core.run(compare)


def broken(name: str) -> Prefetch:
    books = Books.annotate(zero=ZERO)
    return Prefetch("books", books, to_attr=name)


@pytest.mark.parametrize("at", range(3))
async def test_the_server_refuses_one(database: Engine, mode: str, at: int) -> None:
    if database.name != "postgresql":
        return  # SQLite divides by zero
    alias = database.alias
    lookups: list[Any] = ["books", "profile"]
    lookups.insert(at, broken("b"))

    def work() -> None:
        fill()
        for _ in range(2):
            authors = list(Authors.using(alias).order_by("pk"))
            with Trips() as trips, pytest.raises(DataError, match="division by zero"):
                django_models.prefetch_related_objects(authors, *lookups)
            assert trips.flown == 3
            django_models.prefetch_related_objects(authors, "books", "profile")
            assert len(authors[3].books.all()) == 3
        with transaction.atomic(alias):
            with pytest.raises(DataError), transaction.atomic(alias):
                django_models.prefetch_related_objects(authors, *lookups[::-1])
            assert Authors.using(alias).count() == 4
        with pytest.raises(DataError), transaction.atomic(alias):
            list(Authors.using(alias).prefetch_related(*lookups))
        with pytest.raises(InternalError, match="aborted"):
            goes_on_in_an_aborted_transaction()

    def goes_on_in_an_aborted_transaction() -> None:
        with transaction.atomic(alias):
            authors = list(Authors.using(alias))
            with pytest.raises(DataError):
                django_models.prefetch_related_objects(authors, *lookups)
            django_models.prefetch_related_objects(authors, "books__genres", "profile")

    await _core.run(work)
