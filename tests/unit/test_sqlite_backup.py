"""Copying whole databases; scripts, dumps, tracing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlite_support import Database

from vinyl import _core


@pytest.fixture
def full(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "full.sqlite3")
    link = database.own()
    link.execute("PRAGMA journal_mode = WAL").fetchall()
    link.executescript(
        """
        CREATE TABLE t (a INTEGER PRIMARY KEY, b);
        INSERT INTO t (b)
        WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)
        SELECT hex(zeroblob(30)) FROM c;
        """
    )
    link.close()
    return database


async def test_into_a_connection_of_ours(full: Database, tmp_path: Path) -> None:
    target = Database.at(tmp_path / "copy.sqlite3")
    seen: list[tuple[int, int, int]] = []

    def copy() -> None:
        source, to = full.link(), target.link()
        source.backup(to, progress=lambda *args: seen.append(args))
        source.close()
        to.close()

    await _core.run(copy)
    assert target.ask("SELECT count(*) FROM t") == (20_000,)
    assert len(seen) > 5
    assert seen[-1][:2] == (sqlite3.SQLITE_DONE, 0)
    assert full.is_whole()
    assert target.is_whole()


@pytest.mark.parametrize("target", [":memory:", "file.sqlite3"])
async def test_into_a_connection_of_sqlite3(full: Database, tmp_path: Path, target: str) -> None:
    to = sqlite3.connect(target if target == ":memory:" else tmp_path / target)

    def copy() -> None:
        source = full.link()
        source.backup(to)
        source.close()

    await _core.run(copy)
    assert to.execute("SELECT count(*) FROM t").fetchone() == (20_000,)
    to.close()


def test_an_empty_database(tmp_path: Path) -> None:
    source = Database.at(tmp_path / "empty.sqlite3").own()
    with sqlite3.connect(":memory:") as to:
        source.backup(to)
        assert to.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    to.close()
    with pytest.raises(ValueError, match="same connection"):
        source.backup(source)
    with pytest.raises(TypeError):
        source.backup(object())
    source.close()


async def test_a_progress_that_raises(full: Database, tmp_path: Path) -> None:
    target = Database.at(tmp_path / "copy.sqlite3")

    def stop(*args: int) -> None:
        raise LookupError("enough")

    def copy() -> None:
        source, to = full.link(), target.link()
        try:
            source.backup(to, progress=stop)
        finally:
            source.close()
            to.close()

    with pytest.raises(LookupError, match="enough"):
        await _core.run(copy)
    assert target.is_whole()
    assert target.ask("SELECT count(*) FROM sqlite_master") == (0,)


def test_scripts_commit_what_is_open(full: Database) -> None:
    link = full.own()
    link.execute("BEGIN")
    link.execute("DELETE FROM t WHERE a > 10")
    link.executescript(
        "CREATE TABLE u (a); -- a comment; with a semicolon\nINSERT INTO u VALUES (';');"
    )
    assert not link.in_transaction
    assert full.ask("SELECT count(*), (SELECT a FROM u) FROM t") == (10, ";")
    with pytest.raises(sqlite3.OperationalError, match="syntax error"):
        link.executescript("INSERT INTO u VALUES (1); nonsense; INSERT INTO u VALUES (2);")
    assert link.execute("SELECT count(*) FROM u").fetchone() == (2,)
    link.close()


def test_dump(full: Database) -> None:
    link = full.own()
    link.execute("DELETE FROM t WHERE a > 2")
    dump = list(link.iterdump())
    link.close()
    with sqlite3.connect(":memory:") as copy:
        copy.executescript("\n".join(dump))
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (2,)
    copy.close()


def test_tracing(full: Database) -> None:
    link = full.own()
    seen: list[str] = []
    link.set_trace_callback(seen.append)
    link.execute("SELECT ?", ("x",)).fetchall()
    link.set_trace_callback(None)
    link.execute("SELECT 2").fetchall()
    link.close()
    assert seen == ["SELECT 'x'"]


def test_aggregates_windows_and_collations(full: Database) -> None:
    class Longest:
        def __init__(self) -> None:
            self.values: list[str] = []

        def step(self, value: str) -> None:
            self.values.append(value)

        def inverse(self, value: str) -> None:
            self.values.remove(value)

        def value(self) -> str:
            return max(self.values, key=len)

        finalize = value

    link = full.own()
    link.create_window_function("longest", 1, Longest)
    link.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    words = "(SELECT 'a' AS w UNION SELECT 'ccc' UNION SELECT 'bb')"
    assert link.execute(f"SELECT longest(w) FROM {words}").fetchone() == ("ccc",)
    assert link.execute(f"SELECT longest(w) FROM {words} WHERE 0").fetchone() == (None,)
    rows = link.execute(
        f"SELECT longest(w) OVER (ORDER BY w COLLATE backwards ROWS 1 PRECEDING) FROM {words}"
    ).fetchall()
    assert rows == [("ccc",), ("ccc",), ("bb",)]

    class Broken(Longest):
        def step(self, value: str) -> None:
            raise LookupError(value)

    link.create_aggregate("broken", 1, Broken)
    with pytest.raises(sqlite3.OperationalError, match="'step' method raised error"):
        link.execute(f"SELECT broken(w) FROM {words}").fetchone()
    link.create_aggregate("broken", 1, None)
    with pytest.raises(sqlite3.OperationalError, match="no such function"):
        link.execute(f"SELECT broken(w) FROM {words}")
    link.close()


async def test_a_source_that_is_locked_is_waited_for(tmp_path: Path) -> None:
    """The wait for the source's lock is the target's call: blocking, and in a fiber."""
    source = Database.at(tmp_path / "source.sqlite3", timeout=0.2)
    source.ask("CREATE TABLE t (a)")
    target = Database.at(tmp_path / "target.sqlite3")
    holder = sqlite3.connect(tmp_path / "source.sqlite3", isolation_level=None)

    def copy() -> None:
        link, to = source.link(), target.link()
        link.execute("SELECT 1").fetchall()
        holder.execute("BEGIN EXCLUSIVE")
        try:
            calls = 0

            def progress(status: int, *_: int) -> None:
                nonlocal calls
                calls += 1
                if calls == 2:
                    assert status == sqlite3.SQLITE_BUSY
                    holder.rollback()

            link.backup(to, progress=progress, sleep=0.001)
            assert calls > 2
        finally:
            link.close()
            to.close()

    await _core.run(copy)
    holder.close()
    assert target.ask("SELECT count(*) FROM t") == (0,)
    assert source.is_whole()
