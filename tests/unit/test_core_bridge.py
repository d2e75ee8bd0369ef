"""await_ and drive: coroutines inside synchronous code, and without a loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vinyl import _core
from vinyl.exceptions import NeedsEventLoop

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


async def double(n: int) -> int:
    assert _core.where() in (_core.LOOP, _core.DRIVEN)
    return await _core.run(lambda: n * 2)


def four_times(n: int) -> int:
    twice = _core.await_(double(n))
    assert _core.where() == _core.FIBER
    return _core.await_(double(twice))


async def test_await_inside_a_fiber() -> None:
    assert await _core.run(four_times, 3) == 12


@on_a_loop
async def test_what_needs_the_loop_works_inside_a_fiber() -> None:
    task = asyncio.current_task()

    async def inner() -> str:
        assert asyncio.current_task() is task
        await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().run_in_executor(None, lambda: "thread")

    assert await _core.run(lambda: _core.await_(inner())) == "thread"


@on_a_loop
async def test_errors_and_cancel_reach_the_awaited() -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    def work() -> None:
        try:
            _core.await_(inner())
        except asyncio.CancelledError:
            seen.append("fiber")
            raise

    task = asyncio.ensure_future(_core.run(work))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["inner", "fiber"]

    async def fails() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await _core.run(lambda: _core.await_(fails()))


def test_drive() -> None:
    async def main() -> int:
        assert _core.where() == _core.DRIVEN
        return await _core.run(four_times, 1)

    assert _core.drive(main()) == 4
    assert _core.where() == _core.PLAIN


def test_drive_names_what_needs_a_loop() -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            seen.append("cleaned up")

    with pytest.raises(NeedsEventLoop, match=r"asyncio.sleep\(0\)"):
        _core.drive(main())
    assert seen == ["cleaned up"]

    class Loopy:
        def __await__(self) -> Any:
            yield "the thing"

    async def other() -> None:
        await Loopy()

    with pytest.raises(NeedsEventLoop, match="the thing"):
        _core.drive(other())


@on_a_loop
async def test_drive_on_a_loop_is_refused() -> None:
    async def main() -> None:
        pass

    coroutine = main()
    with pytest.raises(RuntimeError, match="await the coroutine"):
        _core.drive(coroutine)
    coroutine.close()


async def test_await_outside_a_fiber_is_refused() -> None:
    coroutine = double(1)
    with pytest.raises(RuntimeError, match="write 'await'"):
        _core.await_(coroutine)
    coroutine.close()


async def test_what_is_not_awaitable() -> None:
    with pytest.raises(TypeError, match="can't be awaited"):
        await _core.run(lambda: _core.await_(3))


class Asks:
    @property
    def attribute(self) -> Any:
        return self.answer(1)

    def __getitem__(self, key: Any) -> Any:
        return self.answer(1)

    def method(self) -> Any:
        return self.answer(1)

    def answer(self, depth: int = 0) -> Any:
        seen = _core.written_in_coroutine(depth), _core.awaited_expression(depth)

        async def give() -> tuple[bool, bool]:
            return seen

        return give() if seen[1] else seen


async def test_the_frame_that_asks() -> None:
    asks = Asks()
    assert asks.attribute == asks.method() == asks[0] == (True, False)
    assert await asks.attribute == await asks.method() == await asks[0] == (True, True)
    assert [asks.attribute for _ in range(2)] == [(True, False)] * 2
    assert (lambda: asks.method())() == (True, False)
    assert list(map(lambda _: asks.method(), [1])) == [(True, False)]  # noqa: C417

    def helper() -> Any:
        return asks.attribute, asks.method()

    assert helper() == ((False, False), (False, False))
