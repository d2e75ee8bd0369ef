"""What a prefetch leaves behind is what Django's leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import django
import pytest
from django.db import connections
from django.db.models import Count, Prefetch, prefetch_related_objects
from django.db.models.fields import related_descriptors
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from library.models import Author, Book, Genre, Note, Publisher
from prefetch_support import fill, tree

from vinyl import related, rows


@contextmanager
def djangos_way(monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        for cls, loop in rows._DJANGO.items():
            patch.setattr(cls, "__iter__", loop)
        patch.delattr(related.RelatedMixin, "get_prefetch_querysets")
        yield


def peers(queryset: Any) -> Any:
    from django.db.models import FETCH_PEERS  # Django 6.1

    return queryset.fetch_mode(FETCH_PEERS)


Books = Book.objects
QUERIES: dict[str, Callable[[], Any]] = {
    "many": lambda: Author.objects.prefetch_related("books"),
    "null": lambda: Publisher.objects.prefetch_related("books"),
    "m2m": lambda: Books.prefetch_related("genres"),
    "m2m, back": lambda: Genre.objects.prefetch_related("books"),
    "generic": lambda: Books.prefetch_related("notes"),
    "generic, back": lambda: Note.objects.prefetch_related("subject"),
    "one": lambda: Author.objects.prefetch_related("profile"),
    "forward": lambda: Books.prefetch_related("author", "publisher"),
    "nested": lambda: Author.objects.prefetch_related("books__genres", "books__publisher__books"),
    "and back": lambda: Author.objects.prefetch_related("books__author__books"),
    "to_attr": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.filter(pages__gt=0), to_attr="thick"), "books"
    ),
    "queryset": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.select_related("publisher").annotate(n=Count("genres")))
    ),
    "selected": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.select_related("author__profile"))
    ),
    "a queryset that leads back": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.prefetch_related("author__books"), to_attr="thick")
    ),
    "a queryset that leads back to others": lambda: Author.objects.prefetch_related(
        Prefetch(
            "books",
            Books.prefetch_related(
                Prefetch("author", Author.objects.annotate(n=Count("books"))), "genres"
            ),
        )
    ),
    "a queryset that leads to others of its model": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.prefetch_related("notes__subject"), to_attr="thick")
    ),
    "only": lambda: Author.objects.prefetch_related(Prefetch("books", Books.only("title"))),
    "only key": lambda: Author.objects.prefetch_related(Prefetch("books", Books.only("author"))),
    "defer": lambda: Author.objects.prefetch_related(Prefetch("books", Books.defer("author"))),
    "sliced": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.order_by("-pages")[:1], to_attr="thick")
    ),
    "prefetching": lambda: Author.objects.prefetch_related(
        Prefetch("books", Books.prefetch_related("genres").filter(pages=1))
    ),
    "none": lambda: Author.objects.prefetch_related(Prefetch("books", Books.none())),
    "known": lambda: Author.objects.get(name="A3").books.prefetch_related("publisher__books"),
}
if django.VERSION >= (6, 1):
    QUERIES["peers"] = lambda: peers(Author.objects.prefetch_related("books"))
    QUERIES["peers, inside"] = lambda: Author.objects.prefetch_related(
        Prefetch("books", peers(Books.select_related("publisher")))
    )


@pytest.mark.parametrize("name", QUERIES)
def test_equal_to_django(engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    with CaptureQueriesContext(connections[engine.alias]) as ours:
        fast = list(QUERIES[name]().order_by("pk"))
    with djangos_way(monkeypatch), CaptureQueriesContext(connections[engine.alias]) as theirs:
        slow = list(QUERIES[name]().order_by("pk"))
    assert fast
    assert tree(fast, {}) == tree(slow, {})
    assert [each["sql"] for each in ours] == [each["sql"] for each in theirs]
    assert rows.prefetches == []


def test_nothing_is_fetched_again(engine: Engine) -> None:
    fill()
    authors = list(Author.objects.prefetch_related("books__genres").order_by("pk"))
    with CaptureQueriesContext(connections[engine.alias]) as queries:
        for author in authors:
            for book in author.books.all():
                assert book.author is author
                assert [genre.name for genre in book.genres.all()]
        assert [len(author.books.all()) for author in authors] == [0, 1, 2, 3]
    assert len(queries) == 0


def test_some_already_have_it(engine: Engine) -> None:
    fill()
    first = Author.objects.prefetch_related("books").get(name="A3")
    before = list(first.books.all())
    authors = [first, *Author.objects.exclude(pk=first.pk)]
    prefetch_related_objects(authors, "books__genres")
    assert all(x is y for x, y in zip(first.books.all(), before, strict=True))
    assert all(book.author is author for author in authors for book in author.books.all())


def test_the_same_instance_twice(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()

    def found() -> Any:
        authors = [*Author.objects.order_by("pk"), *Author.objects.order_by("-pk")]
        prefetch_related_objects(authors, "books")
        return tree(authors, {})

    fast = found()
    with djangos_way(monkeypatch):
        assert fast == found()


def test_an_object_of_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queryset that was filtered by somebody else's idea of it gives Django's error."""
    fill()
    monkeypatch.setattr(
        related_descriptors, "_filter_prefetch_queryset", lambda queryset, name, obs: queryset
    )
    errors = []
    for way in (djangos_way(monkeypatch), monkeypatch.context()):
        with way, pytest.raises(KeyError) as caught:
            prefetch_related_objects(list(Author.objects.filter(name="A1")), "books")
        errors.append(type(caught.value))
    assert errors == [KeyError, KeyError]


def test_a_query_that_only_looks_like_the_prefetchs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that queries the same model with the same hint, while the prefetch is made."""
    fill()
    decoys: list[Any] = []

    class Router:
        def db_for_read(self, model: Any, **hints: Any) -> None:
            if model is Book and hints and rows.prefetches and not decoys:
                decoys.append(None)
                query = Book.objects.using(engine.alias).order_by("pk")
                query._add_hints(**hints)
                decoys[:] = list(query)

    with monkeypatch.context() as patch:
        from django.db import router

        patch.setattr(router, "routers", [Router(), *router.routers], raising=False)
        authors = list(Author.objects.order_by("pk"))
        prefetch_related_objects(authors, "books")
    books = [book for author in authors for book in author.books.all()]
    assert len(books) == 6
    assert all("author" in book._state.fields_cache for book in books)
    assert all(book.author is author for author in authors for book in author.books.all())
