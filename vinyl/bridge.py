"""Between synchronous and asynchronous code: run, as_async, await_, drive, gather."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from vinyl._core import DRIVEN, Operation, await_, run, where
from vinyl.aliases import require
from vinyl.driving import drive

__all__ = ["as_async", "await_", "drive", "gather", "pool_stats", "run"]

# psycopg_pool's keys, as vinyl._core.Pool.stats() has them.
# fmt: off
_STATS = (
    "pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting", "usage_ms",
    "requests_num", "requests_queued", "requests_wait_ms", "requests_errors", "returns_bad",
    "connections_num", "connections_ms", "connections_errors", "connections_lost",
)
# fmt: on
P = ParamSpec("P")
R = TypeVar("R")


def as_async(fn: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Decorator: calling the synchronous `fn` gives an awaitable that runs it in a fiber.

    Raises TypeError for a coroutine function.
    """
    if iscoroutinefunction(fn):
        raise TypeError(
            f"vinyl.as_async() is for synchronous functions; {fn!r} makes a coroutine: "
            "await it itself."
        )

    @functools.wraps(fn)
    def start(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        return Operation(fn, args, kwargs)

    return markcoroutinefunction(start)


def operation(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    """What a queryset or an unfetched relation stands for, made here and now: an
    operation belongs to the task that creates it."""
    make = getattr(type(awaitable), "__vinyl_operation__", None)
    return awaitable if make is None else make(awaitable)


def gather(*awaitables: Awaitable[Any], return_exceptions: bool = False) -> Awaitable[list[Any]]:
    """asyncio.gather() where there is a loop; one after the other where there is none."""
    return _gather([operation(each) for each in awaitables], return_exceptions)


async def _gather(awaitables: list[Awaitable[Any]], return_exceptions: bool) -> list[Any]:
    if where() != DRIVEN:
        return await asyncio.gather(*awaitables, return_exceptions=return_exceptions)
    return await in_turn(awaitables, return_exceptions)


async def in_turn(awaitables: Sequence[Awaitable[Any]], return_exceptions: bool) -> list[Any]:
    """What asyncio.gather() gives, one after the other, in the running task."""
    results: list[Any] = []
    for number, each in enumerate(awaitables):
        try:
            results.append(await each)
        except Exception as error:
            if not return_exceptions:
                _close(awaitables[number + 1 :])
                raise
            results.append(error)
        except BaseException:
            _close(awaitables[number + 1 :])
            raise
    return results


def _close(awaitables: Sequence[Awaitable[Any]]) -> None:
    """What will not be awaited any more must not warn that it never was."""
    for each in awaitables:
        close = getattr(each, "close", None)
        if close is not None:
            close()


def pool_stats(using: str | None = None) -> dict[str, int]:
    """The numbers of the alias' pool, under the keys of psycopg_pool's ``get_stats()``.

    All but its limits are 0 before the first connection. Raises ImproperlyConfigured when
    the alias has neither a vinyl engine nor a twin.
    """
    from django.db import DEFAULT_DB_ALIAS, connections

    from vinyl.backends.pools import pool_of, pool_options

    alias = require(using or DEFAULT_DB_ALIAS)
    pool = pool_of(alias)
    if pool is not None:
        return pool.stats()
    chosen = pool_options(alias, connections.settings[alias]["OPTIONS"].get("pool"))
    limits = {"pool_min": chosen.get("min_size", 1), "pool_max": chosen.get("max_size", 10)}
    return dict.fromkeys(_STATS, 0) | limits
