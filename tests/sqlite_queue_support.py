"""What the tests of SQLite's queue share: a table, those who write it, who holds the lock."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import Database, start, until_suspended

from vinyl import _sqlite3

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
journals = pytest.mark.parametrize("journal", ["DELETE", "WAL", "MEMORY"])


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return make(tmp_path / "a.sqlite3")


@pytest.fixture
def journaled(tmp_path: Path, journal: str) -> Database:
    return make(tmp_path / "a.sqlite3", journal)


def make(path: Path | str, journal: str = "DELETE", **options: Any) -> Database:
    database = Database.at(path, **options)
    database.ask(f"PRAGMA journal_mode = {journal}")
    database.ask("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    return database


@pytest.fixture
def memory() -> Any:
    """A database in memory, shared by its name, and a connection that keeps it."""
    vfs = _sqlite3.install_memory_vfs()
    database = Database.at(f"file:/queue-{os.getpid()}-{time.monotonic_ns()}?vfs={vfs}")
    keeper = database.own()
    keeper.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield database
    keeper.close()


def write(database: Database, name: Any, begin: str = "BEGIN IMMEDIATE") -> None:
    link = database.link()
    try:
        link.execute(begin)
        link.execute("INSERT INTO t (b) VALUES (?)", (name,))
        link.commit()
    finally:
        link.close()


def read(database: Database) -> int:
    link = database.link()
    try:
        return link.execute("SELECT count(*) FROM t").fetchone()[0]
    finally:
        link.close()


def names(database: Database) -> list[Any]:
    link = database.own()
    try:
        return [name for (name,) in link.execute("SELECT b FROM t ORDER BY a").fetchall()]
    finally:
        link.close()


def writers(
    database: Database, names: Iterable[Any], begin: str = "BEGIN IMMEDIATE"
) -> list[Callable[[], asyncio.Task[Any]]]:
    return [partial(start, write, database, name, begin) for name in names]


class Holder:
    """Has the write lock, in this process, until ``let_go``."""

    def __init__(self, database: Database) -> None:
        self.link = database.own()
        self.link.execute("BEGIN IMMEDIATE")
        self.link.execute("INSERT INTO t (b) VALUES ('holder')")

    def let_go(self) -> None:
        self.link.commit()
        self.link.close()


async def in_line(*starters: Callable[[], asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Each task started when those before it wait."""
    tasks = []
    for starter in starters:
        tasks.append(starter())
        await until_suspended(1)
    assert not any(task.done() for task in tasks)
    return tasks
