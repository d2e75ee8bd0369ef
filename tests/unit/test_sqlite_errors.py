"""Faults below the SQLite engine: the disk is full, the file is read-only, garbled or gone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import Database

from vinyl import _core


async def failing(function: Callable[..., Any], *args: Any) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught:
        await _core.run(function, *args)
    return caught.value


def make(path: Path) -> Database:
    database = Database.at(path)
    database.ask("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    return database


async def test_a_full_disk(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite3")
    database.config.setup = lambda link: link.execute("PRAGMA max_page_count = 20").fetchall()

    def fill() -> None:
        link = database.link()
        try:
            link.execute("BEGIN")
            for _ in range(100):
                link.execute("INSERT INTO t (b) VALUES (zeroblob(10000))")
        finally:
            link.rollback()
            link.close()

    error = await failing(fill)
    assert isinstance(error, sqlite3.OperationalError)
    assert (str(error), error.sqlite_errorname) == ("database or disk is full", "SQLITE_FULL")
    assert database.ask("SELECT count(*) FROM t") == (0,)
    assert database.is_whole()


@pytest.mark.parametrize("sql", ["INSERT INTO t DEFAULT VALUES", "DROP TABLE t", "VACUUM"])
async def test_a_read_only_database(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "a.sqlite3"
    make(path)
    database = Database.at(f"file:{path}?mode=ro")

    def write() -> None:
        link = database.link()
        try:
            link.execute(sql)
        finally:
            link.close()

    error = await failing(write)
    assert isinstance(error, sqlite3.OperationalError)
    assert error.sqlite_errorname == "SQLITE_READONLY"
    assert database.is_whole()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(b"This is no database at all. " * 100)
    database = Database.at(path)

    def read() -> None:
        link = database.link()
        try:
            link.execute("SELECT * FROM t")
        finally:
            link.close()

    error = await failing(read)
    assert type(error) is sqlite3.DatabaseError
    assert error.sqlite_errorname == "SQLITE_NOTADB"
    assert database.pool.stats()["pool_size"] == 0


async def test_a_garbled_database(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    database = make(path)
    database.ask("INSERT INTO t (b) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c"
                 " WHERE x < 5000) SELECT hex(zeroblob(50)) FROM c RETURNING a")  # fmt: skip
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))

    def read() -> None:
        link = database.link()
        try:
            link.execute("SELECT count(b), sum(length(b)) FROM t").fetchall()
        finally:
            link.close()

    error = await failing(read)
    assert isinstance(error, sqlite3.DatabaseError)
    assert error.sqlite_errorname.startswith("SQLITE_CORRUPT")
    assert database.pool.stats()["pool_size"] == 0


async def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "nowhere" / "a.sqlite3")
    error = await failing(database.do, "SELECT 1")
    assert isinstance(error, sqlite3.OperationalError)
    assert error.sqlite_errorname == "SQLITE_CANTOPEN"
    assert database.pool.stats()["pool_size"] == 0


async def test_a_set_up_that_fails(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite3")
    database.config.setup = lambda link: link.execute("SELECT nonsense")
    error = await failing(database.do, "SELECT 1")
    assert "nonsense" in str(error)
    database.config.setup = lambda link: (
        link.execute("BEGIN IMMEDIATE") and link.execute("SELECT 1")
    )
    error = await failing(database.do, "SELECT 1")
    assert "left a transaction open" in str(error)
    assert database.pool.stats()["pool_size"] == 0
    database.config.setup = None
    assert database.ask("SELECT 1") == (1,)


async def test_a_constraint_deferred_to_the_commit(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite3")
    database.ask("CREATE TABLE u (a REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    database.config.setup = lambda link: link.execute("PRAGMA foreign_keys = ON")

    def work() -> None:
        link = database.link()
        link.execute("BEGIN")
        link.execute("INSERT INTO u VALUES (1)")
        try:
            link.commit()
        finally:
            assert link.in_transaction
            link.rollback()
            link.close()

    error = await failing(work)
    assert isinstance(error, sqlite3.IntegrityError)
    assert error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY"
    assert database.ask("SELECT count(*) FROM u") == (0,)
    assert database.is_whole()
