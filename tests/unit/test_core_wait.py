"""Waiting, cancelling, closing: what a suspended fiber goes through."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time

import pytest

from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
READ, WRITE = 1, 2


async def test_a_deadline_wakes() -> None:
    began = time.monotonic()
    await _core.run(_core._sleep, 0.02)
    assert time.monotonic() - began >= 0.02


async def test_a_descriptor_wakes() -> None:
    a, b = socket.socketpair()
    with a, b:
        assert await _core.run(_core._watch, a.fileno(), READ, 0.01) == 0
        assert await _core.run(_core._watch, a.fileno(), WRITE, 5.0) == WRITE
        b.send(b"x")
        assert await _core.run(_core._watch, a.fileno(), READ, 5.0) == READ
        a.recv(1)
        b.close()
        assert await _core.run(_core._watch, a.fileno(), READ, 5.0) == READ


@on_a_loop
async def test_many_descriptors() -> None:
    pairs = [socket.socketpair() for _ in range(300)]
    waits = [
        asyncio.ensure_future(_core.run(_core._watch, a.fileno(), READ, 10.0)) for a, _ in pairs
    ]
    await asyncio.sleep(0)
    for _, b in pairs:
        b.send(b"x")
    assert await asyncio.gather(*waits) == [READ] * 300
    for a, b in pairs:
        a.close()
        b.close()


@on_a_loop
async def test_the_loop_goes_on_meanwhile() -> None:
    task = asyncio.ensure_future(_core.run(_core._sleep, 0.05))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


@on_a_loop
async def test_cancel_is_raised_where_it_waits() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            _core._sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            _core._sleep(0.001)  # clean-up may wait
            seen.append("cleaned up")
            raise

    task = asyncio.ensure_future(_core.run(work))
    await asyncio.sleep(0)
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled", "cleaned up"]


@on_a_loop
async def test_cancel_at_a_bare_turn() -> None:
    def spin() -> None:
        while True:
            _core._turn()

    task = asyncio.ensure_future(_core.run(spin))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_a_loop
async def test_a_timeout_ends_a_wait() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await _core.run(_core._sleep, 60)
    assert time.monotonic() - began < 5


@on_a_loop
async def test_behind_a_shield_a_cancel_waits() -> None:
    seen: list[str] = []

    def shielded() -> None:
        _core._sleep(0.02)
        seen.append("to the end")

    def work() -> None:
        try:
            _core._shield(shielded)
        finally:
            seen.append("after")
        seen.append("never")

    task = asyncio.ensure_future(_core.run(work))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["to the end", "after"]


@on_a_loop
async def test_a_job_runs_on_the_helper_thread_and_is_never_left() -> None:
    task = asyncio.ensure_future(_core.run(_core._job, 0.05))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    task = asyncio.ensure_future(_core.run(_core._job, 0.05))
    await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began > 0.02
    assert [t.name for t in threading.enumerate() if "vinyl" in t.name.lower()] == []


def test_closing_a_suspended_operation_runs_its_clean_up() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            _core._sleep(60)
        finally:
            seen.append("cleaned")
            _core._sleep(0.001)
            seen.append("blocking")

    async def main() -> None:
        operation = _core.run(work)
        operation.send(None)
        operation.close()
        assert seen == ["cleaned", "blocking"]
        operation = _core.run(work)
        operation.send(None)
        del operation
        gc.collect()
        assert seen == ["cleaned", "blocking"] * 2

    asyncio.run(main())
    assert _core.stats()["fibers_live"] == 0


def test_a_loop_closed_under_a_fiber() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            _core._sleep(60)
        finally:
            seen.append("cleaned")

    loop = asyncio.new_event_loop()
    task = loop.create_task(_core.run(work))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task, loop
    gc.collect()
    assert seen == ["cleaned"]
    assert _core.stats()["fibers_live"] == 0


def test_loops_in_many_threads() -> None:
    results: list[int] = []

    def work(n: int) -> int:
        _core._sleep(0.001)
        return n

    async def main() -> None:
        results.extend(await asyncio.gather(*[_core.run(work, n) for n in range(50)]))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(50)) * 4)


def test_a_forked_child_has_a_reactor_of_its_own() -> None:
    async def main() -> int:
        await _core.run(_core._sleep, 0.001)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                asyncio.run(child())
                code = 0
            finally:
                os._exit(code)
        await _core.run(_core._sleep, 0.001)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def child() -> None:
        await _core.run(_core._sleep, 0.001)
        await _core.run(_core._job, 0.001)

    assert asyncio.run(main()) == 0


def test_no_descriptor_is_left_by_a_loop() -> None:
    async def main() -> None:
        await _core.run(_core._sleep, 0.001)

    asyncio.run(main())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(main())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
