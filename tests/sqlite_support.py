"""For the tests of the SQLite engine: a database file with its pool, below Django."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vinyl.backends.sqlite3.base  # noqa: F401  registers Django's converters
from vinyl import _core, _sqlite3

#: Counts to its parameter inside SQLite: about 0.1 s per million.
COUNT = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?)"
    " SELECT sum(x) FROM c"
)


@dataclass
class Config:
    """What the driver opens connections with."""

    database: str
    timeout: float = 5.0
    setup: Callable[[Any], None] | None = None
    detect_types: int = 3
    cached_statements: int = 128
    uri: bool = True
    command_timeout: float = 0.0


@dataclass
class Database:
    """One database and its pool; ``link()`` is what a session holds."""

    config: Config
    max_size: int = 10
    pool: Any = field(init=False)

    def __post_init__(self) -> None:
        self.pool = _core.Pool(_sqlite3.driver, self.config, name="test", max_size=self.max_size)

    @classmethod
    def at(cls, path: Path | str, max_size: int = 10, **options: Any) -> Database:
        return cls(Config(str(path), **options), max_size)

    def link(self) -> Any:
        return _sqlite3.Connection(self.config, self.pool)

    def own(self) -> Any:
        """A connection outside the pool."""
        return _sqlite3.Connection(self.config)

    def ask(self, sql: str, *params: Any) -> Any:
        """The first row of a statement on a connection of its own; for use outside fibers too."""
        link = self.own()
        try:
            return link.execute(sql, params).fetchone()
        finally:
            link.close()

    def do(self, sql: str, *params: Any) -> None:
        """One statement by way of the pool; for use in fibers."""
        self.link().execute(sql, params)

    def is_whole(self) -> bool:
        """Every connection of the pool is idle and none came back in a bad state."""
        stats = self.pool.stats()
        return stats["pool_available"] == stats["pool_size"] and stats["returns_bad"] == 0


def start(function: Callable[..., Any], *args: Any) -> asyncio.Task[Any]:
    """A task that runs ``function`` in a fiber."""

    async def operation() -> Any:
        return await _core.run(function, *args)

    return asyncio.ensure_future(operation())


async def until(true: Callable[[], bool]) -> None:
    """Turns of the loop until something is so; the test's own timeout ends a vain wait."""
    while not true():
        await asyncio.sleep(0)


async def until_suspended(times: int = 1) -> None:
    """Turns of the loop until fibers have suspended ``times`` more."""
    goal = _core.stats()["suspends"] + times
    await until(lambda: _core.stats()["suspends"] >= goal)
