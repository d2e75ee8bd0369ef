"""System checks, ``manage.py vinyl`` and ``manage.py runserver``."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command, get_commands
from django.test import override_settings
from fix_engine import Engine, installed
from fix_project import Project

from vinyl import _core, absent, aliases, checks, connections
from vinyl.apps import offer_commands

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "one.sqlite3"}


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
    def found() -> tuple[list[str], list[str]]:
        return ids(absent.check_app()), ids(absent.check_app_for_deployment())

    assert found() == ([], [])
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "vinyl")
    drop_in = {"default": {"ENGINE": "vinyl.backends.sqlite3", "NAME": "one.sqlite3"}}
    with installed(drop_in):
        assert found() == ([], ["vinyl.W005"])
        with override_settings(WSGI_APPLICATION="site.wsgi.application"):
            assert found() == (["vinyl.W005"], [])
        with override_settings(ASGI_APPLICATION="site.asgi.application"):
            assert found() == (["vinyl.W005"], [])
    with installed({"default": SQLITE, "vinyl": aliases.twin(SQLITE)}):
        assert found() == (["vinyl.W005"], [])


#: What is wrong in settings.py, and what `manage.py check` says.
WRONG = {
    "a twin without its default": (
        "DATABASES['vinyl']['TEST']['MIRROR'] = 'main'",
        ["vinyl.E006"],
    ),
    "a twin of another database": (
        "DATABASES['vinyl']['NAME'] = 'two.sqlite3'",
        ["vinyl.E007", "vinyl.W003"],
    ),
    "a twin that mirrors nothing": ("del DATABASES['vinyl']['TEST']", ["vinyl.W002"]),
    "no vinyl engine": ("del DATABASES['vinyl']", ["vinyl.W001"]),
    "a twin, and no app": ("INSTALLED_APPS.remove('vinyl')", ["vinyl.W005"]),
    "the engine, and no app": (
        "INSTALLED_APPS.remove('vinyl'); DATABASES = {'default': DATABASES['vinyl']};"
        " del DATABASES['default']['TEST']",
        ["vinyl.W005"],
    ),
    "middleware to and fro": (
        "INSTALLED_APPS += ['library']\nMIDDLEWARE = ['web.middleware.async_only',"
        " 'web.middleware.sync_only', 'web.middleware.hybrid']",
        ["vinyl.I001"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_manage_py_check_in_a_project(wrong: str, tmp_path: Path) -> None:
    line, expected = WRONG[wrong]
    right = (
        "import vinyl\nSECRET_KEY = 'x'\nWSGI_APPLICATION = 'none'\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'vinyl']\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'one.sqlite3'}}\n"
        "DATABASES['vinyl'] = vinyl.twin(DATABASES['default'], of='default')\n"
    )
    assert not manage_py_check(tmp_path, right)
    assert manage_py_check(tmp_path, right + line) == expected


def test_manage_py_check_counts_the_servers_connections(engine: Engine, tmp_path: Path) -> None:
    database = {**engine.conf, "OPTIONS": {"pool": {"max_size": 10_000}}}
    text = (
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django.contrib.contenttypes', 'vinyl']\n"
        f"DATABASES = {{'default': {database!r}}}"
    )
    found = manage_py_check(tmp_path, text, "--database", "default")
    assert found == (["vinyl.W004"] if engine.name == "postgresql" else [])


def manage_py_check(directory: Path, settings: str, *options: str) -> list[str]:
    """The ids that `manage.py check` prints in a project with these settings."""
    (directory / "wrong_settings.py").write_text(settings)
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-B", "-m", "django", "check", *options],
        cwd=directory, capture_output=True, text=True, check=False,
        env=os.environ | {
            "DJANGO_SETTINGS_MODULE": "wrong_settings", "PYTHONPATH": f"{directory}:{tests}",
        },
    )  # fmt: skip
    found = re.findall(r"\((vinyl\.\w+)\)", done.stdout + done.stderr)
    assert found or "no issues" in done.stdout, done.stderr
    return found


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


def test_runserver_serves_asgi_and_reloads(project: Project) -> None:
    with project.running("django", "runserver", "127.0.0.1:{port}") as server:
        answer = json.loads(server.until(server.get))
        assert (answer["version"], answer["count"], answer["where"]) == (1, 0, _core.LOOP)
        assert server.get("/static/site.css") == b"body {}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get("/missing?x=1")
        urls = project.directory / "site_urls.py"
        urls.write_text(urls.read_text().replace('"version": 1', '"version": 2'))
        newer = itertools.count(time.time() + 5, 5)

        def is_noticed() -> bool:
            # The reloader compares with the time at its first look, which on a busy machine is
            # after the first answer: a newer one each time, until it has seen one change.
            at = next(newer)
            os.utime(urls, (at, at))
            return "reloading" in server.log.read_text()

        server.until(is_noticed)
        server.until(lambda: json.loads(server.get())["version"] == 2)
        text = server.log.read_text()
    assert "vinyl serves ASGI" in text
    assert '"GET / HTTP/1.1" 200' in text
    assert '"GET /missing?x=1 HTTP/1.1" 404' in text


def test_runserver_serves_wsgi_when_asked(project: Project) -> None:
    command = ("django", "runserver", "127.0.0.1:{port}", "--wsgi", "--noreload")
    with project.running(*command) as server:
        assert json.loads(server.until(server.get))["where"] == _core.DRIVEN
    assert "WSGI" in server.log.read_text()
