"""A Django project of its own on disk, run as a process, as users run theirs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# A server process starts, or notices a changed file, within this time even on a busy machine.
SECONDS = 60.0

SETTINGS = """
from pathlib import Path
import vinyl
HERE = Path(__file__).parent
SECRET_KEY = "x"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
APPS = "admin auth contenttypes messages sessions staticfiles"
INSTALLED_APPS = [*(f"django.contrib.{each}" for each in APPS.split()), "vinyl"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": PROCESSORS},
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(HERE / "db.sqlite3")}}
DATABASES["vinyl"] = vinyl.twin(DATABASES["default"])
STATIC_URL = "/static/"
STATICFILES_DIRS = [str(HERE / "files")]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""
URLS = """
import threading

from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import JsonResponse
from django.urls import path

from vinyl import _core


def seen(count):
    threads = sorted(each.name for each in threading.enumerate())
    return JsonResponse(
        {"version": 1, "count": count, "where": _core.where(), "threads": threads}
    )

async def view(request):
    return seen(await Group.vinyl.count())

def sync_view(request):
    return seen(Group.objects.count())

async def who(request):
    user = await request.auser()
    await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
    return JsonResponse({"user": user.username, "visits": await request.session.aget("visits")})

urlpatterns = [
    path("", view), path("sync", sync_view), path("who", who), path("admin/", admin.site.urls)
]
"""
ASGI = """
from vinyl.asgi import get_asgi_application

application = get_asgi_application()
"""


@dataclass
class Project:
    """``directory``: with site_settings.py, site_urls.py, site_asgi.py, and a migrated SQLite
    database in which ``admin`` with the password ``pw`` may do everything."""

    directory: Path

    def manage(self, *args: str, **environment: str) -> None:
        """``manage.py args``; raises CalledProcessError."""
        subprocess.run(
            [sys.executable, "-m", "django", *args],
            env=self._environment(environment),
            cwd=self.directory,
            check=True,
            timeout=SECONDS,
        )

    def running(self, *command: str) -> AbstractContextManager[Server]:
        """A server: ``python -m command``, in which ``{port}`` is a free port."""
        return running(command, self._environment({}), self.directory)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        here = {"PYTHONPATH": str(self.directory), "DJANGO_SETTINGS_MODULE": "site_settings"}
        return {**os.environ, **here, "PYTHONUNBUFFERED": "1", **more}


@dataclass
class Server:
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """As a supervisor does it, SIGTERM to the process alone; its exit code.

        Nothing that it has started may be left then.
        """
        self.process.terminate()
        try:
            return self.process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def get(self, path: str = "/") -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=SECONDS) as answer:
            return answer.read()

    def until(self, found: Callable[[], Any]) -> Any:
        """What ``found`` answers, once it does; the server may still be starting."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if answer := found():
                    return answer
            time.sleep(0.05)
        pytest.fail(f"no answer in {SECONDS} s:\n{self.log.read_text()}")


@contextlib.contextmanager
def running(command: Sequence[str], env: dict[str, str], directory: Path) -> Iterator[Server]:
    """A server in a process of its own: ``python -m command``, ``{port}`` in it a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = directory / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *(each.format(port=port) for each in command)],
            env=env,
            cwd=directory,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", log, process)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "site.css").write_text("body {}")
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "site_urls.py").write_text(URLS)
    (tmp_path / "site_asgi.py").write_text(ASGI)
    made = Project(tmp_path)
    made.manage("migrate", "-v0")
    names = ("--username", "admin", "--email", "admin@example.com")
    made.manage("createsuperuser", "--noinput", *names, DJANGO_SUPERUSER_PASSWORD="pw")
    return made
