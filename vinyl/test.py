"""Django's test classes for async tests.

Django's own ``TestCase`` and ``TransactionTestCase``, and pytest-django's marks,
take async tests on a vinyl engine as they are: all tasks of a ``TestCase``'s test
are in its transaction and rolled back, those of a ``TransactionTestCase``'s have
connections of their own. The classes here add what has to be awaited:
``asyncSetUp``, ``assertNumQueries`` and ``captureOnCommitCallbacks`` with
``async with``, and ``databases`` that include twins.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django import test
from django.db import DEFAULT_DB_ALIAS, connections
from django.test.testcases import _AssertNumQueriesContext  # type: ignore[attr-defined]

from vinyl import _core
from vinyl.testmode import enable, twins_of

__all__ = ["TestCase", "TransactionTestCase"]

logger = logging.getLogger("django.test")

enable()


class _AssertNumQueries(_AssertNumQueriesContext):  # type: ignore[misc]
    """``with`` or ``async with``."""

    async def __aenter__(self) -> _AssertNumQueries:
        self.__enter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.__exit__(*exc)


class _CaptureOnCommit:
    """``with`` or ``async with``: what is registered with on_commit inside, called at the end."""

    def __init__(self, using: str, execute: bool, sync: Any) -> None:
        self._using = using
        self._execute = execute
        self._sync = sync
        self._callbacks: list[Any] = []

    def __enter__(self) -> list[Any]:
        return self._sync.__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *exc: Any) -> Any:
        return self._sync.__exit__(*exc)

    async def __aenter__(self) -> list[Any]:
        self._start = len(connections[self._using].run_on_commit)
        return self._callbacks

    async def __aexit__(self, *exc: Any) -> None:
        # As Django's does when there was an error, too; callbacks may register more.
        registered = connections[self._using].run_on_commit
        start = self._start
        while start < len(registered):
            _, callback, robust = registered[start]
            start += 1
            self._callbacks.append(callback)
            if self._execute:
                await _core.run(_call, callback, robust)
            registered = connections[self._using].run_on_commit


def _call(callback: Callable[[], Any], robust: bool) -> None:
    try:
        callback()
    except Exception as error:
        if not robust:
            raise
        name = getattr(callback, "__qualname__", callback)
        logger.exception("Error calling %s in on_commit() (%s).", name, error)


class AsyncMixin:
    """What `TestCase` and `TransactionTestCase` add to Django's."""

    databases: Any
    _stack: AsyncExitStack

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The runner makes the test databases of what the class itself names.
        declared = cls.__dict__.get("databases")
        if isinstance(declared, set | frozenset | list | tuple):
            cls.databases = set(twins_of(declared))

    async def asyncSetUp(self) -> None:
        """Awaited before the test, sync ones too, and after ``setUp``; in the test's event loop."""

    async def asyncTearDown(self) -> None:
        """Awaited after the test, before ``tearDown``, when ``asyncSetUp`` has succeeded."""

    def addAsyncCleanup(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        """Await ``func(*args, **kwargs)`` after ``asyncTearDown``; the last one added is first."""
        self._stack.push_async_callback(func, *args, **kwargs)

    async def enterAsyncContext(self, context: Any) -> Any:  # noqa: N802
        """Enter the async context manager until the test's end; what it gives."""
        return await self._stack.enter_async_context(context)

    async def _run_test(self, method: Callable[[], Any]) -> Any:
        async with AsyncExitStack() as self._stack:
            await self.asyncSetUp()
            self._stack.push_async_callback(self.asyncTearDown)
            if iscoroutinefunction(method):
                return await method()
            # Plain code, in the thread that waits for this loop.
            return await sync_to_async(method)()

    def _setup_and_call(self, result: Any, debug: bool = False) -> None:
        name: str = self._testMethodName  # type: ignore[attr-defined]
        method = getattr(self, name)
        if iscoroutinefunction(method) or self._has_async_parts():

            @functools.wraps(method)
            async def test_in_loop() -> Any:
                return await self._run_test(method)

            setattr(self, name, test_in_loop)
        super()._setup_and_call(result, debug)  # type: ignore[misc]

    def _has_async_parts(self) -> bool:
        cls = type(self)
        return (
            cls.asyncSetUp is not AsyncMixin.asyncSetUp
            or cls.asyncTearDown is not AsyncMixin.asyncTearDown
        )

    def assertNumQueries(  # noqa: N802
        self,
        num: int,
        func: Callable[..., Any] | None = None,
        *args: Any,
        using: str = DEFAULT_DB_ALIAS,
        **kwargs: Any,
    ) -> Any:
        """Django's, as ``with`` or ``async with``; awaited when ``func`` is a coroutine function.

        In a coroutine the statements of the running task are counted; in plain
        code all of the test's.
        """
        context = _AssertNumQueries(self, num, connections[using])
        if func is None:
            return context
        if iscoroutinefunction(func):
            return self._count_queries(context, func, *args, **kwargs)
        with context:
            func(*args, **kwargs)
        return None

    async def _count_queries(self, context: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        async with context:
            await func(*args, **kwargs)


class TransactionTestCase(AsyncMixin, test.TransactionTestCase):
    """Each test commits; what it did is flushed at its end. Its tasks have a connection each."""


class TestCase(AsyncMixin, test.TestCase):
    """Each test is in a transaction that is rolled back, and so is each of its tasks."""

    @classmethod
    def captureOnCommitCallbacks(  # type: ignore[override]  # noqa: N802
        cls, *, using: str = DEFAULT_DB_ALIAS, execute: bool = False
    ) -> _CaptureOnCommit:
        """Django's, as ``with`` or ``async with``, where callbacks run in a fiber and may await."""
        sync = super().captureOnCommitCallbacks(using=using, execute=execute)
        return _CaptureOnCommit(using, execute, sync)
