"""Django's own TransactionTestCase: real commits, and a clean database for the next test."""

from __future__ import annotations

import asyncio

from django.db import connections
from django.db.transaction import TransactionManagementError
from django.test import TransactionTestCase

import vinyl
from shop.models import Customer
from shop.steps import Undo, add, add_in_block, names, plain_names


class Commits(TransactionTestCase):
    def setUp(self) -> None:
        Customer.objects.create(name="anna")

    async def test_commits_1(self) -> None:
        await add("own")
        results = await asyncio.gather(
            add("one"), add_in_block("two"), add_in_block("no", undo=True), return_exceptions=True
        )
        self.assertIsInstance(results[2], Undo)
        self.assertEqual(await names(), ["anna", "one", "own", "two"])
        self.assertEqual(await asyncio.to_thread(plain_names_and_close), await names())

    test_commits_2 = test_commits_1

    def test_sync(self) -> None:
        self.assertEqual(plain_names(), ["anna"])

    async def test_on_commit_is_called(self) -> None:
        done: list[str] = []

        async def later() -> None:
            done.append("coroutine")

        async with vinyl.atomic():
            await add("own")
            vinyl.on_commit(lambda: done.append("plain"))
            vinyl.on_commit(later)
            self.assertEqual(done, [])
        self.assertEqual(done, ["plain", "coroutine"])
        with self.assertRaises(TransactionManagementError):
            vinyl.on_commit(later)

    async def test_independent(self) -> None:
        with self.assertRaises(Undo):
            async with vinyl.atomic():
                async with vinyl.independent():
                    await add("audit")
                raise Undo
        self.assertEqual(await names(), ["anna", "audit"])


class Sequences(TransactionTestCase):
    reset_sequences = True

    async def test_first_key_1(self) -> None:
        self.assertEqual((await Customer.vinyl.create(name="first")).pk, 1)

    test_first_key_2 = test_first_key_1


def plain_names_and_close() -> list[str]:
    try:
        return plain_names()
    finally:
        connections.close_all()
