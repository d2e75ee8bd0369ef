"""Whose transaction it is: operations, tasks and open blocks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from fix_engine import Engine
from library.models import Author

from vinyl import _core
from vinyl.scopes import independent

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


class Block:
    """`async with` a plain Atomic, as vinyl.atomic does it."""

    def __init__(self, alias: str) -> None:
        self.atomic = transaction.atomic(using=alias)

    async def __aenter__(self) -> None:
        await _core.run(self.atomic.__enter__)

    async def __aexit__(self, *exc: Any) -> None:
        await _core.run(self.atomic.__exit__, *exc)


def create(alias: str, name: str) -> None:
    Author.objects.using(alias).create(name=name)


def names(alias: str) -> list[str]:
    return sorted(Author.objects.using(alias).values_list("name", flat=True))


@on_a_loop
async def test_gathered_operations_of_the_owner_are_in_its_block(engine: Engine) -> None:
    alias = engine.alias

    async def undone() -> None:
        async with Block(alias):
            await asyncio.gather(*[_core.run(create, alias, f"a{n}") for n in range(10)])
            assert len(await _core.run(names, alias)) == 10
            raise RuntimeError("undo")

    with pytest.raises(RuntimeError, match="undo"):
        await undone()
    assert await _core.run(names, alias) == []


@on_a_loop
async def test_another_task_is_refused_while_the_block_is_open(engine: Engine) -> None:
    alias = engine.alias
    go_on = asyncio.Event()

    async def child(when: asyncio.Event | None = None) -> list[str]:
        if when is not None:
            await when.wait()
        return await _core.run(names, alias)

    async with Block(alias):
        await _core.run(create, alias, "mine")
        with pytest.raises(TransactionManagementError, match="independent"):
            await asyncio.create_task(child())
        later = asyncio.create_task(child(go_on))
    go_on.set()
    assert await later == ["mine"]


@on_a_loop
async def test_a_task_started_by_code_in_a_fiber_is_refused_too(engine: Engine) -> None:
    alias = engine.alias

    async def child() -> list[str]:
        return await _core.run(names, alias)

    def work() -> None:
        with transaction.atomic(using=alias):
            create(alias, "mine")

            async def start() -> list[str]:
                return await asyncio.create_task(child())

            with pytest.raises(TransactionManagementError, match="independent"):
                _core.await_(start())
            assert names(alias) == ["mine"]

    await _core.run(work)
    assert await _core.run(names, alias) == ["mine"]


@on_a_loop
async def test_a_task_that_is_older_than_the_block_goes_on(engine: Engine) -> None:
    alias = engine.alias
    opened, looked = asyncio.Event(), asyncio.Event()

    async def older() -> list[str]:
        await opened.wait()
        try:
            return await _core.run(names, alias)
        finally:
            looked.set()

    task = asyncio.create_task(older())
    async with Block(alias):
        opened.set()
        await looked.wait()
    assert await task == []


@on_a_loop
async def test_an_operation_of_the_block_after_its_end(engine: Engine) -> None:
    alias = engine.alias
    async with Block(alias):
        late = _core.run(create, alias, "late")
    with pytest.raises(TransactionManagementError, match="create"):
        await late
    assert await _core.run(names, alias) == []


async def test_independent_in_the_owner_lasts(engine: Engine) -> None:
    alias = engine.alias
    one_writer = engine.name == "sqlite"  # so there the block must not have written

    async def undone() -> None:
        async with Block(alias):
            if not one_writer:
                await _core.run(create, alias, "undone")
            async with independent():
                await _core.run(create, alias, "audit")
            raise RuntimeError("undo")

    with pytest.raises(RuntimeError, match="undo"):
        await undone()
    assert await _core.run(names, alias) == ["audit"]


@on_a_loop
async def test_independent_in_another_task(engine: Engine) -> None:
    alias = engine.alias

    async def child() -> list[str]:
        async with independent():
            return await _core.run(names, alias)

    async with Block(alias):
        assert await asyncio.create_task(child()) == []
        await _core.run(create, alias, "mine")
    assert await asyncio.create_task(child()) == ["mine"]


@on_a_loop
async def test_operations_outside_a_block_run_side_by_side(engine: Engine) -> None:
    alias = engine.alias

    def session_and_wait() -> int:
        names(alias)
        session = id(connections[alias])
        _core._sleep(0.01)
        assert id(connections[alias]) == session
        return session

    sessions = await asyncio.gather(*[_core.run(session_and_wait) for _ in range(4)])
    assert len(set(sessions)) == 4


@on_a_loop
async def test_what_the_task_captures_is_what_its_operations_did(engine: Engine) -> None:
    from django.test.utils import CaptureQueriesContext

    alias = engine.alias

    async def other() -> None:
        await _core.run(create, alias, "other")

    with CaptureQueriesContext(connections[alias]) as captured:
        await asyncio.gather(
            _core.run(create, alias, "a"),
            _core.run(create, alias, "b"),
            asyncio.create_task(other()),
        )
    inserts = [query["sql"] for query in captured if query["sql"].startswith("INSERT")]
    assert len(inserts) == 2
    assert not any("other" in sql for sql in inserts)


@on_a_loop
async def test_cancel_while_waiting_for_the_turn(engine: Engine) -> None:
    alias = engine.alias

    def slow() -> None:
        create(alias, "slow")
        _core._sleep(0.02)

    async with Block(alias):
        first = asyncio.ensure_future(_core.run(slow))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(_core.run(create, alias, "second"))
        third = asyncio.ensure_future(_core.run(create, alias, "third"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second, third])
        assert second.cancelled()
    assert await _core.run(names, alias) == ["slow", "third"]
