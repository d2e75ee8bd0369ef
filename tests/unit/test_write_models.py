"""Planned writes of models that are not like most: keys, files, parents, managers of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connections, models
from django.test.utils import CaptureQueriesContext, override_settings
from write_support import fresh_plans, hits  # noqa: F401

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


@pytest.fixture
def tables(engine: Any) -> Iterator[None]:
    made = (Keyed, Stamped, Alone, Parent, Child, Filed)
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
