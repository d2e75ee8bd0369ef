"""vinyl.test.TestCase: what it adds."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import vinyl
import vinyl.test
from shop.models import Customer
from shop.steps import add, names, plain_names


class AsyncSetUp(vinyl.test.TestCase):
    fixtures = ["customers.json"]
    steps: list[str]

    async def asyncSetUp(self) -> None:
        self.steps = ["set up"]
        self.ben = await Customer.vinyl.create(name="ben")
        self.addAsyncCleanup(self._cleanup)
        await self.enterAsyncContext(self._context())

    async def asyncTearDown(self) -> None:
        self.steps.append("torn down")
        await self.ben.delete()

    async def _cleanup(self) -> None:
        self.steps.append("clean")

    @asynccontextmanager
    async def _context(self):
        self.steps.append("entered")
        yield
        self.steps.append("left")

    def tearDown(self) -> None:
        assert self.steps == ["set up", "entered", "test", "torn down", "left", "clean"], self.steps
        assert plain_names() == ["fixed"], plain_names()

    async def test_async(self) -> None:
        self.steps.append("test")
        self.assertEqual(await names(), ["ben", "fixed"])

    def test_sync(self) -> None:
        self.steps.append("test")
        self.assertEqual(plain_names(), ["ben", "fixed"])


class Asserting(vinyl.test.TestCase):
    async def test_num_queries(self) -> None:
        async with self.assertNumQueries(2):
            await add("a")
            await names()
        await self.assertNumQueries(1, add, "b")
        with self.assertNumQueries(1):
            await names()
        with self.assertRaisesRegex(AssertionError, "1 queries executed, 2 expected"):
            async with self.assertNumQueries(2):
                await names()
        with self.assertRaises(LookupError):
            async with self.assertNumQueries(2):
                raise LookupError

    async def test_on_commit(self) -> None:
        async def later() -> None:
            await add("later")
            async with vinyl.atomic():
                vinyl.on_commit(lambda: done.append("last"))

        done: list[str] = []
        async with self.captureOnCommitCallbacks(execute=True) as callbacks:
            async with vinyl.atomic():
                vinyl.on_commit(later)
                vinyl.on_commit(lambda: done.append("plain"))
            self.assertEqual(done, [])
        self.assertEqual(done, ["plain", "last"])
        self.assertEqual(len(callbacks), 3)
        self.assertEqual(await names(), ["later"])

    def test_on_commit_in_plain_code(self) -> None:
        from django.db import transaction

        done: list[str] = []
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: done.append("plain"))
        self.assertEqual(done, ["plain"])


class Committed(vinyl.test.TransactionTestCase):
    async def test_tasks_have_connections_of_their_own(self) -> None:
        gate = asyncio.Barrier(2)

        async def block(name: str) -> list[str]:
            async with vinyl.atomic():
                await gate.wait()  # both blocks are open at once
                return await names()

        self.assertEqual(await asyncio.gather(block("a"), block("b")), [[], []])
        async with self.assertNumQueries(1):
            await add("a")
