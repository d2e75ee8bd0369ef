"""Django on each engine: ``engine`` and ``twin``, two ways of turning vinyl on, ``database`` both.

A test that asks for ``engine`` runs once on SQLite and once on PostgreSQL, with the tests' tables
in place and empty, and DATABASES holding one alias, ``default``, of a vinyl engine.  With ``twin``,
``default`` is Django's own backend and ``vinyl`` its twin.  After the test every connection must be
gone: looked up where it shows, in the server's list of clients and the process's open files.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from fix_postgres import waived
from private_postgres import PrivatePostgres

from vinyl.backends.base import close_pools
from vinyl.connections import refresh

ENGINES = ("sqlite", "postgresql")
BACKENDS = {"sqlite": "sqlite3", "postgresql": "postgresql"}
DATABASE = "vinyl_tests"
# Filled by migrate; they stay as they are between tests.
KEPT_TABLES = frozenset({"django_migrations", "django_content_type", "auth_permission"})
# A server process notices that its client is gone a moment after the socket closes.
GONE_SECONDS = 5.0


@dataclass
class Engine:
    """The engine a test runs on.

    ``name``: "sqlite" or "postgresql", as in ``connection.vendor``.  ``alias``: the vinyl alias.
    ``databases``: what DATABASES holds.  ``server``: the PostgreSQL server, None on SQLite.
    """

    name: str
    alias: str
    databases: dict[str, dict[str, Any]]
    server: PrivatePostgres | None = None

    @property
    def conf(self) -> dict[str, Any]:
        """The vinyl alias's entry of DATABASES."""
        return self.databases[self.alias]


@contextmanager
def installed(databases: dict[str, dict[str, Any]]) -> Iterator[None]:
    """DATABASES is ``databases`` for a while; what was connected before or since is closed."""
    before = dict(connections.settings)
    _replace(connections.configure_settings(databases))
    try:
        yield
    finally:
        _replace(before)


def _replace(databases: dict[str, dict[str, Any]]) -> None:
    """Closes this thread's connections and every pool, then puts these DATABASES in force."""
    for wrapper in connections.all(initialized_only=True):
        wrapper.close()
        del connections[wrapper.alias]
    close_pools()
    connections.settings.clear()
    connections.settings.update(databases)
    settings.DATABASES = connections.settings
    refresh()


def _plain(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return entry | {"ENGINE": f"django.db.backends.{BACKENDS[name]}"}


def _make_tables(entry: dict[str, Any]) -> None:
    with installed({"default": entry}):
        call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tests' tables; each test works on a copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    _make_tables({"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})
    return path


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: PrivatePostgres) -> Iterator[psycopg.Connection]:
    """A connection of psycopg's own to the tests' database, whose tables it has made."""
    postgres_server.psql(f"CREATE DATABASE {DATABASE}")
    for extension in ("hstore", "citext", "pg_trgm", "unaccent", "btree_gist"):
        postgres_server.psql(f"CREATE EXTENSION IF NOT EXISTS {extension}", DATABASE)
    _make_tables(postgres_server.django("django.db.backends.postgresql", DATABASE))
    with psycopg.connect(postgres_server.conninfo(DATABASE), autocommit=True) as admin:
        # A test that leaves a transaction open is a failure, not a hang.
        admin.execute("SET lock_timeout = '5s'")
        yield admin


def _names(admin: psycopg.Connection, query: str) -> set[str]:
    return {name for (name,) in admin.execute(query).fetchall()}


def _empty_tables(admin: psycopg.Connection) -> None:
    """Empties the tables that a test has written to, and restarts the sequences it has used.

    To truncate all of them takes longer than most tests do.
    """
    if left := _names(admin, "SELECT gid FROM pg_prepared_xacts"):
        pytest.fail(f"prepared transactions left on the server: {left}")
    tables = _names(admin, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    each = [f"SELECT '{name}' WHERE EXISTS (TABLE {name})" for name in tables - KEPT_TABLES]
    if written := _names(admin, " UNION ALL ".join(each)):
        admin.execute(f"TRUNCATE {', '.join(sorted(written))} RESTART IDENTITY CASCADE")
    used = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value > 0"
    for name in _names(admin, used) - {f"{table}_id_seq" for table in KEPT_TABLES}:
        admin.execute(f"ALTER SEQUENCE {name} RESTART")


def clients(admin: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The other clients of the tests' database, as the server sees them: (pid, state, query)."""
    return admin.execute(
        "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ).fetchall()


def assert_clients_gone(admin: psycopg.Connection) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while left := clients(admin):
        if time.monotonic() > deadline:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            pytest.fail(f"connections left open on the server: {left}")
        time.sleep(0.01)


def open_files_under(directory: Path) -> list[str]:
    """The files below ``directory`` that this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a commit there is no matter of the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="vinyl-tests-", dir=memory) as name:
        yield Path(name)


@contextmanager
def _on_sqlite(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    directory: Path = request.getfixturevalue("fast_path")
    path = directory / "test.sqlite3"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    yield {"ENGINE": "vinyl.backends.sqlite3", "NAME": str(path)}
    left = open_files_under(directory)
    if left:
        pytest.fail(f"database files left open: {left}")


@contextmanager
def _on_postgresql(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    server: PrivatePostgres = request.getfixturevalue("postgres_server")
    admin: psycopg.Connection = request.getfixturevalue("postgres_admin")
    yield server.django("vinyl.backends.postgresql", DATABASE)
    assert_clients_gone(admin)
    _empty_tables(admin)


def _opened(request: pytest.FixtureRequest, name: str, *, twin: bool) -> Iterator[Engine]:
    import vinyl

    if name in waived():
        pytest.skip(f"{name} waived by VINYL_TEST_WAIVE")
    server = request.getfixturevalue("postgres_server") if name == "postgresql" else None
    with (_on_postgresql if name == "postgresql" else _on_sqlite)(request) as entry:
        if twin:
            databases = {"default": _plain(entry, name)}
            databases["vinyl"] = vinyl.twin(databases["default"], of="default")
        else:
            databases = {"default": entry}
        with installed(databases):
            yield Engine(name, "vinyl" if twin else "default", databases, server)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Drop-in: the only alias, ``default``, is a vinyl engine."""
    yield from _opened(request, request.param, twin=False)


@pytest.fixture(params=ENGINES)
def twin(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The alias ``default`` is Django's own backend, ``vinyl`` its twin."""
    yield from _opened(request, request.param, twin=True)


@pytest.fixture(params=[f"{name}-{way}" for way in ("twin", "drop_in") for name in ENGINES])
def database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Both ways of turning vinyl on, on each engine: what the contract promises holds in all."""
    name, way = request.param.split("-")
    yield from _opened(request, name, twin=way == "twin")


@pytest.fixture
def with_options(engine: Engine) -> Iterator[Callable[..., Engine]]:
    """The engine again, with OPTIONS as given beside its own."""
    with ExitStack() as stack:

        def make(**options: Any) -> Engine:
            entry = engine.conf | {"OPTIONS": {**engine.conf.get("OPTIONS", {}), **options}}
            stack.enter_context(installed({engine.alias: entry}))
            return engine

        yield make
