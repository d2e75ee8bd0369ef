"""The ASGI handler: a request is one task and one fiber, and no thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack
from io import BytesIO
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers import asgi
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from vinyl import native
from vinyl._core import Operation, await_
from vinyl.backends.base import close_pools
from vinyl.handlers.modes import ModesMixin
from vinyl.sessions import keep_sessions
from vinyl.threads import close_in_thread_of_request

__all__ = ["ASGIHandler", "StaticFilesHandler"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A request that is answered sooner is not worth a task that listens for its client to go away.
LISTEN_AFTER_SECONDS = 0.01

_END = object()


class ASGIHandler(ModesMixin, asgi.ASGIHandler):
    """Django's ASGI handler, its synchronous code run in a fiber of the request's task."""

    prefer_async = True

    def __init__(self) -> None:
        native.install()
        super().__init__()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Django's, and the lifespan protocol: the pools are closed when the server ends."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        # The body outlives the request's threads, which Django's __call__ waits for: a view that
        # was sent to one reads on after its request was cancelled.
        with ExitStack() as files:
            native.in_request.set(files)
            await super().__call__(scope, receive, send)

    async def handle(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request; returns early when the client goes away."""
        try:
            body_file = await self.read_body(receive)
        except RequestAborted:
            return
        native.in_request.get().callback(body_file.close)
        try:
            with _Client(receive):
                response = await Operation(self.respond, (scope, body_file, send))
                if response is None:
                    return
                try:
                    await self.send_response(response, send)
                finally:
                    await Operation(self.finish, (response,))
        finally:
            await close_in_thread_of_request()
            keep_sessions()

    def respond(
        self, scope: MutableMapping[str, Any], body_file: IO[bytes], send: Send
    ) -> HttpResponseBase | None:
        """In the fiber: the response, if it has yet to be streamed; others are sent from here."""
        response = None
        is_left = False
        try:
            set_script_prefix(asgi.get_script_prefix(scope))
            signals.request_started.send(sender=self.__class__, scope=scope)
            request, response = self.create_request(scope, body_file)
            if request is not None:
                response = self.get_response(request)
                response._handler_class = self.__class__
                if isinstance(response, FileResponse):
                    response.block_size = self.chunk_size
            if response.streaming:
                is_left = True  # a stream may be long: it is not to hold a fiber
                return response
            await_(self.send_response(response, send))
            return None
        finally:
            if not is_left:
                self.finish(response)

    def finish(self, response: HttpResponseBase | None) -> None:
        """In a fiber: ends the request, however it went."""
        if response is None:
            signals.request_finished.send(sender=self.__class__)
        else:
            response.close()

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await Operation(self.get_response, (request,))

    async def read_body(self, receive: Receive) -> IO[bytes]:
        """The request's body as a file, in memory up to FILE_UPLOAD_MAX_MEMORY_SIZE.

        Larger ones are written to a temporary file right here: the system buffers it, and a
        thread costs more than the copy.
        """
        message = await receive()
        if not message.get("more_body", False) and message["type"] != "http.disconnect":
            chunk = message.get("body") or b""
            if len(chunk) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
                return BytesIO(chunk)
        body_file = SpooledTemporaryFile(max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE, mode="w+b")  # noqa: SIM115
        try:
            more = True
            while more:
                if message["type"] == "http.disconnect":
                    raise RequestAborted
                if chunk := message.get("body"):
                    body_file.write(chunk)
                if more := message.get("more_body", False):
                    message = await receive()
            body_file.seek(0)
        except BaseException:
            body_file.close()
            raise
        return body_file

    async def send_response(self, response: Any, send: Send) -> None:
        if not response.streaming:
            await super().send_response(response, send)
            return
        if not getattr(response, "is_async", False):
            response.streaming_content = _in_fibers(response.streaming_content)
        parts: Any = getattr(response, "_iterator", None)
        try:
            await super().send_response(response, send)
        finally:
            # Django closes what wraps it; the iterator itself may hold a cursor.
            if hasattr(parts, "aclose"):
                await parts.aclose()


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    close_pools()
    await send({"type": "lifespan.shutdown.complete"})


async def _in_fibers(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await Operation(next, (parts, _END))) is not _END:
        yield part


class StaticFilesHandler(ASGIStaticFilesHandler, ASGIHandler):
    """Serves STATIC_URL from the apps' directories, for development; the rest is the app's."""

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await Operation(self.get_response, (request,))


class _Client:
    """While entered, the running task is cancelled when the client of its request goes away.

    That cancellation ends here.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[Message] | None = None
        self._is_gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine of a running loop
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = task.get_loop().call_later(LISTEN_AFTER_SECONDS, self._listen)

    def _listen(self) -> None:
        self._listener = self._task.get_loop().create_task(self._hear())
        self._listener.add_done_callback(self._heard)

    async def _hear(self) -> Message:
        # A task wants a coroutine; what receive() gives need only be awaitable, as granian's is.
        return await self._receive()

    def _heard(self, listener: asyncio.Task[Message]) -> None:
        if listener.cancelled():
            return
        self._is_gone = (
            listener.exception() is not None or listener.result()["type"] == "http.disconnect"
        )
        if self._is_gone:
            self._task.cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.remove_done_callback(self._heard)
            self._listener.cancel()
        if not self._is_gone:
            return False
        is_ours = self._task.uncancel() <= self._cancelling
        return is_ours and exc_type is not None and issubclass(exc_type, asyncio.CancelledError)
