"""What ``manage.py runserver`` serves ASGI with: uvicorn, behind the face of Django's server."""

from __future__ import annotations

import importlib.util
import logging
import socket
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

from vinyl.handlers.asgi import Message, Receive, Send

__all__ = ["DevelopmentServer", "is_available"]

logger = logging.getLogger("django.server")

# After Ctrl-C, requests that are being answered get this long.
SHUTDOWN_SECONDS = 1


def is_available() -> bool:
    """Whether uvicorn is installed."""
    return importlib.util.find_spec("uvicorn") is not None


class DevelopmentServer:
    """In the place of ``django.core.servers.basehttp.WSGIServer``."""

    def __init__(self, address: tuple[str, int], handler: Any, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._listener = socket.create_server(address, family=family)
        self.server_port: int = self._listener.getsockname()[1]

    def set_app(self, app: Any) -> None:
        self._app = app

    def serve_forever(self) -> None:
        import uvicorn

        config = uvicorn.Config(
            AccessLog(self._app),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        with self._listener:
            uvicorn.Server(config).run(sockets=[self._listener])


class AccessLog:
    """Logs each answer as Django's own development server does."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        size = 0

        async def count(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, count)
        finally:
            _log(scope, status, size)


def _log(scope: MutableMapping[str, Any], status: int, size: int) -> None:
    level = logging.ERROR if status >= 500 or not status else logging.INFO
    if 400 <= status < 500:
        level = logging.WARNING
    target = scope["path"]
    if query := scope.get("query_string"):
        target += "?" + query.decode("latin-1")
    logger.log(
        level,
        '"%s %s HTTP/%s" %s %s',
        scope["method"],
        target.encode("unicode_escape").decode("ascii"),
        scope["http_version"],
        status or "-",
        size,
        extra={
            "request": None,
            "status_code": status or 500,
            "server_time": datetime.now().strftime("%d/%b/%Y %H:%M:%S"),
        },
    )
