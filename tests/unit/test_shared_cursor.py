"""One cursor, one connection, used from several tasks: they take turns."""

from __future__ import annotations

import asyncio

import pytest
from django.db import InterfaceError, connections
from fix_engine import Engine

import vinyl

pytestmark = pytest.mark.modes("asyncio", "uvloop")
# About 20 ms of work on each.
WORK = {
    "postgresql": "SELECT pg_sleep(0.02)",
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000)"
    " SELECT sum(x) FROM c",
}


async def test_they_take_turns(engine: Engine) -> None:
    sql = WORK[connections[engine.alias].vendor]
    async with vinyl.cursor(engine.alias) as cursor:
        order: list[int] = []

        async def work(number: int) -> None:
            await cursor.execute(sql)
            order.append(number)

        await asyncio.gather(*(work(number) for number in range(8)))
        assert order == list(range(8))
        assert len(await cursor.fetchall()) == 1


async def test_a_cancel_leaves_the_others_their_turn(engine: Engine) -> None:
    sql = WORK[connections[engine.alias].vendor]
    async with vinyl.cursor(engine.alias) as cursor:
        for victims in ({0}, {1}, {0, 1}, {0, 2, 3}, {4}):

            async def work() -> None:
                await cursor.execute(sql)

            tasks = [asyncio.create_task(work()) for _ in range(5)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for number in victims:
                tasks[number].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                if number in victims:
                    assert isinstance(result, asyncio.CancelledError)
                else:
                    assert result is None
        await cursor.execute(sql)


async def test_rows_are_fetched_between_statements(engine: Engine) -> None:
    """A fetch of another task waits for the statement that runs."""
    sql = WORK[connections[engine.alias].vendor]
    async with vinyl.cursor(engine.alias) as first, vinyl.cursor(engine.alias) as second:
        await first.execute(sql)

        async def fetch() -> int:
            return len(await first.fetchall())

        async def work() -> None:
            await second.execute(sql)

        results = await asyncio.gather(work(), fetch(), work())
        assert results == [None, 1, None]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_a_copy_keeps_the_connection(engine: Engine) -> None:
    async with vinyl.cursor(engine.alias) as cursor:
        async with cursor.copy("COPY (SELECT generate_series(1, 10)) TO STDOUT") as copy:
            with pytest.raises(InterfaceError, match="a COPY, which keeps it until its block ends"):
                await cursor.execute("SELECT 1")
            assert await copy.read() == b"1\n"
        await cursor.execute("SELECT 1")
        assert await cursor.fetchall() == [(1,)]
