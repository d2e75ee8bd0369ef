"""System checks, ``manage.py vinyl`` and ``manage.py runserver``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command, get_commands
from django.test import override_settings
from fix_engine import Engine, installed

from vinyl import checks, connections
from vinyl.apps import offer_commands

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "one.sqlite3"}
# A server process starts, or notices a changed file, within this time even on a busy machine.
SECONDS = 60.0


def ids(messages: list[Any]) -> list[str]:
    return [each.id for each in messages]


def test_a_twin_and_its_default() -> None:
    twin = {"ENGINE": "vinyl.backends.sqlite3", "NAME": "one.sqlite3"}
    with installed({"default": SQLITE, "vinyl": {**twin, "TEST": {"MIRROR": "default"}}}):
        assert ids(checks.check_twins()) == []
    with installed({"default": SQLITE, "vinyl": {**twin, "TEST": {"MIRROR": "main"}}}):
        assert ids(checks.check_twins()) == ["vinyl.E006"]
    other = {**twin, "NAME": "two.sqlite3", "TEST": {"MIRROR": "default"}}
    with installed({"default": SQLITE, "vinyl": other}):
        assert ids(checks.check_twins()) == ["vinyl.E007"]


def test_a_database_that_cannot_be_awaited() -> None:
    drop_in = {"ENGINE": "vinyl.backends.sqlite3", "NAME": "two.sqlite3"}
    with installed({"default": drop_in, "old": SQLITE}):
        (message,) = checks.check_unserved()
        assert message.id == "vinyl.W003"
        assert "DATABASES['old']" in message.msg
    with installed({"default": drop_in}):
        assert checks.check_unserved() == []


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ("sync_only Mixin sync_only", []),
        ("async_only hybrid sync_only Mixin", []),
        ("sync_only async_only Mixin", []),
        ("async_only sync_only hybrid Mixin", ["vinyl.I001"]),
        ("missing sync_only hybrid Mixin async_only", []),
    ],
)
def test_the_order_of_middleware(middleware: str, expected: list[str]) -> None:
    paths = [f"web.middleware.{each}" for each in middleware.split()]
    with override_settings(MIDDLEWARE=paths):
        messages = checks.check_middleware()
    assert ids(messages) == expected
    if expected:
        assert "web.middleware.hybrid" in messages[0].hint


def test_a_pool_larger_than_the_server(engine: Engine) -> None:
    assert checks.check_pools([engine.alias]) == []
    connections.connections[engine.alias].close()
    databases = {"default": {**engine.conf, "OPTIONS": {"pool": {"max_size": 10_000}}}}
    with installed(databases):
        messages = checks.check_pools(["default"])
        assert ids(messages) == (["vinyl.W004"] if engine.name == "postgresql" else [])
        assert checks.check_pools() == []


def test_vinyl_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connections._check_installed() == []
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "vinyl")
    assert ids(connections._check_installed()) == ["vinyl.W005"]


def test_manage_py_check_finds_them(tmp_path: Path) -> None:
    old = {**SQLITE, "NAME": str(tmp_path / "old")}
    out = io.StringIO()
    with installed({"default": {**old, "ENGINE": "vinyl.backends.sqlite3"}, "old": old}):
        call_command("check", stdout=out, stderr=out)
    assert "vinyl.W003" not in out.getvalue()  # the same file: a twin without being told
    new = {"ENGINE": "vinyl.backends.sqlite3", "NAME": str(tmp_path / "new")}
    with installed({"default": new, "old": old}):
        call_command("check", stdout=out, stderr=out)
    assert "vinyl.W003" in out.getvalue()


def test_manage_py_vinyl(database: Engine) -> None:
    from vinyl.management.commands.vinyl import Command

    out = io.StringIO()
    call_command(Command(), stdout=out, connect=True)
    text = out.getvalue()
    assert "libpq 1" in text
    assert "SQLite 3." in text
    assert "pool of 1 to 10" in text
    assert "server " in text
    assert "Model.vinyl" in text
    if database.alias == "vinyl":
        assert "in coroutines and fibers 'vinyl'" in text
    password = database.conf.get("PASSWORD")
    assert not password or password not in text


def test_which_commands() -> None:
    get_commands.cache_clear()
    offer_commands()
    assert get_commands()["runserver"] == get_commands()["vinyl"] == "vinyl"
    get_commands()["runserver"] = "somebody"
    offer_commands()
    assert get_commands()["runserver"] == "somebody"
    get_commands.cache_clear()
    offer_commands()


PROJECT = """
import os, threading
from pathlib import Path
import vinyl
HERE = Path(__file__).parent
SECRET_KEY = "x"
DEBUG = True
ROOT_URLCONF = "site_urls"
INSTALLED_APPS = [f"django.contrib.{each}" for each in ("auth", "contenttypes", "staticfiles")]
INSTALLED_APPS.append("vinyl")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(HERE / "db.sqlite3")}}
DATABASES["vinyl"] = vinyl.twin(DATABASES["default"])
STATIC_URL = "/static/"
STATICFILES_DIRS = [str(HERE / "files")]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
URLS = """
from django.contrib.auth.models import Group
from django.http import JsonResponse
from django.urls import path
import vinyl
from vinyl import _core

async def view(request):
    return JsonResponse({"version": 1, "count": await Group.vinyl.count(), "where": _core.where()})

urlpatterns = [path("", view)]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "site.css").write_text("body {}")
    (tmp_path / "site_settings.py").write_text(PROJECT)
    (tmp_path / "site_urls.py").write_text(URLS)
    _manage(tmp_path, "migrate", "-v0").check_returncode()
    return tmp_path


def _environment(project: Path) -> dict[str, str]:
    here = {"PYTHONPATH": str(project), "DJANGO_SETTINGS_MODULE": "site_settings"}
    return {**os.environ, **here, "PYTHONUNBUFFERED": "1"}


def _manage(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "django", *args],
        env=_environment(project),
        cwd=project,
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )


@contextlib.contextmanager
def _running(project: Path, *options: str) -> Iterator[tuple[str, Path]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = project / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "runserver", f"127.0.0.1:{port}", *options],
            env=_environment(project),
            cwd=project,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield f"http://127.0.0.1:{port}", log
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(SECONDS)


def _until(found: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if answer := found():
                return answer
        time.sleep(0.05)
    pytest.fail(f"no answer in {SECONDS} s:\n{log.read_text()}")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return answer.read()


def test_runserver_serves_asgi_and_reloads(project: Path) -> None:
    from vinyl import _core

    with _running(project) as (url, log):
        assert json.loads(_until(lambda: _get(url), log)) == {
            "version": 1,
            "count": 0,
            "where": _core.LOOP,
        }
        assert _get(f"{url}/static/site.css") == b"body {}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(f"{url}/missing?x=1")
        urls = project / "site_urls.py"
        urls.write_text(URLS.replace('"version": 1', '"version": 2'))
        os.utime(urls, (time.time() + 5, time.time() + 5))
        _until(lambda: json.loads(_get(url))["version"] == 2, log)
    text = log.read_text()
    assert "vinyl serves ASGI" in text
    assert '"GET / HTTP/1.1" 200' in text
    assert '"GET /missing?x=1 HTTP/1.1" 404' in text
    assert "reloading" in text


def test_runserver_serves_wsgi_when_asked(project: Path) -> None:
    from vinyl import _core

    with _running(project, "--wsgi", "--noreload") as (url, log):
        answer = json.loads(_until(lambda: _get(url), log))
        assert answer["where"] == _core.DRIVEN
    assert "WSGI" in log.read_text()
