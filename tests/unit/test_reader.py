"""The reader that the loop has for each connection: its descriptor comes and goes with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import resource
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop
from fix_links import Links, rows

from vinyl import _core

READ = 1
on_a_loop = pytest.mark.modes("asyncio", "uvloop")
on_asyncio = pytest.mark.modes("asyncio")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    async def turns() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turns(), 20)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, before[1]))
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_it_wakes_as_the_reactor_does() -> None:
    a, b = socket.socketpair()
    with a, b:
        assert await _core.run(_core._watch, a.fileno(), READ, 0.01, True) == 0
        b.send(b"x")
        assert await _core.run(_core._watch, a.fileno(), READ, 5.0, True) == READ
        a.recv(1)
        b.close()
        assert await _core.run(_core._watch, a.fileno(), READ, 5.0, True) == READ


@on_a_loop
@pytest.mark.parametrize("words", [b"", b"last words"])
async def test_an_error_of_the_socket_ends_the_wait(words: bytes) -> None:
    def meet_the_end() -> list[int]:
        seen = []
        while len(seen) < 3:
            seen.append(_core._watch(a.fileno(), READ, 20.0, True))
            try:
                if not a.recv(100):
                    break
            except ConnectionResetError:
                break
        return seen

    a, b = socket.socketpair()
    with a, b:
        a.send(b"never read: the end is a reset")
        waiting = asyncio.ensure_future(_core.run(meet_the_end))
        for _ in range(3):
            await asyncio.sleep(0)
        if words:
            b.send(words)
        b.close()
        assert set(await waiting) == {READ}


async def test_without_a_free_descriptor_the_reactor_watches() -> None:
    await _core.run(_core._sleep, 0.001)
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        with no_descriptor_left():
            assert await _core.run(_core._watch, a.fileno(), READ, 5.0, True) == READ


@on_asyncio
async def test_a_connection_has_one(pg: Links) -> None:
    pool = pg.pool()
    link = pg.link(pool)
    await _core.run(rows, link, "SELECT 1")
    connected = descriptors()
    for number in range(20):
        assert await _core.run(rows, link, "SELECT %s::int", [number]) == [(number,)]
    assert descriptors() == connected
    pool.close()
    await until(lambda: descriptors() == connected - 2)


@on_asyncio
async def test_what_comes_while_nobody_waits(pg: Links) -> None:
    """A killed connection is noticed, and its reader does not spin."""
    link = pg.link()
    (pid,) = (await _core.run(rows, link, "SELECT pg_backend_pid()"))[0]
    connected = descriptors()
    pg.server.psql(f"SELECT pg_terminate_backend({pid}, 10000)")
    await until(lambda: descriptors() == connected - 1)
    (other,) = (await _core.run(rows, link, "SELECT pg_backend_pid()"))[0]
    assert other != pid
    assert descriptors() == connected


@on_a_loop
async def test_the_variables_of_its_first_task_are_not_kept(pg: Links) -> None:
    class Value:
        pass

    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")

    async def first() -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        await _core.run(rows, pg.link(), "SELECT 1")
        return weakref.ref(value)

    value = await asyncio.create_task(first())
    await asyncio.sleep(0)  # the handle that woke this task has the other one
    gc.collect()
    assert value() is None


@on_asyncio
async def test_closed_by_another_thread(pg: Links) -> None:
    pool = pg.pool(max_size=3)
    link = pg.link(pool)
    await _core.run(rows, link, "SELECT 1")
    connected = descriptors()
    pool_closed = threading.Thread(target=pool.close)
    pool_closed.start()
    await until(lambda: not pool_closed.is_alive())
    await until(lambda: descriptors() == connected - 2)
    # The number of the descriptor is free for others: nothing of them may be watched.
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        assert await _core.run(_core._watch, a.fileno(), READ, 5.0, True) == READ


@pytest.mark.modes("asyncio")
@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_loops_come_and_go(pg: Links, loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    pool = pg.pool(max_size=3)

    async def main() -> None:
        link = pg.link(pool)
        await asyncio.gather(*[_core.run(rows, link, "SELECT 1") for _ in range(3)])
        link.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(main())

    run()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        run()
    gc.collect()
    assert descriptors() <= before


@on_a_loop
async def test_a_forked_child_takes_nothing_from_its_parent(pg: Links) -> None:
    pool = pg.pool()
    link = pg.link(pool)
    assert await _core.run(rows, link, "SELECT 1") == [(1,)]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio._set_running_loop(None)
            assert rows(link, "SELECT 1") == [(1,)]
            pool.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert await _core.run(rows, link, "SELECT 2") == [(2,)]
