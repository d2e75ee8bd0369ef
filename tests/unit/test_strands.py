"""Strands: parts of one operation that take turns, so that their statements travel together."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


class Driver:
    """Flies what is parked, and notes what flew together."""

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self.flights: list[list[Any]] = []
        self.wait = wait

    def __call__(self, labels: list[Any]) -> list[Any]:
        self.flights.append(labels)
        self.wait()
        return [f"<{label}>" for label in labels]


def nap() -> None:
    """A wait that suspends the fiber, or blocks."""
    _core._sleep(0.0001)


def strand(driver: Any, name: str, levels: int, log: list[Any]) -> list[Any]:
    found = []
    for level in range(levels):
        found.append(_core._park(driver, f"{name}{level}"))
        log.append(f"{name}{level}")
    return found


def weave(driver: Any, log: list[Any], **levels: int) -> list[Any]:
    return _core.together([lambda n=n, k=k: strand(driver, n, k, log) for n, k in levels.items()])


async def test_what_is_parked_flies_together_and_goes_on_in_order() -> None:
    driver, log = Driver(nap), list[Any]()
    results = await _core.run(weave, driver, log, a=1, b=3, c=2)
    assert results == [["<a0>"], ["<b0>", "<b1>", None], ["<c0>", "<c1>"]]
    assert driver.flights == [["a0", "b0", "c0"], ["b1", "c1"]]
    assert log == ["a0", "b0", "c0", "b1", "c1", "b2"]


def test_in_plain_code() -> None:
    driver, log = Driver(nap), list[Any]()
    assert weave(driver, log, a=2, b=2) == [["<a0>", "<a1>"], ["<b0>", "<b1>"]]
    assert driver.flights == [["a0", "b0"], ["a1", "b1"]]
    assert not _core._parks()


async def test_what_belongs_to_different_drivers_flies_apart() -> None:
    one, other = Driver(nap), Driver(nap)

    def calls() -> list[Any]:
        return _core.together(
            [functools.partial(_core._park, d, n) for d, n in ((one, 1), (other, 2), (one, 3))]
            + [functools.partial(_core._park, other, 4)]
        )

    assert await _core.run(calls) == ["<1>", "<2>", "<3>", "<4>"]
    assert (one.flights, other.flights) == ([[1, 3]], [[2, 4]])


async def test_none_one_and_what_is_no_call() -> None:
    assert await _core.run(_core.together, []) == []
    assert await _core.run(_core.together, (lambda: 1,)) == [1]
    driver = Driver()
    assert await _core.run(weave, driver, [], a=2) == [[None, None]]
    assert driver.flights == []
    for wrong in (None, 3, [3], [len, None]):
        with pytest.raises(TypeError, match="sequence of callables"):
            await _core.run(_core.together, wrong)


async def test_a_strand_may_wait_by_itself() -> None:
    """It suspends the whole operation: the others do not run meanwhile."""
    driver, log = Driver(nap), list[Any]()

    def waits() -> str:
        log.append("waits")
        nap()
        log.append("waited")
        _core._park(driver, "w")
        nap()
        log.append("end")
        return "w"

    def work() -> list[Any]:
        return _core.together([lambda: strand(driver, "a", 1, log), waits, waits])

    assert await _core.run(work) == [["<a0>"], "w", "w"]
    assert driver.flights == [["a0", "w", "w"]]
    assert log == ["waits", "waited", "waits", "waited", "a0", "end", "end"]


async def test_strands_of_strands() -> None:
    """Those inside fly among themselves, while those outside are parked."""
    driver, log = Driver(nap), list[Any]()

    def inner() -> list[Any]:
        first = _core._park(driver, "first")
        return [first, weave(driver, log, x=1, y=1), _core._park(driver, "last")]

    results = await _core.run(_core.together, [inner, lambda: strand(driver, "b", 2, log), inner])
    assert results[0] == results[2] == ["<first>", [["<x0>"], ["<y0>"]], "<last>"]
    assert driver.flights == [
        ["first", "b0", "first"], ["x0", "y0"], ["x0", "y0"], ["last", "b1", "last"],
    ]  # fmt: skip


def nested(driver: Any) -> list[Any]:
    """Nothing but C between the strands: what the inner ones have parked flies with the outer."""
    part = functools.partial
    inner = [part(_core._park, driver, n) for n in (1, 2)]
    innermost = [part(_core.together, inner), part(_core._park, driver, 3)]
    return _core.together(
        [part(_core.together, innermost), part(_core._park, driver, 4), part(_core.together, inner)]
    )


async def test_strands_of_strands_fly_with_the_outer_ones() -> None:
    driver = Driver(nap)
    assert await _core.run(nested, driver) == [
        [["<1>", "<2>"], "<3>"], "<4>", ["<1>", "<2>"],
    ]  # fmt: skip
    assert driver.flights == [[1, 2, 3, 4, 1, 2]]
    alone = [functools.partial(_core._park, driver, 5)]
    inside = functools.partial(_core.together, alone)
    assert await _core.run(_core.together, [inside, functools.partial(int, 7)]) == [[None], 7]
    assert len(driver.flights) == 1


async def test_a_flight_of_strands_of_strands_that_fails() -> None:
    def fail() -> None:
        nap()
        raise Broken

    with pytest.raises(Broken):
        await _core.run(nested, Driver(fail))
    one, other = Driver(fail), Driver()
    calls = [functools.partial(_core.together, [functools.partial(_core._park, one, 0)] * 2)]
    calls.insert(0, functools.partial(nested, other))
    with pytest.raises(Broken):
        await _core.run(_core.together, calls)


class Broken(Exception):
    pass


@pytest.mark.parametrize("who", range(3))
@pytest.mark.parametrize("after", range(3))
async def test_an_exception_ends_the_others(who: int, after: int) -> None:
    driver, ended = Driver(nap), list[Any]()

    def work(n: int) -> None:
        try:
            for level in range(3):
                if n == who and level == after:
                    raise Broken(n)
                _core._park(driver, level)
        except GreenletExit:
            ended.append(n)
            raise

    def calls() -> Any:
        return _core.together([functools.partial(work, n) for n in range(3)])

    with pytest.raises(Broken) as caught:
        await _core.run(calls)
    assert caught.value.args == (who,)
    assert caught.traceback[-1].name == "work"
    # Those after it have not begun where it raises at once; else all others are parked.
    assert ended == [n for n in range(3 if after else who) if n != who]
    assert len(driver.flights) == after


async def test_the_first_of_two_that_raise() -> None:
    driver = Driver(nap)

    def work(n: int) -> None:
        _core._park(driver, n)
        raise Broken(n)

    with pytest.raises(Broken) as caught:
        await _core.run(_core.together, [functools.partial(work, n) for n in (1, 2)])
    assert caught.value.args == (1,)


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
async def test_a_flight_that_fails(error: type[BaseException]) -> None:
    """Its exception is raised where the first of its statements is."""
    raised: list[Any] = []

    def fail() -> None:
        nap()
        raise error("lost")

    def work(n: int, driver: Any) -> None:
        try:
            _core._park(driver, n)
        except BaseException as caught:
            raised.append((n, type(caught)))
            raise

    alone, driver = Driver(), Driver(fail)
    calls = [functools.partial(work, n, d) for n, d in enumerate((alone, driver, driver))]
    with pytest.raises(error, match="lost"):
        await _core.run(_core.together, calls)
    if error is Broken:
        # The first one is parked alone: it goes on before.
        assert raised == [(1, Broken), (2, GreenletExit)]
    else:
        assert raised == [(0, error), (1, GreenletExit), (2, GreenletExit)]


async def test_a_strand_that_makes_up_for_a_failed_flight() -> None:
    def fail() -> None:
        raise Broken

    driver = Driver(fail)

    def work(n: int) -> Any:
        try:
            return _core._park(driver, n)
        except Broken:
            return "made up"

    assert await _core.run(_core.together, [functools.partial(work, n) for n in (1, 2)]) == [
        "made up", None,
    ]  # fmt: skip


async def test_an_ended_one_parks_no_more() -> None:
    driver, seen = Driver(), list[Any]()

    def stubborn() -> str:
        try:
            _core._park(driver, 1)
        except GreenletExit:
            nap()  # it may wait
            with pytest.raises(GreenletExit):
                _core._park(driver, 2)
            assert not _core._parks()
            seen.append("end")
        return "nobody's"

    def fails() -> None:
        raise Broken

    with pytest.raises(Broken):
        await _core.run(_core.together, [stubborn, fails])
    assert seen == ["end"]
    assert driver.flights == []


async def test_what_is_being_handled_is_the_context() -> None:
    def fails() -> None:
        raise Broken

    def work() -> None:
        try:
            raise KeyError
        except KeyError:
            _core.together([fails])

    with pytest.raises(Broken) as caught:
        await _core.run(work)
    assert isinstance(caught.value.__context__, KeyError)


# --- cancelling, closing, dropping


def shape(driver: Any, log: list[Any]) -> list[Any]:
    """Waits of all kinds: of a flight, of a strand, of a strand's strand."""

    def apart() -> None:
        nap()
        weave(driver, log, x=1, y=2)
        nap()

    def deep() -> None:
        strand(driver, "d", 1, log)
        nap()
        strand(driver, "e", 1, log)

    inside = functools.partial(nested, driver)
    return _core.together([deep, apart, lambda: strand(driver, "f", 3, log), inside, deep])


def waits() -> int:
    return _core.stats()["suspends"]


@on_a_loop
async def test_cancel_at_each_wait() -> None:
    driver = Driver(nap)
    before = waits()
    await _core.run(shape, driver, [])
    total = waits() - before
    assert total == 8
    for k in range(1, total + 1):
        began = waits()
        task = asyncio.ensure_future(_core.run(shape, driver, []))
        while waits() - began < k:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await _core.run(_core.together, [lambda: 1]) == [1]


@on_a_loop
async def test_close_and_drop_at_each_wait() -> None:
    driver = Driver(nap)
    for drop in (False, True):
        for k in range(8):
            operation = _core.run(shape, driver, [])
            for _ in range(k + 1):
                waiter = operation.send(None)
                if waiter is not None:
                    waiter.add_done_callback(lambda _: None)
                    while not waiter.done():
                        await asyncio.sleep(0)
            # Suspended anew now, or at the last wait that was over.
            if not drop:
                operation.close()
            del operation, waiter


@on_a_loop
async def test_nothing_is_left_of_it() -> None:
    class Thing:
        pass

    driver = Driver(nap)
    thing = Thing()
    gone = weakref.ref(thing)

    def holds(thing: Any) -> Any:
        _core._park(driver, 1)
        gc.collect()
        return thing

    call = functools.partial(holds, thing)
    results = await _core.run(_core.together, [call, call, lambda: strand(driver, "z", 2, [])])
    assert results[0] is results[1] is thing
    del call, thing, results
    assert gone() is None


async def test_refused_strands_leave_nothing() -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)

    def fails() -> None:
        raise Broken

    def never(thing: Any) -> None:
        raise AssertionError

    with pytest.raises(Broken):
        await _core.run(_core.together, [fails, functools.partial(never, thing)])
    del thing
    assert gone() is None


# --- context variables


@on_a_loop
async def test_context_variables_are_shared() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    driver = Driver(nap)
    seen: list[int] = []

    def adds(n: int) -> None:
        variable.set(variable.get() + n)
        _core._park(driver, n)
        nap()
        seen.append(variable.get())
        variable.set(variable.get() + n)

    def work() -> int:
        variable.set(100)
        _core.together([functools.partial(adds, n) for n in (1, 10)])
        return variable.get()

    assert await _core.run(work) == 122
    assert seen == [111, 112]
    assert variable.get() == 122


def test_context_variables_of_a_thread_without_any() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    def thread() -> None:
        _core.together([lambda: variable.set(1), lambda: seen.append(variable.get())])
        seen.append(variable.get())

    other = threading.Thread(target=thread)
    other.start()
    other.join()
    assert seen == [1, 1]


@on_a_loop
async def test_a_context_of_a_strands_own() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    driver = Driver(nap)

    def inside() -> int:
        variable.set(7)
        _core._park(driver, "in")
        nap()
        return variable.get()

    def own() -> tuple[int, int]:
        return contextvars.copy_context().run(inside), variable.get()

    def plain() -> int:
        _core._park(driver, "out")
        return variable.get()

    def work() -> Any:
        return _core.together([own, plain, own])

    def whole() -> Any:
        return contextvars.copy_context().run(lambda: (variable.set(3), work())[1])

    assert await _core.run(work) == [(7, 0), 0, (7, 0)]
    assert await _core.run(whole) == [(7, 3), 3, (7, 3)]
    assert variable.get() == 0


@on_a_loop
async def test_another_task_goes_on_with_it() -> None:
    """Its context variables are from then on those of whoever awaits the operation."""
    variable = contextvars.ContextVar("variable", default="first")
    driver = Driver(_core._turn)
    seen: list[str] = []

    def work() -> None:
        seen.append(variable.get())
        _core._turn()
        seen.append(variable.get())
        _core._park(driver, 1)
        seen.append(variable.get())

    def both() -> None:
        _core.together([work, work])
        seen.append(variable.get())

    operation = _core.run(both)
    operation.send(None)
    context = contextvars.copy_context()
    context.run(variable.set, "second")
    sends = iter(lambda: context.run(operation.send, None), ...)
    assert [*sends] == [None, None]
    assert seen == ["first", "second", "second", "second", "second", "second", "second"]


# --- where a statement parks


async def test_parks_only_in_a_strand_that_runs_nobodys_code() -> None:
    driver = Driver()
    calls: Sequence[Any] = [_core._parks, functools.partial(getcurrent), lambda: _core._parks()]
    first, here, last = await _core.run(_core.together, calls)
    assert first is True
    assert last is False, "a line of this file is under way"
    assert here.dead
    assert await _core.run(_core._parks) is False
    assert await _core.run(weave, driver, [], a=1) == [[None]]


@on_a_loop
async def test_awaiting_inside_a_strand() -> None:
    driver = Driver(nap)

    async def coroutine() -> bool:
        await asyncio.sleep(0)
        return _core._parks()

    def awaits() -> bool:
        inside = _core.await_(coroutine())
        _core._park(driver, 1)
        return inside

    assert await _core.run(_core.together, [awaits, awaits]) == [False, False]
    assert driver.flights == [[1, 1]]


@on_a_loop
async def test_many_at_once() -> None:
    driver = Driver(nap)

    async def one(n: int) -> None:
        log: list[Any] = []
        assert await _core.run(weave, driver, log, a=n % 3, b=2, c=1 + n % 2) is not None

    await asyncio.gather(*[one(n) for n in range(200)])
    assert all(len(each) > 1 for each in driver.flights)


async def test_frames_of_a_strand_are_kept_for_the_next(mode: str) -> None:
    """Many at once, deep ones, ones that raise: each finds its frames as new."""
    driver = Driver()

    def deep(n: int, *, fails: bool = False) -> int:
        values = [n] * 50
        if n == 0:
            _core._park(driver, n)
            if fails:
                raise Broken
            return 0
        return 1 + deep(n - 1, fails=fails) + sum(values) - sum(values)

    def generates(n: int) -> Any:
        yield from (deep(k) for k in range(n))

    for depth in (1, 400, 20):
        calls = [functools.partial(deep, depth) for _ in range(40)]
        assert await _core.run(_core.together, calls) == [depth] * 40
        assert await _core.run(_core.together, calls[:3]) == [depth] * 3
        with pytest.raises(Broken) as caught:
            await _core.run(_core.together, [calls[0], functools.partial(deep, depth, fails=True)])
        frames = [entry.frame.f_locals for entry in caught.traceback if entry.name == "deep"]
        assert [each["n"] for each in frames] == [*range(depth, -1, -1)]
        held = [generates(5) for _ in range(20)]
        found = await _core.run(_core.together, [functools.partial(next, each) for each in held])
        assert found == [0] * 20
        assert [list(each) for each in held] == [[1, 2, 3, 4]] * 20


def test_in_greenlets_that_take_turns() -> None:
    """As under gevent: a strand is left in the middle, and ends before one that began after it."""
    main, begun = getcurrent(), list[greenlet]()

    def turn() -> None:
        begun.append(getcurrent())
        main.switch()

    greenlets = [greenlet(lambda: _core.together([turn])) for _ in range(2)]
    for each in greenlets:
        each.switch()
    for each in begun:
        each.switch()
    assert all(each.dead for each in (*greenlets, *begun))
    begun.clear()
    greenlets.clear()
    gc.collect()
    assert not _core._parks()
    assert _core._park(Driver(), 1) is None  # outside of any strand


def test_in_threads() -> None:
    failed: list[Any] = []

    def thread() -> None:
        driver = Driver(nap)
        try:
            for _ in range(50):
                weave(driver, [], a=1, b=2)
            assert driver.flights == [["a0", "b0"]] * 50
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
