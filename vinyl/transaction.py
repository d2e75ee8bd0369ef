"""Transactions around awaits: Django's own Atomic, entered and left in a fiber."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, overload

from asgiref.sync import iscoroutinefunction
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from vinyl._core import DRIVEN, LOOP, Operation, await_, where
from vinyl.aliases import require
from vinyl.exceptions import NotFetched

logger = logging.getLogger("django.db.backends.base")


class Atomic(ContextDecorator):
    """``async with`` in coroutines, ``with`` in fibers and plain sync code, or a decorator."""

    def __init__(self, using: str | None, savepoint: bool, durable: bool) -> None:
        self._using = using
        self._options = (savepoint, durable)

    @functools.cached_property
    def _awaited(self) -> transaction.Atomic:
        return transaction.Atomic(require(self._using or DEFAULT_DB_ALIAS), *self._options)

    @functools.cached_property
    def _plain(self) -> transaction.Atomic:
        return transaction.Atomic(self._using, *self._options)

    def _enter(self) -> None:
        atomic = self._awaited
        session: Any = connections[atomic.using]
        if not atomic.savepoint and _in_test_only(session):
            # What would be the transaction itself is a savepoint in a test's.
            atomic.savepoint = True
        atomic.__enter__()
        session.enter_block()

    async def __aenter__(self) -> None:
        await Operation(self._enter)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        begun = False
        cancelled = None

        def leave() -> None:
            nonlocal begun
            session: Any = connections[self._awaited.using]
            session.settle_block()
            begun = True
            try:
                self._awaited.__exit__(exc_type, exc, tb)
            finally:
                session.leave_block()

        # A cancel that comes while operations of the block still have their turn must not
        # leave the block open: then it is rolled back, and the cancel goes on afterwards.
        while not begun:
            try:
                await Operation(leave)
            except asyncio.CancelledError as error:
                if begun:
                    raise
                cancelled = error
                exc_type, exc, tb = type(error), error, error.__traceback__
        if cancelled is not None:
            raise cancelled

    def __enter__(self) -> None:
        if where() in (LOOP, DRIVEN):
            raise NotFetched(
                "In a coroutine vinyl.atomic() is entered with `async with`; run synchronous "
                "code that enters it with `with` in vinyl.run()."
            )
        self._plain.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._plain.__exit__(exc_type, exc, tb)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:  # type: ignore[override]
        if inspect.isasyncgenfunction(func):
            raise TypeError("vinyl.atomic cannot decorate an async generator function.")
        if not iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            async with type(self)(self._using, *self._options):
                return await func(*args, **kwargs)

        return inside

    def _recreate_cm(self) -> Atomic:
        return type(self)(self._using, *self._options)


def _in_test_only(session: Any) -> bool:
    """Whether the only open blocks are those that a TestCase wraps its tests in."""
    blocks = session.atomic_blocks
    return bool(blocks) and blocks[-1]._from_testcase


@overload
def atomic(using: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def atomic(using: str | None = None, savepoint: bool = True, durable: bool = False) -> Atomic: ...
def atomic(using: Any = None, savepoint: bool = True, durable: bool = False) -> Any:
    """Django's ``transaction.atomic`` for coroutines.

    Raises ImproperlyConfigured when the alias has neither a vinyl engine nor a twin.
    """
    if callable(using):
        return Atomic(None, savepoint, durable)(using)
    return Atomic(using, savepoint, durable)


def on_commit(func: Callable[[], Any], using: str | None = None, robust: bool = False) -> None:
    """Calls the function, or awaits the coroutine function, when the open block commits.

    Outside a block a plain function is called at once, as in Django; a coroutine
    function raises TransactionManagementError, since nothing would await it.
    """
    alias = using or DEFAULT_DB_ALIAS
    in_coroutine = where() in (LOOP, DRIVEN)
    if in_coroutine:
        alias = require(alias)
    if callable(func):
        session = connections[alias]
        open_block = session.in_atomic_block
        if _is_coroutine_function(func) and (not open_block or _in_test_only(session)):
            raise transaction.TransactionManagementError(
                "vinyl.on_commit() takes a coroutine function only inside an atomic block; "
                "outside, await it directly."
            )
        if open_block:
            func = _awaited_if_needed(func)
        elif in_coroutine:
            # Django would ask the session for its autocommit, which only an operation may.
            _call_now(func, robust)
            return
    transaction.on_commit(func, alias, robust)


def _call_now(func: Callable[[], Any], robust: bool) -> None:
    try:
        func()
    except Exception as error:
        if not robust:
            raise
        logger.error("Error calling %r in vinyl.on_commit() (%s).", func, error, exc_info=True)


def _is_coroutine_function(func: Any) -> bool:
    while isinstance(func, functools.partial):
        func = func.func
    return iscoroutinefunction(func) or iscoroutinefunction(type(func).__call__)


def _awaited_if_needed(func: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        result = func()
        return await_(result) if inspect.isawaitable(result) else result

    # Django's log of a robust function's failure names it.
    call.__qualname__ = getattr(func, "__qualname__", repr(func))
    return call
