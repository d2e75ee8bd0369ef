"""Operations as coroutines: await, asyncio's functions, misuse, errors, context variables."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from vinyl import _core
from vinyl.exceptions import NotFetched

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


def add(a: int, b: int = 1) -> int:
    assert _core.where() == _core.FIBER
    return a + b


async def test_await_gives_what_the_call_returns() -> None:
    assert await _core.run(add, 1) == 2
    assert await _core.run(add, 1, b=5) == 6
    assert await _core.Operation(add, (1,), {"b": 2}) == 3


async def test_the_running_loop_is_hidden_inside_and_seen_again_after() -> None:
    outside = _core.where()
    assert outside in (_core.LOOP, _core.DRIVEN)

    def look() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    await _core.run(look)
    assert _core.where() == outside


async def test_context_variables_are_shared_both_ways() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def change() -> int:
        seen = variable.get()
        variable.set(2)
        return seen

    variable.set(1)
    assert await _core.run(change) == 1
    assert variable.get() == 2


@on_a_loop
async def test_context_variables_across_a_suspension() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def change() -> int:
        variable.set(1)
        _core._sleep(0.001)
        return variable.get()

    async def one(n: int) -> int:
        variable.set(n)
        return await _core.run(change) + variable.get()

    assert await asyncio.gather(*[one(n) for n in range(20)]) == [2] * 20


@on_a_loop
async def test_a_context_entered_inside_stays_entered_across_a_suspension() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def inside() -> int:
        variable.set(variable.get() + 10)
        _core._sleep(0.001)
        return variable.get()

    def outside() -> tuple[int, int]:
        variable.set(variable.get() + 1)
        found = contextvars.copy_context().run(inside)
        _core._sleep(0.001)
        return found, variable.get()

    async def one(n: int) -> tuple[int, int, int]:
        variable.set(n)
        return *await _core.run(outside), variable.get()

    results = await asyncio.gather(*[one(n) for n in range(20)])
    assert results == [(n + 11, n + 1, n + 1) for n in range(20)]


async def test_errors_keep_their_traceback_and_context() -> None:
    def inner() -> None:
        raise ValueError("inner")

    def outer() -> None:
        inner()

    async def while_handling() -> None:
        try:
            raise KeyError("outside")
        except KeyError:
            await _core.run(outer)

    with pytest.raises(ValueError, match="inner") as caught:
        await while_handling()
    names = [entry.name for entry in caught.traceback]
    assert names[-2:] == ["outer", "inner"]
    assert names[0] == "test_errors_keep_their_traceback_and_context"
    if _core.where() == _core.LOOP:
        assert isinstance(caught.value.__context__, KeyError)


async def test_an_error_that_is_raised_anew_closes_no_chain() -> None:
    """While one is handled that it has led to: followed to its end, the chain would have none."""

    def throw(error: BaseException) -> None:
        raise error

    def chain(error: BaseException) -> list[BaseException]:
        found: list[BaseException] = []
        each: BaseException | None = error
        while each is not None and len(found) < 9:
            found.append(each)
            each = each.__context__
        return found

    first, second, third = ValueError("1"), KeyError("2"), TypeError("3")
    for error in (first, second):
        try:
            await _core.run(throw, error)
        except (ValueError, KeyError):
            try:
                await _core.run(throw, second)
            except KeyError:
                with pytest.raises(ValueError, match="1"):
                    await _core.run(throw, first)
    assert chain(first) == [first, second]
    first.__context__ = first  # by somebody's own hand
    try:
        raise third
    except TypeError:
        with pytest.raises(ValueError, match="1"):
            await _core.run(throw, first)
    try:
        raise first
    except ValueError:
        with pytest.raises(TypeError):
            await _core.run(throw, third)
    assert chain(third)[:2] == [third, first]


@on_a_loop
async def test_another_thread_cannot_go_on_with_it() -> None:
    operation = _core.run(_core._turn)
    operation.send(None)
    for method, *args in (operation.close,), (operation.send, None), (operation.throw, ValueError):
        with pytest.raises(RuntimeError, match="runs in another thread"):
            await asyncio.to_thread(method, *args)
    with pytest.raises(StopIteration):
        operation.send(None)


async def test_stop_iteration_becomes_a_runtime_error() -> None:
    def stop() -> None:
        raise StopIteration(3)

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await _core.run(stop)
    assert isinstance(caught.value.__cause__, StopIteration)


@on_a_loop
async def test_asyncio_takes_it_as_a_coroutine() -> None:
    assert await asyncio.create_task(_core.run(add, 1)) == 2
    assert await asyncio.wait_for(_core.run(add, 2), 5) == 3
    assert await asyncio.gather(_core.run(add, 3), _core.run(add, 4)) == [4, 5]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_core.run(add, 5))
        assert "Operation" in repr(task) or "operation" in repr(task)
    assert task.result() == 6


async def test_it_is_awaited_once() -> None:
    operation = _core.run(add, 1)
    assert await operation == 2
    with pytest.raises(RuntimeError, match="already awaited"):
        await operation


USES: dict[str, Callable[[Any], Any]] = {
    "truth": bool,
    "equality": lambda op: op == 1,
    "order": lambda op: op < 1,
    "iteration": list,
    "attribute": lambda op: op.name,
    "length": len,
    "index": lambda op: op[0],
    "contains": lambda op: 1 in op,
}


@pytest.mark.parametrize("use", USES)
def test_any_other_use_raises(use: str) -> None:
    operation = _core.run(add, 1)
    with pytest.raises(NotFetched, match="await"):
        USES[use](operation)
    operation.close()


async def test_what_dunder_await_gives_is_an_iterator() -> None:
    class Stands:
        def __await__(self) -> Any:
            # As the tasks of Python 3.11's asyncio do with an awaitable that is no coroutine.
            return (yield from _core.run(add, 1).__await__())

    assert await Stands() == 2
    if _core.where() == _core.LOOP:
        assert await asyncio.gather(Stands(), Stands()) == [2, 2]
    done = _core.run(add, 1)
    assert await done == 2
    with pytest.raises(NotFetched, match="await"):
        iter(done)


def test_what_inspect_asks_is_answered() -> None:
    operation = _core.run(add, 1)
    assert inspect.isawaitable(operation)
    assert not hasattr(operation, "cr_code")
    assert repr(operation) == "<vinyl operation add, not awaited>"
    assert {operation: 1}[operation] == 1
    operation.close()


def test_dropping_one_warns() -> None:
    operation = _core.run(add, 1)
    with pytest.warns(RuntimeWarning, match=r"operation 'add' was never awaited: vinyl\.drive"):
        del operation


@pytest.mark.modes("asyncio", "uvloop")
async def test_dropping_one_in_a_coroutine_warns() -> None:
    operation = _core.run(add, 1)
    with pytest.warns(RuntimeWarning, match=r"operation 'add' was never awaited$"):
        del operation


def test_a_closed_one_does_not_warn() -> None:
    operation = _core.run(add, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operation.close()
        del operation


@pytest.mark.parametrize("bad", [(), (1,), ("x",)])
def test_run_wants_a_callable(bad: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _core.run(*bad)


async def test_arguments_are_released() -> None:
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    await _core.run(lambda _: None, thing)
    del thing
    gc.collect()
    assert seen() is None


@on_a_loop
async def test_many_at_once() -> None:
    def work(n: int) -> int:
        _core._sleep(0.001)
        _core._turn()
        return n

    before = _core.stats()["fibers_live"]
    assert await asyncio.gather(*[_core.run(work, n) for n in range(500)]) == list(range(500))
    assert _core.stats()["fibers_live"] == before


@on_a_loop
async def test_fibers_are_reused() -> None:
    await _core.run(add, 1)
    before = _core.stats()["fibers_created"]
    for _ in range(100):
        await _core.run(add, 1)
    assert _core.stats()["fibers_created"] == before
