"""What both handlers share: how synchronous and asynchronous parts of a request meet."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.handlers.base import BaseHandler
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from vinyl._core import Operation
from vinyl.driving import wait
from vinyl.threads import call_in_thread, is_in_thread

__all__ = ["ModesMixin", "wants_async"]


class ModesMixin(BaseHandler):
    """Before a Django handler: one synchronous chain, whose asynchronous parts are waited for.

    The chain is what Django builds for WSGI. Under ASGI all of it runs in one fiber, where waiting
    suspends the request's task; under WSGI the asynchronous parts are driven without a loop.
    """

    #: Whether middleware that can be either is made asynchronous, as Django does under ASGI.
    prefer_async: bool = False

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    def adapt_method_mode(
        self,
        is_async: bool,
        method: Callable[..., Any],
        method_is_async: bool | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """Django's extension point: `method` for a caller that awaits it (`is_async`) or not."""
        if not is_async and self.prefer_async and name:
            is_async = wants_async(name.removeprefix("middleware "))
        if iscoroutinefunction(method):
            return method if is_async else _waited_for(method)
        return _awaitable(method) if is_async else method

    def make_view_atomic(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The view as a synchronous one, in the transactions of ATOMIC_REQUESTS."""
        if iscoroutinefunction(view):
            waiting = functools.partial(_call_and_wait, view)
            if aliases := getattr(view, "_non_atomic_requests", None):
                waiting._non_atomic_requests = aliases  # type: ignore[attr-defined]
            return self.make_async_view_atomic(waiting)
        if is_in_thread(view):
            return functools.partial(call_in_thread, super().make_view_atomic(view))
        return super().make_view_atomic(view)

    def make_async_view_atomic(self, waiting: Callable[..., Any]) -> Callable[..., Any]:
        """`waiting` calls a view that is asynchronous, and waits for it."""
        return super().make_view_atomic(waiting)

    def _get_response(self, request: Any) -> Any:
        response = super()._get_response(request)
        if asyncio.iscoroutine(response):  # of a response whose render() is asynchronous
            try:
                response = wait(response)
            except Exception as error:
                response = self.process_exception_by_middleware(error, request)
                if response is None:
                    raise
        return response


def _call_and_wait(view: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    return wait(view(*args, **kwargs))


def _waited_for(method: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    # Not its __dict__: the mark of a coroutine function is in there.
    @functools.wraps(method, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return wait(method(*args, **kwargs))

    if hasattr(method, "__self__"):  # Django names the middleware in its error messages
        call.__self__ = method.__self__  # type: ignore[attr-defined]
    return call


def _awaitable(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method, updated=())
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await Operation(method, args, kwargs)

    if hasattr(method, "__self__"):
        call.__self__ = method.__self__  # type: ignore[attr-defined]
    return call


@functools.cache
def wants_async(path: str) -> bool:
    """Whether the middleware is asynchronous where it can choose.

    Django's MiddlewareMixin can, but does the same in both modes, and synchronous middleware
    costs nothing in a fiber; one with an asynchronous form of its own may await in it what would
    hold the loop otherwise.
    """
    middleware = import_string(path)
    if not getattr(middleware, "async_capable", False):
        return False
    if not getattr(middleware, "sync_capable", True):
        return True
    if not isinstance(middleware, type) or not issubclass(middleware, MiddlewareMixin):
        return True
    return any(
        not str(cls.__module__).startswith("django.") and name in cls.__dict__
        for cls in middleware.__mro__
        for name in ("__call__", "__acall__")
        if cls is not object
    )
