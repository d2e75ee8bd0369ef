"""asgiref's two bridges, taught about fibers.

Django and its ecosystem cross between synchronous and asynchronous code through
``asgiref.sync``: ``async_to_sync`` starts or looks for a loop in another thread, ``sync_to_async``
goes to a thread. Both modules are imported by name all over Django, so that the classes behind
them are the one place to adapt:

* Inside a fiber ``async_to_sync(f)()`` waits for ``f`` on the outer loop, as part of the same task.
  asgiref's own way would block that loop, and hang on what only the loop can give.
* ``sync_to_async(f)()`` runs ``f`` in a fiber of the same task where a thread would be wrong:
  there is no loop (blocking mode), or ``VINYL = {"NATIVE_ASYNC_API": True}``, or a request is being
  served by vinyl's ASGI handler and ``f`` is Django's own: a thread would see another database
  connection, and miss what the task has not committed yet.

Everywhere else both behave as asgiref made them. A function that the user sends to a thread with
``thread_sensitive=False`` or an executor always goes there.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync
from django.dispatch import Signal, dispatcher

from vinyl import _core, conf
from vinyl._core import DRIVEN, FIBER, LOOP, Operation, where
from vinyl.bridge import in_turn

__all__ = ["in_request", "install"]

#: Set while vinyl's ASGI handler serves a request, in its tasks too: what is closed at its end.
in_request: ContextVar[Any] = ContextVar("vinyl_in_request", default=None)

# Where synchronous code lives that needs the task's connection, or that is called for each request.
# Not mail, files and remote caches: who sends those to a thread has a reason.
_DJANGO = (
    "django.contrib.",
    "django.core.cache.backends.db",
    "django.core.cache.backends.dummy",
    "django.core.cache.backends.locmem",
    "django.core.handlers.",
    "django.core.paginator",
    "django.db.",
    "django.dispatch.",
    "django.http.",
    "django.middleware.",
    "django.template.",
    "django.utils.deprecation",
    "django.views.",
)
# Other people's packages of which the same holds: what they send to a thread themselves is the
# reading of users and permissions, a synchronous view, and the toolbar's look at the connections.
_PACKAGES = ("allauth.", "debug_toolbar.", "guardian.", "ninja.")
_KNOWN = (*_DJANGO, *_PACKAGES)


def install() -> None:
    """Adapts asgiref and Django's signals, once per process."""
    if getattr(AsyncToSync.__call__, "_vinyl", False):
        return
    _adapt(AsyncToSync, "__call__", _async_to_sync)
    _adapt(SyncToAsync, "__call__", _sync_to_async)
    _adapt(Signal, "asend", functools.partial(_asend, "send"))
    _adapt(Signal, "asend_robust", functools.partial(_asend, "send_robust"))
    if hasattr(dispatcher, "_run_parallel"):  # Django 6.1
        _adapt(dispatcher, "_run_parallel", _run_parallel)
    else:
        dispatcher.asyncio = _Asyncio()


def _adapt(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    adapted: Any = functools.wraps(original)(make(original))
    adapted._vinyl = True
    setattr(owner, name, adapted)


def _async_to_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if where() != FIBER or self.force_new_loop:
            return original(self, *args, **kwargs)
        return _core.await_(self.awaitable(*args, **kwargs))

    return call


def _sync_to_async(
    original: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _in_fiber(self, args):
            return await original(self, *args, **kwargs)
        handled = sys.exception()
        if handled is None:
            return await Operation(self.func, args, kwargs)
        return await Operation(_while_handling, (handled, self.func, args, kwargs))

    return call


def _in_fiber(bridge: Any, args: tuple[Any, ...]) -> bool:
    place = where()
    if place == DRIVEN:
        return True
    if place != LOOP or getattr(bridge, "context", None) is not None or bridge._executor:
        return False
    native = conf.get("NATIVE_ASYNC_API")
    if not native and in_request.get() is None:
        return False
    if not (native and bridge._thread_sensitive) and not _is_known(bridge.func, args):
        return False
    # A synchronous caller waits above, in async_to_sync(): what it has in its thread's connection
    # belongs to it, unless a test has made all of them one.
    return not getattr(AsyncToSync.executors, "current", None) or _core.is_pinned()


def _is_known(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether Django or one of _PACKAGES made `func`, or a class that its own derives from."""
    owner = getattr(func, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return _is_known_class(owner if isinstance(owner, type) else type(owner))
    if not hasattr(func, "__qualname__"):  # an instance that can be called
        return _is_known_class(type(func))
    module = getattr(func, "__module__", None) or ""
    if module == "builtins" and args:  # list(queryset), next(rows)
        return _is_known_class(type(args[0]))
    return module.startswith(_KNOWN)


@functools.lru_cache(maxsize=1024)
def _is_known_class(cls: type) -> bool:
    return any(str(base.__module__).startswith(_KNOWN) for base in cls.__mro__)


def _while_handling(
    handled: BaseException,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Calls `func` with the exception that its caller is handling: a fiber starts with none."""
    traceback = handled.__traceback__
    try:
        raise handled
    except BaseException:
        handled.__traceback__ = traceback  # without this function
        return func(*args, **kwargs)


def _asend(
    name: str, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    # Django before 6.1 gathers the receivers, in tasks that are in none of this one's transactions.
    async def asend(self: Signal, sender: Any, **named: Any) -> Any:
        place = where()
        if place != DRIVEN and not (
            place == LOOP
            and (conf.get("NATIVE_ASYNC_API") or in_request.get() is not None)
            and not getattr(AsyncToSync.executors, "current", None)
        ):
            return await original(self, sender, **named)
        return await Operation(getattr(self, name), (sender,), named)

    return asend


def _run_parallel(original: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Receivers side by side would be tasks of their own, which are in no block of this one's."""

    async def run_parallel(*coros: Coroutine[Any, Any, Any], **kwargs: Any) -> list[Any]:
        scope = _core.current_scope()
        if where() != DRIVEN and not (scope is not None and scope.in_block()):
            return await original(*coros, **kwargs)
        return await in_turn(coros, kwargs.get("return_exceptions", False))

    return run_parallel


class _Asyncio:
    """The module asyncio as Django's dispatcher before 6.1 sees it, which gathers the receivers."""

    gather = staticmethod(_run_parallel(asyncio.gather))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)
