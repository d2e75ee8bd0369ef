"""After a fault: is the pool whole, has the server forgotten the transaction?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from django.db import connections, transaction

import vinyl
from vinyl import _core
from vinyl.backends.base import pool_of

SERVER_SECONDS = 10.0

BUSY = (
    "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " AND state IN ('active', 'idle in transaction', 'idle in transaction (aborted)')"
)


BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


def kill(admin: psycopg.Connection, pids: list[int]) -> None:
    for pid in pids:
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])


def assert_nobody_holds_a_slot(alias: str, after: str = "") -> dict[str, int]:
    pool = pool_of(alias)
    stats = pool.stats() if pool is not None else {}
    if stats:
        assert stats["pool_size"] == stats["pool_available"], (after, stats)
        assert stats["requests_waiting"] == 0, (after, stats)
    return stats


def assert_server_idle(admin: psycopg.Connection) -> None:
    """No backend works or is in a transaction; one that was told to end is given a moment."""
    deadline = time.monotonic() + SERVER_SECONDS
    while busy := admin.execute(BUSY).fetchall():
        assert time.monotonic() < deadline, f"left on the server: {busy}"
        time.sleep(0.002)


def one(alias: str, value: int = 1) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT %s + 0", [value])
        return cursor.fetchone()[0]


async def others_end() -> None:
    """The other tasks of the loop end.  asyncio.gather() ends with its first cancelled child, while
    another one may still be draining its connection.
    """
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=10)


async def assert_all_slots_work(alias: str) -> None:
    """max_size tasks hold a connection at the same time, each in a transaction."""
    pool = pool_of(alias)
    assert pool is not None
    size = pool.stats()["pool_max"]
    barrier = asyncio.Barrier(size)

    def hold(value: int) -> int:
        with transaction.atomic(using=alias):
            answer = one(alias, value)
            _core.await_(barrier.wait())
            return answer

    async def task(value: int) -> Any:
        return await vinyl.run(hold, value)

    async with asyncio.timeout(30):
        assert await asyncio.gather(*map(task, range(size))) == list(range(size))
