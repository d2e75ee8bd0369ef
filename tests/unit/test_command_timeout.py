"""OPTIONS["command_timeout"]: how long one answer may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections, transaction
from fix_engine import Engine
from library.models import Author

import vinyl
from vinyl import checks
from vinyl.backends.pools import pool_of

# About a minute of work on each.
LONG = {
    "postgresql": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000000)"
    " SELECT sum(x) FROM c",
}


@pytest.fixture
def limited(with_options: Callable[..., Engine]) -> Callable[..., str]:
    return lambda **options: with_options(**options).alias


def run_long(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(LONG[connections[alias].vendor])
        cursor.fetchall()


def one(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


async def test_a_statement_that_takes_longer(limited: Callable[..., str], mode: str) -> None:
    alias = limited(command_timeout=0.2)
    assert await vinyl.run(one, alias) == 1
    began = time.monotonic()
    with pytest.raises(
        OperationalError, match=r"OPTIONS\['command_timeout'\] \(0\.2 s\)"
    ) as caught:
        await vinyl.run(run_long, alias)
    assert time.monotonic() - began < 10
    if connections[alias].vendor == "postgresql":
        assert caught.value.__cause__.sqlstate == "57014"
    pool = pool_of(alias)
    assert pool is not None
    assert pool.stats()["connections_num"] == 1  # cancelled and drained: the same goes on
    assert await vinyl.run(one, alias) == 1
    assert pool.stats()["connections_num"] == 1


async def test_inside_a_transaction(limited: Callable[..., str], mode: str) -> None:
    alias = limited(command_timeout=0.2)

    def work() -> None:
        with transaction.atomic(using=alias):
            Author.objects.using(alias).create(name="before")
            run_long(alias)

    with pytest.raises(OperationalError, match="command_timeout"):
        await vinyl.run(work)
    assert not await Author.vinyl.using(alias).exists()
    assert await vinyl.run(one, alias) == 1


async def test_short_ones_are_left_alone(limited: Callable[..., str], mode: str) -> None:
    alias = limited(command_timeout=5)
    for number in range(20):
        await Author.vinyl.using(alias).acreate(name=f"n{number}")
    assert await Author.vinyl.using(alias).count() == 20


def test_in_plain_code(limited: Callable[..., str]) -> None:
    alias = limited(command_timeout=0.1)
    with pytest.raises(OperationalError, match="command_timeout"):
        run_long(alias)
    assert one(alias) == 1


@pytest.mark.modes("asyncio", "uvloop")
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_lock_that_is_held_longer(limited: Callable[..., str]) -> None:
    alias = limited(command_timeout=0.1, timeout=30)
    held, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with vinyl.atomic(alias):
            await Author.vinyl.using(alias).acreate(name="first")
            held.set()
            await done.wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    with pytest.raises(OperationalError, match="waiting for a lock"):
        await Author.vinyl.using(alias).acreate(name="second")
    done.set()
    await holder
    assert await Author.vinyl.using(alias).count() == 1


@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan")])
def test_values_are_checked(limited: Callable[..., str], value: Any) -> None:
    alias = limited(command_timeout=value)
    (error,) = checks.check_options()
    assert "command_timeout" in error.msg
    with pytest.raises(ImproperlyConfigured, match="command_timeout"):
        one(alias)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_connect_timeout_is_checked(limited: Callable[..., str]) -> None:
    limited(connect_timeout="soon")
    (error,) = checks.check_options()
    assert "connect_timeout" in error.msg
