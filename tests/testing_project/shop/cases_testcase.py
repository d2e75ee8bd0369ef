"""Django's own TestCase. Each test makes the same unique names: one that leaks breaks the next."""

from __future__ import annotations

import asyncio
import threading

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase

import vinyl
from shop.models import Customer, Order
from shop.steps import Undo, add, add_in_block, names, plain_names


class Rollback(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.anna = Customer.objects.create(name="anna")

    async def test_tasks_1(self) -> None:
        await add("own")
        await asyncio.gather(add("one"), add("two"), asyncio.create_task(add("three")))
        async with asyncio.TaskGroup() as group:
            group.create_task(add("four"))
        self.assertEqual(await names(), ["anna", "four", "one", "own", "three", "two"])

    test_tasks_2 = test_tasks_1

    async def test_plain_code_and_tasks_are_one_transaction(self) -> None:
        await add("own")
        self.assertEqual(await sync_to_async(plain_names)(), ["anna", "own"])
        self.assertEqual(
            await sync_to_async(plain_names, thread_sensitive=False)(), ["anna", "own"]
        )
        await sync_to_async(Customer.objects.create)(name="plain")
        self.assertEqual(await vinyl.run(plain_names), ["anna", "own", "plain"])
        self.assertEqual(await names(), ["anna", "own", "plain"])

    def test_sync_1(self) -> None:
        Customer.objects.create(name="own")
        async_to_sync(add)("one")
        vinyl.drive(add("two"))
        self.assertEqual(plain_names(), ["anna", "one", "own", "two"])
        self.assertEqual(async_to_sync(names)(), ["anna", "one", "own", "two"])

    test_sync_2 = test_sync_1

    async def test_class_data_is_changed_in_one_test_1(self) -> None:
        self.assertEqual(self.anna.name, "anna")
        self.anna.name = "changed"
        await self.anna.save()
        await self.anna.orders.create(number=1)
        await Order.vinyl.create(customer=self.anna, number=2)
        self.assertEqual(await names(), ["changed"])
        self.assertEqual(await self.anna.orders.count(), 2)

    test_class_data_is_changed_in_one_test_2 = test_class_data_is_changed_in_one_test_1

    async def test_async_client_1(self) -> None:
        await add("own")
        response = await self.async_client.get("/customers/", {"add": "viewed"})
        self.assertEqual(response.json(), {"names": ["anna", "own", "viewed"]})
        self.assertEqual(await names(), ["anna", "own", "viewed"])

    test_async_client_2 = test_async_client_1

    def test_sync_client(self) -> None:
        with self.assertNumQueries(2):
            response = self.client.get("/customers/", {"add": "viewed"})
        self.assertEqual(response.json(), {"names": ["anna", "viewed"]})
        self.assertEqual(plain_names(), ["anna", "viewed"])

    async def test_closing_connections_in_tasks_and_threads_does_no_harm(self) -> None:
        await add("own")
        await vinyl.run(connections.close_all)

        def close_in_thread() -> None:
            thread = threading.Thread(target=connections.close_all)
            thread.start()
            thread.join()

        await asyncio.to_thread(connections.close_all)
        close_in_thread()
        self.assertEqual(await names(), ["anna", "own"])


class Blocks(TestCase):
    async def test_blocks_of_different_tasks_take_turns(self) -> None:
        results = await asyncio.gather(
            add_in_block("undone", undo=True),
            add_in_block("a"),
            add_in_block("undone too", undo=True),
            add("between"),
            add_in_block("b"),
            return_exceptions=True,
        )
        self.assertEqual([type(r) for r in results if r], [Undo, Undo])
        self.assertEqual(await names(), ["a", "b", "between"])

    async def test_another_tasks_statement_waits_for_the_block(self) -> None:
        entered = asyncio.Event()
        seen: list[list[str]] = []

        async def older() -> None:
            await entered.wait()
            seen.append(await names())

        task = asyncio.create_task(older())
        with self.assertRaises(Undo):
            async with vinyl.atomic():
                await add("undone")
                entered.set()
                for _ in range(5):
                    await asyncio.sleep(0)
                self.assertEqual(await names(), ["undone"])
                self.assertEqual(seen, [])
                raise Undo
        await task
        self.assertEqual(seen, [[]])

    async def test_savepoints_and_durable(self) -> None:
        async with vinyl.atomic(durable=True):
            await add("outer")
            with self.assertRaises(Undo):
                async with vinyl.atomic():
                    await add("inner")
                    raise Undo
            with self.assertRaisesRegex(RuntimeError, "durable"):
                async with vinyl.atomic(durable=True):
                    pass
        with self.assertRaises(Undo):
            async with vinyl.atomic(savepoint=False):
                await add("undone")
                raise Undo
        self.assertEqual(await names(), ["outer"])

    async def test_a_block_waits_for_what_has_begun_in_it(self) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def late() -> None:
            begun.set()
            await go_on.wait()
            await add("late")

        with self.assertRaises(Undo):
            async with vinyl.atomic():
                task = asyncio.create_task(vinyl.run(lambda: vinyl.await_(late())))
                await begun.wait()
                never = asyncio.create_task(Customer.vinyl.create(name="never"))
                asyncio.get_running_loop().call_soon(go_on.set)
                raise Undo
        self.assertTrue(task.done())
        await task
        await asyncio.wait([never])
        self.assertEqual(await names(), [])

    async def test_a_task_started_in_a_block_is_refused(self) -> None:
        async with vinyl.atomic():
            await add("owner")
            with self.assertRaisesRegex(TransactionManagementError, "independent"):
                await asyncio.create_task(names())
            with self.assertRaises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(add("child"))
            await asyncio.gather(*[Customer.vinyl.create(name=f"own {n}") for n in range(3)])
        self.assertEqual(await asyncio.create_task(names()), ["own 0", "own 1", "own 2", "owner"])

    async def test_sync_atomic_in_fibers(self) -> None:
        def work(name: str, undo: bool) -> None:
            with transaction.atomic():
                Customer.objects.create(name=name)
                vinyl.await_(asyncio.sleep(0))
                vinyl.await_(asyncio.sleep(0))
                if undo:
                    raise Undo

        async def in_fiber(name: str, undo: bool) -> None:
            await vinyl.run(work, name, undo)

        results = await asyncio.gather(
            in_fiber("undone", True),
            in_fiber("kept", False),
            add("plain"),
            return_exceptions=True,
        )
        self.assertEqual([type(r) for r in results if r], [Undo])
        self.assertEqual(await names(), ["kept", "plain"])

    async def test_a_cancelled_block_is_rolled_back(self) -> None:
        entered = asyncio.Event()

        async def block() -> None:
            async with vinyl.atomic():
                await add("cancelled")
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await entered.wait()
        waiting = asyncio.create_task(add_in_block("kept"))
        await asyncio.sleep(0)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await waiting
        self.assertEqual(await names(), ["kept"])

    async def test_late_operation(self) -> None:
        async with vinyl.atomic():
            late = Customer.vinyl.create(name="late")
        with self.assertRaises(TransactionManagementError):
            await late
        self.assertEqual(await names(), [])

    async def test_independent_names_the_other_class(self) -> None:
        with self.assertRaisesRegex(TransactionManagementError, "TransactionTestCase"):
            async with vinyl.independent():
                pass


class OnCommit(TestCase):
    async def test_captured(self) -> None:
        calls: list[str] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            async with vinyl.atomic():
                vinyl.on_commit(lambda: calls.append("kept"))
            with self.assertRaises(Undo):
                async with vinyl.atomic():
                    vinyl.on_commit(lambda: calls.append("undone"))
                    raise Undo
            vinyl.on_commit(lambda: calls.append("outside"))
            self.assertEqual(calls, [])
        self.assertEqual(calls, ["kept", "outside"])
        self.assertEqual(len(callbacks), 2)

    async def test_a_coroutine_function_needs_a_block_of_its_own(self) -> None:
        async def later() -> None:
            await add("later")

        with self.assertRaises(TransactionManagementError):
            vinyl.on_commit(later)


class Counting(TestCase):
    async def test_only_this_tasks_statements(self) -> None:
        async def other() -> None:
            for n in range(3):
                await add(f"other {n}")

        task = asyncio.create_task(other())
        with self.assertNumQueries(3):
            await asyncio.gather(Customer.vinyl.create(name="a"), Customer.vinyl.create(name="b"))
            await task
            await names()
        wrong = self.assertRaisesRegex(AssertionError, "2 queries executed, 1 expected")
        with wrong, self.assertNumQueries(1):
            await names()
            await names()

    def test_plain_code_counts_what_its_tasks_did(self) -> None:
        async def both() -> None:
            await asyncio.gather(add("a"), add("b"))
            await vinyl.run(plain_names)

        with self.assertNumQueries(3):
            async_to_sync(both)()
        with self.assertNumQueries(1), connection.execute_wrapper(self._count):
            self.calls = 0
            async_to_sync(names)()
        self.assertEqual(self.calls, 1)

    def _count(self, execute, sql, params, many, context):
        self.calls += 1
        return execute(sql, params, many, context)
