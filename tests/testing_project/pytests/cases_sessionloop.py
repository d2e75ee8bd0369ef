"""One event loop for all tests, and a task that outlives each of them."""

from __future__ import annotations

import asyncio

import pytest
from shop.steps import add, names

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

asked: asyncio.Queue = asyncio.Queue()


async def serve() -> None:
    """Answers in a task older than the test that asks."""
    while True:
        name, answer = await asked.get()
        await add(name)
        answer.set_result(await names())


def start(server: list[asyncio.Task]) -> None:
    if not server:
        server.append(asyncio.create_task(serve()))


@pytest.fixture(scope="session")
def server() -> list[asyncio.Task]:
    return []


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.django_db
async def test_a_task_older_than_the_test(turn, server) -> None:
    start(server)
    answer = asyncio.get_running_loop().create_future()
    await add("own")
    asked.put_nowait(("asked", answer))
    assert await answer == ["asked", "own"]


@pytest.mark.django_db(transaction=True)
async def test_and_one_that_commits(server) -> None:
    start(server)
    answer = asyncio.get_running_loop().create_future()
    asked.put_nowait(("asked", answer))
    assert await answer == ["asked"]
    server.pop().cancel()
