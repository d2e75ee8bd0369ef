"""A connection that is dropped instead of closed: a ResourceWarning names the line that took it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from django.db import connections, transaction
from fix_engine import Engine, installed
from fix_links import Links
from library.models import Author

import vinyl
from vinyl import _core
from vinyl.backends.pools import pool_of
from vinyl.exceptions import PoolTimeout

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


def here(more: int = 0) -> str:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno + more}"


@contextmanager
def warned() -> Iterator[list[str]]:
    """The texts of the ResourceWarnings, once what is dropped has been collected."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        gc.collect()
    found += [str(each.message) for each in caught if each.category is ResourceWarning]


@on_a_loop
async def test_a_task_that_ends_inside_atomic(engine: Engine) -> None:
    alias = engine.alias
    lines = []

    async def leave() -> None:
        await vinyl.atomic(alias).__aenter__()
        lines.append(here(1))
        await Author.vinyl.using(alias).create(name="lost")
        await Author.vinyl.using(alias).create(name="lost too")

    with warned() as found:
        task = asyncio.create_task(leave())
        await task
        del task
        await asyncio.sleep(0)  # the loop lets go of it too
        gc.collect()
    (text,) = found
    assert f"database '{alias}'" in text
    assert "inside a transaction" in text
    assert text.endswith(f"It was taken at {lines[0]}.")
    assert not await Author.vinyl.using(alias).exists()
    pool = pool_of(alias)
    assert pool is not None
    assert pool.stats()["pool_size"] == pool.stats()["pool_available"]


@on_a_loop
async def test_inside_a_fiber_the_line_is_the_one_there(engine: Engine) -> None:
    alias = engine.alias
    lines = []

    def work() -> None:
        transaction.atomic(using=alias).__enter__()
        lines.append(here(1))
        Author.objects.using(alias).create(name="lost")

    async def leave() -> None:
        await vinyl.run(work)

    with warned() as found:
        task = asyncio.create_task(leave())
        await task
        del task
        await asyncio.sleep(0)  # the loop lets go of it too
        gc.collect()
    assert [text.endswith(f"It was taken at {lines[0]}.") for text in found] == [True]


def test_in_a_thread(engine: Engine) -> None:
    """Plain code: dropped with its thread's wrapper."""
    alias = engine.alias
    lines = []

    def work() -> None:
        wrapper = connections.create_connection(alias)
        lines.append(here(1))
        wrapper.set_autocommit(False)
        with wrapper.cursor() as cursor:
            lines.append(here(1))
            cursor.execute("DELETE FROM library_author")

    with warned() as found:
        work()
    (text,) = found
    assert any(f"It was taken at {line}" in text for line in lines)


async def test_nothing_is_said_of_what_is_closed(engine: Engine) -> None:
    alias = engine.alias

    async def work() -> None:
        async with vinyl.atomic(alias):
            await Author.vinyl.using(alias).create(name="kept")
        async for _ in Author.vinyl.using(alias).iterator(chunk_size=1):
            break
        async with vinyl.cursor(alias) as cursor:
            await cursor.execute("SELECT 1")

    with warned() as found:
        await work()
    assert found == []


@on_a_loop
async def test_copy_and_listen(pg: Links, mode: str) -> None:
    def copy() -> None:
        link = pg.link(max_size=1)
        cursor = link.cursor()
        lines.append(here(1))
        cursor.copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT").__enter__().read()

    def listen() -> None:
        link = pg.link(max_size=1)
        lines.append(here(1))
        link.listen(["x"])

    lines: list[str] = []
    with warned() as found:
        lines.append(here(1))
        await _core.run(copy)
        lines.append(here(1))
        await _core.run(listen)
        pg.forget()
    assert "in the middle of a COPY" in found[0]
    assert f"taken at {lines[0]}" in found[0]
    assert "while it listens" in found[1]
    assert f"taken at {lines[2]}" in found[1]


@pytest.fixture
def tight(engine: Engine) -> Iterator[str]:
    pool = {"min_size": 2, "max_size": 2, "timeout": 0.02}
    options = {**engine.conf.get("OPTIONS", {}), "pool": pool}
    with installed({engine.alias: engine.conf | {"OPTIONS": options}}):
        yield engine.alias


@on_a_loop
async def test_a_timeout_names_the_lines(tight: str) -> None:
    alias = tight
    lines = []
    holding = asyncio.Semaphore(0)

    async def hold() -> None:
        async with vinyl.atomic(alias):
            lines.append(here(1))
            await Author.vinyl.using(alias).count()
            holding.release()
            await asyncio.sleep(60)

    # Connecting may take longer than the pool's timeout: both are there before they are taken.
    pool = None
    while pool is None or pool.stats()["pool_available"] < 2:
        with suppress(PoolTimeout):
            await Author.vinyl.using(alias).count()
        pool = pool_of(alias)
    tasks = [asyncio.create_task(hold(), name=f"holder {number}") for number in range(2)]
    for _ in tasks:
        await holding.acquire()
    with pytest.raises(PoolTimeout) as caught:
        await Author.vinyl.using(alias).count()
    for number, line in enumerate(lines):
        assert f"holder {number} (for 0" in str(caught.value)
        assert f"taken at {line})" in str(caught.value)
    assert "within 0.02 s" in str(caught.value)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
