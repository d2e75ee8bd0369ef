"""A prefetch that fails raises what Django's raises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, DataError, InternalError, ProgrammingError, transaction
from django.db import models as django_models
from django.db.models import Model, Prefetch
from django.db.models.expressions import RawSQL
from fix_engine import Engine
from library.models import Author, Book, Genre, Profile
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


# --- in a transaction, which the refusal of one fails for all


def in_a_block() -> None:
    with transaction.atomic():
        Genre.objects.count()


def swallowed() -> None:
    with suppress(DatabaseError):
        Genre.objects.count()


def sent_together() -> None:
    genre, *books = Genre.objects.first(), *Books.all()
    assert genre is not None
    genre.books.set(books)


#: What the code of a model that is looked up does for each of its instances.
WAYS: dict[str, Callable[[], object]] = {
    "a query": lambda: Genre.objects.count(),
    "a block": in_a_block,
    "swallowed": swallowed,
    "a cursor of the server's": lambda: list(Genre.objects.iterator()),
    "an insert": lambda: Genre.objects.bulk_create([Genre(name=f"new {Genre.objects.count()}")]),
    "changes that are sent together": sent_together,
    "lookups of its own": lambda: list(Books.prefetch_related("genres", "publisher")),
    "nothing": lambda: None,
}

#: What the server refuses: when it runs, when it is parsed, and when it is described before.
REFUSED = {
    "run": lambda: Books.annotate(zero=ZERO),
    "parsed": lambda: Books.annotate(no=RawSQL("no_such_column", ())),
    "described": lambda: Books.annotate(no=RawSQL("sha256(no_such_column)", ())),
}


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("way", WAYS)
async def test_code_that_goes_first_hears_of_the_refusal(
    database: Engine, mode: str, way: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is run before the lookup that was refused has come to its turn."""
    if database.name != "postgresql":
        return  # nothing travels together
    alias = database.alias

    def from_db(cls: Any, *args: Any, **options: Any) -> Any:
        WAYS[way]()
        return Model.from_db.__func__(cls, *args, **options)  # type: ignore[attr-defined]

    def error_of(*lookups: Any) -> Any:
        authors: list[Author] = []

        def in_a_transaction() -> None:
            with transaction.atomic(alias):
                authors.extend(Authors.using(alias).order_by("pk"))
                django_models.prefetch_related_objects(authors, *lookups)

        with pytest.raises(DatabaseError) as caught:
            in_a_transaction()
        had = [[*each._state.fields_cache] for each in authors]
        state = caught.value.__cause__.sqlstate  # type: ignore[union-attr]
        return caught.type, str(caught.value), state, had

    def work() -> None:
        fill()
        broken = Prefetch("books", REFUSED[refused](), to_attr="b")
        for at in range(3):
            lookups: list[Any] = ["profile", "books"]
            lookups.insert(at, broken)
            with one_after_the_other(monkeypatch):
                expected = error_of(*lookups)
            assert expected[0] in (DataError, ProgrammingError)
            for _ in range(2):
                with Trips() as trips:
                    found = error_of(*lookups)
                assert trips.flown >= 2
                assert found[:3] == expected[:3], at
                if way == "nothing":
                    assert found == expected, at

    monkeypatch.setattr(Profile, "from_db", classmethod(from_db))
    await _core.run(work)
