"""COPY and LISTEN through vinyl.cursor and vinyl.listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import DataError, NotSupportedError, OperationalError, connections
from fix_engine import Engine
from library.models import Author

import vinyl

on_a_loop = pytest.mark.modes("asyncio", "uvloop")
on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


async def names(alias: str) -> list[str]:
    return [author.name async for author in Author.vinyl.using(alias).order_by("name")]


async def execute(alias: str, sql: str, params: Any = None) -> None:
    async with vinyl.cursor(alias) as cursor:
        await cursor.execute(sql, params)


async def test_copy_in_and_out(engine: Engine) -> None:
    alias = engine.alias
    async with vinyl.cursor(alias) as cursor:
        if engine.name != "postgresql":
            with pytest.raises(NotSupportedError, match="COPY"):
                async with cursor.copy("COPY library_author (name) FROM STDIN"):
                    pass
            return
        async with cursor.copy("COPY library_author (name) FROM STDIN") as copy:
            for part in ("first\nsec", "ond\n", b"third\n"):
                await copy.write(part)
        assert cursor.rowcount == 3
        assert await names(alias) == ["first", "second", "third"]
        async with cursor.copy(
            "COPY (SELECT name FROM library_author WHERE name > %s ORDER BY name) TO STDOUT",
            ["first"],
        ) as copy:
            parts = [part async for part in copy]
        assert b"".join(parts) == b"second\nthird\n"
        assert await names(alias) == ["first", "second", "third"]


@on_postgresql
async def test_a_copy_that_fails_stores_nothing(engine: Engine) -> None:
    alias = engine.alias

    async def fail() -> None:
        async with (
            vinyl.cursor(alias) as cursor,
            cursor.copy("COPY library_author (name) FROM STDIN") as copy,
        ):
            await copy.write("one\n")
            raise LookupError("the source broke")

    async def bad_data() -> None:
        async with (
            vinyl.cursor(alias) as cursor,
            cursor.copy("COPY library_author (name, born) FROM STDIN") as copy,
        ):
            await copy.write("one\tnot a date\n")

    with pytest.raises(LookupError):
        await fail()
    with pytest.raises(DataError):
        await bad_data()
    assert await names(alias) == []


@on_a_loop
async def test_listen(engine: Engine) -> None:
    alias = engine.alias
    if engine.name != "postgresql":
        with pytest.raises(NotSupportedError, match="LISTEN"):
            await anext(vinyl.listen("x", using=alias))
        return
    channel = 'odd "name'
    notifications = vinyl.listen(channel, "other", using=alias)
    got: list[vinyl.Notification] = []

    async def send() -> None:
        while not await listening(alias, channel):
            pass
        await execute(alias, "SELECT pg_notify(%s, 'one')", [channel])
        await execute(alias, "NOTIFY other")

    async def receive() -> None:
        async for notification in notifications:
            got.append(notification)
            if len(got) == 2:
                return

    await asyncio.gather(receive(), send())
    await notifications.aclose()
    assert [(n.channel, n.payload) for n in got] == [(channel, "one"), ("other", "")]
    assert all(n.pid > 0 for n in got)


async def listening(alias: str, channel: str) -> bool:
    async with vinyl.cursor(alias) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
            " AND state = 'idle' AND datname = current_database() AND query LIKE %s",
            ["%other%"],
        )
        return (await cursor.fetchone())[0] > 0


@on_postgresql
@on_a_loop
async def test_a_listener_is_cancelled_and_leaves_nothing(engine: Engine) -> None:
    alias = engine.alias

    async def forever() -> None:
        async for _ in vinyl.listen("other", using=alias):
            pass

    task = asyncio.create_task(forever())
    while not await listening(alias, "other"):
        pass
    # The task's other operations go on meanwhile.
    assert await names(alias) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await _left(alias)


async def _left(alias: str) -> bool:
    for _ in range(200):
        if not await listening(alias, "other"):
            return False
        await asyncio.sleep(0.005)
    return True


@on_postgresql
@on_a_loop
async def test_a_listener_whose_server_process_ends(engine: Engine) -> None:
    alias = engine.alias

    async def forever() -> AsyncIterator[Any]:
        async for notification in vinyl.listen("other", using=alias):
            yield notification

    task = asyncio.ensure_future(anext(forever()))
    while not await listening(alias, "other"):
        pass
    await execute(
        alias,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
        " AND datname = current_database()",
    )
    with pytest.raises(OperationalError):
        await task
    assert await names(alias) == []


@pytest.mark.parametrize("channels", [(), ("",), (3,)])
async def test_bad_channels(engine: Engine, channels: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="channel"):
        await anext(vinyl.listen(*channels, using=engine.alias))
    assert connections[engine.alias] is not None
