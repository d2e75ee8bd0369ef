"""In-memory databases, which live as long as a connection to them is open.

A pool opens and closes physical connections as it likes, so one connection per
database, the keeper, stays open for as long as the database is wanted.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from vinyl import _sqlite3

__all__ = ["forget", "keep", "memory_uri", "shares_cache"]

_keepers: dict[str, _sqlite3.Connection] = {}
_lock = threading.Lock()
# Not os.getpid() at the time of use: a forked child goes on with its copy of the database.
_PROCESS = os.getpid()


@dataclass(frozen=True)
class _Keeper:
    """What a keeper is opened with."""

    database: str
    uri: bool = True
    timeout: float = 5.0
    cached_statements: int = 0
    detect_types: int = 0
    command_timeout: float = 0.0
    setup: None = None


def shares_cache(name: str) -> bool:
    """Whether connections to ``name`` share one cache, table locks and all."""
    return name.startswith("file:") and "cache=shared" in name


def memory_uri(name: Any, alias: str) -> str | None:
    """The URI under which every connection sees the in-memory database ``name``.

    None: ``name`` is a file. A database that SQLite would make anew for each
    connection becomes one per alias and process, in SQLite's memdb VFS, whose lock is queued for.
    """
    if not isinstance(name, str):
        return None
    in_uri = name.startswith("file:") and ("mode=memory" in name or "file::memory:" in name)
    if name != ":memory:" and not in_uri:
        return None
    if shares_cache(name):
        return name
    return f"file:/vinyl-{alias}-{_PROCESS}?vfs={_sqlite3.install_memory_vfs()}"


def keep(uri: str) -> None:
    """Keep the in-memory database at ``uri`` alive until `forget`."""
    with _lock:
        if uri not in _keepers:
            keeper = _sqlite3.Connection(_Keeper(uri))
            # Without a statement there is no connection yet.
            keeper.execute("PRAGMA schema_version").fetchall()
            _keepers[uri] = keeper


def forget(uri: str) -> None:
    """Let the database go with its last connection."""
    with _lock:
        keeper = _keepers.pop(uri, None)
    if keeper is not None:
        keeper.close()
