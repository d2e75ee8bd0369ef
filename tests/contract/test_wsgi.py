"""Contract, section 5: vinyl.wsgi. Asynchronous views with no event loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import close_old_connections
from django.test import RequestFactory
from fix_engine import Engine
from fix_http import DJANGO_MIDDLEWARE
from library.models import Publisher
from web import views

import vinyl
from vinyl import _core
from vinyl.exceptions import NeedsEventLoop

App = Callable[..., Any]


class Answer:
    """What a WSGI server does with one request, in this thread."""

    def __init__(self, app: Any, path: str, **headers: str) -> None:
        environ = RequestFactory().get(path, **headers).environ
        self.cookies: dict[str, str] = {}
        parts = app(environ, self._start)
        try:
            self.chunks = list(parts)
        finally:
            parts.close()

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = int(status.split()[0])
        self.headers = {name.lower(): value for name, value in headers}
        for name, value in headers:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                self.cookies[key.strip()] = rest.partition(";")[0]

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def names() -> list[str]:
    found = sorted(each.name for each in vinyl.drive(_all()))
    close_old_connections()
    return found


async def _all() -> list[Publisher]:
    return await Publisher.vinyl.all()


def add(*wanted: str) -> None:
    Publisher.objects.bulk_create([Publisher(name=each) for each in wanted])
    close_old_connections()


@pytest.fixture(autouse=True)
def no_new_thread_no_loop() -> Any:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.parametrize("kind", ["async", "sync", "async-class", "sync-class"])
def test_views_of_each_kind(kind: str, database: Engine, wsgi: App) -> None:
    app = wsgi(*DJANGO_MIDDLEWARE, "web.middleware.sync_only")
    add("a")
    answer = Answer(app, f"/{kind}")
    assert answer.status == 200, answer.text
    assert answer.json["count"] == 1
    assert answer.json["threads"] == [threading.get_ident()]
    assert answer.json["where"] == (_core.DRIVEN if kind.startswith("async") else _core.PLAIN)
    assert answer.json["tag"] == "from middleware"


def test_middleware_of_each_kind(database: Engine, wsgi: App) -> None:
    app = wsgi(
        "web.middleware.sync_only",
        "web.middleware.hybrid",
        "web.middleware.async_only",
        "web.middleware.Mixin",
        "web.middleware.AsyncHooks",
    )
    for kind in ("async", "sync"):
        answer = Answer(app, f"/{kind}")
        taken = [each.partition(":")[0] for each in answer.headers["x-path"].split()]
        assert taken == [
            "sync_only",
            "hybrid",
            "async_only",
            "mixin",
            "process_view",
            "async_process_view",
            "view",
            "async_only",
            "sync_only",
        ]


def test_templates_and_exceptions(engine: Engine, wsgi: App) -> None:
    app = wsgi("web.middleware.AsyncHooks", "web.middleware.Mixin")
    add("a")
    for path in ("/template", "/async-template"):
        assert Answer(app, path).text == "hooked twice:a "
    assert Answer(app, "/async-render").text == "rendered 1"
    for kind in ("fails", "sync-fails"):
        assert Answer(app, f"/{kind}/lookup").text == "caught x"
        assert Answer(app, f"/{kind}/value").text == "caught in a coroutine"
        assert Answer(app, f"/{kind}/404").status == 404
        assert Answer(app, f"/{kind}/500").text == "our 500"
    assert Answer(app, "/forgotten").status == 500


@pytest.mark.parametrize("path", ["/write", "/sync-write"])
def test_atomic_requests(path: str, database: Engine, wsgi: App) -> None:
    from django.db import connections

    for conf in connections.settings.values():
        conf["ATOMIC_REQUESTS"] = True
    app = wsgi()
    assert Answer(app, f"{path}?fail").status == 500
    assert names() == []
    assert Answer(app, path).text == "written"
    assert "one" in names()


def test_atomic_requests_spares_who_wants_none(database: Engine, wsgi: App) -> None:
    from django.db import connections

    for conf in connections.settings.values():
        conf["ATOMIC_REQUESTS"] = True
    app = wsgi()
    assert Answer(app, "/write-outside").status == 500
    assert names() == ["kept"]


@pytest.mark.parametrize("path", ["/stream", "/async-stream"])
def test_streams(path: str, database: Engine, wsgi: App, control: Any) -> None:
    app = wsgi()
    add("p0", "p1", "p2")
    answer = Answer(app, path)
    assert answer.chunks == [b"p0,", b"p1,", b"p2,"]
    place = _core.DRIVEN if path == "/async-stream" else _core.PLAIN
    assert control.seen == [place] * 3 + ["closed"]


@pytest.mark.parametrize("path", ["/stream", "/async-stream"])
def test_a_stream_left_early(path: str, database: Engine, wsgi: App, control: Any) -> None:
    app = wsgi()
    add("p0", "p1", "p2")
    response = app(RequestFactory().get(path).environ, lambda *args: None)
    assert next(iter(response)) == b"p0,"
    response.close()
    assert control.seen[-1] == "closed"


def test_files(engine: Engine, wsgi: App) -> None:
    with open(views.__file__) as file:
        assert Answer(wsgi(), "/file").text == file.read()


def test_gather(engine: Engine, wsgi: App) -> None:
    assert Answer(wsgi(), "/both").json == [0, 0]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/sleep", r"asyncio\.sleep\(\)"), ("/wait", r"web\.views\.wait\(\)")],
)
def test_what_needs_a_loop_is_named(path: str, name: str, engine: Engine, wsgi: App) -> None:
    app = wsgi(DEBUG_PROPAGATE_EXCEPTIONS=True)
    match = f"{name}.* no event loop runs.*ASGI"
    with pytest.raises(NeedsEventLoop, match=match) as caught:
        Answer(app, path)
    assert str(caught.value.__cause__) == "no running event loop"
    close_old_connections()
    assert names() == []


# What gather() was given is lost, and asyncio has made a loop for it that nobody runs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_gather_is_named(engine: Engine, wsgi: App) -> None:
    app = wsgi(DEBUG_PROPAGATE_EXCEPTIONS=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with pytest.raises(NeedsEventLoop, match=r"asyncio\.gather\(\).*vinyl\.gather\(\)"):
            Answer(app, "/gather")
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_auth_and_sessions_in_async_views(database: Engine, wsgi: App) -> None:
    from django.contrib.auth.models import User

    app = wsgi(*DJANGO_MIDDLEWARE)
    User.objects.create_user("ann", password="secret")
    close_old_connections()
    answer = Answer(app, "/login")
    assert answer.text == "in"
    for visits in (1, 2):
        answer = Answer(app, "/who", HTTP_COOKIE=f"sessionid={answer.cookies['sessionid']}")
        assert answer.json["user"] == "ann"
        assert answer.json["visits"] == visits


def test_djangos_a_methods(database: Engine, wsgi: App) -> None:
    answer = Answer(wsgi(), "/api")
    assert answer.json == {"names": ["Anna"], "many": ["Anna"], "pages": 1}


def test_in_thread_is_called_as_it_is(engine: Engine, wsgi: App, control: Any) -> None:
    assert Answer(wsgi(), "/thread-write").text == "written"
    assert control.seen == [threading.get_ident()]
