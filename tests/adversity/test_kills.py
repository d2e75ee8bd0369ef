"""Backends killed on the server: every answer is right, every acknowledged commit is there."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest
from adversity_support import count, report
from adversity_support.whole import (
    BACKENDS,
    assert_all_slots_work,
    assert_nobody_holds_a_slot,
    kill,
    one,
)
from django.db import InterfaceError, OperationalError, transaction
from fix_engine import Engine
from library.models import Author

import vinyl

pytestmark = pytest.mark.modes("asyncio", "uvloop")
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
KILLS = count(40, 1000)
TASKS = 64


class Work:
    """What 64 tasks do while backends die, and what came of it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.stop = False
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.answers = self.wrong = 0
        self.errors: list[BaseException] = []

    def transfer(self, name: str) -> None:
        with transaction.atomic(using=self.alias):
            Author.objects.using(self.alias).create(name=f"{name} a")
            Author.objects.using(self.alias).create(name=f"{name} b")

    async def in_a_coroutine(self, name: str) -> None:
        async with vinyl.atomic(self.alias):
            await Author.vinyl.create(name=f"{name} a")
            await Author.vinyl.create(name=f"{name} b")

    async def task(self, number: int) -> None:
        turn = 0
        while not self.stop:
            turn += 1
            name = f"{number}.{turn}"
            try:
                answer = await vinyl.run(one, self.alias, number * 1000 + turn)
                self.answers += 1
                self.wrong += answer != number * 1000 + turn
            except Exception as error:
                self.errors.append(error)
            try:
                if turn % 2:
                    await vinyl.run(self.transfer, name)
                else:
                    await self.in_a_coroutine(name)
            except Exception as error:
                self.errors.append(error)
                self.refused.add(name)
            else:
                self.acknowledged.add(name)


@postgresql_only
async def test_kills_under_load(engine: Engine, postgres_admin: psycopg.Connection) -> None:
    work = Work(engine.alias)
    tasks = [asyncio.create_task(work.task(number)) for number in range(TASKS)]
    killed = 0
    chance = random.Random(5)
    while killed < KILLS:
        await asyncio.sleep(chance.random() * 0.02)
        pids = [pid for (pid,) in postgres_admin.execute(BACKENDS).fetchall()]
        if pids:
            kill(postgres_admin, [chance.choice(pids)])
            killed += 1
    work.stop = True
    _, hung = await asyncio.wait(tasks, timeout=30)
    assert not hung, f"{len(hung)} of {TASKS} tasks hang"
    assert work.wrong == 0
    foreign = [e for e in work.errors if not isinstance(e, OperationalError | InterfaceError)]
    assert not foreign, foreign[:3]
    names = [name for (name,) in postgres_admin.execute("SELECT name FROM library_author")]
    rows = set(names)
    assert len(names) == len(rows)
    missing = {f"{name} {half}" for name in work.acknowledged for half in "ab"} - rows
    assert not missing, f"lost commits: {sorted(missing)[:5]}"
    torn = [n for n in work.refused if (f"{n} a" in rows) != (f"{n} b" in rows)]
    assert not torn, torn[:5]
    in_doubt = [n for n in work.refused if f"{n} a" in rows]
    await assert_all_slots_work(engine.alias)
    assert_nobody_holds_a_slot(engine.alias)
    report(
        "kills under load", kills=killed, answers=work.answers, errors=len(work.errors),
        acknowledged=len(work.acknowledged), refused=len(work.refused),
        refused_but_committed=len(in_doubt),
    )  # fmt: skip


@postgresql_only
async def test_idle_connections_killed(engine: Engine, postgres_admin: psycopg.Connection) -> None:
    alias = engine.alias
    served = 0
    for _ in range(count(5, 50)):
        await assert_all_slots_work(alias)
        pids = [pid for (pid,) in postgres_admin.execute(BACKENDS).fetchall()]
        assert len(pids) == 10
        kill(postgres_admin, pids)
        # pg_terminate_backend only sends the signal: an idle connection is one that has ended.
        while postgres_admin.execute(BACKENDS).fetchall():
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*[_one(alias, n) for n in range(20)])
        assert answers == list(range(20))
        served += len(answers)
    report("idle connections killed", rounds=count(5, 50), served=served, errors=0)


async def _one(alias: str, value: int) -> Any:
    return await vinyl.run(one, alias, value)
