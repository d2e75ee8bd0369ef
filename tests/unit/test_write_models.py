"""Planned writes of models that are not like most: keys, files, parents, managers of their own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import connections, models, transaction
from django.db.models import F
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.sql.compiler import SQLDeleteCompiler
from django.test.utils import CaptureQueriesContext, override_settings
from library.models import Author, Book, Genre, Profile, Publisher
from write_support import fresh_plans, hits  # noqa: F401

from vinyl import _core

pytestmark = pytest.mark.usefixtures("fresh_plans")


class Keyed(models.Model):
    ident = models.UUIDField(primary_key=True, default=uuid.uuid4)
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)
    level = models.IntegerField(db_default=3)

    class Meta:
        app_label = "library"
        managed = False


class Stamped(models.Model):
    slug = models.CharField(primary_key=True, max_length=9)
    made = models.DateField(auto_now_add=True)
    changed = models.TimeField(auto_now=True)

    class Meta:
        app_label = "library"
        managed = False


class Alone(models.Model):
    class Meta:
        app_label = "library"
        managed = False


class Shouted(models.CharField):
    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else str(value).upper()


class Parent(models.Model):
    name = Shouted(max_length=9)

    class Meta:
        app_label = "library"
        managed = False


class Child(Parent):
    size = models.IntegerField()

    class Meta:
        app_label = "library"
        managed = False


class Filed(models.Model):
    file = models.FileField(upload_to="writes")

    class Meta:
        app_label = "library"
        managed = False


class Noted(ForwardManyToOneDescriptor):
    """Says when it is read."""

    read: list[Any] = []

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is not None:
            self.read.append(instance)
        return super().__get__(instance, cls)


class NotedKey(models.ForeignKey):
    forward_related_accessor_class = Noted


class Own(models.CharField):
    def pre_save(self, instance: Any, add: bool) -> Any:
        return super().pre_save(instance, add)


class Noting(models.Model):
    """Its saves are planned."""

    alone = NotedKey(Alone, models.CASCADE)
    name = models.CharField(max_length=9, default="")

    class Meta:
        app_label = "library"
        managed = False


class NotingUnplanned(models.Model):
    alone = NotedKey(Alone, models.CASCADE)
    name = Own(max_length=9, default="")

    class Meta:
        app_label = "library"
        managed = False


@pytest.fixture
def tables(engine: Any) -> Iterator[None]:
    made = (Keyed, Stamped, Alone, Parent, Child, Filed, Noting, NotingUnplanned)
    with connections[engine.alias].schema_editor() as editor:
        for model in made:
            editor.create_model(model)
    yield
    with connections[engine.alias].schema_editor() as editor:
        for model in reversed(made):
            editor.delete_model(model)


@pytest.mark.usefixtures("tables")
def test_keys_with_a_default(engine: Any) -> None:
    for plans in (True, True, "check", False):
        with (
            override_settings(VINYL={"PLAN_CACHE": plans}),
            CaptureQueriesContext(connections[engine.alias]) as captured,
        ):
            one = Keyed(level=5)
            one.save()
            first, made = one.changed, one.made
            one.save()
            assert (one.made, one.changed > first) == (made, True)
            two = Keyed()
            two.save()
            two.refresh_from_db()
            assert two.level == 3
            Keyed(pk=uuid.uuid4(), level=1).save(force_insert=True)
        assert [query["sql"].split()[0] for query in captured] == [
            "INSERT", "UPDATE", "INSERT", "SELECT", "INSERT",
        ]  # fmt: skip


@pytest.mark.usefixtures("tables")
def test_keys_of_text(engine: Any) -> None:
    for n, plans in enumerate((True, True, "check", False)):
        with (
            override_settings(VINYL={"PLAN_CACHE": plans}),
            CaptureQueriesContext(connections[engine.alias]) as captured,
        ):
            stamped = Stamped(slug=f"s{n}")
            stamped.save()
            stamped.save()
            Stamped.objects.create(slug=f"t{n}")
        assert [query["sql"].split()[0] for query in captured] == [
            "UPDATE", "INSERT", "UPDATE", "INSERT",
        ]  # fmt: skip
    assert Stamped.objects.count() == 8


@pytest.mark.usefixtures("tables")
def test_a_table_of_keys(engine: Any) -> None:
    keys = set()
    for plans in (True, True, "check", False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            alone = Alone.objects.create()
            alone.save()
            keys.add(alone.pk)
    assert len(keys) == 4 == Alone.objects.count()


@pytest.mark.usefixtures("tables")
def test_multi_table(engine: Any) -> None:
    pictures = []
    for plans in (True, True, "check", False):
        with (
            override_settings(VINYL={"PLAN_CACHE": plans}),
            CaptureQueriesContext(connections[engine.alias]) as captured,
        ):
            child = Child.objects.create(name="c", size=1)
            child.size = 2
            child.save()
            child.save(update_fields=["size"])
        pictures.append([query["sql"].split()[0] for query in captured])
        stored = Child.objects.get(pk=child.pk)
        assert (stored.name, stored.size, stored.parent_ptr_id) == ("C", 2, child.pk)
    assert pictures[0] == pictures[1] == pictures[2] == pictures[3]
    assert hits() > 0


@pytest.mark.usefixtures("tables")
def test_files_are_committed_once(engine: Any, tmp_path: Any) -> None:
    with override_settings(MEDIA_ROOT=str(tmp_path)):
        for n in range(2):
            filed = Filed()
            filed.file.save(f"{n}.txt", ContentFile(b"x"), save=False)
            filed.file = ContentFile(b"content", name=f"{n}-again.txt")
            filed.save()
            with Filed.objects.get(pk=filed.pk).file.open() as file:
                assert file.read() == b"content"
    assert len(list(tmp_path.rglob("*-again*"))) == 2
    assert hits() == 1


class Custom(models.QuerySet[Any]):
    def filter(self, *args: Any, **kwargs: Any) -> Any:
        raise LookupError("its own")


class Based(models.Model):
    name = models.CharField(max_length=100)
    born = models.DateField(null=True)
    special = Custom.as_manager()

    class Meta:
        app_label = "library"
        db_table = "library_author"
        managed = False
        base_manager_name = "special"


def test_a_base_manager_of_its_own(engine: Any) -> None:
    made = Based.special.create(name="a")
    for _ in range(2):
        with pytest.raises(LookupError, match="its own"):
            made.save()


# --- DELETE


def test_deletes(engine: Any) -> None:
    ContentType.objects.get_for_model(Book)  # asked for once, and kept
    pictures = []
    for plans in (True, True, "check", False):
        author = Author.objects.create(name="a")
        author.books.create(title="t")
        genre = Genre.objects.create(name="g")
        lone = Publisher.objects.create(name="p")
        with (
            override_settings(VINYL={"PLAN_CACHE": plans}),
            CaptureQueriesContext(connections[engine.alias]) as captured,
        ):
            answers = [author.delete(), genre.delete(), lone.delete(), Publisher(pk=99).delete()]
        assert [each.pk for each in (author, genre, lone)] == [None] * 3
        pictures.append((answers, [re.sub(r"\d+", "n", query["sql"]) for query in captured]))
    for picture in pictures:
        assert picture == pictures[3]
    assert not Book.objects.exists()
    assert hits() > 0


def test_deletes_of_odd_keys(engine: Any) -> None:
    for plans in (True, True, False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            made = Profile.objects.create(author=Author.objects.create(name="a"), text="")
            made.pk = str(made.pk)
            assert made.delete() == (1, {"library.Profile": 1})
            with pytest.raises(ValueError, match="expected a number but got 'abc'"):
                Profile(pk="abc").delete()
            with pytest.raises(ValueError, match="can't be deleted because its id attribute"):
                Profile().delete()


def test_a_delete_that_fails(engine: Any) -> None:
    with (
        mock.patch.object(SQLDeleteCompiler, "execute_sql", side_effect=KeyError("seen")),
        pytest.raises(KeyError, match="seen"),
    ):
        Profile(pk=1).delete()
    for _ in range(2):
        with transaction.atomic():
            transaction.set_rollback(True)
            with pytest.raises(transaction.TransactionManagementError):
                Profile(pk=1).delete()


# --- in C


def test_parameters() -> None:
    def prepare(value: Any, connection: Any) -> Any:
        return ("prepared", value)

    def entry(**items: Any) -> tuple[Any, ...]:
        known = {"attname": "name", "before": None, "types": (str,), "test": None, "wrap": None,
                 "extra": None, "prepare": prepare}  # fmt: skip
        return tuple((known | items).values())

    session = SimpleNamespace(ops="ops")
    author = Author(pk=5, name="a")

    def of(*fields: Any, has_key: bool = False, **kwargs: Any) -> Any:
        return _core.Parameters(True, fields, has_key, **kwargs).of(author, session)

    assert of() == ()
    assert of(entry(), entry(attname="born", types=(int,))) == ("a", None)
    assert of(entry(types=())) == (("prepared", "a"),)
    assert of(entry(wrap=str.upper)) == ("A",)
    assert of(entry(wrap=lambda *args: args, extra=(1, 2))) == (("ops", "a", 1, 2),)
    assert of(entry(before=lambda instance, add: (instance.pk, add), types=(tuple,))) == (
        (5, True),
    )
    assert of(entry(prepare=lambda value, connection: F("x"), types=())) is None
    key = entry(attname="id", types=(int,))
    assert of(entry(), key, has_key=True, low=5, high=5) == ("a", 5)
    assert of(entry(), key, has_key=True, low=6) is None
    assert of(entry(), key, has_key=True, high=4) is None
    assert of(entry(), entry(attname="id"), has_key=True) is None
    with pytest.raises(AttributeError):
        of(entry(attname="nope"))
    for wrong in ({"test": 1}, {"wrap": 1}, {"types": (), "prepare": 1}):
        assert of(entry(**wrong)) is None  # Django raises it
    with pytest.raises(TypeError):
        of(entry(before=1))
    with pytest.raises(KeyboardInterrupt):
        of(entry(test=mock.Mock(side_effect=KeyboardInterrupt)))

    def hear(instance: Any, add: bool) -> str:
        heard.append(add)
        return "b"

    heard: list[bool] = []
    assert of(entry(wrap=1), entry(before=hear), entry(before=hear)) is None
    assert heard == [True, True]
    assert of(entry(), entry(before=hear)) == ("a", "b")
    for fields in ((1,), (entry()[:-1],), (entry(extra=(1, 2, 3), wrap=str),), (entry(extra=()),)):
        with pytest.raises(TypeError):
            of(*fields)
    with pytest.raises(ValueError, match="the key is the last"):
        of(has_key=True)
    with pytest.raises(TypeError):
        _core.Parameters(True, (), False).of(author)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        _core.Parameters(True, (), False).of(author, object())


METHODS = ("get_prep_value", "get_db_prep_value", "get_db_prep_save", "pre_save")


def other(*args: Any, **kwargs: Any) -> str:
    return "other"


def _saved_names(alias: str) -> list[str]:
    """Of authors that were made and changed in each way that there is."""
    author = Author(name="a")
    author.save(using=alias)
    author.name = "b"
    author.save(using=alias)
    Author.objects.using(alias).bulk_create([Author(name="c"), Author(name="d")])
    names = list(Author.objects.using(alias).order_by("pk").values_list("name", flat=True))
    Author.objects.using(alias).all().delete()
    return names


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("of", ["class", "field", "mock"])
def test_a_fields_method_is_replaced_and_put_back(engine, of: str, method: str) -> None:
    field = Author._meta.get_field("name")

    if of == "field":
        patch = mock.patch.object(field, method, return_value="other")
    elif of == "class":
        patch = mock.patch.object(type(field), method, other)
    else:
        patch = mock.patch.object(type(field), method, return_value="other")
    for _ in range(2):
        assert _saved_names(engine.alias) == ["b", "c", "d"]
        with patch:
            assert _saved_names(engine.alias) == ["other"] * 3
    assert _saved_names(engine.alias) == ["b", "c", "d"]
    before = hits()
    assert _saved_names(engine.alias) == ["b", "c", "d"]
    assert hits() > before


@pytest.mark.parametrize("of", [Author, None], ids=["class", "instance"])
@pytest.mark.parametrize(
    "method", ["save_base", "_save_table", "_do_insert", "_prepare_related_fields_for_save"]
)
def test_a_models_method_is_replaced(engine, of: Any, method: str) -> None:
    for _ in range(2):
        Author(name="planned").save(using=engine.alias)
    author = Author(name="a")
    with mock.patch.object(of or author, method, return_value=[]) as called:
        author.save(using=engine.alias)
    assert called.call_count == 1


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("model", [Noting, NotingUnplanned])
def test_relations_are_prepared_once(engine: Any, model: Any) -> None:
    alone = Alone.objects.create()
    for _ in range(3):
        made = model(alone=alone)
        Noted.read.clear()
        made.save()
        assert Noted.read == [made]
    found = model.objects.select_related("alone").only("alone").get(pk=made.pk)
    for kwargs in ({}, {"update_fields": ["name"]}, {"update_fields": ["alone"]}):
        for each in (found, made):
            Noted.read.clear()
            each.save(**kwargs)
            assert Noted.read == [each]
    Noted.read.clear()
    with pytest.raises(ValueError, match="nothing"):
        made.save(update_fields=["nothing"])
    made.save(update_fields=[])
    assert Noted.read == [made, made]
