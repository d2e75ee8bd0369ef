"""What a pool opens in the background: min_size, and what replaces lost connections."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from fix_engine import Engine

from vinyl import _core, checks
from vinyl.backends.pools import REFUSED, pool_of

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def pooled(with_options: Callable[..., Engine]) -> Callable[..., str]:
    """The engine's alias, with OPTIONS["pool"] as given."""
    return lambda **options: with_options(pool=options).alias


def one(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


def stats(alias: str) -> dict[str, int]:
    pool = pool_of(alias)
    assert pool is not None
    return pool.stats()


async def until(alias: str, **wanted: int) -> None:
    deadline = time.monotonic() + 20
    while not wanted.items() <= stats(alias).items():
        assert time.monotonic() < deadline, (stats(alias), wanted)
        await asyncio.sleep(0.002)


def lose(alias: str) -> None:
    """A connection that cannot go back: it has state of its own."""
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE mine (a int)")
    connections[alias].close()


@on_a_loop
async def test_min_size_is_filled_after_the_first_use(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=4, max_size=6, num_workers=2)
    before = set(asyncio.all_tasks())

    def first() -> int:
        answer = one(alias)
        # Nothing else was opened before the first statement's own connection.
        assert stats(alias)["connections_num"] >= 1
        return answer

    assert await _core.run(first) == 1
    await until(alias, pool_size=4, pool_available=4)
    assert stats(alias)["connections_num"] == 4
    assert set(asyncio.all_tasks()) == before
    assert await _core.run(one, alias) == 1


@on_a_loop
async def test_lost_ones_are_replaced(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=2, max_size=3)
    await _core.run(one, alias)
    await until(alias, pool_available=2)
    await _core.run(lose, alias)
    await until(alias, pool_available=2, connections_num=3)


@on_a_loop
async def test_no_more_than_max_size(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=3, max_size=3, num_workers=3)
    sizes: set[int] = set()

    def work() -> int:
        answer = one(alias)
        sizes.add(stats(alias)["pool_size"])
        return answer

    async def task() -> int:
        return await _core.run(work)

    assert await asyncio.gather(*(task() for _ in range(30))) == [1] * 30
    await until(alias, pool_size=3, pool_available=3)
    assert max(sizes) <= 3
    assert stats(alias)["connections_num"] == 3


def test_threads_are_served_too(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=3)
    assert one(alias) == 1
    deadline = time.monotonic() + 20
    while stats(alias)["pool_size"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert stats(alias)["pool_available"] == 2  # this thread keeps its own
    connections[alias].close()
    assert stats(alias)["pool_available"] == 3


def test_a_loop_that_ends_at_once(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=5)

    async def main() -> int:
        return await _core.run(one, alias)

    assert asyncio.run(main()) == 1
    assert stats(alias)["pool_size"] == 0
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) == 1
    loop.close()
    assert stats(alias)["pool_size"] == 0


def test_a_forked_child_fills_its_own(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=2, max_size=3)

    async def fill() -> None:
        await _core.run(one, alias)
        await until(alias, pool_available=2)

    async def main() -> None:
        await _core.run(one, alias)  # the filler has not had its turn yet
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                asyncio.run(fill())
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        await fill()

    asyncio.run(main())


@on_a_loop
async def test_nothing_is_opened_ahead_without_a_lifetime(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=2, max_lifetime=0)
    for _ in range(3):
        await _core.run(one, alias)
        await asyncio.sleep(0)
    assert stats(alias)["connections_num"] == 3


def test_max_size_none_is_min_size(pooled: Callable[..., str]) -> None:
    alias = pooled(min_size=2, max_size=None, name="mine")
    connections[alias].ensure_connection()
    assert stats(alias)["pool_max"] == 2
    assert "mine" in repr(pool_of(alias))
    assert checks.check_options() == []


@pytest.mark.parametrize("key", [*REFUSED, "max_sise"])
def test_other_keys_are_refused_by_name(pooled: Callable[..., str], key: str) -> None:
    alias = pooled(**{key: lambda connection: None})
    (error,) = checks.check_options()
    assert error.id == "vinyl.E008"
    assert key in error.msg
    with pytest.raises(ImproperlyConfigured, match=key):
        one(alias)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": True},
        {"reconnect_timeout": -1},
        {"reconnect_timeout": "300"},
        {"max_idle": float("nan")},
        {"reconnect_failed": 3},
        {"min_size": -1},
        {"min_size": 2.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_values_are_checked(pooled: Callable[..., str], options: dict[str, Any]) -> None:
    pooled(**options)
    (error,) = checks.check_options()
    assert next(iter(options)) in error.msg
