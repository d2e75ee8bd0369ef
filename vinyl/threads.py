"""`vinyl.in_thread`: for a synchronous view that blocks on something other than the database."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, iscoroutinefunction, sync_to_async
from django.db import close_old_connections, connections, reset_queries

from vinyl._core import FIBER, await_, where

__all__ = ["call_in_thread", "close_in_thread_of_request", "in_thread", "is_in_thread"]

logger = logging.getLogger("django.request")

P = ParamSpec("P")
R = TypeVar("R")


def in_thread(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorator: under vinyl's ASGI handler the synchronous `fn` runs in a thread.

    For what would hold the event loop: a blocking HTTP client, a slow computation. In the thread
    everything is plain synchronous Django, on connections of the thread; ATOMIC_REQUESTS is
    honoured there. Context variables are carried over, both ways. Where no event loop waits
    (WSGI, the shell), `fn` is called as it is.

    Raises TypeError for a coroutine function.
    """
    if iscoroutinefunction(fn):
        raise TypeError("vinyl.in_thread is for synchronous functions; a coroutine can await.")

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return call_in_thread(fn, *args, **kwargs)

    call._vinyl_in_thread = True  # type: ignore[attr-defined]
    return call


def is_in_thread(view: Callable[..., Any]) -> bool:
    """Whether `view`, or a view that it decorates, is marked with `in_thread`."""
    return getattr(view, "_vinyl_in_thread", False)


def call_in_thread(fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Calls `fn` in a thread when this is a fiber on a loop, here otherwise."""
    if where() != FIBER or not await_(_has_loop()):
        return fn(*args, **kwargs)
    return await_(_to_its_end(fn, args, kwargs))


async def _to_its_end(fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    """A thread cannot be cancelled: who is cancelled while it runs waits for it, so that the
    request that it works on stays open."""
    context = copy_context()
    in_worker = sync_to_async(_call, thread_sensitive=False)
    call = asyncio.get_running_loop().create_task(in_worker(fn, args, kwargs), context=context)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        if not call.cancelled() and call.exception() is not None:
            logger.error("%r failed after its task was cancelled.", fn, exc_info=call.exception())
        raise
    finally:
        for variable, value in context.items():
            if variable.get(None) is not value:
                variable.set(value)


async def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _call(fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    # The thread serves one request after the other, and no signal tells it where one ends.
    reset_queries()
    close_old_connections()
    try:
        return fn(*args, **kwargs)
    finally:
        close_old_connections()


async def close_in_thread_of_request() -> None:
    """Closes the connections of the thread that sync_to_async() made for this request, if any.

    The thread ends with the request, and Django's signals, which close connections elsewhere, are
    sent in the request's fiber: nobody else would before the garbage collector does.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.get(context) if context else None
    if executor is not None:
        await asyncio.get_running_loop().run_in_executor(executor, _close_connections)


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a test's, which outlives the request
            connection.close()
