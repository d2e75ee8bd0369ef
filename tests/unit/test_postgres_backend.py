"""Django's wrapper on the PostgreSQL engine: what settings do, and what bad ones get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, OperationalError, connections, transaction
from fix_engine import installed
from fix_links import DATABASE, Links
from private_postgres import PrivatePostgres

from vinyl import _core
from vinyl.backends.base import close_pools


@pytest.fixture
def conf(links_server: PrivatePostgres) -> Iterator[dict[str, Any]]:
    entry = links_server.django("vinyl.backends.postgresql", DATABASE)
    with installed({"default": entry}):
        yield connections.settings["default"]
    close_pools()


def query(sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


async def test_options(conf: dict[str, Any], mode: str) -> None:
    conf["TIME_ZONE"] = None
    conf["OPTIONS"] = {
        "assume_role": "pg_monitor",
        "isolation_level": psycopg.IsolationLevel.REPEATABLE_READ,
        "application_name": "options",
        "connect_timeout": 5,
        "keepalives": True,
        "pool": {"max_size": 2},
    }

    def work() -> None:
        assert query("SELECT current_user, current_setting('application_name')") == [
            ("pg_monitor", "options")
        ]
        assert query("SHOW TimeZone") == [("UTC",)]
        with transaction.atomic():
            assert query("SHOW transaction_isolation") == [("repeatable read",)]
        connections["default"].close()

    await _core.run(work)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"isolation_level": "x"}, ImproperlyConfigured, "Invalid transaction isolation level x"),
        ({"cursor_factory": psycopg.Cursor}, ImproperlyConfigured, "cursor_factory"),
        ({"no_such_key": 1}, OperationalError, "no_such_key"),
        ({"connect_timeout": "soon"}, ImproperlyConfigured, "connect_timeout"),
        ({"sslmode": object()}, ImproperlyConfigured, "sslmode"),
        ({"prepare_threshold": "x"}, ImproperlyConfigured, "default"),
        ({"service": "no_such_service"}, OperationalError, "no_such_service"),
        ({"pool": {"size": 3}}, ImproperlyConfigured, "size"),
        ({"assume_role": "nobody_here"}, Exception, "nobody_here"),
        ({"application_name": "a\0b"}, ImproperlyConfigured, "NUL"),
    ],
)
async def test_bad_options(
    conf: dict[str, Any], mode: str, options: dict[str, Any], error: Any, message: str
) -> None:
    conf["OPTIONS"] = options
    with pytest.raises(error, match=message):
        await _core.run(query, "SELECT 1")


def test_plain_code_connects_at_once(conf: dict[str, Any]) -> None:
    conf["NAME"] = "no_such_database"
    with pytest.raises(OperationalError, match="no_such_database"):
        connections["default"].ensure_connection()


async def test_errors_and_sql(conf: dict[str, Any], mode: str) -> None:
    def work() -> None:
        connection = connections["default"]
        with transaction.atomic():
            query_nothing("CREATE TEMP TABLE one (a int UNIQUE)")
            query_nothing("INSERT INTO one VALUES (%s)", [1])
            with pytest.raises(IntegrityError) as caught, transaction.atomic():
                query_nothing("INSERT INTO one VALUES (%s)", [1])
            assert caught.value.__cause__.sqlstate == "23505"
            assert query("SELECT a FROM one") == [(1,)]
        composed = connection.ops.compose_sql("SELECT %s, %s", ["it's", 5])
        assert composed == "SELECT 'it''s', 5"
        connection.force_debug_cursor = True
        query("SELECT %s::int", [5])
        assert connection.queries[-1]["sql"] == "SELECT 5::int"
        connection.force_debug_cursor = False
        assert connection.pg_version > 100000
        assert connection.connection.info.parameter_status("TimeZone") == "UTC"
        assert connection.is_usable()
        connection.check_constraints()
        connection.close()

    await _core.run(work)


def query_nothing(sql: str, params: Any = None) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, params)


async def test_chunked_cursor(conf: dict[str, Any], mode: str) -> None:
    def work() -> None:
        connection = connections["default"]
        for block in (False, True):
            with connection.chunked_cursor() as cursor:
                connection.set_autocommit(not block)
                cursor.execute("SELECT n FROM generate_series(1, 5) n")
                assert cursor.fetchmany(2) == [(1,), (2,)]
                assert cursor.fetchall() == [(3,), (4,), (5,)]
            if block:
                connection.rollback()
        connection.set_autocommit(True)
        connection.close()

    await _core.run(work)


def test_a_link_is_an_adapt_context(pg: Links) -> None:
    link = pg.link()
    assert psycopg.sql.quote("it's", link) == "'it''s'"
    composed = psycopg.sql.SQL("SELECT {}").format(psycopg.sql.Literal(5))
    with link.cursor() as cursor:
        assert cursor.execute(composed).fetchone() == (5,)
