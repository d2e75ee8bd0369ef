"""A loop that nobody closes: its thread ends, and what was open there is rolled back."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from django.db import connections, transaction
from fix_engine import Engine, assert_clients_gone, open_files_under
from library.models import Author

import vinyl
from vinyl import _core
from vinyl.backends.pools import pool_of

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def in_a_fiber(alias: str, held: asyncio.Event) -> Any:
    def work() -> None:
        with transaction.atomic(using=alias):
            Author.objects.using(alias).create(name="lost")
            vinyl.await_(wait())

    async def wait() -> None:
        held.set()
        await asyncio.sleep(600)

    return vinyl.run(work)


async def in_a_coroutine(alias: str, held: asyncio.Event) -> None:
    async with vinyl.atomic(alias):
        await Author.vinyl.using(alias).acreate(name="lost")
        held.set()
        await asyncio.sleep(600)


async def in_a_statement(alias: str, held: asyncio.Event) -> None:
    long = {
        "postgresql": "SELECT pg_sleep(600)",
        "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c"
        " WHERE x < 100000000000) SELECT sum(x) FROM c",
    }
    async with vinyl.atomic(alias):
        await Author.vinyl.using(alias).acreate(name="lost")
        async with vinyl.cursor(alias) as cursor:
            held.set()
            await cursor.execute(long[connections[alias].vendor])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine method 'aclose'")
@pytest.mark.parametrize("work", [in_a_fiber, in_a_coroutine, in_a_statement])
@pytest.mark.parametrize("way", ["thread ends", "loop is closed"])
@pytest.mark.parametrize("kind", LOOPS)
def test_nothing_stays_open(
    engine: Engine,
    request: pytest.FixtureRequest,
    kind: str,
    way: str,
    work: Callable[[str, asyncio.Event], Any],
) -> None:
    alias = engine.alias
    kept: list[Any] = []

    def thread() -> None:
        loop = LOOPS[kind]()
        kept.append(loop)

        async def start() -> None:
            held = asyncio.Event()

            async def body() -> None:
                await work(alias, held)

            kept.append(asyncio.ensure_future(body()))
            await held.wait()
            for _ in range(5):
                await asyncio.sleep(0)

        loop.run_until_complete(start())
        if way == "loop is closed":
            loop.close()

    live = _core.stats()["fibers_live"]
    runner = threading.Thread(target=thread)
    runner.start()
    runner.join()
    # The loop and the task are alive, and so is what they refer to.
    assert _core.stats()["fibers_live"] == live
    pool = pool_of(alias)
    assert pool is not None
    assert pool.stats()["pool_size"] == 0
    if engine.name == "postgresql":
        assert_clients_gone(request.getfixturevalue("postgres_admin"))
    else:
        assert open_files_under(engine.conf["NAME"]) == []
    assert Author.objects.using(alias).count() == 0
    Author.objects.using(alias).create(name="free")
    kept[1]._log_destroy_pending = False
    if way == "thread ends":
        kept[0].close()
    kept.clear()
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_dropped_unclosed(engine: Engine, request: pytest.FixtureRequest) -> None:
    """asyncio closes it when it is collected. (uvloop keeps such a loop until the process ends.)"""

    def run() -> None:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(count()) == 0

    async def count() -> int:
        return await Author.vinyl.using(engine.alias).count()

    run()
    pool = pool_of(engine.alias)
    assert pool is not None
    gc.collect()
    assert pool.stats()["pool_size"] == 0
    if engine.name == "postgresql":
        assert_clients_gone(request.getfixturevalue("postgres_admin"))
    else:
        assert open_files_under(engine.conf["NAME"]) == []
