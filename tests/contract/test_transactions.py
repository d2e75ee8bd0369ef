"""Contract, section 4: what a single task sees of atomic blocks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import pickle

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    InternalError,
    connection,
    connections,
    transaction,
)
from django.db.models import signals
from django.db.transaction import TransactionManagementError
from fix_mode import run_in_mode
from press.models import Article, Badge, Topic, Writer
from press.seed import seed

import vinyl
from vinyl import NotFetched


async def names() -> list[str]:
    return await Topic.vinyl.order_by("name").values_list("name", flat=True)


async def test_commit_and_roll_back(database) -> None:
    async with vinyl.atomic():
        await Topic.vinyl.create(name="kept")
    with pytest.raises(LookupError, match="on purpose"):
        async with vinyl.atomic(using=database.alias):
            await Topic.vinyl.create(name="lost")
            assert await names() == ["kept", "lost"]
            raise LookupError("on purpose")
    assert await names() == ["kept"]
    async with vinyl.atomic(using="default"):
        await Topic.vinyl.create(name="on the plain alias")
    assert await names() == ["kept", "on the plain alias"]
    assert not connections[database.alias].in_atomic_block


async def test_nested_blocks_are_savepoints(database) -> None:
    async with vinyl.atomic():
        await Topic.vinyl.create(name="outer")
        with pytest.raises(LookupError):
            async with vinyl.atomic():
                await Topic.vinyl.create(name="inner")
                raise LookupError
        async with vinyl.atomic():
            await Topic.vinyl.create(name="second")
        with pytest.raises(IntegrityError):
            async with vinyl.atomic():
                await Topic.vinyl.create(name="outer")
        assert await names() == ["outer", "second"]
    assert await names() == ["outer", "second"]
    with pytest.raises(TransactionManagementError):
        async with vinyl.atomic():
            with pytest.raises(LookupError):
                async with vinyl.atomic(savepoint=False):
                    raise LookupError
            await Topic.vinyl.count()
    with pytest.raises(RuntimeError, match="durable"):
        async with vinyl.atomic(), vinyl.atomic(durable=True):
            pass
    assert await names() == ["outer", "second"]


async def test_as_a_decorator(database) -> None:
    @vinyl.atomic
    async def keeps(name: str) -> int:
        return (await Topic.vinyl.create(name=name)).pk

    @vinyl.atomic(durable=True)
    async def loses() -> None:
        """Its name and text stay."""
        await Topic.vinyl.create(name="lost")
        raise LookupError

    assert isinstance(await keeps("one"), int)
    assert isinstance(await keeps("two"), int)
    with pytest.raises(LookupError):
        await loses()
    assert loses.__name__ == "loses"
    assert await names() == ["one", "two"]
    with pytest.raises(TypeError):

        @vinyl.atomic
        async def rows():
            yield 1


async def test_instances_and_relations_in_a_block(database) -> None:
    s = await seed()
    with pytest.raises(LookupError):
        async with vinyl.atomic():
            s.a.title = "changed"
            await s.a.save()
            await s.a.topics.clear()
            await s.bob.delete()
            await vinyl.run(Writer(name="in a fiber").save)
            await vinyl.run(Writer.objects.create, name="by objects")
            assert await Writer.vinyl.count() == 3
            raise LookupError
    await s.a.refresh_from_db()
    assert s.a.title == "a"
    assert await s.a.topics.count() == 2
    assert await Writer.vinyl.count() == 2


async def test_gather_is_in_the_transaction(database) -> None:
    topics = [Topic(name=str(n)) for n in range(5)]
    with pytest.raises(LookupError):
        async with vinyl.atomic():
            await vinyl.gather(*[each.save() for each in topics])
            assert await Topic.vinyl.count() == 5
            raise LookupError
    assert await Topic.vinyl.count() == 0
    async with vinyl.atomic():
        first, count = await vinyl.gather(
            Topic.vinyl.create(name="x"), Topic.vinyl.filter(name="none")
        )
    assert (first.name, count) == ("x", [])
    results = await vinyl.gather(
        Topic.vinyl.create(name="y"), Topic.vinyl.create(name="y"), return_exceptions=True
    )
    assert sum(isinstance(each, IntegrityError) for each in results) == 1


@pytest.mark.modes("asyncio", "uvloop")
async def test_asyncio_gather_is_in_the_transaction(database) -> None:
    topics = [Topic(name=str(n)) for n in range(5)]
    with pytest.raises(LookupError):
        async with vinyl.atomic():
            await asyncio.gather(*[each.save() for each in topics])
            await asyncio.create_task(Topic.vinyl.create(name="task"))
            assert await asyncio.wait_for(Topic.vinyl.count(), 30) == 6
            raise LookupError
    assert await Topic.vinyl.count() == 0


@pytest.mark.modes("asyncio", "uvloop")
async def test_asyncio_gather_of_what_stands_for_operations(database) -> None:
    """Querysets and unfetched relations are awaited by tasks of gather's own."""
    s = await seed()
    with pytest.raises(LookupError):
        async with vinyl.atomic():
            await Topic.vinyl.create(name="inside")
            article = await Article.vinyl.get(pk=s.a.pk)
            topics, of_a, author, raw = await asyncio.gather(
                Topic.vinyl.order_by("name"),
                article.topics.all(),
                article.author,
                Topic.vinyl.raw("SELECT * FROM press_topic WHERE name = 'inside'"),
            )
            assert [each.name for each in topics] == ["art", "inside", "law"]
            assert (len(of_a), author.name, len(raw)) == (2, "Ann", 1)
            kept = Topic.vinyl.order_by("name")
            pickle.loads(pickle.dumps(topics))
            await kept
            assert len(pickle.loads(pickle.dumps(kept))) == 3
            unfetched = Topic.vinyl.order_by("name")
            raise LookupError
    # the block is over: the queryset is anybody's again
    [names] = await asyncio.gather(unfetched)
    assert len(names) == 2
    [names] = await asyncio.gather(copy.deepcopy(kept))
    assert [each.name for each in names] == ["art", "law"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.modes("asyncio", "uvloop")
async def test_what_has_not_begun_when_its_block_ends_is_refused(database, fails) -> None:
    with contextlib.suppress(LookupError):
        async with vinyl.atomic():
            await Topic.vinyl.create(name="in time")
            late = asyncio.create_task(Topic.vinyl.create(name="late"))
            if fails:
                raise LookupError
    with pytest.raises(TransactionManagementError, match="await it inside"):
        await late
    assert await names() == ([] if fails else ["in time"])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.modes("asyncio", "uvloop")
async def test_what_has_begun_ends_before_its_block(database, nested, fails) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def late() -> None:
        begun.set()
        await go_on.wait()
        await Topic.vinyl.create(name="late")

    async with contextlib.AsyncExitStack() as stack:
        if nested:
            await stack.enter_async_context(vinyl.atomic())
            await Topic.vinyl.create(name="outer")
        with contextlib.suppress(LookupError):
            async with vinyl.atomic():
                await Topic.vinyl.create(name="in time")
                task = asyncio.create_task(vinyl.run(lambda: vinyl.await_(late())))
                await begun.wait()
                asyncio.get_running_loop().call_soon(go_on.set)
                if fails:
                    raise LookupError
        assert task.done()
        await task
    inside = [] if fails else ["in time", "late"]
    assert await names() == sorted([*inside, *(["outer"] if nested else [])])


async def test_created_in_a_block_and_awaited_after_it(database) -> None:
    async with vinyl.atomic():
        with contextlib.suppress(LookupError):
            async with vinyl.atomic():
                inner = Topic.vinyl.create(name="inner")
                raise LookupError
        with pytest.raises(TransactionManagementError, match="await it inside"):
            await inner
        outer = Topic(name="outer").save()
        async with vinyl.atomic():
            await outer
        last = Topic.vinyl.create(name="last")
    with pytest.raises(TransactionManagementError, match="await it inside"):
        await last
    assert await names() == ["outer"]


async def test_async_receivers_are_in_the_block(database) -> None:
    async def one(instance: Topic, created: bool, **kwargs) -> None:
        if not instance.name.startswith("for "):
            await Topic.vinyl.create(name=f"for {instance.name}")

    async def two(instance: Topic, **kwargs) -> None:
        assert await Topic.vinyl.filter(name=instance.name).exists()
        if instance.name == "refused":
            raise LookupError

    signals.post_save.connect(one, sender=Topic)
    signals.post_save.connect(two, sender=Topic)
    try:
        with contextlib.suppress(LookupError):
            async with vinyl.atomic():
                await Topic.vinyl.create(name="lost")
                assert await names() == ["for lost", "lost"]
                await Topic(name="refused").save()
        async with vinyl.atomic():
            await vinyl.gather(Topic(name="a").save(), Topic.vinyl.create(name="b"))
            assert await Topic.vinyl.count() == 4
        await Topic.vinyl.create(name="c")
    finally:
        signals.post_save.disconnect(one, sender=Topic)
        signals.post_save.disconnect(two, sender=Topic)
    assert await names() == ["a", "b", "c", "for a", "for b", "for c"]


async def test_on_commit(database) -> None:
    calls = []

    async def count() -> None:
        calls.append(await Topic.vinyl.count())

    def plain() -> None:
        calls.append(Topic.objects.count())

    async with vinyl.atomic():
        await Topic.vinyl.create(name="x")
        vinyl.on_commit(lambda: calls.append("lambda"))
        vinyl.on_commit(count)
        vinyl.on_commit(plain, using=database.alias)
        vinyl.on_commit(functools.partial(calls.append, "partial"))
        vinyl.on_commit(lambda: count())
        assert calls == []
    assert calls == ["lambda", 1, 1, "partial", 1]
    calls.clear()
    with pytest.raises(LookupError):
        async with vinyl.atomic():
            vinyl.on_commit(count)
            async with vinyl.atomic():
                vinyl.on_commit(plain)
            raise LookupError
    assert calls == []
    vinyl.on_commit(lambda: calls.append("at once"))
    assert calls == ["at once"]
    with pytest.raises(TransactionManagementError, match="coroutine function"):
        vinyl.on_commit(count)
    with pytest.raises(TransactionManagementError, match="coroutine function"):
        vinyl.on_commit(functools.partial(count))
    with pytest.raises(TypeError):
        vinyl.on_commit("no function")


async def test_inside_fibers_it_is_djangos(database) -> None:
    calls = []

    def plain() -> None:
        with vinyl.atomic():
            Topic.objects.create(name="kept")
            with pytest.raises(LookupError), transaction.atomic():
                Topic.vinyl.create(name="lost")
                raise LookupError
            vinyl.on_commit(lambda: calls.append(1))
            transaction.on_commit(lambda: calls.append(2))
            assert calls == []

        @vinyl.atomic
        def decorated() -> None:
            Topic.objects.create(name="also")

        decorated()

    await vinyl.run(plain)
    assert calls == [1, 2]
    assert await names() == ["also", "kept"]
    with pytest.raises(NotFetched, match="async with"), vinyl.atomic():
        pass


def test_in_plain_sync_code_it_is_djangos(database) -> None:
    with pytest.raises(LookupError), vinyl.atomic():
        Topic.objects.create(name="lost")
        raise LookupError
    with vinyl.atomic():
        Topic.objects.create(name="kept")
        assert connections["default"].in_atomic_block
    assert Topic.objects.count() == 1


async def test_select_for_update(database) -> None:
    s = await seed()
    async with vinyl.atomic():
        locked = await Article.vinyl.select_for_update().get(pk=s.a.pk)
        locked.words = 1
        await locked.save()
    if database.name == "postgresql":
        with pytest.raises(TransactionManagementError, match="select_for_update"):
            await Article.vinyl.select_for_update().get(pk=s.a.pk)


async def test_an_error_in_a_block_does_not_outlive_it(database) -> None:
    await Badge.vinyl.create(number=1)
    with pytest.raises(IntegrityError):
        async with vinyl.atomic():
            await Badge.vinyl.create(number=1)
    await Badge.vinyl.create(number=2)
    assert await Badge.vinyl.count() == 2


async def test_a_refused_sync_save_leaves_the_block_usable(database) -> None:
    s = await seed()

    def helper() -> None:
        s.a.title = "no"
        s.a.save()

    with pytest.raises(NotFetched):
        helper()
    async with vinyl.atomic():
        with pytest.raises(NotFetched):
            helper()
        with pytest.raises(NotFetched):
            s.ann.rename("no")
        await Topic.vinyl.create(name="in the block")
        assert await s.ann.articles.lengthen() == 3
    assert await Topic.vinyl.count() == 3
    assert (await Article.vinyl.get(pk=s.a.pk)).words == 501


async def test_set_rollback(database) -> None:
    async with vinyl.atomic():
        await Topic.vinyl.create(name="lost")
        transaction.set_rollback(True, using=database.alias)
    assert await Topic.vinyl.count() == 0


async def swallow_an_error() -> None:
    async with vinyl.atomic():
        await Topic.vinyl.create(name="lost")
        async with vinyl.cursor() as cursor:
            with pytest.raises(DatabaseError):
                await cursor.execute("SELECT 1 / 0")


def swallow_one_in_plain_code() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        Topic.objects.create(name="lost")
        with pytest.raises(DatabaseError):
            cursor.execute("SELECT 1 / 0")


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("begun", ["in plain code", "in a coroutine"])
def test_a_commit_that_became_a_rollback(engine, mode, begun, caplog) -> None:
    """It raises but in plain code; where there is no loop both have one session in turn."""
    if begun == "in plain code":
        swallow_one_in_plain_code()
    for _ in range(2):
        with pytest.raises(InternalError, match="nothing was saved"):
            run_in_mode(mode, swallow_an_error)
    caplog.clear()
    swallow_one_in_plain_code()
    assert [record.name for record in caplog.records] == ["vinyl.postgresql"]
    assert Topic.objects.count() == 0
