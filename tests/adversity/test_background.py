"""Connections that are opened in the background, to a server that is away."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from adversity_support.proxy import Proxy
from adversity_support.whole import BACKENDS, kill, one
from django.db import OperationalError, connections, transaction
from fix_engine import DATABASE, Engine, installed

import vinyl
from vinyl.backends.pools import close_pools, pool_of

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


@pytest.fixture
def given_up() -> list[Any]:
    return []


@pytest.fixture
def alias(engine: Engine, proxy: Proxy, given_up: list[Any]) -> Iterator[str]:
    pool = {
        "min_size": 4,
        "reconnect_timeout": 0.05,
        "reconnect_failed": given_up.append,
    }
    entry = engine.conf | {"HOST": "127.0.0.1", "PORT": str(proxy.port), "NAME": DATABASE}
    with installed({"default": entry | {"OPTIONS": {"pool": pool}}}):
        yield "default"


def stats() -> dict[str, int]:
    pool = pool_of("default")
    assert pool is not None
    return pool.stats()


async def until(check: Any) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, stats()
        await asyncio.sleep(0.002)


async def _in_task(request: Any, alias: str) -> int:
    return await request(alias)


@on_a_loop
async def test_it_tries_again_gives_up_and_goes_on_with_the_next_request(
    alias: str,
    proxy: Proxy,
    given_up: list[Any],
    caplog: pytest.LogCaptureFixture,
    postgres_admin: psycopg.Connection,
) -> None:
    await vinyl.run(one, alias)
    await until(lambda: stats()["pool_available"] == 4)

    def lose_the_others() -> None:
        with transaction.atomic(), connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            own = cursor.fetchone()[0]
            kill(postgres_admin, [n for (n,) in postgres_admin.execute(BACKENDS) if n != own])
            proxy.cut_at = 0  # for who connects from now on
            with pytest.raises(OperationalError):
                vinyl.await_(another())

    async def another() -> None:
        request = vinyl.as_async(one)
        await asyncio.create_task(_in_task(request, alias), context=contextvars.Context())

    with caplog.at_level(logging.WARNING, "vinyl.pool"):
        await vinyl.run(lose_the_others)
        await until(lambda: given_up)
        assert given_up == [pool_of(alias)]
        assert stats()["connections_errors"] >= 2
        # One word at the beginning, one at the end, however many attempts there were.
        assert len(caplog.messages) == 2, caplog.messages
        assert "trying again for up to 0.05 s" in caplog.messages[0]
        assert "The next request will try again" in caplog.messages[1]
        proxy.cut_at = None
        assert await vinyl.run(one, alias) == 1
        await until(lambda: stats()["pool_available"] == 4)
        assert len(caplog.messages) == 2


@on_a_loop
async def test_a_request_does_not_wait_for_them(alias: str, proxy: Proxy) -> None:
    """The server answers nobody but the connection that is open."""

    def first() -> int:
        answer = one(alias)
        proxy.delay = 30.0
        return answer

    assert await vinyl.run(first) == 1
    proxy.delay = 0.0
    for _ in range(10):
        assert await vinyl.run(one, alias) == 1
    close_pools()
    assert stats()["pool_size"] == 0
