"""Planned writes of what a field or a storage refuses: what is raised, and what the instance
is left with, are as without plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connections, models
from django.test.utils import override_settings
from write_support import fresh_plans, hits  # noqa: F401

pytestmark = pytest.mark.usefixtures("fresh_plans", "table")


class Dated(models.Model):
    number = models.IntegerField(null=True)
    made = models.DateTimeField(auto_now_add=True)
    changed = models.TimeField(auto_now=True)
    file = models.FileField(upload_to="refused")
    size = models.IntegerField(null=True)

    class Meta:
        app_label = "library"
        managed = False


@pytest.fixture
def table(engine: Any) -> Iterator[None]:
    with connections[engine.alias].schema_editor() as editor:
        editor.create_model(Dated)
    yield
    with connections[engine.alias].schema_editor() as editor:
        editor.delete_model(Dated)


@pytest.fixture(autouse=True)
def media(tmp_path: Any) -> Iterator[None]:
    with override_settings(MEDIA_ROOT=str(tmp_path)):
        yield


def pictures(change: Callable[[Dated], None]) -> list[Any]:
    """What becomes of a new instance and of a stored one, planned twice a hit, and by Django."""
    made = []
    for plans in (True, True, True, False):
        with override_settings(VINYL={"PLAN_CACHE": plans}):
            new, stored = Dated(), Dated.objects.create(number=1)
            stored.save()
            seen = []
            for each in (new, stored):
                before = dict(vars(each))
                change(each)
                with pytest.raises((ValueError, OSError)) as caught:
                    each.save()
                state = each._state
                seen.append(
                    (
                        str(caught.value),
                        {name for name in before if vars(each)[name] is not before[name]},
                        bool(each.file) and each.file._committed,
                        (state.adding, state.db),
                    )
                )
        made.append(seen)
    assert hits() > 0
    return made


def attach(dated: Dated, **values: Any) -> None:
    dated.file = ContentFile(b"x", name="x.txt")
    for name, value in values.items():
        setattr(dated, name, value)


@pytest.mark.parametrize("name", ["number", "size"])
def test_fields_before_and_after_it_have_had_their_pre_save(name: str) -> None:
    def change(dated: Dated) -> None:
        attach(dated, **{name: "abc"})

    made = pictures(change)
    assert f"Field '{name}' expected a number but got 'abc'." in made[3][0][0]
    assert "changed" in made[3][1][1]
    assert made == [made[3]] * 4


def test_the_key_is_refused_first() -> None:
    made = pictures(lambda dated: attach(dated, pk="x", number="abc"))
    assert "Field 'id' expected a number but got 'x'." in made[3][1][0]
    assert [seen[1][0] for seen in made] == [made[3][1][0]] * 4


def test_a_storage_that_fails_is_asked_once() -> None:
    with mock.patch.object(default_storage, "save", side_effect=OSError("full")) as save:
        made = pictures(attach)
    assert save.call_count == 8
    assert made[3][0][0] == "full"
    assert made == [made[3]] * 4
