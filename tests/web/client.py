"""An ASGI server for one request, in the same process, whose every step a test decides."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Visit:
    """One request: ``await Visit(app, "/path")()`` answers it, and gives itself.

    ``disconnect`` is an event that makes the client go away; ``parts`` are the body's chunks.
    """

    def __init__(
        self,
        app: Any,
        path: str,
        *,
        method: str = "GET",
        parts: tuple[bytes, ...] = (b"",),
        headers: dict[str, str] | None = None,
        disconnect: asyncio.Event | None = None,
    ) -> None:
        path, _, query = path.partition("?")
        self.app = app
        self.status = 0
        self.headers: dict[str, str] = {}
        self.cookies: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.finished = False
        self.on_chunk: Any = None
        self._parts = list(parts)
        self._disconnect = disconnect or asyncio.Event()
        sent = {"host": "testserver", **(headers or {})}
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("testserver", 80),
        }

    async def __call__(self) -> Visit:
        await self.app(self.scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        if self._parts:
            body = self._parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._parts)}
        await self._disconnect.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name.lower() == b"set-cookie":
                    key, _, rest = value.decode().partition("=")
                    self.cookies[key] = rest.partition(";")[0]
                self.headers[name.decode().lower()] = value.decode()
            return
        self.chunks.append(message.get("body", b""))
        self.finished = not message.get("more_body", False)
        if self.on_chunk is not None:
            await self.on_chunk()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)
