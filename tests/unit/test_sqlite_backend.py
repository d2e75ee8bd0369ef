"""Django's wrapper on the SQLite engine: settings, in-memory databases, test databases."""

from __future__ import annotations

import asyncio
import datetime
import gc
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, OperationalError, connections, transaction
from fix_engine import installed
from fix_mode import run_in_mode
from library.models import Author, Book, Publisher

import vinyl
from vinyl import _core
from vinyl.backends.base import close_pools
from vinyl.backends.sqlite3.memory import forget, memory_uri

ENGINE = "vinyl.backends.sqlite3"
on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[dict[str, Any]]:
    entry = {"ENGINE": ENGINE, "NAME": tmp_path / "a.sqlite3"}
    with installed({"default": entry}):
        yield entry


def ask(sql: str, params: Any = None, alias: str = "default") -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()


def run_with(mode: str, entry: dict[str, Any], function: Callable[..., Any], *args: Any) -> Any:
    """``function`` in a fiber (blocking mode: driven) with ``entry`` as the only database."""
    results = []

    async def operation() -> None:
        results.append(await _core.run(function, *args))

    with installed({"default": entry}):
        run_in_mode(mode, operation)
    return results[0]


# --- settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": 1}, "unknown keys: colour"),
        ({"timeout": "soon"}, "'timeout'"),
        ({"timeout": -1}, "'timeout'"),
        ({"cached_statements": None}, "'cached_statements'"),
        ({"transaction_mode": "SOMETIMES"}, "'transaction_mode'"),
        ({"isolation_level": "SERIALIZABLE"}, "'isolation_level'"),
        ({"autocommit": False}, "'autocommit'"),
        ({"factory": type("Mine", (sqlite3.Connection,), {})}, "'factory'"),
        ({"pool": {"colour": 1}}, "colour"),
    ],
)
def test_options_that_cannot_be(
    mode: str, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    entry = {"ENGINE": ENGINE, "NAME": tmp_path / "a.sqlite3", "OPTIONS": options}
    with pytest.raises(ImproperlyConfigured, match=words):
        run_with(mode, entry, ask, "SELECT 1")


def test_options_that_sqlite3_has(mode: str, tmp_path: Path) -> None:
    options = {
        "timeout": 0.01,
        "detect_types": 0,
        "isolation_level": "IMMEDIATE",
        "cached_statements": 5,
        "uri": True,
        "factory": sqlite3.Connection,
        "init_command": "PRAGMA synchronous = OFF; PRAGMA cache_size = 77;",
        "transaction_mode": "immediate",
    }

    def work() -> list[int]:
        return [ask(f"PRAGMA {name}")[0] for name in ("synchronous", "cache_size", "foreign_keys")]

    entry = {"ENGINE": ENGINE, "NAME": str(tmp_path / "a.sqlite3"), "OPTIONS": options}
    assert run_with(mode, entry, work) == [0, 77, 1]


def test_transaction_mode(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    other = sqlite3.connect(path, timeout=0)

    def work() -> None:
        with transaction.atomic():
            ask("SELECT 1")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("CREATE TABLE t (a)")

    options = {"transaction_mode": "IMMEDIATE", "timeout": 0}
    run_with(mode, {"ENGINE": ENGINE, "NAME": path, "OPTIONS": options}, work)
    other.close()


def test_a_database_that_cannot_be_opened(mode: str, tmp_path: Path) -> None:
    entry = {"ENGINE": ENGINE, "NAME": tmp_path / "nowhere" / "a.sqlite3"}
    with pytest.raises(OperationalError, match="unable to open database file") as caught:
        run_with(mode, entry, ask, "SELECT 1")
    assert caught.value.__cause__.sqlite_errorname == "SQLITE_CANTOPEN"


def test_a_wrong_init_command(mode: str, tmp_path: Path) -> None:
    options = {"init_command": "PRAGMA user_version = 1; nonsense"}
    entry = {"ENGINE": ENGINE, "NAME": tmp_path / "a.sqlite3", "OPTIONS": options}
    with pytest.raises(OperationalError, match="nonsense"):
        run_with(mode, entry, ask, "SELECT 1")


# --- Django's own on the engine


async def test_errors_are_djangos(file: dict[str, Any]) -> None:
    def work() -> None:
        ask("CREATE TABLE t (a UNIQUE)")
        ask("INSERT INTO t VALUES (%s)", [1])
        with pytest.raises(IntegrityError, match="UNIQUE") as caught:
            ask("INSERT INTO t VALUES (%s)", [1])
        assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
        assert caught.value.__cause__.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE"
        with pytest.raises(DatabaseError, match="nowhere"):
            ask("SELECT * FROM nowhere")

    await _core.run(work)


async def test_functions_that_django_registers(file: dict[str, Any]) -> None:
    assert await _core.run(ask, "SELECT MD5('x'), REGEXP('a.c', 'abc'), LPAD('x', 3, '-')") == (
        "9dd4e461268c8034f5c8564e155c67a6",
        1,
        "--x",
    )
    sql = "SELECT STDDEV_POP(x) FROM (SELECT 1 AS x UNION SELECT 3)"
    assert await _core.run(ask, sql) == (1.0,)


async def test_statements_are_logged_with_their_values(file: dict[str, Any]) -> None:
    def work() -> list[str]:
        connection = connections["default"]
        connection.force_debug_cursor = True
        connection.queries_log.clear()
        with transaction.atomic():
            ask("SELECT %s, '%%', %s", ["it's", b"\0"])
        return [query["sql"] for query in connection.queries]

    assert await _core.run(work) == ["BEGIN", "SELECT 'it''s', '%', X'00'", "COMMIT"]


def test_a_statement_is_shown_without_a_connection(mode: str, tmp_path: Path) -> None:
    """Its values are quoted while another transaction of the pool has the only connection."""
    day = datetime.date(2026, 11, 29)
    values = (None, 1.5, "it's", b"\x00\xff", day, True, Decimal("2.50"), *range(4000))
    shown = ["NULL", "1.5", "'it''s'", "X'00FF'", "'2026-11-29'", "1", "'2.50'"]
    shown += [str(number) for number in range(4000)]

    def show() -> tuple[str, str]:
        ops = connections["default"].ops
        sql = "VALUES " + ", ".join(["%s"] * len(values))
        named = ops.last_executed_query(None, "SELECT %(a)s, %(b)s", {"a": 1, "b": "%s"})
        return ops.last_executed_query(None, sql, values), named

    async def holding() -> None:
        async with vinyl.atomic():
            await _core.run(ask, "SELECT 1")
            if mode == "blocking":
                results.append(await _core.run(show))
            else:
                results.append(await asyncio.create_task(in_a_fiber()))

    async def in_a_fiber() -> tuple[str, str]:
        return await _core.run(show)

    results: list[tuple[str, str]] = []
    pool = {"max_size": 1, "timeout": 0.02}
    entry = {"ENGINE": ENGINE, "NAME": tmp_path / "a.sqlite3", "OPTIONS": {"pool": pool}}
    with installed({"default": entry}):
        run_in_mode(mode, holding)
    assert results == [("VALUES " + ", ".join(shown), "SELECT 1, '%s'")]


async def test_foreign_keys_stay_off_until_they_are_on(file: dict[str, Any]) -> None:
    def work() -> None:
        connection = connections["default"]
        ask("CREATE TABLE p (a INTEGER PRIMARY KEY)")
        ask("CREATE TABLE c (id INTEGER PRIMARY KEY, a REFERENCES p)")
        assert connection.disable_constraint_checking()
        assert connection.connection.pinned
        ask("INSERT INTO c (a) VALUES (1)")
        with pytest.raises(IntegrityError, match="invalid foreign key"):
            connection.check_constraints()
        connection.enable_constraint_checking()
        assert not connection.connection.pinned
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            ask("INSERT INTO c (a) VALUES (2)")

    await _core.run(work)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_iterator_streams(engine: Any, mode: str) -> None:
    def work() -> None:
        Publisher.objects.bulk_create(Publisher(name=str(n)) for n in range(500))
        rows = Publisher.objects.order_by("pk").iterator(chunk_size=100)
        assert next(rows).name == "0"
        link = connections["default"].connection
        assert link.holds_slot
        assert [ob.name for ob in rows] == [str(n) for n in range(1, 500)]
        assert link.holds_slot is (mode == "blocking")

    await _core.run(work)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_statement_that_ends_the_transaction(engine: Any) -> None:
    def work() -> None:
        with transaction.atomic():
            Author.objects.create(name="a")
            with pytest.raises(IntegrityError):
                ask("INSERT OR ROLLBACK INTO library_author (id, name) VALUES (1, 'x'), (1, 'y')")
            with pytest.raises(OperationalError, match="rolled this transaction back"):
                Author.objects.create(name="b")
            transaction.set_rollback(True)
        assert not Author.objects.exists()

    await _core.run(work)


@on_a_loop
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_schema_editor_in_a_fiber(engine: Any) -> None:
    def work() -> None:
        author = Author.objects.create(name="a")
        Book.objects.create(title="t", author=author)
        with connections["default"].schema_editor() as editor:
            old, new = Author._meta.get_field("name"), Author._meta.get_field("name").clone()
            new.max_length = 120
            new.set_attributes_from_name("name")
            new.model = Author
            editor.alter_field(Author, old, new)
        assert Book.objects.get().author == author
        assert ask("PRAGMA foreign_keys") == (1,)
        assert not connections["default"].connection.holds_slot

    await _core.run(work)


# --- in-memory databases


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a.sqlite3", None),
        (Path(":memory:"), None),
        ("file:a.sqlite3?cache=shared", None),
        (":memory:", "file:/vinyl-x-"),
        ("file:m?mode=memory", "file:/vinyl-x-"),
        ("file::memory:", "file:/vinyl-x-"),
        ("file::memory:?cache=shared", "file::memory:?cache=shared"),
        ("file:m?mode=memory&cache=shared", "file:m?mode=memory&cache=shared"),
    ],
)
def test_names_of_memory(name: Any, uri: str | None) -> None:
    found = memory_uri(name, "x")
    assert (found is None) is (uri is None)
    assert uri is None or found.startswith(uri)


MEMORY = [":memory:", "file:vinyl_test?mode=memory&cache=shared"]


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_one_for_all_connections(name: str, mode: str) -> None:
    async def both() -> tuple[Any, ...]:
        await _core.run(ask, "INSERT INTO t VALUES (2)")
        return await _core.run(ask, "SELECT total(a) FROM t")

    uri = memory_uri(name, "default")
    with installed({"default": {"ENGINE": ENGINE, "NAME": name}}):
        # Made in plain code, filled in tasks of two loops, read in plain code.
        ask("CREATE TABLE t (a)")
        ask("INSERT INTO t VALUES (1)")
        for total in (3.0, 5.0):

            async def check(total: float = total) -> None:
                assert await both() == (total,)

            run_in_mode(mode, check)
            gc.collect()
        assert ask("SELECT count(*) FROM t") == (3,)
        connections["default"].close_for_good()
        assert ask("SELECT count(*) FROM t") == (3,)
        connections["default"].close_for_good()
    close_pools()
    assert uri is not None
    forget(uri)


@pytest.mark.modes("asyncio", "uvloop")
def test_many_tasks_in_memory(mode: str) -> None:
    def work(n: int) -> None:
        with transaction.atomic():
            ask("INSERT INTO t VALUES (%s)", [n])
            ask("SELECT count(*) FROM t")

    async def all_at_once() -> None:
        await _core.run(ask, "CREATE TABLE t (a)")
        await asyncio.gather(*[_core.run(work, n) for n in range(30)])
        assert await _core.run(ask, "SELECT count(*), count(DISTINCT a) FROM t") == (30, 30)

    with installed({"default": {"ENGINE": ENGINE, "NAME": ":memory:"}}):
        run_in_mode(mode, all_at_once)
        connections["default"].close_for_good()
    forget(memory_uri(":memory:", "default") or "")


# --- test databases


@pytest.mark.parametrize("test_name", [None, "file"])
def test_a_test_database_is_made_and_destroyed(tmp_path: Path, test_name: str | None) -> None:
    entry = {
        "ENGINE": ENGINE,
        "NAME": str(tmp_path / "real.sqlite3"),
        "TEST": {"NAME": str(tmp_path / "test.sqlite3") if test_name else None},
    }
    with installed({"default": entry}):
        for _ in range(2):
            connection = connections["default"]
            connection.creation.create_test_db(verbosity=0, autoclobber=True)
            Author.objects.create(name="a")
            assert Author.objects.count() == 1
            connection.creation.destroy_test_db(entry["NAME"], verbosity=0)
            assert connection.settings_dict["NAME"] == entry["NAME"]
        assert not (tmp_path / "test.sqlite3").exists()
        assert "library_author" not in connections["default"].introspection.table_names()


def test_cloning_for_parallel_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    monkeypatch.chdir(tmp_path)
    with installed({"default": {"ENGINE": ENGINE, "NAME": str(tmp_path / "real.sqlite3")}}):
        connection = connections["default"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        name = connection.settings_dict["NAME"]
        Author.objects.create(name="cloned")
        connection.creation.clone_test_db("1", verbosity=0, autoclobber=True)
        connection.creation.destroy_test_db(name, verbosity=0)
        connection.settings_dict["NAME"] = name
        connection.creation.setup_worker_connection("1")
        assert Author.objects.get().name == "cloned"
        connection.creation.destroy_test_db(str(tmp_path / "real.sqlite3"), verbosity=0)
