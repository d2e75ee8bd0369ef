"""Contract, section 5: vinyl.asgi. Every request is one task, its synchronous code in fibers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core import signals
from django.test import override_settings
from fix_engine import Engine
from fix_http import DJANGO_MIDDLEWARE
from library.models import Publisher
from web import views
from web.client import Visit

import vinyl
from vinyl import _core

pytestmark = pytest.mark.modes("asyncio", "uvloop")
App = Callable[..., Any]
KINDS = ("async", "sync", "async-class", "sync-class")


@contextmanager
def no_new_thread() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # The core's own helper thread is not one of Python's.
    assert set(threading.enumerate()) <= before


@contextmanager
def received(signal: Any) -> Iterator[list[Any]]:
    seen: list[Any] = []

    def receive(sender: Any, **kwargs: Any) -> None:
        seen.append(sender)

    signal.connect(receive)
    try:
        yield seen
    finally:
        signal.disconnect(receive)


async def visit(app: Any, path: str, **kwargs: Any) -> Visit:
    """Each request in a task of its own, as servers do."""
    return await asyncio.create_task(Visit(app, path, **kwargs)())


async def names(engine: Engine) -> list[str]:
    return sorted([each.name for each in await Publisher.vinyl.using(engine.alias)])


@pytest.mark.parametrize("kind", KINDS)
async def test_views_of_each_kind(kind: str, database: Engine, asgi: App) -> None:
    app = asgi(*DJANGO_MIDDLEWARE, "web.middleware.sync_only")
    await Publisher.vinyl.create(name="a")
    with no_new_thread():
        answer = await visit(app, f"/{kind}")
    assert answer.status == 200, answer.text
    assert answer.json["count"] == 1
    assert answer.json["threads"] == [threading.get_ident()]
    assert answer.json["where"] == (_core.LOOP if kind.startswith("async") else _core.FIBER)


async def test_middleware_of_each_kind(engine: Engine, asgi: App) -> None:
    app = asgi(
        "web.middleware.sync_only",
        "web.middleware.hybrid",
        "web.middleware.async_only",
        "web.middleware.Mixin",
        "web.middleware.AsyncHooks",
    )
    with no_new_thread():
        answer = await visit(app, "/async")
    assert answer.headers["x-path"].split() == [
        "sync_only:fiber",
        # It may await in its asynchronous form what would block in the other.
        "hybrid:coroutine",
        "async_only:coroutine",
        "mixin:fiber",
        "process_view:fiber",
        "async_process_view:coroutine",
        "view:coroutine",
        "async_only:coroutine",
        "sync_only:fiber",
    ]
    assert len(answer.json["threads"]) == 1


async def test_a_run_of_sync_middleware_is_one_fiber(engine: Engine, asgi: App) -> None:
    app = asgi(*DJANGO_MIDDLEWARE, "web.middleware.Mixin")
    await visit(app, "/sync")
    before = _core.stats()["operations"]
    await visit(app, "/sync")
    assert _core.stats()["operations"] == before + 1


async def test_context_variables_pass_both_ways(engine: Engine, asgi: App) -> None:
    app = asgi("web.middleware.sync_only")
    for kind in ("async", "sync"):
        answer = await visit(app, f"/{kind}")
        assert answer.json["tag"] == "from middleware"
        assert answer.headers["x-view-tag"] == "from view"


async def test_template_responses(engine: Engine, asgi: App) -> None:
    app = asgi("web.middleware.AsyncHooks", "web.middleware.Mixin")
    await Publisher.vinyl.create(name="a")
    with no_new_thread():
        for path in ("/template", "/async-template"):
            answer = await visit(app, path)
            assert answer.text == "hooked twice:a "
        assert (await visit(app, "/async-render")).text == "rendered 1"
        await Publisher.vinyl.create(name="fail")
        assert (await visit(app, "/async-render")).status == 418


async def test_exceptions(engine: Engine, asgi: App) -> None:
    app = asgi("web.middleware.AsyncHooks", "web.middleware.Mixin")
    with no_new_thread(), received(signals.got_request_exception) as seen:
        for kind in ("fails", "sync-fails"):
            assert (await visit(app, f"/{kind}/lookup")).text == "caught x"
            assert (await visit(app, f"/{kind}/value")).text == "caught in a coroutine"
            assert (await visit(app, f"/{kind}/404")).status == 404
            assert (await visit(app, f"/{kind}/403")).status == 403
        assert seen == []
        for kind in ("fails", "sync-fails"):
            assert (await visit(app, f"/{kind}/500")).text == "our 500"
        assert len(seen) == 2
        assert (await visit(app, "/forgotten")).status == 500


@pytest.mark.parametrize("middleware", ["web.middleware.sync_only", "web.middleware.async_only"])
async def test_debug_pages_know_the_exception(middleware: str, engine: Engine, asgi: App) -> None:
    app = asgi(middleware, DEBUG=True)
    with no_new_thread():
        answer = await visit(app, "/fails/500")
    assert answer.status == 500
    assert "ArithmeticError" in answer.text
    assert "in the view" in answer.text


async def test_async_middleware_that_fails(engine: Engine, asgi: App, monkeypatch: Any) -> None:
    def broken(get_response: Any) -> Any:
        async def middleware(request: Any) -> Any:
            raise ArithmeticError("in the middleware")

        return middleware

    broken.sync_capable, broken.async_capable = False, True  # type: ignore[attr-defined]
    monkeypatch.setattr("web.middleware.broken", broken, raising=False)
    app = asgi("web.middleware.broken", DEBUG=True)
    with no_new_thread():
        answer = await visit(app, "/async")
    assert answer.status == 500
    assert "in the middleware" in answer.text


@pytest.mark.parametrize("path", ["/write", "/sync-write"])
async def test_atomic_requests(path: str, database: Engine, asgi: App, site: App) -> None:
    from django.db import connections

    for conf in connections.settings.values():
        conf["ATOMIC_REQUESTS"] = True
    app = asgi()
    assert (await visit(app, f"{path}?fail")).status == 500
    assert await names(database) == []
    assert (await visit(app, path)).text == "written"
    assert "one" in await names(database)


async def test_atomic_requests_spares_who_wants_none(database: Engine, asgi: App) -> None:
    from django.db import connections

    for conf in connections.settings.values():
        conf["ATOMIC_REQUESTS"] = True
    app = asgi()
    assert (await visit(app, "/write-outside")).status == 500
    assert await names(database) == ["kept"]


async def test_in_thread(engine: Engine, asgi: App, control: Any) -> None:
    app = asgi("web.middleware.sync_only")
    await Publisher.vinyl.create(name="a")
    for path in ("/in-thread", "/decorated-in-thread"):
        control.future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(visit(app, path))
        while not task.done() and not control.future.done():
            await asyncio.sleep(0)
            control.future.set_result("from the loop")
        answer = await task
        assert answer.status == 200, answer.text
        assert answer.json["thread"] != threading.get_ident()
        assert answer.json["where"] == _core.PLAIN
        assert answer.json["tag"] == "from middleware"
        assert answer.json["count"] == 1
        assert answer.json["answer"] == "from the loop"
        assert answer.headers["x-view-tag"] == "from thread"


async def test_in_thread_with_atomic_requests(engine: Engine, asgi: App, control: Any) -> None:
    from django.db import connections

    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    app = asgi()
    assert (await visit(app, "/thread-write?fail")).status == 500
    assert await names(engine) == []
    assert (await visit(app, "/thread-write")).text == "written"
    assert await names(engine) == ["one"]
    assert threading.get_ident() not in control.seen


async def test_a_cancelled_request_waits_for_its_thread(
    engine: Engine, asgi: App, control: Any
) -> None:
    app = asgi()
    loop = asyncio.get_running_loop()
    control.goes_on = threading.Event()
    control.call = lambda: loop.call_soon_threadsafe(control.reached.set)
    body = b"the body" * 10_000
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=1000):
        request = Visit(app, "/thread-body", method="POST", parts=(body,))
        request.scope["headers"].append((b"content-length", b"%d" % len(body)))
        task = asyncio.create_task(request())
        await control.reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        control.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert control.seen == [len(body)]
    assert request.status == 0


@pytest.mark.parametrize(("query", "status"), [("", 200), ("?fail", 500)])
async def test_connections_of_a_requests_thread_are_closed_with_it(
    engine: Engine, asgi: App, control: Any, query: str, status: int
) -> None:
    app = asgi()
    assert (await visit(app, f"/sent-to-thread{query}")).status == status
    (ident, wrapper), opened = control.seen
    assert ident != threading.get_ident()
    assert opened is not None
    assert wrapper.connection is None


async def test_in_thread_elsewhere(engine: Engine) -> None:
    here = threading.get_ident()
    ident = vinyl.in_thread(threading.get_ident)
    assert ident() == here
    assert await vinyl.run(ident) != here

    async def coroutine() -> None:
        pass

    with pytest.raises(TypeError, match="in_thread"):
        vinyl.in_thread(coroutine)


async def test_async_to_sync_waits_on_the_outer_loop(
    engine: Engine, asgi: App, control: Any
) -> None:
    app = asgi()
    control.future = asyncio.get_running_loop().create_future()
    with no_new_thread():
        task = asyncio.create_task(visit(app, "/outer-loop"))
        await control.reached.wait()
        control.future.set_result("from another task")
        assert (await task).text == "from another task"


@pytest.mark.parametrize("path", ["/stream", "/async-stream"])
async def test_streams(path: str, database: Engine, asgi: App, control: Any) -> None:
    app = asgi()
    await Publisher.vinyl.bulk_create([Publisher(name=f"p{n}") for n in range(5)])
    with no_new_thread(), received(signals.request_finished) as finished:
        answer = await visit(app, path)
    assert answer.text == "p0,p1,p2,p3,p4,"
    assert len(answer.chunks) == 6
    assert answer.finished
    assert len(finished) == 1
    place = _core.LOOP if path == "/async-stream" else _core.FIBER
    assert control.seen == [place] * 5 + ["closed"]


@pytest.mark.parametrize("path", ["/stream", "/async-stream"])
async def test_a_stream_whose_client_goes_away(
    path: str, engine: Engine, asgi: App, control: Any
) -> None:
    app = asgi()
    await Publisher.vinyl.bulk_create([Publisher(name=f"p{n}") for n in range(5)])
    gone = asyncio.Event()
    request = Visit(app, path, disconnect=gone)

    async def hang_up() -> None:
        gone.set()
        await asyncio.get_running_loop().create_future()

    request.on_chunk = hang_up
    with received(signals.request_finished) as finished:
        await asyncio.create_task(request())
    assert request.text == "p0,"
    assert not request.finished
    assert control.seen[-1] == "closed"
    assert len(finished) == 1
    await _pool_is_whole(engine)


async def _pool_is_whole(engine: Engine) -> None:
    """Nothing is taken, and as many as may be can still be had at once."""
    stats = vinyl.pool_stats(engine.alias)
    assert stats["pool_available"] == stats["pool_size"]
    assert await Publisher.vinyl.using(engine.alias).acount() >= 0


@pytest.mark.parametrize("path", ["/wait", "/sync-wait"])
@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_a_request_that_is_ended(
    path: str, how: str, database: Engine, asgi: App, control: Any
) -> None:
    app = asgi(*DJANGO_MIDDLEWARE)
    gone = asyncio.Event()
    with received(signals.request_finished) as finished:
        task = asyncio.create_task(Visit(app, path, disconnect=gone)())
        await control.reached.wait()
        if how == "disconnect":
            gone.set()
            answer = await task
            assert answer.status == 0
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert control.seen == ["cancelled"]
    assert len(finished) == 1
    assert await names(database) == []
    await _pool_is_whole(database)


async def test_many_ended_requests_leave_the_pool_whole(
    engine: Engine, asgi: App, control: Any
) -> None:
    app = asgi()
    for number in range(200):
        control.reached.clear()
        gone = asyncio.Event()
        path = "/wait" if number % 2 else "/sync-wait"
        task = asyncio.create_task(Visit(app, path, disconnect=gone)())
        await control.reached.wait()
        if number % 4 < 2:
            gone.set()
            await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await _pool_is_whole(engine)
    assert (await visit(app, "/async")).json["count"] == 0


async def test_a_client_gone_before_its_body_came(engine: Engine, asgi: App) -> None:
    app = asgi()
    gone = asyncio.Event()
    gone.set()
    with received(signals.request_started) as started:
        request = Visit(app, "/upload", method="POST", parts=(), disconnect=gone)
        await asyncio.create_task(request())
    assert request.status == 0
    assert started == []


def _multipart(data: bytes) -> tuple[bytes, dict[str, str]]:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--x--\r\n"
    )
    return body, {
        "content-type": "multipart/form-data; boundary=x",
        "content-length": str(len(body)),
    }


@pytest.mark.parametrize(
    ("size", "name"), [(1000, "InMemoryUploadedFile"), (300_000, "TemporaryUploadedFile")]
)
async def test_uploads(size: int, name: str, engine: Engine, asgi: App) -> None:
    app = asgi(FILE_UPLOAD_MAX_MEMORY_SIZE=100_000)
    body, headers = _multipart(b"a" * (size - 4) + b"last")
    parts = tuple(body[n : n + 50_000] for n in range(0, len(body), 50_000))
    with no_new_thread():
        answer = await visit(app, "/upload", method="POST", parts=parts, headers=headers)
    assert answer.json == {"size": size, "class": name, "last": "last"}


async def test_files(engine: Engine, asgi: App) -> None:
    app = asgi()
    with no_new_thread():
        answer = await visit(app, "/file")
    with open(views.__file__, "rb") as file:
        assert answer.body == file.read()
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_bad_requests(engine: Engine, asgi: App) -> None:
    app = asgi(DATA_UPLOAD_MAX_MEMORY_SIZE=10)
    request = Visit(app, "/sync")
    request.scope["query_string"] = b"\xff"
    with received(signals.request_finished) as finished:
        await asyncio.create_task(request())
    assert request.status == 400
    assert len(finished) == 1
    with pytest.raises(ValueError, match="websocket"):
        await app({"type": "websocket"}, None, None)


async def test_signals_reach_both_kinds_of_receivers(engine: Engine, asgi: App) -> None:
    app = asgi()
    seen: list[tuple[str, int]] = []

    def plain(sender: Any, **kwargs: Any) -> None:
        Publisher.objects.count()
        seen.append(("plain", _core.where()))

    async def awaited(sender: Any, **kwargs: Any) -> None:
        await Publisher.vinyl.count()
        seen.append(("awaited", _core.where()))

    both = (signals.request_started, signals.request_finished)
    for signal in both:
        signal.connect(plain)
        signal.connect(awaited)
    try:
        with no_new_thread():
            await visit(app, "/sync")
    finally:
        for signal in both:
            signal.disconnect(plain)
            signal.disconnect(awaited)
    assert seen == [("plain", _core.FIBER), ("awaited", _core.LOOP)] * 2


async def test_auth_and_sessions_in_async_views(database: Engine, asgi: App) -> None:
    from django.contrib.auth.models import User

    app = asgi(*DJANGO_MIDDLEWARE)
    await vinyl.run(User.objects.create_user, "ann", password="secret")
    with no_new_thread():
        answer = await visit(app, "/login")
        assert answer.text == "in"
        cookie = {"cookie": f"sessionid={answer.cookies['sessionid']}"}
        for visits in (1, 2):
            answer = await visit(app, "/who", headers=cookie)
            assert answer.json == {
                "user": "ann",
                "same": True,
                "visits": visits,
                "groups": [],
                "may": False,
            }


async def test_static_files(engine: Engine, asgi: App, tmp_path: Any) -> None:
    from vinyl.handlers.asgi import StaticFilesHandler

    (tmp_path / "site.css").write_text("body {}" * 20_000)
    app = asgi(STATIC_URL="/static/", STATICFILES_DIRS=[str(tmp_path)])
    with (
        override_settings(
            STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"]
        ),
        no_new_thread(),
    ):
        handler = StaticFilesHandler(app)
        answer = await visit(handler, "/static/site.css")
        assert answer.text == "body {}" * 20_000
        assert (await visit(handler, "/static/missing.css")).status == 404
        assert (await visit(handler, "/async")).json["count"] == 0


async def test_requests_side_by_side(database: Engine, asgi: App) -> None:
    app = asgi(*DJANGO_MIDDLEWARE)
    await Publisher.vinyl.create(name="a")
    with no_new_thread():
        answers = await asyncio.gather(*(visit(app, f"/{KINDS[n % 4]}") for n in range(60)))
    assert [each.json["count"] for each in answers] == [1] * 60
