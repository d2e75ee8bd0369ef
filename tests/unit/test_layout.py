"""Instances made without their __dict__ are as if a setattr had made them."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from typing import Any

import pytest
from fix_engine import Engine
from library.models import Author, Genre
from made_support import make_model, names_of, plan

from vinyl.compiler import hydrator_of


def test_it_is_done_on_this_python(engine: Engine) -> None:
    for model in (Author, Genre, make_model(3)):
        hydrator = hydrator_of(model)
        assert hydrator is not None
        assert hydrator.direct is (sys.implementation.name == "cpython")


@pytest.mark.parametrize("fields", [1, 5, 26, 27, 28, 29, 30, 31, 60])
def test_more_attributes_than_a_class_has_places_for(fields: int) -> None:
    model = make_model(fields)
    hydrator, names = hydrator_of(model), names_of(model)
    rows = [tuple(range(n, n + len(names))) for n in range(100)]
    for row, ob in zip(rows, plan(hydrator, names).make(rows), strict=True):
        expected = model.from_db("db", names, row)
        assert list(vars(ob).items())[1:] == list(vars(expected).items())[1:]
        assert next(iter(vars(ob))) == "_state"
        assert (ob._state.db, ob._state.adding, ob._state.fields_cache) == ("db", False, {})


def test_an_instance_goes_on_as_any_other() -> None:
    model = make_model(4)
    names = names_of(model)
    one, other, third = plan(hydrator_of(model), names).make([(1, 2, 3, 4, 5)] * 3)
    one.f0 = "new"
    del one.f1
    one.extra = 5
    assert list(vars(one)) == ["_state", "id", "f0", "f2", "f3", "extra"]
    assert (one.f0, one.f2, one.extra) == ("new", 4, 5)
    assert list(vars(other)) == ["_state", *names]
    other.__dict__["f0"] = 7
    assert other.f0 == 7
    third.__dict__ = {"_state": third._state, "id": 9}
    assert (third.pk, vars(third)) == (9, {"_state": third._state, "id": 9})
    assert copy.copy(other).f0 == 7
    assert copy.deepcopy(other)._state.db == "db"
    assert pickle.loads(pickle.dumps(other._state)).db == "db"


def test_some_of_the_names() -> None:
    model = make_model(6)
    (ob,) = plan(hydrator_of(model), ("id", "f1", "f4")).make([(1, 2, 3)])
    assert list(vars(ob).items())[1:] == [("id", 1), ("f1", 2), ("f4", 3)]
    ob.f0 = 5
    assert list(vars(ob))[1:] == ["id", "f1", "f4", "f0"]


def test_after_instances_with_other_attributes() -> None:
    """The class has given places in another order, to other names too."""
    model = make_model(3)
    first = model.__new__(model)
    for name in ("odd", "f2", "f0"):
        first.__dict__[name] = 1
    (ob,) = plan(hydrator_of(model), names_of(model)).make([(1, 2, 3, 4)])
    assert list(vars(ob).items())[1:] == [("id", 1), ("f0", 2), ("f1", 3), ("f2", 4)]
    assert not hasattr(ob, "odd")


def test_a_finalizer_of_the_models_own_sees_no_instance_that_is_tried() -> None:
    gone: list[Any] = []
    model = make_model(2, __del__=lambda self: gone.append(vars(self).copy()))
    hydrator = hydrator_of(model)
    gc.collect()
    assert gone == []
    (ob,) = plan(hydrator, names_of(model)).make([(1, 2, 3)])
    del ob
    assert [list(each) for each in gone] == [["_state", "id", "f0", "f1"]]


def test_no_reference_is_lost_or_kept() -> None:
    model = make_model(2)
    names = names_of(model)
    one = plan(hydrator_of(model), names)
    values = [object() for _ in range(3)]
    before = [sys.getrefcount(value) for value in values]
    obs = one.make([tuple(values)] * 10)
    assert [sys.getrefcount(value) for value in values] == [count + 10 for count in before]
    assert all(vars(ob)["f0"] is values[1] for ob in obs[:5])
    del obs
    assert [sys.getrefcount(value) for value in values] == before
    obs = one.make([tuple(values)] * 3)
    for ob in obs:
        ob.__dict__["me"] = ob  # a cycle
    del obs, ob
    gc.collect()
    assert [sys.getrefcount(value) for value in values] == before


def test_rows_end_anywhere(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor gives rows by the block: none is lost or doubled at its edges."""
    Genre.objects.bulk_create([Genre(name=f"g{n:03}") for n in range(70)])
    for count in (0, 1, 15, 16, 17, 31, 32, 33, 64, 70):
        rows = Genre.objects.order_by("name")[:count]
        assert [genre.name for genre in rows] == [f"g{n:03}" for n in range(count)]
        assert [name for (name,) in rows.all().values_list("name")] == [g.name for g in rows]

    def spy(value: Any, expression: Any, connection: Any) -> Any:
        if value == "g020":
            raise ZeroDivisionError
        return value

    for field in Genre._meta.fields:
        monkeypatch.setitem(vars(field), "from_db_value", spy)
    with pytest.raises(ZeroDivisionError):
        list(Genre.objects.order_by("name"))
    monkeypatch.undo()
    assert len(Genre.objects.all()) == 70
