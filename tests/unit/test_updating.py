"""bulk_update() sends Django's statements with Django's parameters."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import NotSupportedError, connections, models, transaction
from django.db.models import F, Model, QuerySet, Value
from django.db.models.functions import Lower
from fix_engine import Engine
from library.models import Author, Book, Genre, Sample
from press.models import Kiosk, Writer
from sample_values import VALUES

from vinyl import updating


class Sent:
    """The statements of a connection with their parameters, and their types."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        shown = [
            (type(p), type(getattr(p, "obj", p)), repr(getattr(p, "obj", p))) for p in params or ()
        ]
        self.seen.append((sql, shown))
        return execute(sql, params, many, context)


def both_ways(engine: Engine, objs: Any, fields: list[str], **kwargs: Any) -> tuple[Any, Any]:
    """What ours and Django's own send and answer, or raise."""
    answers = []
    connection = connections[engine.alias]
    for method in (updating.bulk_update, updating._django):
        queryset: QuerySet[Any] = type(objs[0]).objects.using(engine.alias)  # type: ignore[attr-defined]
        sent = Sent()
        with connection.execute_wrapper(sent):
            try:
                answer: Any = method(queryset, objs, fields, **kwargs)
            except Exception as error:
                answer = type(error), str(error)
        answers.append((answer, sent.seen))
    return answers[0], answers[1]


def ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("left to Django")

    monkeypatch.setattr(updating, "_django", refuse)


@pytest.mark.parametrize("first", ["saved", "new"])
@pytest.mark.parametrize("odd", [None, "text", Author, 5])
def test_what_is_no_instance(engine: Engine, first: str, odd: Any) -> None:
    author = Author.objects.create(name="a") if first == "saved" else Author(name="a")
    (ours, sent), theirs = both_ways(engine, [author, odd, Author(name="b")], ["name"])
    assert (ours, sent) == theirs
    assert ours[0] in (AttributeError, TypeError, ValueError)
    assert not sent


class Left(models.Model):
    class Meta:
        app_label = "library"
        managed = False


class Right(models.Model):
    key = models.AutoField(primary_key=True)
    number = models.IntegerField(default=0)

    class Meta:
        app_label = "library"
        managed = False


class Heir(Left, Right):
    class Meta:
        app_label = "library"
        managed = False


@pytest.fixture
def heirs(engine: Engine) -> Iterator[list[Any]]:
    made = (Left, Right, Heir)
    with connections[engine.alias].schema_editor() as editor:
        for model in made:
            editor.create_model(model)
    Right.objects.create()
    yield [Heir.objects.create() for _ in range(3)]
    with connections[engine.alias].schema_editor() as editor:
        for model in reversed(made):
            editor.delete_model(model)


def test_instances_with_another_key(engine: Engine, heirs: list[Any]) -> None:
    """Django takes the first parent's, whichever model's rows are to be changed."""
    stored = []
    for method in (updating.bulk_update, updating._django):
        for heir in heirs:
            heir.number = 10 + heir.pk
        with transaction.atomic(engine.alias):
            assert method(Right.objects.using(engine.alias), heirs, ["number"]) == 3
            stored.append([*Right.objects.order_by("key").values_list("key", "number")])
            transaction.set_rollback(True, engine.alias)
    assert stored[0] == stored[1]


@pytest.mark.parametrize("name", VALUES)
def test_each_type_as_django(engine: Engine, name: str) -> None:
    """Each value in a column of equals, then all of them mixed in one, then with NULLs."""
    objs = Sample.objects.bulk_create([Sample() for _ in range(6)])
    values = VALUES[name]
    for column in [*([value] * 3 for value in values), values, [values[0], None, values[0], None]]:
        some = [Sample.objects.get(pk=ob.pk) for ob in objs[: len(column)]]
        for ob, value in zip(some, column, strict=False):
            setattr(ob, name, value)
        fast, slow = both_ways(engine, some, [name])
        assert fast == slow


def test_it_is_done(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    author = Author.objects.create(name="A")
    books = Book.objects.bulk_create([Book(title=f"b{n}", author=author) for n in range(7)])
    for n, book in enumerate(books):
        book.title, book.price = f"new {n}", Decimal(n) if n % 3 else None
        book.published = datetime.datetime(2026, 1, n + 1, tzinfo=datetime.UTC)
    fields = ["title", "price", "published", "author"]
    fast, slow = both_ways(engine, books, fields)
    assert fast == slow
    assert fast[0] == 7
    for size in (1, 2, 3, 7, 100):
        fast, slow = both_ways(engine, books, fields, batch_size=size)
        assert fast == slow
    ours_alone(monkeypatch)
    assert Book.objects.bulk_update(books, fields) == 7
    stored = list(Book.objects.order_by("pk"))
    for name in ("title", "price", "published", "author_id"):
        assert [getattr(b, name) for b in stored] == [getattr(b, name) for b in books]


def test_what_django_refuses(engine: Engine) -> None:
    genres = Genre.objects.bulk_create([Genre(name="a"), Genre(name="b")])
    unsaved = Genre(name="c")
    author = Author(name="not saved")
    saved = Author.objects.create(name="A")
    books = Book.objects.bulk_create([Book(title=t, author=saved) for t in "ab"])
    books[1].author = author
    for objs, fields, kwargs in [
        (genres, [], {}),
        (genres, ["id"], {}),
        (genres, ["no_such"], {}),
        (genres, ["name"], {"batch_size": 0}),
        (genres, ["name"], {"batch_size": -1}),
        ([*genres, unsaved], ["name"], {}),
        (books, ["author"], {}),
        (books, ["genres"], {}),
    ]:
        fast, slow = both_ways(engine, objs, fields, **kwargs)
        assert fast == slow
        assert issubclass(fast[0][0], (ValueError, FieldDoesNotExist))


def _ordered_for_ever(queryset: Any) -> Any:
    return queryset.filter(books__title="x").order_by(_Endless())


class _Endless(F):
    def __init__(self) -> None:
        super().__init__("name")

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        raise FieldError("Infinite loop caused by ordering.")


@pytest.mark.parametrize("build", [lambda q: q.union(q), lambda q: q.all()[:1], _ordered_for_ever])
def test_a_queryset_that_cannot_be_updated_breaks_the_transaction(
    engine: Engine, build: Any
) -> None:
    genres = Genre.objects.bulk_create([Genre(name="a"), Genre(name="b")])
    for method in (updating.bulk_update, updating._django):
        with transaction.atomic(engine.alias):
            with pytest.raises((NotSupportedError, TypeError, FieldError)):
                method(build(Genre.objects.using(engine.alias)), genres, ["name"])
            assert connections[engine.alias].needs_rollback
            transaction.set_rollback(False, engine.alias)


def test_what_is_left_to_django(engine: Engine) -> None:
    genres: list[Any] = Genre.objects.bulk_create([Genre(name=n) for n in "abc"])
    genres[1].name = Lower(Value("X"))
    fast, slow = both_ways(engine, genres, ["name"])
    assert fast == slow
    assert fast[0] == 3
    genres[1].name = F("name")
    assert both_ways(engine, genres, ["name"])[0][0] == 3
    fast, slow = both_ways(engine, genres[:1], ["name"])
    assert fast == slow
    for n, genre in enumerate(genres):
        genre.name = f"new {n}"
    fast, slow = both_ways(engine, [genres[0], genres[0]], ["name"])
    assert fast == slow
    assert fast[0] == 1
    genres[2].pk = 2**70  # no column holds it: Django leaves that WHEN out
    fast, slow = both_ways(engine, genres, ["name"])
    assert fast == slow
    assert fast[1]
    writer = Writer.objects.create(name="w")
    kiosks: list[Model] = [Kiosk.objects.create(name=n, city="c", owner=writer) for n in "ab"]
    for fields in (["name"], ["city"], ["owner", "name"]):
        fast, slow = both_ways(engine, kiosks, fields)
        assert fast == slow


def test_a_method_that_was_replaced_is_asked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    genres = Genre.objects.bulk_create([Genre(name=n) for n in "abc"])
    field: Any = Genre._meta.get_field("name")

    class Upper(type(field)):  # type: ignore[misc]
        def get_prep_value(self, value: Any) -> Any:
            return value.upper()

    monkeypatch.setattr(field, "__class__", Upper)
    fast, slow = both_ways(engine, genres, ["name"])
    assert fast == slow
    assert sorted(Genre.objects.values_list("name", flat=True)) == ["A", "B", "C"]


async def test_awaited(database: Engine) -> None:
    genres = await Genre.vinyl.bulk_create([Genre(name=n) for n in "abc"])  # type: ignore[attr-defined]
    for genre in genres:
        genre.name += "!"
    assert await Genre.vinyl.bulk_update(genres, ["name"]) == 3  # type: ignore[attr-defined]
    found = await Genre.vinyl.order_by("pk")  # type: ignore[attr-defined]
    assert [genre.name for genre in found] == ["a!", "b!", "c!"]
