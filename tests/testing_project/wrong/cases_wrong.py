"""Tests that must fail, each for the reason in its name."""

from __future__ import annotations

import asyncio

from django.test import SimpleTestCase, TestCase, TransactionTestCase
from shop.steps import add, names

import vinyl


class NoDatabase(SimpleTestCase):
    async def test_forbidden(self) -> None:
        await names()


class LeftOpen(TestCase):
    async def test_1_left_open(self) -> None:
        block = vinyl.atomic()
        await block.__aenter__()
        await add("left")

    async def test_2_is_not_harmed(self) -> None:
        assert await names() == [], await names()
        await add("left")


class Leaks(TransactionTestCase):
    def _fixture_teardown(self) -> None:
        """Leaves everything."""

    async def test_1(self) -> None:
        await add("leak")

    async def test_2(self) -> None:
        await add("leak")


class Waits(TestCase):
    async def test_for_its_own_block(self) -> None:
        go = asyncio.Event()

        async def older() -> None:
            await go.wait()
            await names()

        task = asyncio.create_task(older())
        async with vinyl.atomic():
            await add("mine")
            go.set()
            await task
