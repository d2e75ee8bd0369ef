"""The record shop under a server, in a process of its own: fixture ``served``."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fix_engine import Engine
from fix_project import SECONDS, Server, running

TESTS = Path(__file__).parent
ASGI = "recordshop.asgi:application"
WSGI = "recordshop.wsgi:application"
#: What comes after ``python -m``.
SERVERS = {
    "uvicorn": ("uvicorn", "--port", "{port}", "--log-level", "warning", ASGI),
    "uvicorn-bare": (
        *("uvicorn", "--port", "{port}", "--lifespan", "off", "--loop", "asyncio", "--http", "h11"),
        *("--log-level", "warning", ASGI),
    ),
    "granian": (
        *("granian", "--port", "{port}", "--interface", "asgi", "--no-ws"),
        *("--log-level", "warning", ASGI),
    ),
    "daphne": ("daphne", "-p", "{port}", "-v", "0", ASGI),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", "--log-level", "WARNING", ASGI),
    "gunicorn": ("gunicorn", "-b", "127.0.0.1:{port}", "--log-level", "warning", WSGI),
    "gunicorn-threads": (
        *("gunicorn", "-b", "127.0.0.1:{port}", "--log-level", "warning", "--threads", "4"),
        WSGI,
    ),
}


class Visitor:
    """Somebody with cookies, over real sockets."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, path: str, **fields: Any) -> str:
        query = f"?{urlencode(fields)}" if fields else ""
        return self._open(urllib.request.Request(self.url + path + query))

    def json(self, path: str, **fields: Any) -> Any:
        return json.loads(self.get(path, **fields))

    def post(self, path: str, **fields: Any) -> str:
        return self._open(urllib.request.Request(self.url + path, urlencode(fields).encode()))

    def log_in(self, name: str) -> None:
        assert self.post("/login", username=name, password="pw") == "welcome"

    def _open(self, request: urllib.request.Request) -> str:
        for cookie in self.jar:
            if cookie.name == "csrftoken":
                request.add_header("X-CSRFToken", str(cookie.value))
        with self.opener.open(request, timeout=SECONDS) as answer:
            return answer.read().decode()


@pytest.fixture
def served(engine: Engine, tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """Starts one of SERVERS on the shop, its shelves filled; gives it once it answers."""
    from recordshop.stock import fill_shelves

    fill_shelves()
    env = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "recordshop.settings",
        "RECORDSHOP_DATABASES": json.dumps(engine.databases),
    }

    @contextlib.contextmanager
    def start(name: str, **more: str) -> Iterator[Server]:
        with running(SERVERS[name], env | more, tmp_path) as server:
            server.until(lambda: server.get("/threads"))
            yield server

    return start
