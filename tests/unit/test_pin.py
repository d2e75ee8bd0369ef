"""Pin: the tasks of a test share sessions, take turns, and have blocks of their own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from fix_engine import Engine
from library.models import Author

import vinyl
from vinyl import _core
from vinyl.testmode import enable

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
on_a_loop = pytest.mark.modes("asyncio", "uvloop")


class Case(TestCase):
    databases = frozenset({"default"})  # type: ignore[assignment]


@pytest.fixture
def pinned(engine: Engine) -> Iterator[_core.Pin]:
    """The transaction of a Django TestCase is open."""
    enable()
    atomics = Case._enter_atomics()
    yield _core.current_pin()
    Case._rollback_atomics(atomics)
    assert _core.current_pin() is None
    assert not Author.objects.exists()
    connections["default"].close()


@pytest.fixture
def in_thread() -> Iterator[InThread]:
    """Call in a thread, always the same: what begins there has its connection, and ends it.

    ``asyncio.to_thread()`` takes another thread where the last one is not back yet.
    """
    with ThreadPoolExecutor(1) as executor:

        def call(function: Callable[[], Any]) -> Awaitable[Any]:
            inside = functools.partial(contextvars.copy_context().run, function)
            return asyncio.get_running_loop().run_in_executor(executor, inside)

        yield call


def create(name: str) -> None:
    Author.objects.create(name=name)


def names() -> list[str]:
    return sorted(Author.objects.values_list("name", flat=True))


async def block(name: str) -> None:
    async with vinyl.atomic():
        await _core.run(create, name)


class OpenBlock:
    """A task in a block, from `opened` until `close` is set; then it calls `after` at once."""

    def __init__(self, after: Callable[[], object] | None = None) -> None:
        self.opened, self.close = asyncio.Event(), asyncio.Event()
        self.after = after
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with vinyl.atomic():
            await _core.run(create, "first")
            self.opened.set()
            await self.close.wait()
        if self.after is not None:
            self.after()


async def settled(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_everybody_has_the_same_session(pinned: _core.Pin) -> None:
    session = pinned.sessions["default"]
    assert connections["default"] is session
    assert await _core.run(lambda: connections["default"]) is session
    if _core.where() == _core.LOOP:
        assert _core.current_scope().sessions is pinned.sessions
        assert await asyncio.to_thread(lambda: connections["default"]) is session


@on_a_loop
async def test_the_owner_of_a_block(pinned: _core.Pin) -> None:
    assert not hasattr(pinned, "owner")
    async with vinyl.atomic():
        assert pinned.owner is _core.current_scope()
        async with vinyl.atomic():
            assert pinned.owner is _core.current_scope()
        assert pinned.owner is _core.current_scope()
    assert not hasattr(pinned, "owner")
    await _core.run(transaction.atomic(create), "in one operation")
    assert not hasattr(pinned, "owner")


@on_a_loop
async def test_others_wait_in_order(pinned: _core.Pin) -> None:
    order: list[str] = []

    async def later(name: str) -> None:
        await block(name)
        order.append(name)

    first = OpenBlock()
    await first.opened.wait()
    others = [asyncio.create_task(later(name)) for name in "abc"]
    await settled()
    assert order == []
    assert pinned.owner is first.task._vinyl_scope  # type: ignore[attr-defined]
    others[1].cancel()
    await settled()
    first.close.set()
    await asyncio.wait([first.task, *others])
    assert order == ["a", "c"]
    assert others[1].cancelled()
    assert await _core.run(names) == ["a", "c", "first"]


@on_a_loop
async def test_the_turn_and_the_cancel_come_together(pinned: _core.Pin) -> None:
    first = OpenBlock(after=lambda: second.cancel())
    await first.opened.wait()
    second = asyncio.create_task(block("second"))
    third = asyncio.create_task(block("third"))
    await settled()
    first.close.set()
    await asyncio.wait([first.task, second, third])
    assert third.exception() is None
    assert second.cancelled()
    assert await _core.run(names) == ["first", "third"]


@on_a_loop
async def test_a_block_that_does_not_end(engine: Engine, in_thread: InThread) -> None:
    enable()
    session = connections["default"]
    session.settings_dict["OPTIONS"]["pool"] = {"timeout": 0.05}
    atomics = await in_thread(Case._enter_atomics)
    first = OpenBlock()
    await first.opened.wait()
    with pytest.raises(TransactionManagementError, match=r"0\.05 s another task"):
        await _core.run(names)
    first.close.set()
    await first.task
    assert await _core.run(names) == ["first"]

    def leave() -> None:
        Case._rollback_atomics(atomics)
        connections["default"].close()

    await in_thread(leave)


@on_a_loop
async def test_a_task_that_ends_without_leaving_its_block(
    engine: Engine, in_thread: InThread
) -> None:
    enable()

    async def leaves_it_open() -> None:
        await vinyl.atomic().__aenter__()
        await _core.run(create, "left")

    def begin() -> dict:
        outer = Case._enter_atomics()
        inner = Case._enter_atomics()
        return {"outer": outer, "inner": inner}

    def leave() -> None:
        with pytest.raises(TransactionManagementError, match="still open"):
            Case._rollback_atomics(both["inner"])
        assert names() == []
        Case._rollback_atomics(both["outer"])
        connections["default"].close()

    both = await in_thread(begin)
    await asyncio.create_task(leaves_it_open())
    assert hasattr(_core.current_pin(), "owner")
    await in_thread(leave)
    assert _core.current_pin() is None
    assert await _core.run(names) == []


@on_a_loop
async def test_a_task_that_outlives_the_test(engine: Engine) -> None:
    enable()
    first = connections["default"]
    assert await _core.run(names) == []
    old = _core.current_scope()
    pin = _core.Pin({"default": connections["default"]})
    before = _core.exchange_pin(pin)
    assert _core.current_scope() is not old
    assert _core.current_scope().pin is pin
    _core.exchange_pin(before)
    assert not hasattr(_core.current_scope(), "pin")
    assert connections["default"] is not first


@on_a_loop
@pytest.mark.parametrize("seed", range(3))
async def test_chaos(pinned: _core.Pin, seed: int) -> None:
    """Blocks, statements and cancels at random: what ended well is there, nothing else is."""
    rng = random.Random(seed)
    kept: set[str] = set()

    async def one(name: str) -> None:
        turns, undo, nested = rng.randrange(4), rng.random() < 0.3, rng.random() < 0.5
        if rng.random() < 0.3:
            await _core.run(create, name)
            kept.add(name)
            return
        async with vinyl.atomic():
            await _core.run(create, name)
            await settled(turns)
            if nested:
                with suppress(LookupError):
                    async with vinyl.atomic():
                        await _core.run(create, f"{name} undone")
                        raise LookupError
            if undo:
                raise LookupError
        kept.add(name)

    tasks = [asyncio.create_task(one(f"task {n}")) for n in range(40)]
    for task in rng.sample(tasks, 12):
        await settled(rng.randrange(6))
        task.cancel()
    await asyncio.wait(tasks)
    unexpected = [
        error
        for task in tasks
        if not task.cancelled() and (error := task.exception()) is not None
        if not isinstance(error, LookupError)
    ]
    assert unexpected == []
    found = set(await _core.run(names))
    # A cancel that comes while the last statement ends leaves it undecided for the task.
    assert kept <= found
    assert not any("undone" in name for name in found)
    assert len(found - kept) <= 12


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        _core.Pin([])
    with pytest.raises(ValueError, match="seconds"):
        _core.Pin({}, float("nan"))
    with pytest.raises(TypeError, match="a Pin or None"):
        _core.exchange_pin(3)
