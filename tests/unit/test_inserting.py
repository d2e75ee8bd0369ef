"""Many rows in one INSERT are Django's statement with Django's parameters."""

from __future__ import annotations

import gc
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Model, Value
from django.db.models.functions import Lower, Now
from django.db.models.sql import InsertQuery
from fix_engine import Engine
from library.models import Author, Book, Genre, Note, Publisher, Sample
from made_support import make_model
from sample_values import VALUES

from vinyl import _core
from vinyl.inserting import BulkInsert, split_new


def picture(statements: Any) -> Any:
    def show(value: Any) -> Any:
        if isinstance(value, list):
            return [show(each) for each in value]
        shown = getattr(value, "obj", value)  # psycopg's Json and memoryview show their address
        return type(value), type(shown), repr(shown)

    return [(sql, [show(each) for each in params]) for sql, params in statements]


def both_ways(alias: str, model: type[Model], objs: list[Any], **kwargs: Any) -> tuple[Any, Any]:
    """The statements of our compiler, and of Django's own that it derives from."""
    pictures = []
    for ours in (True, False):
        query = InsertQuery(model)
        fields = [f for f in model._meta.concrete_fields if not f.generated]
        if kwargs.get("without_pk", True):
            fields = [f for f in fields if not isinstance(f, models.AutoField)]
        query.insert_values(fields, objs, raw=kwargs.get("raw", False))
        compiler = query.get_compiler(alias)
        assert isinstance(compiler, BulkInsert)
        compiler.returning_fields = model._meta.db_returning_fields
        as_sql = compiler.as_sql if ours else super(BulkInsert, compiler).as_sql
        pictures.append(picture(as_sql()))
        assert query.objs is objs
        assert not {"pre_save_val", "prepare_value", "_objs"} & set(compiler.__dict__)
    return pictures[0], pictures[1]


@pytest.mark.parametrize("name", VALUES)
def test_each_type_as_django(engine: Engine, name: str) -> None:
    """Each value in a column of equals, then all of them mixed in one."""
    for value in VALUES[name]:
        fast, slow = both_ways(engine.alias, Sample, [Sample(**{name: value}) for _ in range(3)])
        assert fast == slow
    fast, slow = both_ways(engine.alias, Sample, [Sample(**{name: v}) for v in VALUES[name]])
    assert fast == slow


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("without_pk", [False, True])
def test_relations_and_keys(engine: Engine, raw: bool, without_pk: bool) -> None:
    author, publisher = Author.objects.create(name="A"), Publisher.objects.create(name="P")
    books = [
        Book(title="a", author=author, publisher=publisher, price=Decimal(2)),
        Book(pk=7, title="b", author_id=author.pk),
        Book(pk=None, title="c", author_id=str(author.pk), publisher_id=None),
    ]
    fast, slow = both_ways(engine.alias, Book, books, raw=raw, without_pk=without_pk)
    assert fast == slow


def test_expressions(engine: Engine) -> None:
    authors = [Author(name="x"), Author(name=Lower(Value("Y"))), Author(name="z", born=Now())]
    fast, slow = both_ways(engine.alias, Author, authors)
    assert fast == slow
    with pytest.raises(ValueError, match="can only be used to update"):
        both_ways(engine.alias, Author, [Author(name="x"), Author(name=F("name"))])
    created = Author.objects.bulk_create(authors[:2])
    assert list(Author.objects.order_by("pk").values_list("name", flat=True)) == ["x", "y"]
    assert [author._state.db for author in created] == [engine.alias] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("exact", Decimal("NaN")), ("small", "x"), ("day", "2026-13-01")]
)
def test_bad_values_are_refused_as_django_refuses_them(
    engine: Engine, name: str, value: Any
) -> None:
    good = Sample(**{name: VALUES[name][0]})
    errors = []
    for ours in (True, False):
        query = InsertQuery(Sample)
        query.insert_values([Sample._meta.get_field(name)], [good, Sample(**{name: value})])
        compiler: Any = query.get_compiler(engine.alias)
        with pytest.raises((ValidationError, ValueError)) as caught:
            (compiler.as_sql if ours else super(BulkInsert, compiler).as_sql)()
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


class Fancy(models.CharField):
    """A field that prepares its values."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else f"<{value}>"


class Placed(models.CharField):
    """A field with placeholders of its own."""

    def get_placeholder_sql(self, value: Any, compiler: Any, connection: Any) -> Any:
        return f"lower('{value}' || %s)", (value,)

    if not hasattr(models.BinaryField, "get_placeholder_sql"):  # Django 6.0 and earlier

        def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
            return f"lower('{value}' || %s)"


class Upper(models.CharField):
    def pre_save(self, model_instance: Any, add: bool) -> Any:
        value = getattr(model_instance, self.attname).upper()
        setattr(model_instance, self.attname, value)
        return value


class Odd(models.Model):
    """Not a table: only its statement counts."""

    fancy = Fancy(max_length=9)
    placed = Placed(max_length=9)
    upper = Upper(max_length=9)
    made = models.DateField(auto_now_add=True)
    level = models.IntegerField(db_default=3)

    class Meta:
        app_label = "library"
        managed = False


def test_fields_with_methods_of_their_own(engine: Engine) -> None:
    def objs() -> list[Odd]:
        return [Odd(fancy="f", placed=f"p{n}", upper="u", level=n) for n in range(2)]

    fast, slow = both_ways(engine.alias, Odd, objs())
    assert fast == slow
    assert "<f>" in repr(fast)
    # On PostgreSQL Django 5.2 asks no field for its placeholder when it inserts many rows.
    assert "p1" in fast[0][0] or "UNNEST" in fast[0][0]
    fast, slow = both_ways(engine.alias, Odd, [Odd(fancy="f", placed="p", upper="u") for _ in "ab"])
    assert fast == slow


def test_the_fast_way_is_taken(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_column = _core.plain_column
    taken: list[Any] = []

    def watched(objs: Any, attname: str, *rule: Any) -> Any:
        values = plain_column(objs, attname, *rule)
        taken.append((attname, values))
        return values

    monkeypatch.setattr(_core, "plain_column", watched)
    fast, slow = both_ways(engine.alias, Genre, [Genre(name="a"), Genre(name="b")])
    assert fast == slow
    assert taken == [("name", ["a", "b"])]
    # Somebody's own method is asked, though the class is Django's.
    monkeypatch.setattr(models.CharField, "get_db_prep_save", lambda *args, **kwargs: "c")
    fast, slow = both_ways(engine.alias, Genre, [Genre(name="a"), Genre(name="b")])
    assert fast == slow
    assert len(taken) == 1


def test_bulk_create_fills_the_instances(engine: Engine) -> None:
    author = Author.vinyl.model(name="first")
    made = _core.drive(_created([author, Author(name="second"), Author(pk=50, name="third")]))
    assert [each.pk for each in made] == [*sorted(each.pk for each in made[:2]), 50]
    assert [(each._state.adding, each._state.db) for each in made] == [(False, engine.alias)] * 3
    stored = dict(Author.objects.values_list("pk", "name"))
    assert stored == {each.pk: each.name for each in made}


async def _created(objs: list[Any]) -> list[Any]:
    return await type(objs[0]).vinyl.bulk_create(objs)


async def test_unsaved_relations_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="unsaved related object 'author'"):
        await Book.vinyl.bulk_create([Book(title="x", author=Author(name="unsaved"))])
    with pytest.raises(ValueError, match="unsaved related object 'subject'"):
        await Note.vinyl.bulk_create([Note(text="x", subject=Author(name="unsaved"))])
    author = Author(name="late")
    book = Book(title="x", author=author)
    await author.save()
    (stored,) = await Book.vinyl.bulk_create([book])
    assert stored.author_id == author.pk


async def test_conflicts(engine: Engine) -> None:
    await Genre.vinyl.create(name="a")
    ignored = await Genre.vinyl.bulk_create(
        [Genre(name="a"), Genre(name="b")], ignore_conflicts=True
    )
    assert [each.pk for each in ignored] == [None, None]
    updated = await Genre.vinyl.bulk_create(
        [Genre(name="a"), Genre(name="c")],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["name"],
    )
    names = {each.pk: each.name for each in await Genre.vinyl.all()}
    assert sorted(names.values()) == ["a", "b", "c"]
    assert [names.get(each.pk, each.name) for each in updated] == ["a", "c"]


def test_which_are_new() -> None:
    new, old = Author(name="n"), Author(pk=3, name="o")
    assert split_new(Author, [new, old]) == ([old], [new])
    assert split_new(Author, [Author(pk="3")]) is None
    assert split_new(Odd, [Odd()]) is None
    assert split_new(Author, [Genre()]) is None
    with pytest.raises(TypeError):
        split_new(Author, (new,))


def test_columns() -> None:
    authors: Any = [Author(name="a"), Author(name=None)]
    assert _core.plain_column(authors, "name", (str,), None, None) == ["a", None]
    assert _core.plain_column(authors, "name", (str,), None, str.upper) == ["A", None]
    assert _core.plain_column(authors, "name", (int,), None, None) is None
    assert _core.plain_column(authors, "name", (str,), str.isdigit, None) is None
    with pytest.raises(AttributeError):
        _core.plain_column(authors, "no_such", (str,), None, None)
    with pytest.raises(ZeroDivisionError):
        _core.plain_column(authors, "name", (str,), None, lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _core.plain_column(authors, "name", (str,), lambda value: 1 / 0, None)
    with pytest.raises(TypeError):
        _core.plain_column("ab", "name", (str,), None, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.assign_rows(authors, ("id",), [5, 6], "db")  # type: ignore[list-item]
    _core.assign_rows(authors, ("id",), [(5,), [6]], "db")
    assert [(each.pk, each._state.adding, each._state.db) for each in authors] == [
        (5, False, "db"),
        (6, False, "db"),
    ]


# --- reading the attributes


def column(objs: list[Any], test: Any = None) -> Any:
    return _core.plain_column(objs, "f0", (int,), test, None)


def test_attributes_are_read_as_getattr_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(2)
    objs: list[Any] = [model(f0=n, f1=0) for n in range(3)]
    assert column(objs) == [0, 1, 2]
    objs[1].__dict__["f0"] = 7
    objs[2].__dict__ = {**objs[2].__dict__, "f0": 8}
    assert column(objs) == [0, 7, 8]
    with monkeypatch.context() as patch:
        patch.setattr(model, "f0", property(lambda self: 5, lambda self, value: None))
        assert column(objs) == [5, 5, 5]
    with monkeypatch.context() as patch:
        patch.setattr(model, "__getattribute__", lambda self, name: 6, raising=False)
        assert column(objs) == [6, 6, 6]
    assert column(objs) == [0, 7, 8]


def test_a_class_that_changes_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = make_model(1), make_model(1)
    objs: list[Any] = [model(f0=1), other(f0=2), model(f0=3)]

    def change(value: int) -> bool:
        if value == 2:
            monkeypatch.setattr(model, "f0", property(lambda self: 9))
        return True

    assert column(objs, change) == [1, 2, 9]


def test_an_attribute_that_is_not_there() -> None:
    model = make_model(1)
    with pytest.raises(AttributeError):
        column([model(f0=1), object()])
    assert column([model(f0=1), model(f0="text")]) is None


def dicts_of(title: str) -> int:
    """How many instances with that title have a __dict__."""
    return sum(type(each) is dict and each.get("title") == title for each in gc.get_objects())


def test_reading_makes_no_dict(engine: Engine) -> None:
    """Neither a bulk INSERT nor whoever reads a foreign key's column."""
    author = Author.objects.create(name="a")
    Book.objects.bulk_create([Book(title="no dict", author=author) for _ in range(3)])
    books = list(Book.objects.all())
    assert [book.author_id for book in books] == [author.pk] * 3
    query = InsertQuery(Book)
    query.insert_values([f for f in Book._meta.concrete_fields if f.name != "id"], books)
    query.get_compiler(engine.alias).as_sql()
    assert dicts_of("no dict") == 0
    assert books[0].__dict__["author_id"] == author.pk
    assert dicts_of("no dict") == 1
