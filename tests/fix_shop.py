"""The record shop (``tests/recordshop``) in this process: fixtures ``shop`` and ``stocked``."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import override_settings
from django.urls import clear_url_caches
from fix_engine import Engine
from recordshop import settings as shop_settings
from web.client import Visit

TOOLBAR = "debug_toolbar.middleware.DebugToolbarMiddleware"


@contextmanager
def no_new_thread() -> Iterator[None]:
    """Fails when a thread is started meanwhile, also one that has ended since."""
    start, started = threading.Thread.start, []

    def noted(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
        started.append(self)
        start(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", noted)
        yield
    assert started == []


class Customer:
    """A client that keeps its cookies; each of its requests is a task, as with servers."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **fields: Any) -> Visit:
        return await self._ask("GET", f"{path}?{urlencode(fields)}" if fields else path)

    async def post(self, path: str, **fields: Any) -> Visit:
        body = urlencode(fields, doseq=True).encode()
        return await self._ask("POST", path, body, "application/x-www-form-urlencoded")

    async def send(self, method: str, path: str, data: Any = None) -> Visit:
        return await self._ask(method, path, json.dumps(data).encode(), "application/json")

    async def log_in(self, name: str) -> None:
        answer = await self.post("/login", username=name, password="pw")
        assert answer.text == "welcome"
        await self.get("/admin/login/")  # brings the token for what is posted next

    async def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Visit:
        headers = {"content-length": str(len(body))}
        if kind:
            headers["content-type"] = kind
        if self.cookies:
            headers["cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        if token := self.cookies.get("csrftoken"):
            headers["x-csrftoken"] = token
        visit = Visit(self.app, path, method=method, parts=(body,), headers=headers)
        await asyncio.create_task(visit())
        self.cookies |= visit.cookies
        return visit


@pytest.fixture
def stocked(database: Engine) -> Engine:
    """The shop's records, and ``admin`` and ``ann`` (``pw``), on each engine, both ways."""
    from recordshop.stock import fill_shelves

    fill_shelves()
    return database


@pytest.fixture
def shop() -> Iterator[Callable[..., Customer]]:
    """Makes a customer of the shop under vinyl's ASGI handler; arguments change its settings."""
    from vinyl.asgi import get_asgi_application

    names = ("MIDDLEWARE", "ROOT_URLCONF", "LOGIN_URL")
    overriding: list[Any] = []

    def make(**more: Any) -> Customer:
        chosen = {name: getattr(shop_settings, name) for name in names} | more
        overriding.append(override_settings(**chosen))
        overriding[-1].enable()
        return Customer(get_asgi_application())

    yield make
    for each in reversed(overriding):
        each.disable()
    clear_url_caches()
