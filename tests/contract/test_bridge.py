"""Contract, sections 5 to 7, the basics: run, as_async, await_, drive, cursor, connections."""

from __future__ import annotations

import inspect

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from press.models import Article, Topic, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


async def test_run_and_as_async(database) -> None:
    await seed()

    def titles(*, long: bool) -> list[str]:
        rows = Article.objects.filter(words__gte=1000 if long else 0)
        return [each.title for each in rows.order_by("title")]

    assert await vinyl.run(titles, long=True) == ["b", "c"]
    awaited = vinyl.as_async(titles)
    assert await awaited(long=False) == ["a", "b", "c", "d"]
    assert awaited.__name__ == "titles"
    assert not inspect.iscoroutinefunction(titles)

    @vinyl.as_async
    def fails() -> None:
        raise LookupError("from the fiber")

    with pytest.raises(LookupError, match="from the fiber"):
        await fails()
    text = await vinyl.run(serializers.serialize, "json", Article.objects.order_by("title"))
    assert '"title": "a"' in text
    await vinyl.run(call_command, "check")


async def test_coroutine_functions_are_refused() -> None:
    class Named:
        async def of_a_class(self) -> None: ...

    async def plain() -> None: ...

    for function in (plain, Named().of_a_class, Named.of_a_class):
        for give in (vinyl.run, vinyl.as_async):
            with pytest.raises(TypeError, match=rf"{function.__name__}.* await it itself"):
                give(function)

    def makes_one() -> object:
        return plain()

    made = await vinyl.run(makes_one)  # which is a value as any other
    assert inspect.iscoroutine(made)
    await made


async def test_await_from_inside(database) -> None:
    await seed()

    async def count() -> int:
        return await Article.vinyl.count()

    def plain() -> tuple[int, int, str]:
        first = Article.vinyl.count()
        second = vinyl.await_(count())
        return first, second, Writer.vinyl.get(name="Ann").name

    assert await vinyl.run(plain) == (4, 4, "Ann")


def test_drive(database) -> None:
    async def main() -> list[str]:
        await seed()
        ann = await Writer.vinyl.get(name="Ann")
        return [each.title async for each in ann.articles.all()]

    assert vinyl.drive(main()) == ["a", "b", "c"]


def test_plain_sync_code_gets_awaitables(database) -> None:
    operation = Article.vinyl.count()
    for use in (lambda: bool(operation), lambda: list(Article.vinyl.all())):
        with pytest.raises(NotFetched, match=r"plain synchronous code .* vinyl\.drive\(\)"):
            use()
    assert inspect.isawaitable(operation)

    async def wait() -> int:
        return await operation

    assert vinyl.drive(wait()) == 0


async def test_cursor(database) -> None:
    await seed()
    async with vinyl.cursor() as cur:
        await cur.execute("SELECT title FROM press_article WHERE words > %s ORDER BY title", [100])
        assert [column[0] for column in cur.description] == ["title"]
        assert await cur.fetchone() == ("a",)
        assert [tuple(row) for row in await cur.fetchmany(1)] == [("b",)]
        assert [tuple(row) for row in await cur.fetchall()] == [("c",)]
        assert await cur.fetchone() is None
        unawaited = cur.fetchall()
        with pytest.raises(NotFetched, match=r"^cursor\.fetchall\(\) was not awaited"):
            list(unawaited)
        assert await unawaited == []
        await cur.execute("SELECT title FROM press_article ORDER BY title")
        assert [row[0] async for row in cur] == ["a", "b", "c", "d"]
        await cur.executemany("INSERT INTO press_topic (name) VALUES (%s)", [("x",), ("y",)])
    assert await Topic.vinyl.count() == 4
    async with vinyl.atomic(), vinyl.cursor(using="default") as cur:
        await cur.execute("UPDATE press_topic SET name = 'z' WHERE name = 'x'")
        assert cur.rowcount == 1
    assert await Topic.vinyl.filter(name="z").exists()

    def plain() -> int:
        with vinyl.cursor() as cur:
            cur.execute("SELECT count(*) FROM press_topic")
            number = cur.fetchone()[0]
        with connection.cursor() as cur:
            cur.execute("SELECT count(*) FROM press_topic")
            return number + cur.fetchone()[0]

    assert await vinyl.run(plain) == 8
    with pytest.raises(NotFetched), vinyl.cursor():
        pass
    with pytest.raises(NotFetched, match=r"vinyl\.run"):
        connection.cursor()


def test_cursor_in_plain_sync_code(database) -> None:
    with vinyl.cursor() as cur:
        cur.execute("SELECT count(*) FROM press_topic")
        assert tuple(cur.fetchone()) == (0,)


async def test_connections_show_this_tasks_queries(database) -> None:
    session = connections[database.alias]
    assert connections["default"] is session
    with CaptureQueriesContext(session) as captured:
        await Topic.vinyl.create(name="x")
        await Topic.vinyl.count()
        await vinyl.run(Topic.objects.count)
    assert len([each for each in captured if "press_topic" in each["sql"]]) == 3
    assert session.vendor == database.name
    seen = []

    def wrapper(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with session.execute_wrapper(wrapper):
        await Topic.vinyl.count()
    assert len(seen) == 1


@pytest.mark.modes("asyncio", "uvloop")
async def test_pool_stats(database) -> None:
    before = vinyl.pool_stats()
    assert (before["pool_min"], before["pool_max"], before["pool_size"]) == (1, 10, 0)
    await Topic.vinyl.count()
    stats = vinyl.pool_stats()
    assert stats.keys() == before.keys()
    assert vinyl.pool_stats(database.alias).keys() == stats.keys()
    assert stats["pool_max"] >= 1
    assert stats["pool_size"] >= 1
    assert stats["requests_num"] >= 1
