"""Statements that only read, on a connection that is in use: each answer is its own task's, and
what happens to one of them is nobody else's trouble."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import uvloop
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from fix_engine import Engine
from fix_links import DATABASE, Links
from library.models import Author
from psycopg import errors

import vinyl
from vinyl import _core
from vinyl.exceptions import PoolTimeout

pytestmark = pytest.mark.modes("asyncio", "uvloop")

ROWS = 50
ONE = "SELECT id, n, pg_backend_pid() FROM shared_rows WHERE id = %s"
DIVIDE = "SELECT 100 / n FROM shared_rows WHERE id = %s"
HELD = "SELECT n FROM shared_held WHERE id = %s"


@pytest.fixture
def admin(pg: Links) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own, in autocommit."""
    with psycopg.connect(
        dbname=DATABASE,
        host=pg.server.host,
        port=pg.server.port,
        user=pg.server.user,
        autocommit=True,
    ) as connection:
        connection.execute("DROP TABLE IF EXISTS shared_rows, shared_held")
        connection.execute("CREATE TABLE shared_rows (id int PRIMARY KEY, n int)")
        connection.execute(
            f"INSERT INTO shared_rows SELECT i, i - 7 FROM generate_series(1, {ROWS}) i"
        )
        connection.execute("CREATE TABLE shared_held AS SELECT * FROM shared_rows")
        yield connection


class Readers:
    """Tasks with a link each on one pool.  A statement is quick below ``quick`` seconds: for most
    tests however busy the machine is."""

    def __init__(self, pg: Links, size: int, quick: float = 20, **limits: Any) -> None:
        self.pg = pg
        config = pg.config(shares=True, share_below=quick)
        self.pool = pg.pool(config, max_size=size, min_size=size, **limits)

    def once(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """In an operation: what a planned query's fetch does."""
        link = self.pg.link(self.pool)
        try:
            with link.cursor() as cursor:
                cursor.reads = True
                cursor.execute(sql, params)
                return cursor.fetchall()
        finally:
            link.close()

    async def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return await _core.run(self.once, sql, *params)

    def start(self, sql: str, *params: Any) -> asyncio.Task[list[tuple[Any, ...]]]:
        return asyncio.ensure_future(self.read(sql, *params))

    async def warm(self, *statements: str) -> None:
        """All connections know the statements, and these are known to be quick."""
        size = self.pool.stats()["pool_max"]
        for _ in range(4):
            for sql in statements:
                await asyncio.gather(*[self.read(sql, 9) for _ in range(size)])

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # the test's time limit ends it
            await asyncio.sleep(0.001)

    async def idle(self) -> None:
        stats = self.pool.stats
        await self.until(lambda: stats()["pool_available"] == stats()["pool_size"])
        assert stats()["requests_waiting"] == 0

    @asynccontextmanager
    async def busy(self, admin: psycopg.Connection[Any]) -> AsyncIterator[asyncio.Task[Any]]:
        """One reader has the pool's only connection and gets no answer, for its table is locked."""
        with admin.transaction():
            admin.execute("LOCK TABLE shared_held")
            head = self.start(HELD, 9)
            await self.until(lambda: waiting(admin) == 1)
            yield head


def waiting(admin: psycopg.Connection[Any]) -> int:
    row = admin.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    assert row is not None
    return int(row[0])


def shared() -> int:
    return _core.stats()["shared"]


async def many(readers: Readers, count: int) -> list[int]:
    """Reads of many tasks at once: every answer is right.  The backends that gave them."""
    answers = await asyncio.gather(*[readers.read(ONE, 1 + i % ROWS) for i in range(count)])
    assert [row[:2] for [row] in answers] == [(1 + i % ROWS, i % ROWS - 6) for i in range(count)]
    return [row[2] for [row] in answers]


@pytest.mark.parametrize("size", [1, 3])
async def test_each_task_has_its_own_answer(
    pg: Links, admin: psycopg.Connection[Any], size: int
) -> None:
    readers = Readers(pg, size)
    await readers.warm(ONE)
    before = shared()
    requests = readers.pool.stats()["requests_num"]
    pids = await many(readers, 100)
    assert len(set(pids)) == size
    assert shared() > before
    await readers.idle()
    assert readers.pool.stats()["connections_num"] == size
    assert readers.pool.stats()["requests_num"] - requests == 100


async def test_not_without_being_asked(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    readers.pool = pg.pool(pg.config(), max_size=1)
    await readers.warm(ONE)
    before = shared()
    await many(readers, 40)
    assert shared() == before


async def test_an_error_is_its_own(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(DIVIDE)
    before = shared()
    answers = await asyncio.gather(
        *[readers.read(DIVIDE, 1 + i % 14) for i in range(56)], return_exceptions=True
    )
    assert shared() > before
    for number, answer in enumerate(answers):
        n = number % 14 - 6
        if n == 0:
            assert isinstance(answer, errors.DivisionByZero), answer
            assert answer.sqlstate == "22012"
            assert answer.diag.message_primary == "division by zero"
        else:
            assert answer == [(int(100 / n),)]
    await readers.idle()
    assert readers.pool.stats()["connections_num"] == 1


async def test_the_reader_is_cancelled(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE, HELD)
    async with readers.busy(admin) as head:
        queued = readers.pool.stats()["requests_queued"]
        others = [readers.start(ONE, 1 + i) for i in range(5)]
        await readers.until(lambda: readers.pool.stats()["requests_queued"] == queued + 5)
        head.cancel()
        with pytest.raises(asyncio.CancelledError):
            await head
        assert [row[:2] for [row] in await asyncio.gather(*others)] == [
            (1 + i, i - 6) for i in range(5)
        ]
        assert waiting(admin) == 0  # cancelled on the server, though the lock is still held
    await readers.idle()
    assert readers.pool.stats()["connections_num"] == 1


async def test_one_that_stands_behind_is_cancelled(
    pg: Links, admin: psycopg.Connection[Any]
) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE, HELD)
    async with readers.busy(admin) as head:
        queued = readers.pool.stats()["requests_queued"]
        others = [readers.start(ONE, 1 + i) for i in range(5)]
        await readers.until(lambda: readers.pool.stats()["requests_queued"] == queued + 5)
        others[0].cancel()
        others[3].cancel()
        gone = await asyncio.wait_for(
            asyncio.gather(others[0], others[3], return_exceptions=True), 5
        )
        assert all(isinstance(each, asyncio.CancelledError) for each in gone)
        assert not head.done()
    assert await head == [(2,)]  # nobody has cancelled it on the server
    left = await asyncio.gather(others[1], others[2], others[4])
    assert [row[:2] for [row] in left] == [(2, -5), (3, -4), (5, -2)]
    await readers.idle()
    assert readers.pool.stats()["connections_num"] == 1


async def test_all_are_cancelled(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE, HELD)
    async with readers.busy(admin) as head:
        others = [readers.start(ONE, 1 + i) for i in range(5)]
        await asyncio.sleep(0)
        for each in (*others, head):
            each.cancel()
        answers = await asyncio.gather(head, *others, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in answers)
        await readers.until(lambda: waiting(admin) == 0)
    await readers.idle()
    await many(readers, 20)


async def test_a_slow_one_does_not_hold_up_the_others(
    pg: Links, admin: psycopg.Connection[Any]
) -> None:
    readers = Readers(pg, 2, quick=0.02)
    await readers.warm(ONE, HELD)
    async with readers.busy(admin) as head:
        for _ in range(5):
            pids = await many(readers, 30)
            assert len(set(pids)) == 1
        assert not head.done()
    assert await head == [(2,)]
    await readers.idle()


async def test_the_timeout_of_the_pool(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1, quick=0.02, timeout=0.2)
    await readers.warm(ONE, HELD)
    async with readers.busy(admin) as head:
        head.set_name("the-head")
        answers = await asyncio.gather(
            *[readers.read(ONE, 1 + i) for i in range(12)], return_exceptions=True
        )
        for answer in answers:
            assert isinstance(answer, PoolTimeout)
            assert "the-head" in str(answer)
    assert await head == [(2,)]
    await readers.idle()
    await many(readers, 20)


async def test_a_killed_backend(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE, HELD)
    [[[_, _, pid]]] = [await readers.read(ONE, 1)]
    async with readers.busy(admin) as head:
        queued = readers.pool.stats()["requests_queued"]
        others = [readers.start(ONE, 1 + i) for i in range(5)]
        await readers.until(lambda: readers.pool.stats()["requests_queued"] == queued + 5)
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            await head
        answers = await asyncio.gather(*others)  # as if they had waited for a connection
        assert [row[:2] for [row] in answers] == [(1 + i, i - 6) for i in range(5)]
        assert pid not in {row[2] for [row] in answers}
    await readers.idle()


async def test_a_transaction_is_not_left_waiting(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE)
    done = False

    def transact() -> list[tuple[Any, ...]]:
        link = pg.link(readers.pool)
        link.autocommit = False
        with link.cursor() as cursor:
            cursor.execute("UPDATE shared_rows SET n = n WHERE id = 1")
            cursor.execute("SELECT n FROM shared_rows WHERE id = 1")
            rows = cursor.fetchall()
        link.commit()
        link.close()
        return rows

    async def keep_reading(number: int) -> int:
        times = 0
        while not done:
            [row] = await readers.read(ONE, number)
            assert row[:2] == (number, number - 7)
            times += 1
        return times

    before = shared()
    tasks = [asyncio.ensure_future(keep_reading(1 + i)) for i in range(20)]
    for _ in range(30):
        assert await _core.run(transact) == [(-6,)]
    done = True
    assert min(await asyncio.gather(*tasks)) > 0
    assert shared() > before
    await readers.idle()


async def test_a_connection_that_is_always_shared_is_still_replaced(
    pg: Links, admin: psycopg.Connection[Any]
) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE)
    seen: set[int] = set()

    async def keep_reading(number: int) -> None:
        while len(seen) < 2:
            [row] = await readers.read(ONE, number)
            seen.add(row[2])

    tasks = [asyncio.ensure_future(keep_reading(1 + i)) for i in range(20)]
    await readers.until(lambda: len(seen) == 1)
    readers.pool.close()
    await asyncio.gather(*tasks)


async def test_a_column_changes_its_type(pg: Links, admin: psycopg.Connection[Any]) -> None:
    readers = Readers(pg, 1)
    await readers.warm(ONE)
    for kind, make in (("bigint", int), ("text", str), ("int", int)):
        admin.execute(f"ALTER TABLE shared_rows ALTER n TYPE {kind} USING n::{kind}")
        for _ in range(3):
            answers = await asyncio.gather(*[readers.read(ONE, 1 + i) for i in range(20)])
            assert [row[1] for [row] in answers] == [make(i - 6) for i in range(20)]


@pytest.mark.parametrize("cancelled", [True, False])
def test_the_loop_ends_meanwhile(
    pg: Links, admin: psycopg.Connection[Any], mode: str, cancelled: bool
) -> None:
    readers = Readers(pg, 1)
    factory = uvloop.new_event_loop if mode == "uvloop" else asyncio.new_event_loop

    kept: list[Any] = []
    loop = factory()

    loop.run_until_complete(readers.warm(ONE, HELD))
    with admin.transaction():
        admin.execute("LOCK TABLE shared_held")

        async def locked() -> None:
            head = readers.start(HELD, 9)
            await readers.until(lambda: waiting(admin) == 1)
            kept.extend([head, *[readers.start(ONE, 1 + i) for i in range(12)]])
            await asyncio.sleep(0)

        loop.run_until_complete(locked())
        if cancelled:
            for each in kept:
                each.cancel()
            loop.run_until_complete(asyncio.gather(*kept, return_exceptions=True))
        loop.close()
        assert waiting(admin) == 0
    stats = readers.pool.stats()
    assert stats["pool_size"] == 0
    for each in kept:
        each._log_destroy_pending = False  # the test has left them on purpose


@pytest.mark.parametrize("seed", range(6))
async def test_storm(pg: Links, admin: psycopg.Connection[Any], seed: int) -> None:
    """Cancels, errors, kills and transactions among them: whoever gets an answer gets its own."""
    readers = Readers(pg, 2)
    await readers.warm(ONE, DIVIDE, HELD)
    dice = random.Random(seed)
    good = 0

    def transact() -> None:
        link = pg.link(readers.pool)
        link.autocommit = False
        try:
            with link.cursor() as cursor:
                cursor.execute("SELECT n FROM shared_rows WHERE id = 1 FOR UPDATE")
                assert cursor.fetchall() == [(-6,)]
            link.commit()
        finally:
            link.close()

    async def one(number: int) -> None:
        nonlocal good
        what = dice.random()
        pk = 1 + dice.randrange(ROWS)
        if what < 0.1:
            await _core.run(transact)
        elif what < 0.3:
            try:
                assert await readers.read(DIVIDE, pk) == [(int(100 / (pk - 7)),)]
            except errors.DivisionByZero:
                assert pk == 7
        else:
            [row] = await readers.read(ONE, pk)
            assert row[:2] == (pk, pk - 7)
            good += 1

    async def some() -> None:
        for number in range(40):
            try:
                async with asyncio.timeout(dice.choice([0.0005, 0.002, 0.005, None, None, None])):
                    await one(number)
            except (TimeoutError, psycopg.OperationalError):
                pass

    async def kill() -> None:
        for _ in range(4):
            await asyncio.sleep(0.02)
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " ORDER BY random() LIMIT 1"
            )

    before = shared()
    await asyncio.gather(kill(), *[some() for _ in range(24)])
    assert good > 100
    assert shared() > before
    await readers.idle()
    await many(readers, 40)


# --- through Django


async def get_at_once(authors: list[Author]) -> None:
    for _ in range(6):
        found = await asyncio.gather(*[Author.vinyl.get(pk=author.pk) for author in authors])
        assert [author.name for author in found] == [author.name for author in authors]


on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


@on_postgresql
@pytest.mark.parametrize("wanted", [True, False])
async def test_planned_queries_share(with_options: Callable[..., Engine], wanted: bool) -> None:
    with_options(pool={"max_size": 2}, **({} if wanted else {"shared_reads": False}))
    authors = [await Author.vinyl.create(name=f"a{number}") for number in range(24)]
    await get_at_once(authors)
    before = shared()
    await get_at_once(authors)
    assert (shared() > before) is wanted
    before = shared()
    async with vinyl.atomic():
        await get_at_once(authors)
    await asyncio.gather(*[vinyl.run(lock, author.pk) for author in authors])
    assert shared() == before


def lock(pk: int) -> str:
    with transaction.atomic():
        return Author.objects.select_for_update().get(pk=pk).name


@on_postgresql
def test_it_is_true_or_false(with_options: Callable[..., Engine]) -> None:
    engine = with_options(shared_reads="no")
    with pytest.raises(ImproperlyConfigured, match="shared_reads"):
        connections[engine.alias].check_options()
