"""The pool, through each engine: limits, queue, time limits, ends of loops and of processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections, transaction
from fix_engine import Engine, installed

from vinyl import _core
from vinyl.backends.base import pool_of
from vinyl.exceptions import PoolTimeout

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def pooled(with_options: Callable[..., Engine]) -> Callable[..., Engine]:
    """The engine again, with OPTIONS["pool"] as given."""
    return lambda **options: with_options(pool=options)


def one(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


def hold(alias: str, seconds: float) -> int:
    with transaction.atomic(using=alias):
        answer = one(alias)
        _core._sleep(seconds)
        return answer


def stats(alias: str) -> dict[str, int]:
    pool = pool_of(alias)
    assert pool is not None
    return pool.stats()


async def task(fn: Callable[..., int], *args: Any) -> int:
    return await _core.run(fn, *args)


@on_a_loop
async def test_no_more_than_max_size_and_nobody_is_forgotten(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=3).alias
    tasks = [asyncio.create_task(task(hold, alias, 0.002)) for _ in range(30)]
    assert await asyncio.gather(*tasks) == [1] * 30
    now = stats(alias)
    assert now["connections_num"] == now["pool_size"] == now["pool_available"] == 3
    assert now["requests_num"] == 30
    assert now["requests_queued"] == 27
    assert now["requests_waiting"] == 0
    assert set(now) == {
        "pool_min",
        "pool_max",
        "pool_size",
        "pool_available",
        "requests_waiting",
        "usage_ms",
        "requests_num",
        "requests_queued",
        "requests_wait_ms",
        "requests_errors",
        "returns_bad",
        "connections_num",
        "connections_ms",
        "connections_errors",
        "connections_lost",
    }


@on_a_loop
async def test_first_come_first_served(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=1).alias
    served: list[int] = []

    def serve(number: int) -> int:
        hold(alias, 0.001)
        served.append(number)
        return number

    tasks = []
    for number in range(10):
        tasks.append(asyncio.create_task(task(serve, number)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert served == list(range(10))


@on_a_loop
async def test_the_timeout_says_who_holds_what(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=1, timeout=0.02).alias
    holding = asyncio.Event()

    async def holder() -> None:
        await _core.run(one, alias)

        def work() -> None:
            with transaction.atomic(using=alias):
                one(alias)
                _core.await_(wait())

        async def wait() -> None:
            holding.set()
            await asyncio.sleep(60)

        await _core.run(work)

    held = asyncio.create_task(holder(), name="the holder")
    await holding.wait()
    with pytest.raises(PoolTimeout, match="the holder") as caught:
        await asyncio.create_task(task(one, alias))
    assert isinstance(caught.value, OperationalError)
    assert "max_size" in str(caught.value)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert await asyncio.create_task(task(one, alias)) == 1


@on_a_loop
async def test_max_waiting(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=1, max_waiting=1).alias
    first = asyncio.create_task(task(hold, alias, 0.02))
    await asyncio.sleep(0)
    while stats(alias)["pool_size"] == 0 or stats(alias)["connections_num"] == 0:
        await asyncio.sleep(0)
    second = asyncio.create_task(task(one, alias))
    while stats(alias)["requests_waiting"] == 0:
        await asyncio.sleep(0)
    with pytest.raises(PoolTimeout, match="max_waiting"):
        await asyncio.create_task(task(one, alias))
    assert await asyncio.gather(first, second) == [1, 1]


@on_a_loop
async def test_cancelled_in_the_queue(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=1).alias
    tasks = [asyncio.create_task(task(hold, alias, 0.005)) for _ in range(10)]
    await asyncio.sleep(0.001)
    for number in (1, 3, 9):
        tasks[number].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(result == 1 for result in results) == 7
    assert stats(alias)["pool_available"] == stats(alias)["pool_size"] == 1
    assert await asyncio.create_task(task(one, alias)) == 1


@on_a_loop
async def test_max_lifetime(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_lifetime=0).alias
    for _ in range(3):
        assert await _core.run(one, alias) == 1
    assert stats(alias)["connections_num"] == 3
    assert stats(alias)["pool_size"] == 0


@on_a_loop
async def test_idle_ones_are_closed_down_to_min_size(pooled: Callable[..., Engine]) -> None:
    alias = pooled(min_size=1, max_size=5, max_idle=0.01).alias
    await asyncio.gather(*[asyncio.create_task(task(hold, alias, 0.001)) for _ in range(5)])
    for _ in range(1000):
        if stats(alias)["pool_size"] == 1:
            break
        await asyncio.sleep(0.005)
    assert stats(alias)["pool_size"] == stats(alias)["pool_available"] == 1


def test_each_loop_has_its_own_and_closes_them(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=2).alias

    async def main() -> int:
        await asyncio.gather(*[asyncio.create_task(task(hold, alias, 0.001)) for _ in range(4)])
        return stats(alias)["pool_size"]

    assert asyncio.run(main()) == 2
    assert stats(alias)["pool_size"] == 0
    assert asyncio.run(main()) == 2
    assert stats(alias)["pool_size"] == 0


def test_a_fork_leaves_the_parents_connections_alone(pooled: Callable[..., Engine]) -> None:
    alias = pooled(max_size=2).alias

    async def main() -> None:
        assert await _core.run(one, alias) == 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                assert asyncio.run(task(one, alias)) == 1
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert await _core.run(one, alias) == 1
        assert stats(alias)["connections_num"] == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_sise": 3}, "max_sise"),
        ({"max_size": 0}, "max_size"),
        ({"min_size": 5, "max_size": 2}, "min_size"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "soon"}, "pool"),
        ({"max_size": 10**30}, "pool"),
    ],
)
def test_bad_options(pooled: Callable[..., Engine], options: dict[str, Any], message: str) -> None:
    alias = pooled(**options).alias
    with pytest.raises(ImproperlyConfigured, match=message):
        one(alias)


def test_no_persistent_connections_beside_a_pool(engine: Engine) -> None:
    conf = engine.conf
    entry = {**conf, "CONN_MAX_AGE": 10, "OPTIONS": {**conf.get("OPTIONS", {}), "pool": True}}
    with (
        installed({engine.alias: entry}),
        pytest.raises(ImproperlyConfigured, match="persistent connections"),
    ):
        one(engine.alias)
