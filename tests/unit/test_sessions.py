"""Sessions of ended requests are used again only as new ones."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.test import override_settings
from fix_engine import Engine
from library.models import Author

import vinyl
from vinyl import native, sessions

pytestmark = [pytest.mark.modes("asyncio", "uvloop"), pytest.mark.usefixtures("requests")]


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    sessions._spare.by_alias.clear()


@pytest.fixture(params=["closed", "linked"])
def requests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Requests that leave sessions without and with a link."""
    if request.param == "closed":
        connection_created.connect(_seen)
    yield
    connection_created.disconnect(_seen)


def _seen(**kwargs: Any) -> None:
    pass


async def request(fn: Any, *args: Any) -> Any:
    """What a request's task does: its work, and the end of it."""
    native.in_request.set(ExitStack())
    try:
        return await vinyl.run(fn, *args)
    finally:
        await vinyl.run(close)
        sessions.keep_sessions()


def close() -> None:
    for session in connections.all(initialized_only=True):
        session.close_if_unusable_or_obsolete()


async def in_task(fn: Any, *args: Any) -> Any:
    return await asyncio.create_task(request(fn, *args))


def which(alias: str) -> int:
    list(Author.objects.using(alias).all())
    return id(connections[alias])


def kept(alias: str) -> int:
    return len(sessions._spare.by_alias.get(alias, []))


async def test_the_next_request_has_it(engine: Engine, mode: str) -> None:
    first = await in_task(which, engine.alias)
    assert kept(engine.alias) == 1
    assert await in_task(which, engine.alias) == first
    assert kept(engine.alias) == 1


async def test_side_by_side_each_has_its_own(engine: Engine, mode: str) -> None:
    async def both() -> list[int]:
        barrier = asyncio.Barrier(2)

        def work() -> int:
            answer = which(engine.alias)
            vinyl.await_(barrier.wait())
            return answer

        return list(await asyncio.gather(in_task(work), in_task(work)))

    assert len(set(await both())) == 2
    assert kept(engine.alias) == 2
    assert len(set(await both())) == 2


def new_state(alias: str, connect: bool = False) -> dict[str, Any]:
    session = connections.create_connection(alias)
    if connect:
        session.connect()
    return {name: repr(value) for name, value in session.__dict__.items() if name in SIMPLE}


SIMPLE = (
    "connection", "autocommit", "in_atomic_block", "savepoint_state", "savepoint_ids",
    "atomic_blocks", "commit_on_exit", "_needs_rollback", "rollback_exc", "close_at",
    "closed_in_transaction", "errors_occurred", "health_check_enabled", "health_check_done",
    "run_on_commit", "run_commit_hooks_on_set_autocommit_on", "_thread_sharing_count", "_entered",
    "alias", "settings_dict",
)  # fmt: skip


def used(alias: str) -> None:
    with transaction.atomic(using=alias):
        Author.objects.using(alias).create(name="x")
        with transaction.atomic(using=alias):
            pass
        transaction.on_commit(lambda: None, using=alias)
    connection = connections[alias]
    connection.force_debug_cursor = True
    connection.execute_wrappers.append(lambda execute, *args: execute(*args))
    list(Author.objects.using(alias).all())
    assert connection.queries_log
    with transaction.atomic(using=alias):
        Author.objects.using(alias).create(name="y")
        transaction.set_rollback(True, using=alias)


async def test_it_is_as_new(engine: Engine, mode: str) -> None:
    """Whatever the task before did, its log, wrappers, flags and functions are not seen."""
    fresh = await vinyl.run(new_state, engine.alias)
    await in_task(used, engine.alias)
    assert kept(engine.alias) == 1

    def look() -> dict[str, Any]:
        connection = connections[engine.alias]
        assert not connection.queries_log
        assert not connection.execute_wrappers
        assert connection.force_debug_cursor is False
        assert connection.queries_limit == connection.queries_log.maxlen
        return {name: repr(value) for name, value in connection.__dict__.items() if name in SIMPLE}

    state = await in_task(look)
    if state["connection"] != "None":  # that of a connected one
        fresh = await vinyl.run(new_state, engine.alias, True)
        for name in ("connection", "close_at"):
            assert {state.pop(name), fresh.pop(name)}
    assert state == fresh
    assert await in_task(which, engine.alias)


@pytest.mark.parametrize("held", ["session", "ops", "cursor", "attribute", "log"])
async def test_what_somebody_refers_to_is_not_kept(engine: Engine, mode: str, held: str) -> None:
    holder: list[Any] = []

    def work() -> None:
        session = connections[engine.alias]
        list(Author.objects.using(engine.alias).all())
        if held == "session":
            holder.append(session)
        elif held == "ops":
            holder.append(session.ops)
        elif held == "cursor":
            holder.append(session.cursor())
            holder[0].close()
        elif held == "attribute":
            session.mine = 1
        else:
            holder.append(session.queries_log)
            holder.append(session.execute_wrappers)

    await in_task(work)
    if held != "log":
        assert kept(engine.alias) == 0
        return

    def look() -> None:  # the log and the wrappers are new ones
        session = connections[engine.alias]
        assert session.queries_log is not holder[0]
        assert session.execute_wrappers is not holder[1]

    await in_task(look)


async def test_an_open_transaction_is_not_kept(engine: Engine, mode: str) -> None:
    def work() -> None:
        connections[engine.alias].set_autocommit(False)
        Author.objects.using(engine.alias).create(name="lost")

    def undo() -> None:
        connections[engine.alias].rollback()
        connections[engine.alias].set_autocommit(True)

    async def task() -> None:
        await vinyl.run(work)
        sessions.keep_sessions()
        assert kept(engine.alias) == 0
        await vinyl.run(undo)  # it is still the task's

    await asyncio.create_task(task())


async def test_changed_settings_begin_anew(engine: Engine, mode: str) -> None:
    first = await in_task(which, engine.alias)
    assert kept(engine.alias) == 1
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        session = sessions.take_session(engine.alias)
        assert session is None
    assert first


async def test_after_changed_settings_they_are_kept_again(engine: Engine, mode: str) -> None:
    async def during(work: asyncio.Event, changed: asyncio.Event) -> None:
        await request(which, engine.alias)  # its session is made before the change
        connections[engine.alias]
        work.set()
        await changed.wait()
        sessions.keep_sessions()

    work, changed = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(during(work, changed))
    await work.wait()
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        changed.set()
        await task
        assert kept(engine.alias) == 0
    first = await in_task(which, engine.alias)
    assert kept(engine.alias) == 1
    assert await in_task(which, engine.alias) == first


async def test_a_new_receiver_sees_the_next_connection(engine: Engine, mode: str) -> None:
    await in_task(which, engine.alias)
    seen: list[Any] = []

    def see(connection: Any, **kwargs: Any) -> None:
        seen.append(connection)

    connection_created.connect(see)
    try:
        await in_task(which, engine.alias)
        await in_task(which, engine.alias)
    finally:
        connection_created.disconnect(see)
    assert len(seen) == 2


@pytest.mark.parametrize("what", ["adapters", "isolation_level", "notices", "row_factory"])
async def test_what_was_set_on_the_link_goes_with_it(engine: Engine, mode: str, what: str) -> None:
    def work() -> int:
        list(Author.objects.using(engine.alias).all())
        link = connections[engine.alias].connection
        if engine.name == "sqlite":
            link.row_factory = sqlite3.Row
        elif what == "adapters":
            link.adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
        elif what == "notices":
            link.add_notice_handler(print)
        else:
            link.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        return id(link)

    def look() -> None:
        list(Author.objects.using(engine.alias).all())
        link = connections[engine.alias].connection
        assert getattr(link, "row_factory", None) is None
        assert link.isolation_level is None

    await in_task(work)
    for session in sessions._spare.by_alias.get(engine.alias, []):
        assert session.connection is None
    await in_task(look)


async def test_only_so_many(engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    barrier = asyncio.Barrier(5)

    def work() -> None:
        assert connections[engine.alias].alias == engine.alias
        vinyl.await_(barrier.wait())

    await asyncio.gather(*[in_task(work) for _ in range(5)])
    assert kept(engine.alias) == 3
