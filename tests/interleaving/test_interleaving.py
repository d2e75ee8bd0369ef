"""Many tasks at once, each with its own mix of ORM work, on a pool smaller than their number: no
wrong answer, no leaked connection.

VINYL_INTERLEAVING="SEED…" runs these seeds instead, VINYL_INTERLEAVING_STEPS so many steps.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import uvloop
from fix_engine import Engine, installed
from interleaving_worker import GENRES, SHARED, Worker
from library.models import Genre, Sample

import vinyl
from vinyl import _core

SEEDS = os.environ.get("VINYL_INTERLEAVING", "1 2").split()
STEPS = int(os.environ.get("VINYL_INTERLEAVING_STEPS", "70"))
TASKS = 24
POOL = 5
# A wait for a connection or a lock that ends by its deadline would hide a deadlock as an error.
PATIENCE = 90.0


def with_small_pool(engine: Engine) -> dict[str, dict[str, Any]]:
    options: dict[str, Any] = {"pool": {"max_size": POOL, "timeout": PATIENCE}}
    if engine.name == "sqlite":
        # A block that reads first and writes later would find its snapshot outdated.
        options |= {"timeout": PATIENCE, "transaction_mode": "IMMEDIATE"}
    return {"default": engine.conf | {"OPTIONS": options}}


class Switches:
    """How often a step was followed by a step of another worker."""

    def __init__(self) -> None:
        self.count = 0
        self.steps = 0
        self._last: Worker | None = None

    def __call__(self, worker: Worker) -> None:
        self.count += worker is not self._last
        self.steps += 1
        self._last = worker


async def make_shared_rows() -> dict[str, Genre]:
    await Sample.vinyl.create(text=SHARED, big=0)
    return {name: await Genre.vinyl.create(name=name) for name in GENRES}


async def assert_counted(workers: list[Worker]) -> None:
    row = await Sample.vinyl.get(text=SHARED)
    assert row.big == sum(worker.counted for worker in workers)


def assert_pool_is_whole(size: int) -> None:
    stats = vinyl.pool_stats()
    assert stats["pool_max"] == POOL
    assert stats["pool_size"] <= size
    assert stats["pool_available"] == stats["pool_size"], stats
    assert stats["requests_waiting"] == 0, stats


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.modes("asyncio", "uvloop")
def test_many_tasks_on_a_small_pool(engine: Engine, mode: str, seed: str) -> None:
    switches = Switches()

    async def run() -> None:
        genres = await make_shared_rows()
        workers = [Worker(f"{seed}.{number}", genres, True) for number in range(TASKS)]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(STEPS, switches))
        await assert_counted(workers)
        assert_pool_is_whole(POOL)

    factory = uvloop.new_event_loop if mode == "uvloop" else asyncio.new_event_loop
    before = _core.stats()
    with installed(with_small_pool(engine)), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
    after = _core.stats()
    assert switches.steps == TASKS * STEPS
    # Were each worker to run to its end before the next, there would be TASKS of them.
    assert switches.count > switches.steps // 2
    assert after["statements"] - before["statements"] > 2 * switches.steps


@pytest.mark.parametrize("seed", SEEDS)
def test_one_worker_without_a_loop(engine: Engine, seed: str) -> None:
    async def run() -> None:
        worker = Worker(f"{seed}.alone", await make_shared_rows(), False)
        await worker.run(STEPS, lambda _: None)
        await assert_counted([worker])

    with installed(with_small_pool(engine)):
        vinyl.drive(run())
