"""Transactions, slots and faults of the PostgreSQL engine's links."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest
from fix_links import Links, rows

from vinyl import _core


async def test_begin_travels_with_the_first_statement(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        link.autocommit = False
        link.commit()
        link.rollback()
        assert not link.attached  # an empty block does no I/O
        before = _core.stats()["statements"]
        rows(link, "SELECT 1")
        assert _core.stats()["statements"] == before + 1
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        link.commit()
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        link.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        link.read_only = True
        assert rows(link, "SHOW transaction_isolation") == [("serializable",)]
        assert rows(link, "SHOW transaction_read_only") == [("on",)]
        with pytest.raises(psycopg.ProgrammingError, match="transaction is open"):
            link.autocommit = True
        link.rollback()
        link.autocommit = True
        link.close()

    await _core.run(work)


async def test_commit_that_rolled_back(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        link.autocommit = False
        with pytest.raises(psycopg.errors.UndefinedTable):
            rows(link, "SELECT * FROM missing")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="nothing was saved"):
            link.commit()
        assert rows(link, "SELECT 1") == [(1,)]
        link.rollback()
        link.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_a_slot_is_held_only_while_it_is_needed(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)

    def work() -> None:
        rows(link, "SELECT 1")
        assert not link.attached
        link.autocommit = False
        rows(link, "SELECT 1")
        assert link.attached
        link.commit()
        link.autocommit = True
        assert not link.attached
        # State in the server's session: nobody else may meet it.
        rows(link, "SET search_path = nowhere")
        assert link.attached
        link.close()
        other = pg.link(pool)
        assert rows(other, "SHOW search_path") == [('"$user", public',)]
        other.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_fifty_tasks_on_five_connections(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=5)
    threads = threading.active_count()

    def work(number: int) -> int:
        link = pg.link(pool)
        link.autocommit = number % 2 == 0
        for _ in range(5):
            assert rows(link, "SELECT %s::int", [number]) == [(number,)]
        link.commit()
        link.close()
        return number

    done = await asyncio.gather(*(_core.run(work, number) for number in range(50)))
    assert done == list(range(50))
    assert threading.active_count() <= threads + 1
    stats = pool.stats()
    assert stats["pool_size"] <= 5
    assert stats["pool_available"] == stats["pool_size"]


@pytest.mark.modes("asyncio", "uvloop")
async def test_twenty_sleeps_at_once(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=20)
    start = time.monotonic()
    await asyncio.gather(
        *(_core.run(rows, pg.link(pool), "SELECT pg_sleep(0.2)") for _ in range(20))
    )
    assert time.monotonic() - start < 2.0  # 4 s one after the other


@pytest.mark.modes("asyncio", "uvloop")
async def test_cancel_reaches_the_server(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=2)
    link, watcher = pg.link(pool), pg.link(pool)
    running = (
        "SELECT COUNT(*) FROM pg_stat_activity"
        " WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
    )

    async def until(count: int) -> None:
        while (await _core.run(rows, watcher, running)) != [(count,)]:
            await asyncio.sleep(0.01)

    async def sleep() -> None:
        await _core.run(rows, link, "SELECT pg_sleep(30)")

    task = asyncio.create_task(sleep())
    await until(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(0)
    assert await _core.run(rows, link, "SELECT 1") == [(1,)]
    stats = pool.stats()
    assert stats["pool_available"] == stats["pool_size"]


@pytest.mark.modes("asyncio", "uvloop")
async def test_cancel_in_a_transaction_rolls_back(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)
    await _core.run(rows, link, "CREATE TABLE IF NOT EXISTS cancelled (a int)")

    def work() -> None:
        link.autocommit = False
        try:
            rows(link, "INSERT INTO cancelled VALUES (1)")
            rows(link, "SELECT pg_sleep(30)")
        finally:
            link.rollback()
            link.autocommit = True

    async def task_of() -> None:
        await _core.run(work)

    task = asyncio.create_task(task_of())
    await asyncio.sleep(0)
    while not link.attached:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _core.run(rows, link, "SELECT COUNT(*) FROM cancelled") == [(0,)]


@pytest.mark.modes("asyncio", "uvloop")
async def test_cancel_anywhere(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=3)
    watcher = pg.link(pg.pool(max_size=1))
    await _core.run(rows, watcher, "DROP TABLE IF EXISTS swept")
    await _core.run(rows, watcher, "CREATE TABLE swept (turn int)")

    def work(turn: int) -> None:
        link = pg.link(pool)
        link.autocommit = False
        try:
            rows(link, "INSERT INTO swept VALUES (%s)", [turn])
            rows(link, "INSERT INTO swept VALUES (%s)", [turn])
            link.commit()
        finally:
            link.rollback()
            link.close()

    async def task_of(turn: int) -> None:
        await _core.run(work, turn)

    ends = []
    for turn in range(120):
        task = asyncio.create_task(task_of(turn))
        for _ in range(turn % 60):
            await asyncio.sleep(0)
        if turn % 3 == 0:
            await asyncio.sleep(0.0005 * (turn % 20))
        task.cancel()
        ends += await asyncio.gather(task, return_exceptions=True)
    assert {type(end) for end in ends} <= {asyncio.CancelledError, type(None)}
    assert asyncio.CancelledError in {type(end) for end in ends}
    halves = "SELECT turn FROM swept GROUP BY turn HAVING COUNT(*) <> 2"
    assert await _core.run(rows, watcher, halves) == []
    stats = pool.stats()
    assert stats["pool_available"] == stats["pool_size"]
    assert await _core.run(rows, pg.link(pool), "SELECT 1") == [(1,)]


@pytest.mark.modes("asyncio", "uvloop")
async def test_two_tasks_on_one_link(pg: Links, mode: str) -> None:
    link = pg.link()
    each = await asyncio.gather(
        *(_core.run(rows, link, "SELECT pg_sleep(0.05), %s::int", [n]) for n in range(4)),
    )
    assert each == [[("", n)] for n in range(4)]
    assert await _core.run(rows, link, "SELECT 3") == [(3,)]


async def test_killed_backend(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        with pytest.raises(psycopg.errors.AdminShutdown):
            rows(link, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert rows(link, "SELECT 1") == [(1,)]
        link.autocommit = False
        rows(link, "SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            rows(link, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert link.broken
        with pytest.raises(psycopg.OperationalError, match="its transaction with it"):
            rows(link, "SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="nothing was committed"):
            link.commit()
        link.rollback()
        assert rows(link, "SELECT 1") == [(1,)]
        link.rollback()
        link.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_idle_connection_killed_is_not_handed_out(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)
    ((pid,),) = await _core.run(rows, link, "SELECT pg_backend_pid()")
    pg.server.psql(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert (await _core.run(rows, link, "SELECT pg_backend_pid()")) != [(pid,)]


async def test_cannot_connect(pg: Links, mode: str) -> None:
    password = "hunter2-very-secret"
    tcp = {"host": "127.0.0.1", "password": password}
    cases: list[tuple[dict[str, str], str]] = [
        ({"port": "1", "host": "127.0.0.1"}, "Connection refused"),
        ({"host": "/nowhere"}, "No such file or directory"),
        ({"dbname": "no_such_database"}, 'database "no_such_database" does not exist'),
        (tcp, "password authentication failed"),
        ({"no_such_option": "1"}, 'invalid connection option "no_such_option"'),
        ({"sslmode": "sideways"}, 'invalid sslmode value: "sideways"'),
        ({"port": "x", "password": "x"}, "invalid"),
    ]

    def work() -> None:
        for more, message in cases:
            link = pg.link(config=pg.config(pg.params(**more)))
            with pytest.raises(psycopg.OperationalError, match=message) as caught:
                rows(link, "SELECT 1")
            assert password not in str(caught.value)
            link.close()

    await _core.run(work)
    assert password not in repr(pg.config(pg.params(**tcp)))


async def test_connect_timeout(pg: Links, mode: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        config = pg.config(pg.params(host="127.0.0.1", port=port), connect_timeout=0.2)
        link = pg.link(config=config)
        start = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="connect_timeout"):
            await _core.run(rows, link, "SELECT 1")
        assert 0.2 <= time.monotonic() - start < 5


async def test_a_silent_host_is_left_out(pg: Links, mode: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = str(silent.getsockname()[1])
        hosts = {"host": f"127.0.0.1,{pg.server.host}", "port": f"{silent_port},{pg.server.port}"}
        link = pg.link(config=pg.config(pg.params(**hosts), connect_timeout=0.2))
        assert await _core.run(rows, link, "SELECT 1") == [(1,)]
        hosts = {"host": "127.0.0.1,127.0.0.1", "port": silent_port}
        link = pg.link(config=pg.config(pg.params(**hosts), connect_timeout=0.1))
        with pytest.raises(psycopg.OperationalError, match="connect_timeout"):
            await _core.run(rows, link, "SELECT 1")


async def test_setup_runs_once_per_connection(pg: Links, mode: str) -> None:
    config = pg.config(setup="SET TIME ZONE 'Asia/Tokyo'; SET application_name = 'vinyl tests'")
    link = pg.link(config=config, max_size=1)

    def work() -> None:
        assert rows(link, "SHOW TimeZone") == [("Asia/Tokyo",)]
        assert link.info.parameter_status("application_name") == "vinyl tests"
        assert link.info.server_version == config.server_version > 100000
        assert "password" not in link.info.dsn
        link.close()

    await _core.run(work)
    bad = pg.link(config=pg.config(setup="SET ROLE nobody_here"), max_size=1)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nobody_here"):
        await _core.run(rows, bad, "SELECT 1")


def test_closed_link(pg: Links) -> None:
    link = pg.link()
    link.close()
    link.close()
    with pytest.raises(psycopg.OperationalError, match="connection is closed"):
        link.cursor()
    for call in (link.commit, link.rollback):
        with pytest.raises(psycopg.OperationalError, match="connection is closed"):
            call()


def test_a_dropped_link_leaves_nothing(pg: Links) -> None:
    pool: Any = pg.pool(max_size=1)
    from vinyl import _postgres

    link = _postgres.Connection(pool, pool.config)
    link.autocommit = False
    ((pid,),) = rows(link, "SELECT pg_backend_pid()")
    with pytest.warns(ResourceWarning, match="inside a transaction"):
        del link
    watcher = pg.link()
    deadline = time.monotonic() + 5
    while rows(watcher, "SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]):
        assert time.monotonic() < deadline
