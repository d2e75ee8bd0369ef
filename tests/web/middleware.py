"""Middleware of each kind that Django knows; each notes its way in ``request.path_taken``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import (
    async_only_middleware,
    sync_and_async_middleware,
    sync_only_middleware,
)
from django.utils.deprecation import MiddlewareMixin
from library.models import Publisher

from vinyl import _core

tag: ContextVar[str] = ContextVar("tag", default="")
view_tag: ContextVar[str] = ContextVar("view_tag", default="")


def note(request: HttpRequest, name: str) -> None:
    if not hasattr(request, "path_taken"):
        request.path_taken = []
        request.threads = set()
    request.path_taken.append(f"{name}:{'fiber' if _core.where() == _core.FIBER else 'coroutine'}")
    request.threads.add(threading.get_ident())


@sync_only_middleware
def sync_only(get_response: Callable[..., Any]) -> Callable[..., Any]:
    def middleware(request: HttpRequest) -> HttpResponse:
        note(request, "sync_only")
        tag.set("from middleware")
        Publisher.objects.count()  # plain synchronous Django
        response = get_response(request)
        response["X-View-Tag"] = view_tag.get()
        note(request, "sync_only")
        response["X-Path"] = " ".join(request.path_taken)
        return response

    return middleware


@async_only_middleware
def async_only(get_response: Callable[..., Any]) -> Callable[..., Any]:
    async def middleware(request: HttpRequest) -> HttpResponse:
        note(request, "async_only")
        await Publisher.vinyl.count()
        response = await get_response(request)
        note(request, "async_only")
        return response

    return middleware


@sync_and_async_middleware
def hybrid(get_response: Callable[..., Any]) -> Callable[..., Any]:
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            note(request, "hybrid")
            return await get_response(request)

    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            note(request, "hybrid")
            return get_response(request)

    return middleware


class Mixin(MiddlewareMixin):
    """The old style, with every hook."""

    def process_request(self, request: HttpRequest) -> None:
        note(request, "mixin")

    def process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        note(request, "process_view")

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        response.context_data["hooked"] = "hooked"
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, LookupError):
            return HttpResponse(f"caught {exception}", status=418)
        return None


class AsyncHooks:
    """Hooks that are coroutine functions."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        return await self.get_response(request)

    async def process_view(self, request: HttpRequest, *args: Any) -> None:
        note(request, "async_process_view")

    async def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        response.context_data["hooked"] += " twice"
        return response

    async def process_exception(self, request: HttpRequest, exception: Exception) -> Any:
        if isinstance(exception, ValueError):
            return HttpResponse("caught in a coroutine", status=418)
        return None
