"""Instances made in C are what Django makes."""

from __future__ import annotations

import datetime
import pickle
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import django
import pytest
from django.db import connections, models, router
from django.db.models import Count, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext
from fix_engine import Engine
from library.models import Author, Book, Genre, Profile, Publisher, Sample
from press.models import Kiosk, Place, Writer

from vinyl import _core, compiler, rows


@contextmanager
def djangos_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for cls, loop in rows._DJANGO.items():
            patch.setattr(cls, "__iter__", loop)
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
        Book.objects.using(alias).create(
            title=f"B{n}",
            author=author,
            publisher=publisher if n else None,
            price=Decimal(n) / 4 if n else None,
            published=datetime.datetime(2026, 1, n + 1, tzinfo=datetime.UTC),
        )
    Author.objects.using(alias).create(name="none")
    Profile.objects.using(alias).create(author=author, text="t")
    Genre.objects.using(alias).create(name="g")
    writer = Writer.objects.using(alias).create(name="w")
    Kiosk.objects.using(alias).create(name="k", city="c", owner=writer)
    Place.objects.using(alias).create(name="no kiosk")
    Sample.objects.using(alias).create()
    Sample.objects.using(alias).create(**SAMPLE)


SAMPLE: dict[str, Any] = {
    "flag": True,
    "small": 1,
    "big": 2**40,
    "real": 0.5,
    "exact": Decimal("12.5"),
    "text": "né",
    "data": b"\x00\xff",
    "day": datetime.date(2026, 1, 2),
    "clock": datetime.time(1, 2, 3),
    "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
    "span": datetime.timedelta(1, 2, 3),
    "ident": uuid.UUID(int=7),
    "document": {"a": [1, None]},
    "address": "10.0.0.1",
}

QUERIES: dict[str, Any] = {
    "all": lambda: Book.objects.order_by("pk"),
    "types": lambda: Sample.objects.order_by("pk"),
    "select_related": lambda: Book.objects.select_related("author", "publisher").order_by("pk"),
    "one to one": lambda: Profile.objects.select_related("author"),
    "one to one, back": lambda: Author.objects.select_related("profile").order_by("pk"),
    "two levels": lambda: Book.objects.select_related("author__profile").order_by("pk"),
    "inherited": lambda: Kiosk.objects.select_related("owner"),
    "child": lambda: Place.objects.select_related("kiosk__owner").order_by("pk"),
    "only": lambda: Book.objects.only("title").order_by("pk"),
    "only related": lambda: Book.objects.select_related("author").only("title", "author__name"),
    "defer": lambda: Book.objects.defer("title").select_related("author").order_by("pk"),
    "annotate": lambda: Author.objects.annotate(n=Count("books")).order_by("pk"),
    "extra": lambda: Author.objects.extra(select={"one": "1"}).order_by("pk"),
    "prefetch": lambda: Author.objects.prefetch_related("books").order_by("pk"),
    "empty": lambda: Book.objects.filter(title="no such title"),
    "nothing": lambda: Book.objects.filter(pk__in=[]),
    "none": lambda: Book.objects.none(),
    "union": lambda: (
        Book.objects.order_by().filter(title="B0").union(Book.objects.order_by().filter(title="B1"))
    ),
    "known": lambda: Author.objects.get(name="A").books.order_by("pk"),
    "known, selected": lambda: Author.objects.get(name="A").books.select_related("author"),
    "known, deferred": lambda: Author.objects.get(name="A").books.defer("author"),
    # The columns of the right one, a column twice.
    "of values": lambda: Book.objects.order_by("pk") | Book.objects.values("pk", "title", "title"),
    "of others' values": lambda: (
        Book.objects.order_by("pk") | Book.objects.values("pk", "author__name")
    ),
    "raw": lambda: Book.objects.raw("SELECT * FROM library_book ORDER BY id"),
}

VALUES: dict[str, Any] = {
    "types": lambda: Sample.objects.order_by("pk").values_list(),
    "types by name": lambda: Sample.objects.order_by("pk").values(),
    "named": lambda: Book.objects.order_by("pk").values_list("title", "price", named=True),
    "named, all": lambda: Book.objects.order_by("pk").values_list(named=True),
    "flat": lambda: Book.objects.order_by("pk").values_list("published", flat=True),
    "related": lambda: Book.objects.order_by("pk").values("author__name", "publisher__name"),
    "annotated": lambda: Author.objects.order_by("pk").values("name").annotate(n=Count("books")),
    "extra": lambda: Author.objects.extra(select={"one": "1"}).order_by("pk").values(),
    "dates": lambda: Book.objects.datetimes("published", "day"),
    # The rows have a column more than is asked for.
    "ordered": lambda: Book.objects.distinct().order_by("pages", "pk").values_list("title"),
    # The compiler adds what a union is ordered by to the columns that are asked for.
    "union": lambda: (
        Book.objects.order_by().union(Book.objects.order_by()).order_by("title").values("pages")
    ),
    "union, tuples": lambda: (
        Book.objects.order_by()
        .union(Book.objects.order_by())
        .order_by("title")
        .values_list("pages", "pk")
    ),
    "empty": lambda: Book.objects.filter(pk__in=[]).values_list("pk", flat=True),
}


@pytest.mark.parametrize("query", QUERIES)
def test_equal_to_django(engine: Engine, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine.alias)
    fast = list(QUERIES[query]())
    with djangos_way(monkeypatch):
        slow = list(QUERIES[query]())
    assert [picture(each) for each in fast] == [picture(each) for each in slow]
    assert bool(fast) == (query not in ("empty", "nothing", "none"))
    assert fast == slow
    assert pickle.loads(pickle.dumps(fast)) == slow
    for each in fast:
        each.save()


@pytest.mark.parametrize("query", VALUES)
@pytest.mark.parametrize("chunked", [False, True])
def test_values_equal_to_django(
    engine: Engine, query: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched() -> list[Any]:
        queryset = VALUES[query]()
        return list(queryset.iterator(chunk_size=2)) if chunked else list(queryset)

    fill(engine.alias)
    fast = fetched()
    with djangos_way(monkeypatch):
        slow = fetched()
    assert fast == slow
    assert [type(each) for each in fast] == [type(each) for each in slow]
    assert [list(each) for each in fast if isinstance(each, dict)] == [
        list(each) for each in slow if isinstance(each, dict)
    ]
    assert pickle.loads(pickle.dumps(fast)) == slow
    assert bool(fast) == (query != "empty")


@pytest.mark.parametrize("query", ["select_related", "known", "types", "nothing"])
def test_streams_equal_to_django(
    engine: Engine, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine.alias)
    fast = [picture(each) for each in QUERIES[query]().iterator(chunk_size=2)]
    with djangos_way(monkeypatch):
        slow = [picture(each) for each in QUERIES[query]().iterator(chunk_size=2)]
    assert fast == slow
    some = QUERIES[query]().iterator(chunk_size=1)
    next(some, None)
    some.close()


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes came with Django 6.1")
def test_fetch_modes(engine: Engine) -> None:
    fill(engine.alias)
    books = list(
        Book.objects.select_related("author").fetch_mode(models.FETCH_PEERS).order_by("pk")
    )
    assert [peer() for peer in books[0]._state.peers] == books
    assert [peer() for peer in books[2].author._state.peers] == [book.author for book in books]
    with CaptureQueriesContext(connections[engine.alias]) as queries:
        assert [book.publisher and book.publisher.name for book in books] == [None, "P", "P"]
    assert len(queries) == 1
    refused = Book.objects.fetch_mode(models.FETCH_RAISE).order_by("pk")[1]
    with pytest.raises(django.core.exceptions.FieldFetchBlocked):
        refused.publisher  # noqa: B018


def test_errors_of_rows_are_djangos(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a converter raises comes as it is, what the driver raises as Django's class."""
    fill(engine.alias)

    def broken(self: Any, value: Any, expression: Any, connection: Any) -> Any:
        raise ZeroDivisionError(value)

    with monkeypatch.context() as patch:
        patch.setattr(models.TextField, "from_db_value", broken, raising=False)
        with pytest.raises(ZeroDivisionError):
            list(Sample.objects.all())
        with pytest.raises(ZeroDivisionError):
            list(Sample.objects.values_list("text"))
    failing = Book.objects.annotate(zero=RawSQL(FAILING[engine.name], ()))
    with pytest.raises(django.db.DataError if engine.name == "postgresql" else django.db.Error):
        list(failing)
    with pytest.raises(django.db.DataError if engine.name == "postgresql" else django.db.Error):
        list(failing.values_list("zero"))
    assert Book.objects.count() == 3


#: Fails at the last row.
FAILING = {
    "postgresql": "1 / (CASE WHEN title = 'B2' THEN 0 ELSE 1 END)",
    "sqlite": "json(CASE WHEN title = 'B2' THEN '{' ELSE '1' END)",
}


def test_a_related_model_with_code_of_its_own(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine.alias)
    asked: list[Any] = []

    def from_db(cls: Any, db: Any, field_names: Any, values: Any, **kwargs: Any) -> Any:
        asked.append((list(field_names), list(values)))
        return Model.from_db.__func__(cls, db, field_names, values, **kwargs)  # type: ignore[attr-defined]

    monkeypatch.setattr(Author, "from_db", classmethod(from_db))
    book = Book.objects.select_related("author").order_by("pk")[0]
    assert asked == [(["id", "name", "born"], [1, "A", datetime.date(1900, 1, 2)])]
    assert book.author.name == "A"


def test_bad_plans() -> None:
    hydrator = compiler.hydrator_of(Genre)
    assert hydrator is not None

    def plan(*node: Any, **kwargs: Any) -> Any:
        return _core.RowPlan(
            node,
            "db",
            None,
            kwargs.get("converters", {}),
            None,
            kwargs.get("annotations", ()),
            kwargs.get("known", ()),
        )

    good: Any = (hydrator, ("id", "name"), (0, 1), -1, None, None, (), None)
    (made,) = plan(*good).make([(1, "x")])
    assert (made.pk, made.name, made._state.db, made._state.adding) == (1, "x", "db", False)
    for row in [(1,), [], "ab", 5]:
        with pytest.raises((IndexError, TypeError)):
            plan(*good).make([row])
    with pytest.raises(TypeError):
        plan(*good).make(5)
    with pytest.raises(ZeroDivisionError):
        plan(*good).make(1 / 0 for _ in "a")
    for bad in [
        good[:5],
        (hydrator, ("no_such",), (0,), *good[3:]),
        (hydrator, ("id",), *good[2:]),
        (*good[:2], (0, -1), *good[3:]),
        (*good[:2], (0, "1"), *good[3:]),
        (*good[:6], ((1, 2),), None),
        (*good[:7], 5),
    ]:
        with pytest.raises((TypeError, ValueError)):
            plan(*bad)
    for more in [{"annotations": (5,)}, {"known": (5,)}, {"converters": {0: 5}}]:
        with pytest.raises(TypeError):
            plan(*good, **more)
    with pytest.raises(IndexError):
        plan(*good, annotations=(("n", 7),)).make([(1, "x")])
    with pytest.raises(TypeError):
        _core.value_rows([(1,)], 1, None, {}, None)
    with pytest.raises(TypeError):
        _core.value_rows([(1,)], 3, int, {}, None)
    with pytest.raises(TypeError):
        _core.value_rows([(1,)], 9, None, {}, None)
    with pytest.raises(IndexError):
        _core.value_rows([()], 2, None, {}, None)
    with pytest.raises(IndexError):
        _core.value_rows([(1,)], 1, ("a", "b"), {}, None)


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


def test_routers_are_asked_once(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    Author.objects.create(name="A")
    asked: list[type[Model]] = []

    def db_for_read(model: type[Model], **hints: Any) -> str:
        asked.append(model)
        return "default"

    monkeypatch.setattr(router, "db_for_read", db_for_read)
    for fetch in (list, lambda queryset: list(queryset.values()), lambda queryset: queryset.get()):
        asked.clear()
        fetch(Author.objects.all())
        assert asked == [Author]
