"""Links of the PostgreSQL engine on the private server, without Django's wrapper.

``pg`` makes pools and links and closes them; each test runs in every mode, its statements inside
operations as they are in real life.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from private_postgres import PrivatePostgres

from vinyl import _core, _postgres

DATABASE = "vinyl_links"


class Links:
    """Makes links; ``server`` is the PrivatePostgres."""

    def __init__(self, server: PrivatePostgres) -> None:
        self.server = server
        self._pools: list[Any] = []
        self._links: list[Any] = []
        self._numbers = itertools.count()

    def params(self, **more: str) -> dict[str, str]:
        return {
            "dbname": DATABASE,
            "host": self.server.host,
            "port": str(self.server.port),
            "user": self.server.user,
            "client_encoding": "UTF8",
        } | more

    def config(self, params: dict[str, str] | None = None, **options: Any) -> Any:
        return _postgres.Config(self.params() if params is None else params, **options)

    def pool(self, config: Any = None, **limits: Any) -> Any:
        pool = _core.Pool(
            _postgres.driver, config or self.config(), name=f"links{next(self._numbers)}", **limits
        )
        self._pools.append(pool)
        return pool

    def link(self, pool: Any = None, **options: Any) -> Any:
        pool = pool or self.pool(**options)
        link = _postgres.Connection(pool, pool.config)
        self._links.append(link)
        return link

    def forget(self) -> None:
        """Drops the links instead of closing them."""
        self._links.clear()

    def close(self) -> None:
        for link in self._links:
            link.close()
        for pool in self._pools:
            pool.close()


@pytest.fixture(scope="session")
def links_server(postgres_server: PrivatePostgres) -> PrivatePostgres:
    postgres_server.psql(f"CREATE DATABASE {DATABASE}")
    return postgres_server


@pytest.fixture
def pg(links_server: PrivatePostgres) -> Iterator[Links]:
    links = Links(links_server)
    yield links
    links.close()


def rows(link: Any, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    """All rows of one statement; [] for one without rows. To be called inside an operation."""
    with link.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []
