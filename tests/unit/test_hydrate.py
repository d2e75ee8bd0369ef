"""Instances made in C are what Django makes."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from django.db import models
from django.db.models import Count, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.signals import post_init
from fix_engine import Engine
from library.models import Author, Book, Genre, Publisher

from vinyl import _core, compiler


@contextmanager
def djangos_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "hydrator_of", lambda model: None)
        yield


def picture(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """What an instance holds, in order, related instances and state included."""
    if isinstance(value, Model):
        if id(value) in seen:
            return "again"
        return type(value), [
            (name, picture(item, (*seen, id(value)))) for name, item in value.__dict__.items()
        ]
    if isinstance(value, ModelState):
        # Django makes an empty fields_cache when it sets a foreign key's column: asked for,
        # it is there in both.
        value.fields_cache  # noqa: B018
        return [(name, picture(item, seen)) for name, item in sorted(value.__dict__.items())]
    if isinstance(value, QuerySet):
        return str(value.query), [picture(item, seen) for item in value._result_cache]
    if isinstance(value, dict):
        return {key: picture(item, seen) for key, item in value.items()}
    return type(value), value


def fill(alias: str) -> None:
    publisher = Publisher.objects.using(alias).create(name="P")
    author = Author.objects.using(alias).create(name="A", born=datetime.date(1900, 1, 2))
    for n in range(3):
        Book.objects.using(alias).create(title=f"B{n}", author=author, publisher=publisher)
    Author.objects.using(alias).create(name="none")
    Genre.objects.using(alias).create(name="g")


QUERIES: dict[str, Any] = {
    "all": lambda: Book.objects.order_by("pk"),
    "select_related": lambda: Book.objects.select_related("author", "publisher").order_by("pk"),
    "only": lambda: Book.objects.only("title").order_by("pk"),
    "defer": lambda: Book.objects.defer("title").select_related("author").order_by("pk"),
    "annotate": lambda: Author.objects.annotate(n=Count("books")).order_by("pk"),
    "prefetch": lambda: Author.objects.prefetch_related("books").order_by("pk"),
    "empty": lambda: Book.objects.filter(title="no such title"),
    "known": lambda: Author.objects.get(name="A").books.order_by("pk"),
    "raw": lambda: Book.objects.raw("SELECT * FROM library_book ORDER BY id"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_equal_to_django(engine: Engine, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine.alias)
    fast = list(QUERIES[query]())
    with djangos_way(monkeypatch):
        slow = list(QUERIES[query]())
    assert [picture(each) for each in fast] == [picture(each) for each in slow]
    assert len(fast) == (0 if query == "empty" else len(slow))
    assert fast == slow
    assert pickle.loads(pickle.dumps(fast)) == slow
    for each in fast:
        each.save()


def test_the_fast_way_is_taken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine.alias)
    init = Model.__init__
    made: list[str] = []

    def noting(self: Model, *args: Any, **kwargs: Any) -> None:
        made.append(type(self).__name__)
        init(self, *args, **kwargs)

    monkeypatch.setattr(Model, "__init__", noting)
    assert [book.title for book in Book.objects.order_by("pk")] == ["B0", "B1", "B2"]
    assert made == []
    with djangos_way(monkeypatch):
        assert len(Book.objects.order_by("pk")) == 3
    assert made == ["Book"] * 3


def test_receivers_of_init_signals_are_called(engine: Engine) -> None:
    fill(engine.alias)
    seen: list[Any] = []

    def receive(sender: type[Model], instance: Model, **kwargs: Any) -> None:
        seen.append(instance)

    assert compiler.hydrator_of(Book) is not None
    post_init.connect(receive, sender=Book)
    try:
        assert compiler.hydrator_of(Book) is None
        books = list(Book.objects.all())
    finally:
        post_init.disconnect(receive, sender=Book)
    assert seen == books
    assert compiler.hydrator_of(Book) is not None


class Unusual(models.Model):
    """Not a table: only what it defines counts."""

    name = models.CharField(max_length=10)

    class Meta:
        app_label = "library"
        managed = False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from_db", classmethod(lambda cls, *args: None)),
        ("__init__", lambda self, *args: None),
        ("__setattr__", lambda self, name, value: None),
        ("name", property(lambda self: "x", lambda self, value: None)),
    ],
)
def test_models_with_code_of_their_own_are_left_to_django(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiler.hydrator_of(Unusual) is not None
    monkeypatch.setattr(Unusual, name, value)
    compiler._hydrators.clear()
    assert compiler.hydrator_of(Unusual) is None
    monkeypatch.undo()
    compiler._hydrators.clear()


def test_what_does_not_fit_goes_to_from_db() -> None:
    hydrator = compiler.hydrator_of(Unusual)
    assert hydrator is not None
    whole = hydrator.from_db("default", ["id", "name"], (1, "x"))
    assert picture(whole) == picture(Unusual.from_db("default", ["id", "name"], (1, "x")))
    part = hydrator.from_db("default", ["id"], [1])
    assert picture(part) == picture(Unusual.from_db("default", ["id"], [1]))
    from_iterator = hydrator.from_db("default", ["id", "name"], _Values(1, "y"))
    assert picture(from_iterator) == picture(Unusual.from_db("default", ["id", "name"], (1, "y")))
    with pytest.raises(TypeError):
        hydrator.from_db("default")
    assert hydrator._meta is Unusual._meta


class _Values(tuple):
    __slots__ = ()

    def __new__(cls, *values: Any) -> _Values:
        return super().__new__(cls, values)


def test_converted_rows() -> None:
    calls: list[Any] = []

    def double(value: int, expression: str, connection: str) -> int:
        calls.append((value, expression, connection))
        return value * 2

    rows = _core.ConvertedRows([(1, 2), [3, 4]], {1: ([double, double], "e")}, "c")
    assert list(rows) == [[1, 8], [3, 16]]
    assert calls == [(2, "e", "c"), (4, "e", "c"), (4, "e", "c"), (8, "e", "c")]
    with pytest.raises(IndexError):
        next(_core.ConvertedRows([(1,)], {5: ([double], "e")}, "c"))
    with pytest.raises(TypeError):
        _core.ConvertedRows([(1,)], {0: double}, "c")
    with pytest.raises(TypeError):
        _core.ConvertedRows(3, {}, "c")
    with pytest.raises(ZeroDivisionError):
        next(_core.ConvertedRows([(1,)], {0: ([lambda *a: 1 / 0], "e")}, "c"))


def test_decimals_and_dates(engine: Engine) -> None:
    fill(engine.alias)
    book = Book.objects.annotate(x=models.Value(Decimal("1.50"))).first()
    assert book is not None
    assert book.x == Decimal("1.50")
    assert isinstance(Author.objects.get(name="A").born, datetime.date)
