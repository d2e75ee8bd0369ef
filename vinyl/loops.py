"""How a reactor is joined to its event loop, and learns of the loop's end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any

__all__ = ["attach"]


async def _until_shutdown(reactor: Any) -> AsyncGenerator[None, None]:
    # Suspended here for the life of the loop: loop.shutdown_asyncgens(), which
    # asyncio.run() calls while the loop still runs, ends it.
    try:
        yield
    finally:
        reactor.drain()


def attach(reactor: Any, loop: asyncio.AbstractEventLoop) -> object:
    """Watch the reactor's descriptor on ``loop`` and note the loop's end.

    Returns what has to live as long as the reactor. Called by the core, in the
    loop's thread, while the loop runs.
    """
    loop.add_reader(reactor.fileno(), reactor.process)
    close = loop.close

    def close_with_reactor() -> None:
        if not loop.is_closed() and not loop.is_running():
            with contextlib.suppress(Exception):
                loop.remove_reader(reactor.fileno())
            reactor.close()
        close()

    with contextlib.suppress(AttributeError):  # a loop type without a __dict__
        loop.close = close_with_reactor  # type: ignore[method-assign]

    if sys.get_asyncgen_hooks().firstiter is None:
        return None
    guard = _until_shutdown(reactor)
    with contextlib.suppress(StopIteration):
        guard.asend(None).send(None)
    return guard
