"""The WSGI handler: asynchronous views and middleware, with no event loop."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.core.handlers import wsgi
from django.http import HttpRequest

from vinyl import native
from vinyl._core import Operation
from vinyl.driving import drive
from vinyl.handlers.modes import ModesMixin

__all__ = ["WSGIHandler"]

_END = object()


class WSGIHandler(ModesMixin, wsgi.WSGIHandler):
    """Django's WSGI handler in blocking mode: what is asynchronous is driven to its end."""

    def __init__(self) -> None:
        native.install()
        super().__init__()

    def make_async_view_atomic(self, waiting: Callable[..., Any]) -> Callable[..., Any]:
        # In an operation, so that the transaction is on the session that serves the view.
        return functools.partial(_drive_call, super().make_async_view_atomic(waiting))

    def get_response(self, request: HttpRequest) -> Any:
        response = super().get_response(request)
        if response.streaming and getattr(response, "is_async", False):
            response.streaming_content = _driven(response.streaming_content, response._iterator)
        return response


def _drive_call(view: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return drive(Operation(view, args, kwargs))


async def _next(parts: AsyncIterator[bytes]) -> Any:
    return await anext(parts, _END)


async def _close(*iterators: Any) -> None:
    for each in iterators:
        if hasattr(each, "aclose"):
            await each.aclose()


def _driven(parts: Any, source: Any) -> Iterator[bytes]:
    """The parts of an asynchronous iterator; `source` is the one that the view has made."""
    try:
        while (part := drive(_next(parts))) is not _END:
            yield part
    finally:
        drive(_close(parts, source))
