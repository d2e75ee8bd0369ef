"""How a reactor is joined to its event loop, and learns of the loop's end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Any

__all__ = ["attach"]


class _OfThread:
    """The loops whose fibers live on one thread's stack; it goes when the thread ends.

    A fiber cannot go on in another thread. A loop that was never closed would keep it, and its
    open transaction, for good.
    """

    def __init__(self) -> None:
        self.loops: list[tuple[weakref.ref[Any], weakref.ref[asyncio.AbstractEventLoop]]] = []

    def __del__(self) -> None:
        if sys.is_finalizing():
            return  # all connections end with the process
        for reactor, loop in [(reactor(), loop()) for reactor, loop in self.loops]:
            # Another thread may run it by now.
            if reactor is not None and loop is not None and not loop.is_running():
                _end(reactor, loop)


_threads = threading.local()


async def _until_shutdown(reactor: Any) -> AsyncGenerator[None, None]:
    # Suspended here for the life of the loop: loop.shutdown_asyncgens(), which
    # asyncio.run() calls while the loop still runs, ends it.
    try:
        yield
    finally:
        reactor.drain()


def _end(reactor: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Nothing goes on there any more: fibers end, what they had begun is rolled back, and so is
    what tasks had begun between two awaits."""
    with contextlib.suppress(Exception):
        loop.remove_reader(reactor.fileno())
    reactor.close()
    for task in asyncio.all_tasks(loop):
        scope = getattr(task, "_vinyl_scope", None)
        for session in scope.sessions.values() if scope is not None else ():
            if session.connection is not None:
                with contextlib.suppress(Exception):
                    session.connection.close()


def attach(reactor: Any, loop: asyncio.AbstractEventLoop) -> object:
    """Watch the reactor's descriptor on ``loop`` and note the loop's end.

    Returns what has to live as long as the reactor. Called by the core, in the
    loop's thread, while the loop runs.
    """
    # In an empty context: the loop would else keep the variables of its first task for good.
    contextvars.Context().run(loop.add_reader, reactor.fileno(), reactor.process)
    close = loop.close

    def close_with_reactor() -> None:
        if not loop.is_closed() and not loop.is_running():
            _end(reactor, loop)
        close()

    with contextlib.suppress(AttributeError):  # a loop type without a __dict__
        loop.close = close_with_reactor  # type: ignore[method-assign]
    _end_with_thread(reactor, loop)

    if sys.get_asyncgen_hooks().firstiter is None:
        return None
    guard = _until_shutdown(reactor)
    with contextlib.suppress(StopIteration):
        guard.asend(None).send(None)
    return guard


def _end_with_thread(reactor: Any, loop: asyncio.AbstractEventLoop) -> None:
    if not hasattr(_threads, "own"):
        _threads.own = _OfThread()
    own = _threads.own
    # Many loops may come and go in one thread.
    own.loops = [pair for pair in own.loops if pair[0]() is not None and pair[1]() is not None]
    own.loops.append((weakref.ref(reactor), weakref.ref(loop)))
