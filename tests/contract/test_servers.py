"""Contract, section 5: the handlers under real servers, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import json
import re
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from django.contrib.auth.models import User
from fix_engine import Engine
from fix_http import DJANGO_MIDDLEWARE
from fix_project import Project
from library.models import Publisher

import vinyl

App = Callable[..., Any]
SECONDS = 30.0


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, int]]:
    """The app under uvicorn, on this loop and a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        with contextlib.ExitStack() as stack:
            # Signals are the test runner's.
            server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
            stack.callback(setattr, server, "should_exit", True)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                assert not task.done(), task.exception()
                await asyncio.sleep(0)
            yield listener.getsockname()
        await task


async def fetch(place: tuple[str, int], path: str, cookie: str = "") -> tuple[int, dict, bytes]:
    """A request on a connection of its own: status, headers, body."""
    reader, writer = await asyncio.open_connection(*place)
    lines = [f"GET {path} HTTP/1.1", "Host: testserver", "Connection: close"]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *fields = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in fields)
    return int(status.split()[1]), headers, body


@pytest.mark.modes("asyncio", "uvloop")
async def test_uvicorn_starts_no_thread(engine: Engine, asgi: App) -> None:
    app = asgi(*DJANGO_MIDDLEWARE)
    await Publisher.vinyl.create(name="a")
    await vinyl.run(User.objects.create_user, "ann", password="secret")
    here = threading.get_ident()
    async with served(app) as place:
        _, headers, _ = await fetch(place, "/login")
        cookie = re.search("sessionid=[^;]*", headers["set-cookie"])[0]
        before = set(threading.enumerate())
        for _round in range(5):
            answers = await asyncio.gather(
                *(fetch(place, f"/{kind}") for kind in ("async", "sync", "sync-class") * 4),
                *(fetch(place, "/who", cookie) for _ in range(4)),
            )
            assert {status for status, _, _ in answers} == {200}
            for _, _, body in answers[:12]:
                assert json.loads(body)["threads"] == [here]
                assert json.loads(body)["count"] == 1
        assert (await fetch(place, "/stream"))[2].endswith(b"0\r\n\r\n")
        assert set(threading.enumerate()) <= before


@pytest.mark.modes("asyncio", "uvloop")
async def test_a_connection_cut_under_uvicorn(engine: Engine, asgi: App, control: Any) -> None:
    app = asgi(*DJANGO_MIDDLEWARE)
    async with served(app) as place:
        for path in ("/wait", "/sync-wait") * 3:
            control.reached.clear()
            seen = len(control.seen)
            _, writer = await asyncio.open_connection(*place)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: testserver\r\n\r\n".encode())
            await control.reached.wait()
            writer.transport.abort()
            async with asyncio.timeout(SECONDS):
                while len(control.seen) == seen:
                    await asyncio.sleep(0)
        assert control.seen == ["cancelled"] * 6
        assert json.loads((await fetch(place, "/async"))[2])["count"] == 0


@pytest.mark.modes("asyncio", "uvloop")
async def test_the_end_of_the_server_closes_the_pools(engine: Engine, asgi: App) -> None:
    app = asgi()
    async with served(app) as place:
        assert (await fetch(place, "/async"))[0] == 200
        assert vinyl.pool_stats(engine.alias)["pool_size"] == 1
    assert vinyl.pool_stats(engine.alias)["pool_size"] == 0


def _logged_in(url: str) -> urllib.request.OpenerDirector:
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    page = opener.open(f"{url}/admin/login/?next=/admin/").read().decode()
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
    form = {"csrfmiddlewaretoken": token, "username": "admin", "password": "pw", "next": "/admin/"}
    data = urllib.parse.urlencode(form).encode()
    assert b"Site administration" in opener.open(f"{url}/admin/login/", data).read()
    return opener


def test_a_thousand_requests_start_no_thread(project: Project) -> None:
    """Asynchronous and synchronous views, sessions, auth and the admin, in a process of its own."""
    command = ("uvicorn", "--port", "{port}", "--log-level", "warning", "site_asgi:application")
    with project.running(*command) as server:
        server.until(server.get)
        opener = _logged_in(server.url)
        paths = ["/", "/sync", "/who", "/", "/sync", "/who", "/", "/sync", "/who", "/admin/"]
        for number in range(1000):
            page = opener.open(server.url + paths[number % 10]).read()
        assert b"Site administration" in page
        assert json.loads(opener.open(f"{server.url}/who").read()) == {
            "user": "admin",
            "visits": 301,
        }
        for path in ("/", "/sync"):
            assert json.loads(server.get(path))["threads"] == ["MainThread"]
    assert server.log.read_text() == ""
