"""Contract, section 7: a task sees its own statements, across awaits, and nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections, reset_queries
from django.test.utils import CaptureQueriesContext
from press.models import Topic

import vinyl

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def debug() -> Iterator[None]:
    settings.DEBUG = True
    yield
    settings.DEBUG = False


async def add(name: str) -> None:
    await Topic.vinyl.create(name=name)


def added(queries: Any) -> list[str]:
    """The names that the captured INSERTs carry, in order."""
    inserts = [query["sql"] for query in queries if query["sql"].startswith("INSERT")]
    return [sql.split("topic ")[1].partition("'")[0] for sql in inserts]


async def chatter(stop: asyncio.Event) -> int:
    """Another task, which never stops talking to the database."""
    count = 0
    while not stop.is_set():
        await add(f"topic chatter{count}")
        count += 1
    return count


class Recorder:
    """An execute wrapper: the SQL of the statements that passed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.seen.append(sql.split()[0])
        assert context["connection"].vendor == connection.vendor
        return execute(sql, params, many, context)


# --- one task --------------------------------------------------------------------


async def test_the_plain_alias_and_its_twin_are_one_session(database) -> None:
    session = connections[database.alias]
    assert connections["default"] is session
    await add("topic a")
    assert connections[database.alias] is session
    assert connections["default"] is session
    assert await vinyl.run(lambda: connections["default"]) is session


async def test_capture_queries(database) -> None:
    await add("topic before")
    with CaptureQueriesContext(connection) as outer:
        await add("topic a")
        with CaptureQueriesContext(connections[database.alias]) as inner:
            await add("topic b")
            await vinyl.gather(Topic.vinyl.create(name="topic c"), Topic.vinyl.count())
        async for _ in Topic.vinyl.filter(name="topic a"):
            pass
    await add("topic after")
    assert added(outer.captured_queries) == ["a", "b", "c"]
    assert added(inner.captured_queries) == ["b", "c"]
    assert (len(outer), len(inner)) == (5, 3)
    assert all(float(query["time"]) >= 0 for query in outer)


async def test_capture_in_a_fiber(database) -> None:
    def work() -> list[str]:
        Topic.objects.create(name="topic a")
        with CaptureQueriesContext(connection) as captured:
            Topic.objects.create(name="topic b")
            vinyl.await_(add("topic c"))
        return added(captured.captured_queries)

    assert await vinyl.run(work) == ["b", "c"]


async def test_queries_when_debugging(database, debug) -> None:
    await vinyl.run(reset_queries)
    assert connection.queries == []
    await add("topic a")
    await vinyl.gather(Topic.vinyl.create(name="topic b"), Topic.vinyl.create(name="topic c"))
    assert sorted(added(connection.queries)) == ["a", "b", "c"]
    reset_queries()
    assert connections[database.alias].queries == []


async def test_nothing_is_kept_when_not_debugging(database) -> None:
    await add("topic a")
    assert connection.queries == []


async def test_as_plain_django_logs_a_transaction(database) -> None:
    async with vinyl.atomic():
        await add("topic warm")
    with CaptureQueriesContext(connection) as ours:
        async with vinyl.atomic():
            await add("topic a")
            async with vinyl.atomic():
                await add("topic b")

    def words(queries: Any) -> list[str]:
        return [query["sql"].split()[0] for query in queries]

    expected = ["BEGIN", "INSERT", "SAVEPOINT", "INSERT", "RELEASE", "COMMIT"]
    assert words(ours.captured_queries) == expected


async def test_execute_wrapper(database) -> None:
    outer, inner = Recorder(), Recorder()
    with connection.execute_wrapper(outer):
        await add("topic a")
        with connections[database.alias].execute_wrapper(inner):
            await vinyl.gather(Topic.vinyl.count(), Topic.vinyl.count())
        await Topic.vinyl.update(name="topic b")
    await Topic.vinyl.all().delete()
    assert outer.seen == ["INSERT", "SELECT", "SELECT", "UPDATE"]
    assert inner.seen == ["SELECT", "SELECT"]
    assert connection.execute_wrappers == []


async def test_an_execute_wrapper_that_refuses(database) -> None:
    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise PermissionError("no statements here")

    with connection.execute_wrapper(refuse):
        with pytest.raises(PermissionError):
            await add("topic a")
        assert await vinyl.run(str.upper, "no statement") == "NO STATEMENT"
    assert await Topic.vinyl.count() == 0


async def test_logging(database, debug, caplog) -> None:
    with caplog.at_level(logging.DEBUG, logger="django.db.backends"):
        await vinyl.gather(Topic.vinyl.create(name="topic a"), Topic.vinyl.create(name="topic b"))
    records = [record for record in caplog.records if "INSERT" in record.getMessage()]
    assert len(records) == 2
    for record in records:
        assert record.levelno == logging.DEBUG
        assert record.alias == database.alias
        assert record.duration >= 0
        assert record.sql.startswith("INSERT")
    assert connection.settings_dict.get("PASSWORD") in (None, "") or not any(
        connection.settings_dict["PASSWORD"] in record.getMessage() for record in caplog.records
    )


# --- many tasks ------------------------------------------------------------------


@on_a_loop
async def test_another_tasks_statements_are_not_captured(database) -> None:
    stop = asyncio.Event()
    other = asyncio.create_task(chatter(stop))
    with CaptureQueriesContext(connection) as captured:
        for name in "abc":
            await add(f"topic {name}")
            await asyncio.sleep(0)
        inside = asyncio.create_task(add("topic inside"))
        await asyncio.gather(Topic.vinyl.create(name="topic d"), inside)
    stop.set()
    assert await other > 0
    assert added(captured.captured_queries) == ["a", "b", "c", "d"]
    assert len(captured) == 4


@on_a_loop
async def test_each_task_captures_its_own(database) -> None:
    gate = asyncio.Barrier(4)

    async def one(number: int) -> list[str]:
        await gate.wait()
        with CaptureQueriesContext(connection) as captured:
            for step in range(number + 1):
                await add(f"topic {number}.{step}")
            await gate.wait()
        return added(captured.captured_queries)

    results = await asyncio.gather(*[one(number) for number in range(4)])
    for number, names in enumerate(results):
        assert names == [f"{number}.{step}" for step in range(number + 1)]


@on_a_loop
async def test_another_task_does_not_meet_the_wrapper(database) -> None:
    stop = asyncio.Event()
    recorder = Recorder()
    other = asyncio.create_task(chatter(stop))
    with connection.execute_wrapper(recorder):
        await Topic.vinyl.count()
        await asyncio.gather(Topic.vinyl.count(), asyncio.create_task(add("topic inside")))
    stop.set()
    await other
    assert recorder.seen == ["SELECT", "SELECT"]


@on_a_loop
async def test_the_log_of_a_task_that_debugs_is_its_own(database, debug) -> None:
    async def one(name: str) -> list[str]:
        await add(f"topic {name}")
        await vinyl.gather(Topic.vinyl.count(), Topic.vinyl.create(name=f"topic {name}2"))
        return added(connection.queries)

    assert await asyncio.gather(one("a"), one("b")) == [["a", "a2"], ["b", "b2"]]
    assert added(connection.queries) == []


@on_a_loop
async def test_what_begins_while_operations_run_includes_them(database) -> None:
    """Sessions that side by side operations have got share what is switched on later."""
    go_on = asyncio.Event()
    started = 0

    def work(name: str) -> None:
        nonlocal started
        Topic.objects.create(name=f"topic {name} first")
        started += 1
        vinyl.await_(go_on.wait())
        Topic.objects.create(name=f"topic {name}")

    running = asyncio.gather(*[vinyl.run(work, name) for name in "abc"])
    while started < 3:
        await asyncio.sleep(0.001)
    recorder = Recorder()
    with CaptureQueriesContext(connection) as captured, connection.execute_wrapper(recorder):
        go_on.set()
        await running
    assert sorted(added(captured.captured_queries)) == ["a", "b", "c"]
    assert recorder.seen == ["INSERT"] * 3
    with CaptureQueriesContext(connection) as after:
        pass
    assert len(after) == 0


@on_a_loop
async def test_cancelled_inside(database) -> None:
    started = asyncio.Event()

    async def one() -> None:
        with CaptureQueriesContext(connection), connection.execute_wrapper(Recorder()):
            await add("topic a")
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(one())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not connection.force_debug_cursor
    assert connection.execute_wrappers == []


# --- the pool --------------------------------------------------------------------


async def test_pool_stats(database) -> None:
    await add("topic a")
    stats = vinyl.pool_stats()
    assert stats == vinyl.pool_stats(database.alias)
    known = {"pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting"}
    assert known <= set(stats)
    assert all(isinstance(value, int) for value in stats.values())
    assert stats["requests_num"] >= 1
