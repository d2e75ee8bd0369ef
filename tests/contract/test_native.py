"""Contract, section 5: VINYL = {"NATIVE_ASYNC_API": True}. Django's own a-methods, in fibers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import aauthenticate, aget_user, alogin, alogout
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import caches
from django.core.management import call_command
from django.db.models import aprefetch_related_objects
from django.dispatch import Signal
from django.http import HttpRequest
from django.shortcuts import aget_object_or_404
from django.test import AsyncClient, override_settings
from fix_engine import Engine
from fix_http import DJANGO_MIDDLEWARE
from library.models import Author, Book, Genre, Publisher

import vinyl
from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture(autouse=True)
def native(request: pytest.FixtureRequest) -> Iterator[None]:
    """The setting, and no thread but those that were there."""
    before = set(threading.enumerate())
    with override_settings(VINYL={"NATIVE_ASYNC_API": True}):
        yield
    if request.node.get_closest_marker("modes") is None:
        # asgiref lets go of the thread of a loop when its call is over, and waits for no end of it.
        gc.collect()
        for thread in set(threading.enumerate()) - before:
            thread.join(30)
            assert not thread.is_alive()


async def _seed() -> Author:
    ann = await Author.objects.acreate(name="Ann")
    await Author.objects.abulk_create([Author(name="Bob"), Author(name="Cid")])
    for title in ("One", "Two"):
        await ann.books.acreate(title=title, pages=len(title))
    return ann


async def test_querysets(database: Engine) -> None:
    ann = await _seed()
    authors = Author.objects.order_by("name")
    assert [each.name async for each in authors] == ["Ann", "Bob", "Cid"]
    assert [each.name async for each in authors.aiterator(chunk_size=2)] == ["Ann", "Bob", "Cid"]
    assert await authors.acount() == 3
    assert await authors.aexists()
    assert (await authors.aget(name="Ann")).pk == ann.pk
    assert (await authors.afirst()).name == "Ann"
    assert (await authors.alast()).name == "Cid"
    assert await authors.acontains(ann)
    assert set(await authors.ain_bulk([ann.pk])) == {ann.pk}
    assert (await authors.aget_or_create(name="Dee"))[1]
    assert not (await authors.aupdate_or_create(name="Dee", defaults={"born": None}))[1]
    assert await authors.filter(name="Dee").aupdate(name="Eve") == 1
    assert (await authors.filter(name="Eve").adelete())[0] == 1
    assert (await Book.objects.aaggregate(total=_sum("pages")))["total"] == 6
    assert (await aget_object_or_404(Author, name="Bob")).name == "Bob"
    found = [each async for each in authors.prefetch_related("books")]
    assert [each.title for each in found[0].books.all()] == ["One", "Two"]
    await aprefetch_related_objects([ann], "books__genres")
    assert [each.title for each in ann.books.all()] == ["One", "Two"]


def _sum(name: str) -> Any:
    from django.db.models import Sum

    return Sum(name)


async def test_instances_and_related_managers(database: Engine) -> None:
    ann = await _seed()
    ann.name = "Anna"
    await ann.asave()
    ann.name = "lost"
    await ann.arefresh_from_db()
    assert ann.name == "Anna"
    book = await ann.books.afirst()
    art, law = await Genre.objects.acreate(name="art"), await Genre.objects.acreate(name="law")
    await book.genres.aadd(art, law)
    await book.genres.aremove(law)
    assert [each.name async for each in book.genres.all()] == ["art"]
    await book.genres.aset([law])
    await book.genres.aclear()
    assert not await book.genres.aexists()
    note = await book.notes.acreate(text="good")
    assert [each.pk async for each in book.notes.all()] == [note.pk]
    await book.adelete()
    assert await ann.books.acount() == 1


async def test_inside_a_transaction(database: Engine) -> None:
    with contextlib.suppress(ArithmeticError):
        async with vinyl.atomic():
            ann = await _seed()
            assert await Author.vinyl.count() == 3
            assert await Author.objects.acount() == 3
            assert await ann.books.acount() == 2
            assert await sync_to_async(Author.objects.count)() == 3
            raise ArithmeticError
    assert await Author.objects.acount() == 0


async def test_sessions_and_auth(database: Engine) -> None:
    user = await User.objects.acreate_user("ann", password="secret")
    assert await aauthenticate(username="ann", password="wrong") is None
    found = await aauthenticate(username="ann", password="secret")
    assert found == user
    request = HttpRequest()
    request.session = SessionStore()
    await alogin(request, found)
    await request.session.aset("visits", 1)
    await request.session.asave()
    again = HttpRequest()
    again.session = SessionStore(request.session.session_key)
    assert await again.session.aget("visits") == 1
    assert await aget_user(again) == user
    assert not await user.ahas_perm("library.add_author")
    assert await user.aget_group_permissions() == set()
    await user.groups.aadd(await Group.objects.acreate(name="g"))
    await alogout(again)
    assert not await SessionStore().aexists(request.session.session_key)
    assert await user.acheck_password("secret")


async def test_caches(engine: Engine) -> None:
    backends = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "db": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "kept"},
    }
    with override_settings(CACHES=backends):
        await vinyl.run(call_command, "createcachetable", verbosity=0)
        for name in backends:
            cache = caches[name]
            await cache.aset("k", 1)
            assert await cache.aincr("k") == 2
            await cache.aset_many({"a": 1, "b": 2})
            assert await cache.aget_many(["a", "b"]) == {"a": 1, "b": 2}
            assert await cache.aget_or_set("c", 3) == 3
            assert await cache.ahas_key("c")
            await cache.adelete("k")
            assert await cache.aget("k") is None
            await cache.aclear()


async def test_paginator(engine: Engine) -> None:
    paginator = pytest.importorskip("django.core.paginator")
    if not hasattr(paginator, "AsyncPaginator"):
        assert __import__("django").VERSION < (6, 0)
        return
    await _seed()
    page = await paginator.AsyncPaginator(Author.objects.order_by("name"), 2).apage(2)
    assert [each.name async for each in page] == ["Cid"]


async def test_signals(engine: Engine) -> None:
    signal = Signal()
    seen: list[Any] = []

    def plain(sender: Any, **kwargs: Any) -> int:
        seen.append(_core.where())
        return Publisher.objects.count()

    async def awaited(sender: Any, **kwargs: Any) -> int:
        seen.append(_core.where())
        return await Publisher.objects.acount()

    signal.connect(plain)
    if _core.where() == _core.LOOP:
        signal.connect(awaited)
    place = _core.where()
    for send in (signal.asend, signal.asend_robust):
        answers = await send(None)
        assert [value for _, value in answers] == [0] * len(answers)
        assert seen == [_core.FIBER, place][: len(answers)]
        seen.clear()


async def test_the_test_client(database: Engine, site: Callable[..., None]) -> None:
    site(MIDDLEWARE=DJANGO_MIDDLEWARE)
    await User.objects.acreate_user("ann", password="secret")
    if _core.where() != _core.LOOP:
        return  # Django's AsyncClient is for event loops
    client = AsyncClient()
    assert (await client.get("/async")).json()["count"] == 0
    assert (await client.get("/sync")).json()["count"] == 0
    assert await client.alogin(username="ann", password="secret")
    assert (await client.get("/login")).status_code == 200
    assert (await client.get("/who")).json()["user"] == "ann"
    assert (await client.get("/api")).json()["names"] == ["Anna"]
    await client.alogout()


@on_a_loop
async def test_which_functions_go_where(engine: Engine) -> None:
    here = threading.get_ident()
    assert await sync_to_async(threading.get_ident)() == here
    assert await sync_to_async(_core.where)() == _core.FIBER
    assert await sync_to_async(threading.get_ident, thread_sensitive=False)() != here
    with override_settings(VINYL={}):
        assert await sync_to_async(threading.get_ident)() != here


@on_a_loop
async def test_errors_and_context_come_through(engine: Engine) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def work() -> None:
        variable.set(variable.get() + 1)
        raise LookupError(variable.get())

    variable.set(1)
    with pytest.raises(LookupError, match="2"):
        await sync_to_async(work)()
    assert variable.get() == 2
    try:
        raise ArithmeticError("being handled")
    except ArithmeticError:
        with pytest.raises(LookupError) as caught:
            await sync_to_async(work)()
    assert isinstance(caught.value.__context__, ArithmeticError)


@on_a_loop
async def test_cancel_ends_what_runs(engine: Engine) -> None:
    seen: list[str] = []

    def work() -> None:
        seen.append("started")
        try:
            _core._sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(sync_to_async(work)())
    while not seen:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["started", "cancelled"]


async def _from_sync() -> tuple[int, int]:
    return threading.get_ident(), await sync_to_async(threading.get_ident)()


async def _count() -> int:
    return await Publisher.objects.acount()


@on_a_loop
async def test_async_to_sync_inside_a_fiber(engine: Engine) -> None:
    here = threading.get_ident()
    task = asyncio.current_task()

    async def inner() -> Any:
        assert asyncio.current_task() is task
        return await _from_sync()

    def work() -> Any:
        return async_to_sync(inner)()

    assert await vinyl.run(work) == (here, here)


@pytest.mark.modes("blocking")
async def test_async_to_sync_without_a_loop(engine: Engine) -> None:
    await Publisher.vinyl.create(name="a")
    assert await vinyl.run(lambda: async_to_sync(_count)()) == 1


def test_plain_code_that_waits_in_async_to_sync(engine: Engine) -> None:
    # The loop is in another thread; Django's own code still runs in this one, on its connection.
    from django.db import transaction

    with transaction.atomic():
        Publisher.objects.create(name="a")
        _, there = async_to_sync(_from_sync)()
        assert there == threading.get_ident()
        assert async_to_sync(_count)() == 1
        transaction.set_rollback(True)
    from django.db import connection

    connection.close()
