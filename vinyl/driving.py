"""Waiting for an awaitable from synchronous code: in a fiber, or where there is no event loop."""

from __future__ import annotations

from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar

from vinyl import _core
from vinyl.exceptions import NeedsEventLoop

__all__ = ["drive", "wait"]

R = TypeVar("R")

# How asyncio says that it was called where no loop runs.
_NO_LOOP = ("no running event loop", "no current event loop")


def drive(coroutine: Awaitable[R]) -> R:
    """Runs a coroutine to its end with no event loop; its database waits block.

    Raises NeedsEventLoop where it awaits what only a loop can give, RuntimeError when an event
    loop runs in this thread.
    """
    try:
        return _core.drive(coroutine)
    except NeedsEventLoop:
        raise
    except (RuntimeError, AttributeError) as error:
        if not _misses_loop(error):
            raise
        raise NeedsEventLoop(
            f"{_asked_by(error.__traceback__)} was called where no event loop runs (blocking "
            "mode): await database operations only (vinyl.gather() instead of asyncio.gather()), "
            "or serve this code under ASGI."
        ) from error


def wait(awaitable: Awaitable[R]) -> R:
    """`await` for synchronous code: suspends the fiber it is called in, or drives the awaitable."""
    if _core.where() == _core.FIBER:
        return _core.await_(awaitable)
    return drive(awaitable)


def _misses_loop(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):
        return any(text in str(error) for text in _NO_LOOP)
    # asyncio's locks, events and queues do not look whether there is one.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return (
        traceback is not None
        and _package(traceback.tb_frame.f_globals) == "asyncio"
        and str(error).startswith("'NoneType' object has no attribute")
    )


def _asked_by(traceback: TracebackType | None) -> str:
    """What asked for the loop: the function of asyncio that was called last, from outside of it."""
    found = ""
    outside = True
    last = "This"
    while traceback is not None:
        frame = traceback.tb_frame
        last = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}()"
        inside = _package(frame.f_globals) == "asyncio"
        if inside and outside:
            name = frame.f_code.co_qualname.removesuffix(".__aenter__").removesuffix(".__init__")
            found = f"asyncio.{name}()"
        outside = not inside
        traceback = traceback.tb_next
    return found or last


def _package(namespace: dict[str, Any]) -> str:
    return str(namespace.get("__name__", "")).partition(".")[0]
