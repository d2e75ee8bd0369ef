"""What the garbage collector does with instances made in C."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import models
from django.db.models.base import ModelState
from made_support import make_model, names_of, plan

from vinyl.compiler import hydrator_of

#: CPython of three generations, whose lists are known.
MOVES = sys.implementation.name == "cpython" and sys.version_info < (3, 14)


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.collect()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)


def made(count: int, model: type[models.Model] | None = None) -> list[Any]:
    model = model or make_model(2)
    names = names_of(model)
    found: list[Any] = plan(hydrator_of(model), names).make([(1, 2, 3)] * count)
    return found


def generation_of(ob: Any) -> int | None:
    return next((n for n in range(3) if any(each is ob for each in gc.get_objects(n))), None)


def close(obs: list[Any]) -> None:
    for ob in obs:
        ob.f0 = ob  # which allocates nothing


@pytest.mark.skipif(not MOVES, reason="of this Python's collector the lists are not known")
def test_a_long_loop_is_not_gone_through() -> None:
    gc.set_threshold(1000, 10, 10)
    before = [each["collections"] for each in gc.get_stats()]
    obs = made(20_000)
    assert gc.get_count()[0] < 1100
    assert [each["collections"] for each in gc.get_stats()] == before
    assert generation_of(obs[-1]) == generation_of(obs[-1]._state) == 1
    assert generation_of(obs[0]) == 0
    assert len(gc.get_objects(1)) >= 19_000 * 2


def test_a_short_one_is_left_alone() -> None:
    gc.set_threshold(1_000_000, 10, 10)
    obs = made(2000)
    assert generation_of(obs[-1]) == 0


@pytest.mark.parametrize("collects", ["never", "by itself"])
def test_without_a_collector(collects: str) -> None:
    if collects == "never":
        gc.disable()
    else:
        gc.set_threshold(0)
    obs = made(5000)
    assert generation_of(obs[-1]) == 0


@pytest.mark.parametrize("threshold", [1, 10, 100, 1000])
def test_cycles_are_found(threshold: int) -> None:
    gc.set_threshold(threshold, 2, 2)
    obs = made(3000)
    close(obs)
    watched = [weakref.ref(ob) for ob in obs[::100]]
    del obs
    gc.collect()
    assert [ref() for ref in watched] == [None] * 30


@pytest.mark.skipif(not MOVES, reason="of this Python's collector the lists are not known")
def test_loops_pay_for_those_before() -> None:
    """Nothing else runs: without a pass of its own the garbage would grow."""
    gc.set_threshold(1000, 2, 10)
    model = make_model(2)
    watched: list[Any] = []
    alive = []
    for _ in range(12):
        obs = made(5000, model)
        close(obs)
        watched.append(weakref.ref(obs[-1]))
        del obs
        alive.append(sum(ref() is not None for ref in watched))
    assert max(alive) <= 3


def test_a_pass_may_be_in_the_middle_of_a_loop() -> None:
    """Its finalizers make instances too."""
    gc.set_threshold(500, 1, 1)
    made_by_finalizers: list[Any] = []

    class Finalized:
        def __del__(self) -> None:
            gc.collect(0)
            made_by_finalizers.append(made(600, model))

    model = make_model(2)
    for _ in range(8):
        odd = Finalized()
        odd.__dict__["me"] = odd
        del odd
        obs = made(3000, model)
        assert [ob.f1 for ob in obs] == [3] * 3000
        close(obs)
    gc.collect()
    assert made_by_finalizers
    assert all([ob.f0 for ob in obs] == [2] * 600 for obs in made_by_finalizers)


def test_the_states_finalizer_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(ModelState, "__del__"):
        pytest.skip("this Django's states have none")
    model = make_model(2)
    names = names_of(model)
    kept = plan(hydrator_of(model), names)
    (ob,) = kept.make([(1, 2, 3)])
    assert gc.is_finalized(ob._state)
    assert "fields_cache" not in vars(ob._state)
    gone: list[Any] = []
    monkeypatch.setattr(ModelState, "__del__", lambda self: gone.append(self.db))
    for one in (kept, plan(hydrator_of(model), names)):
        (ob,) = one.make([(1, 2, 3)])
        assert not gc.is_finalized(ob._state)
        del ob
    assert gone == ["db", "db"]
    monkeypatch.undo()
    (ob,) = kept.make([(1, 2, 3)])
    assert gc.is_finalized(ob._state)
