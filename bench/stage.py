"""The database and Django that a run needs, and programs in C compiled for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
BUILD = ROOT.parent / "build" / "bench-c"
sys.path[:0] = [str(ROOT), str(ROOT.parent / "tools")]  # not a script's directory in a test

from private_postgres import PrivatePostgres  # noqa: E402
from work import fill  # noqa: E402


@contextmanager
def database(engine: str, directory: str) -> Iterator[dict[str, Any]]:
    """An entry of DATABASES with Django's own engine."""
    if engine == "sqlite":
        yield {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(directory, "bench.sqlite3"),
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"},
        }
        return
    with PrivatePostgres() as server:
        server.psql("CREATE DATABASE bench")
        yield server.django("django.db.backends.postgresql", "bench") | {
            "HOST": "127.0.0.1",  # over TCP, as most deployments are
            "PASSWORD": server.password,
        }


def setup(entry: dict[str, Any]) -> None:
    """Django, in this process and in those that it starts."""
    os.environ["VINYL_BENCH_DATABASE"] = json.dumps(entry)
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    import django

    django.setup()


def entry_of_environ() -> dict[str, Any]:
    return json.loads(os.environ["VINYL_BENCH_DATABASE"])


def fill_tables() -> None:
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    call_command("migrate", run_syncdb=True, verbosity=0)
    fill()
    connections.close_all()


def server_version() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW server_version")
            return f"PostgreSQL {cursor.fetchone()[0].split()[0]} over TCP, on the same machine"
        cursor.execute("SELECT sqlite_version()")
        return f"SQLite {cursor.fetchone()[0]}, WAL, synchronous off"


def tear_down() -> None:
    from django.db import connections

    from vinyl.backends.base import close_pools

    connections.close_all()
    close_pools()


def compiled(name: str, sources: list[Path], *options: str, library: str = "") -> Path:
    """``name``, built from C files when they are newer; with an option -shared a library."""
    target = BUILD / name
    needs = [path for source in sources for path in source.parent.glob("*.[ch]")]
    newest = max(path.stat().st_mtime for path in needs)
    if target.exists() and target.stat().st_mtime > newest:
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    flags: list[str] = []
    if library:
        asked = ["pkg-config", "--cflags", "--libs", library]
        flags = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    warn = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = [os.environ.get("CC", "cc"), *warn, *options, *map(str, sources), "-o", str(target)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} does not compile: {done.stderr}")
    return target
