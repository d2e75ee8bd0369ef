"""pytest-django's marks and fixtures, with pytest-asyncio. A leak breaks the next test."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db.transaction import TransactionManagementError
from shop.models import Customer
from shop.steps import add, add_in_block, names, plain_names

import vinyl

pytestmark = pytest.mark.asyncio


@pytest.fixture
def anna(db) -> Customer:
    return Customer.objects.create(name="anna")


@pytest_asyncio.fixture
async def ben(db) -> Customer:
    return await Customer.vinyl.create(name="ben")


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db
async def test_rolled_back(turn, anna, ben, django_assert_num_queries) -> None:
    await asyncio.gather(add("one"), add_in_block("two"), asyncio.create_task(add("three")))
    assert await names() == ["anna", "ben", "one", "three", "two"]
    assert await sync_to_async(plain_names)() == await names()
    with django_assert_num_queries(1):
        await asyncio.gather(Customer.vinyl.count(), asyncio.create_task(add("four")))
    anna.name = "changed"
    await anna.save()
    async with vinyl.atomic():
        with pytest.raises(TransactionManagementError):
            await asyncio.create_task(names())


@pytest.mark.parametrize("turn", [1, 2])
async def test_fixture_alone(turn, ben) -> None:
    assert await names() == ["ben"]


@pytest.mark.django_db
async def test_on_commit(django_capture_on_commit_callbacks) -> None:
    done: list[str] = []
    with django_capture_on_commit_callbacks(execute=True):
        async with vinyl.atomic():
            vinyl.on_commit(lambda: done.append("on commit"))
    assert done == ["on commit"]


@pytest.mark.django_db
async def test_async_client(async_client) -> None:
    response = await async_client.get("/customers/", {"add": "viewed"})
    assert response.json() == {"names": ["viewed"]}


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db(transaction=True)
async def test_committed(turn) -> None:
    await asyncio.gather(add("one"), add_in_block("two"))
    async with vinyl.independent():
        assert await names() == ["one", "two"]


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db(transaction=True, reset_sequences=True)
async def test_sequences(turn) -> None:
    assert (await Customer.vinyl.create(name="first")).pk == 1


async def test_nothing_without_the_mark() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        await names()
