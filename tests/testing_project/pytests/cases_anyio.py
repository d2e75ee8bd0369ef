"""pytest-django's marks with anyio's plugin: tests and fixtures run in one long-lived task."""

from __future__ import annotations

import anyio
import pytest
from shop.models import Customer
from shop.steps import add, add_in_block, names

import vinyl

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def ben(db, anyio_backend) -> Customer:
    return await Customer.vinyl.create(name="ben")


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db
async def test_rolled_back(turn, ben) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(add, "one")
        group.start_soon(add_in_block, "two")
    assert await names() == ["ben", "one", "two"]
    ben.name = "changed"
    await ben.save()


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db(transaction=True)
async def test_committed(turn) -> None:
    await add("one")
    async with vinyl.independent():
        assert await names() == ["one"]


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.django_db
async def test_rolled_back_again(turn, ben) -> None:
    assert await names() == ["ben"]
