"""What fibers do with their loop at every depth of their stack.  tests/unit/test_fiber_stack.py
runs it in a process of its own, since what fails is the process.

``python fiber_stack_worker.py LOOP CASE``; prints how many times it was done.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import django
import uvloop
from django.conf import settings

import vinyl
from vinyl import _core

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
READ = 1
CONNECTIONS = 20
# At about 600 bytes each they go past all that libuv has on the stack.
DEPTHS = range(0, 60, 2)


def deep(depth: int, fn: Callable[[], Any]) -> Any:
    """fn() below so many C frames of Python's."""
    if depth == 0:
        return fn()
    return functools.reduce(lambda _, __: deep(depth - 1, fn), [0], None)


@contextmanager
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(CONNECTIONS)]
        for one in (one for pair in made for one in pair):
            one.setblocking(False)
            stack.enter_context(one)
        yield made


async def woken_by_the_poller(
    work: Callable[[asyncio.AbstractEventLoop, socket.socket, int], None],
) -> int:
    """work(loop, its socket, depth) in fibers that the loop's poll resumed, at each depth."""
    loop = asyncio.get_running_loop()
    done = 0

    def fiber(waking: socket.socket, its_own: socket.socket) -> None:
        nonlocal done
        for depth in DEPTHS:
            _core._watch(waking.fileno(), READ, 20.0)
            waking.recv(1)
            deep(depth, functools.partial(work, loop, its_own, depth))
            done += 1

    with pairs() as waking, pairs() as own:
        for _, other in own:
            other.send(b"never read: always ready")
        running = asyncio.gather(
            *(_core.run(fiber, a, mine) for (a, _), (mine, _) in zip(waking, own, strict=True))
        )
        for number in range(len(DEPTHS)):
            for _, waker in waking:
                waker.send(b"x")
            while done < CONNECTIONS * (number + 1) and not running.done():
                await asyncio.sleep(0)
        await running
    return done


def watch_and_leave(loop: asyncio.AbstractEventLoop, own: socket.socket) -> None:
    for _ in range(2):
        loop.add_reader(own.fileno(), lambda: None)
        loop.remove_reader(own.fileno())


def awaited(loop: asyncio.AbstractEventLoop, own: socket.socket, depth: int) -> None:
    async def coroutine() -> int:
        watch_and_leave(loop, own)
        return depth

    assert vinyl.await_(coroutine()) == depth


def called(loop: asyncio.AbstractEventLoop, own: socket.socket, depth: int) -> None:
    watch_and_leave(loop, own)


def received(loop: asyncio.AbstractEventLoop, own: socket.socket, depth: int) -> None:
    """Over sockets of the loop, after the fiber was suspended in the middle."""

    async def coroutine() -> bytes:
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b:
            loop.call_soon(b.send, str(depth).encode())
            return await loop.sock_recv(a, 10)

    assert vinyl.await_(coroutine()) == str(depth).encode()


def streamed(loop: asyncio.AbstractEventLoop, own: socket.socket, depth: int) -> None:
    async def coroutine() -> bytes:
        a, b = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=a)
        _, other = await asyncio.open_connection(sock=b)
        other.write(str(depth).encode())
        other.close()
        answer = await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), other.wait_closed())
        return answer

    assert vinyl.await_(coroutine()) == str(depth).encode()


def on_one_loop(factory: Callable[[], asyncio.AbstractEventLoop], work: Any) -> int:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(woken_by_the_poller(work))


def on_loops_of_many_depths(factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """Fibers of one loop are used again by another, which runs deeper or less deep."""

    async def make_fibers() -> None:
        await asyncio.gather(*(_core.run(_core._turn) for _ in range(CONNECTIONS)))

    done = 0
    for depth in (30, 0, 60, 10, 300, 20, 5):
        first = factory()  # stays open: its fibers are kept
        deep(depth, functools.partial(first.run_until_complete, make_fibers()))
        done += on_one_loop(factory, awaited)
        done += deep(40, functools.partial(on_one_loop, factory, called))
        first.close()
    return done


def nested(factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """Fibers in fibers begin no deeper each time."""

    def operation(level: int) -> int:
        _core._turn()
        return level if level == 0 else vinyl.await_(coroutine(level - 1))

    async def coroutine(level: int) -> int:
        return 1 + await _core.run(operation, level)

    async def run() -> int:
        return sum([await coroutine(number % 20) for number in range(1000)])

    with asyncio.Runner(loop_factory=factory) as runner:
        made = _core.stats()["fibers_created"]
        total = runner.run(run())
    assert total == sum(number % 20 + 1 for number in range(1000))
    assert _core.stats()["fibers_created"] - made < 100
    return total


def in_small_threads(factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
    done = []
    for kilobytes in (256, 512, 1024):
        threading.stack_size(kilobytes * 1024)
        thread = threading.Thread(target=lambda: done.append(on_one_loop(factory, awaited)))
        thread.start()
        thread.join()
    assert len(done) == 3
    return sum(done)


CASES: dict[str, Callable[[Any], int]] = {
    "awaited": lambda factory: on_one_loop(factory, awaited),
    "called": lambda factory: on_one_loop(factory, called),
    "received": lambda factory: on_one_loop(factory, received),
    "streamed": lambda factory: on_one_loop(factory, streamed),
    "loops": on_loops_of_many_depths,
    "nested": nested,
    "threads": in_small_threads,
}

if __name__ == "__main__":
    settings.configure(DATABASES={})
    django.setup()
    print(CASES[sys.argv[2]](LOOPS[sys.argv[1]]))
