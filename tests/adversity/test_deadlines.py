"""command_timeout and connect_timeout where nothing is heard of the server any more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from adversity_support import report
from adversity_support.proxy import Proxy
from adversity_support.whole import BACKENDS, assert_nobody_holds_a_slot, one
from django.db import OperationalError, connections, transaction
from fix_engine import DATABASE, Engine, installed
from library.models import Author

import vinyl

pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
LIMIT = 0.3
#: The request to cancel is given 50 ms; the rest is the machine's.
SLACK = 0.05 + 0.4


@pytest.fixture
def alias(engine: Engine, proxy: Proxy) -> Iterator[str]:
    entry = engine.conf | {
        "HOST": "127.0.0.1",
        "PORT": str(proxy.port),
        "NAME": DATABASE,
        "OPTIONS": {"command_timeout": LIMIT},
    }
    with installed({"default": entry}):
        yield "default"


async def overdue(match: str, fn: Callable[..., Any], *args: Any) -> None:
    """``fn`` fails with this error in time; the next statement is served by another connection."""
    began = time.monotonic()
    with pytest.raises(OperationalError, match=match):
        await vinyl.run(fn, *args)
    took = time.monotonic() - began
    assert LIMIT <= took < LIMIT + SLACK, took
    report("command_timeout on a frozen server", over=round(took - LIMIT, 3))


def commit(alias: str, freeze: Callable[[], Any]) -> None:
    with transaction.atomic(using=alias):
        Author.objects.using(alias).create(name="perhaps")
        freeze()


def statement_in_block(alias: str, freeze: Callable[[], Any]) -> None:
    with transaction.atomic(using=alias):
        Author.objects.using(alias).create(name="lost")
        freeze()
        one(alias)


def rows_of_a_cursor(alias: str, freeze: Callable[[], Any]) -> None:
    with transaction.atomic(using=alias):
        rows = Author.objects.using(alias).iterator(chunk_size=1)
        next(rows)
        freeze()
        next(rows)


def rows_read_ahead(alias: str, freeze: Callable[[], Any]) -> None:
    rows = Author.objects.using(alias).iterator(chunk_size=1)
    next(rows)
    freeze()
    list(rows)


def statement_behind_rows(alias: str, freeze: Callable[[], Any]) -> None:
    """It waits for rows that are under way, and takes as long as it may itself."""
    rows = Author.objects.using(alias).iterator(chunk_size=1)
    next(rows)
    freeze()
    one(alias)


def copy(alias: str, freeze: Callable[[], Any]) -> None:
    with (
        connections[alias].wrap_database_errors,
        connections[alias].cursor() as cursor,
        cursor.copy("COPY library_author (name) FROM STDIN") as into,
    ):
        into.write("x\n")
        freeze()


async def test_a_statement(alias: str, proxy: Proxy, mode: str) -> None:
    assert await vinyl.run(one, alias) == 1
    proxy.freeze()
    await overdue(
        "nor the request to cancel; the connection was closed|command_timeout", one, alias
    )
    assert await vinyl.run(one, alias) == 1


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (commit, "did not answer COMMIT.*whether it took place is not known"),
        (statement_in_block, "command_timeout"),
        (rows_of_a_cursor, "command_timeout"),
        (rows_read_ahead, "command_timeout"),
        (statement_behind_rows, "command_timeout"),
        (copy, "command_timeout"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_in_the_middle(
    alias: str, proxy: Proxy, mode: str, work: Callable[..., None], match: str
) -> None:
    for number in range(3):
        await Author.vinyl.create(name=f"n{number}")
    await overdue(match, work, alias, proxy.freeze)
    assert await vinyl.run(one, alias) == 1
    if mode != "blocking":
        assert_nobody_holds_a_slot(alias)


async def test_a_stopped_backend(
    engine: Engine, alias: str, mode: str, postgres_admin: psycopg.Connection
) -> None:
    assert await vinyl.run(one, alias) == 1
    pids = [pid for (pid,) in postgres_admin.execute(BACKENDS).fetchall()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await overdue("command_timeout", one, alias)
        assert await vinyl.run(one, alias) == 1
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_connecting(engine: Engine, mode: str) -> None:
    """connect_timeout holds to a fraction of a second, unlike libpq's own."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        params = {"dbname": "x", "host": "127.0.0.1", "port": str(listener.getsockname()[1])}

        def connect() -> None:
            from vinyl import _postgres

            link = _postgres.Connection(None, _postgres.Config(params, connect_timeout=LIMIT))
            link.attach()

        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match=r"within connect_timeout \(0.3 s\)"):
            await vinyl.run(connect)
        assert LIMIT <= time.monotonic() - began < LIMIT + SLACK
