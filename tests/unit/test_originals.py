"""Whether somebody has replaced a method is noticed, and that it was put back as well."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import pytest
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from django.db.models.query import ModelIterable, QuerySet

from vinyl._core import Unchanged
from vinyl.originals import unchanged
from vinyl.queryset import VinylQuerySet


def classes() -> tuple[type, type]:
    base = type("Base", (), {"name": 1, "method": lambda self: 1})
    return base, type("Derived", (base,), {"other": 2})


def test_set_deleted_and_put_back() -> None:
    base, derived = classes()
    guard = Unchanged(derived)
    assert guard()
    for cls, name in ((derived, "other"), (base, "name"), (base, "method"), (derived, "new")):
        missing = object()
        before = vars(cls).get(name, missing)
        setattr(cls, name, 3)
        assert not guard(), name
        assert not guard(), name
        if before is missing:
            delattr(cls, name)
        else:
            setattr(cls, name, before)
        assert guard(), name
    del base.name
    assert not guard()


def test_other_bases() -> None:
    base, derived = classes()
    guard = Unchanged(base, derived)
    before = derived.__bases__
    derived.__bases__ = (type("Other", (), {}),)
    assert not guard()
    derived.__bases__ = before
    assert guard()


def test_what_reading_makes_is_no_change() -> None:
    _base, derived = classes()
    guard = Unchanged(derived)
    assert derived.__annotations__ == {}
    assert guard()


def test_many_changes() -> None:
    """CPython gives a type no more than so many version tags."""
    base, derived = classes()
    guard = Unchanged(derived)
    for number in range(3000):
        base.name = -number  # type: ignore[attr-defined]
        assert not guard()
        base.name = 1  # type: ignore[attr-defined]
        assert guard()


def test_only_classes() -> None:
    with pytest.raises(TypeError, match="classes"):
        Unchanged(1)  # type: ignore[arg-type]


def test_djangos_are_original() -> None:
    assert unchanged(QuerySet, ModelIterable, CursorWrapper)
    with mock.patch.object(QuerySet, "get"):
        assert not unchanged(QuerySet, ModelIterable, CursorWrapper)
    assert unchanged(QuerySet, ModelIterable, CursorWrapper)


def test_what_vinyl_installs_later_is_original() -> None:
    """An engine that is loaded later, and the native API, replace methods by ours."""
    assert unchanged(QuerySet, ModelIterable)
    with mock.patch.object(QuerySet, "aget", VinylQuerySet.aget):
        assert unchanged(QuerySet, ModelIterable)
    assert unchanged(QuerySet, ModelIterable)


def test_subscripting_is_harmless() -> None:
    """django_stubs_ext.monkeypatch() makes Django's classes subscriptable."""
    with mock.patch.object(QuerySet, "__class_getitem__", classmethod(lambda cls, *args: cls)):
        assert unchanged(QuerySet)


def test_somebody_elses_are_not() -> None:
    class Mine(CursorWrapper):
        def execute(self, sql: Any, params: Any = None) -> Any:
            return super().execute(sql, params)

    assert not unchanged(Mine)
    assert not unchanged(Mine)


def test_first_seen_replaced() -> None:
    before = CursorDebugWrapper.executemany

    @functools.wraps(before)
    def executemany(self: Any, sql: Any, param_list: Any) -> Any:
        return before(self, sql, param_list)

    with mock.patch.object(CursorDebugWrapper, "executemany", executemany):
        assert not unchanged(CursorDebugWrapper)
    assert unchanged(CursorDebugWrapper)


def test_first_seen_mocked() -> None:
    class Mine(CursorWrapper):
        execute = mock.Mock()

    assert not unchanged(Mine)
