"""The link of the SQLite engine: which physical connection it holds, and for how long."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlite_support import Database, start, until
from vinyl._sqlite3 import Batch

from vinyl import _core

on_a_loop = pytest.mark.modes("asyncio", "uvloop")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "a.sqlite3")
    link = database.own()
    link.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER UNIQUE)")
    link.close()
    return database


# --- transactions, in every mode


async def test_begin_travels_with_the_first_statement(database: Database) -> None:
    def work() -> None:
        link = database.link()
        before = _core.stats()["statements"]
        link.execute("BEGIN IMMEDIATE")
        assert link.in_transaction
        assert not link.holds_slot
        link.commit()
        assert not link.in_transaction
        assert _core.stats()["statements"] == before
        link.execute("BEGIN IMMEDIATE")
        link.execute("SELECT 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Database.at(database.config.database, timeout=0).ask("DELETE FROM t RETURNING a")
        link.rollback()
        assert not link.in_transaction
        link.close()

    await _core.run(work)


async def test_commit_and_rollback(database: Database) -> None:
    def work() -> None:
        link = database.link()
        for end in (link.commit, link.rollback):
            link.execute("BEGIN")
            link.execute("INSERT INTO t DEFAULT VALUES")
            assert link.in_transaction
            assert link.holds_slot
            end()
        link.close()

    await _core.run(work)
    assert database.ask("SELECT count(*) FROM t") == (1,)


async def test_isolation_level_as_sqlite3_has_it(database: Database) -> None:
    def work() -> None:
        link = database.link()
        assert link.isolation_level is None
        link.isolation_level = "immediate"
        assert link.isolation_level == "IMMEDIATE"
        link.execute("SELECT 1").fetchall()
        assert not link.in_transaction
        link.execute("INSERT INTO t DEFAULT VALUES")
        assert link.in_transaction
        link.isolation_level = None
        assert not link.in_transaction
        with pytest.raises(ValueError, match="isolation_level"):
            link.isolation_level = "SERIALIZABLE"
        link.close()

    await _core.run(work)
    assert database.ask("SELECT count(*) FROM t") == (1,)


async def test_a_transaction_that_sqlite_ended_is_not_gone_on_with(database: Database) -> None:
    def work() -> None:
        link = database.link()
        link.execute("BEGIN")
        link.execute("INSERT INTO t (b) VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError):
            link.execute("INSERT OR ROLLBACK INTO t (b) VALUES (1)")
        assert link.in_transaction
        with pytest.raises(sqlite3.OperationalError, match="rolled this transaction back"):
            link.execute("INSERT INTO t (b) VALUES (2)")
        with pytest.raises(sqlite3.OperationalError, match="cannot commit"):
            link.commit()
        link.execute("INSERT INTO t (b) VALUES (3)")
        link.close()

    await _core.run(work)
    assert database.ask("SELECT count(*), max(b) FROM t") == (1, 3)


async def test_a_begin_that_fails_is_tried_again_by_the_next_statement(database: Database) -> None:
    quick = Database.at(database.config.database, timeout=0)
    other = database.own()

    def work() -> None:
        link = quick.link()
        other.execute("BEGIN IMMEDIATE")
        other.execute("SELECT 1")
        link.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            link.execute("INSERT INTO t (b) VALUES (1)")
        other.commit()
        assert link.in_transaction
        link.execute("INSERT INTO t (b) VALUES (2)")
        link.rollback()
        link.close()

    await _core.run(work)
    other.close()
    assert database.ask("SELECT count(*) FROM t") == (0,)


# --- the slot


@on_a_loop
async def test_one_slot_serves_many_links(database: Database) -> None:
    def work(n: int) -> int:
        link = database.link()
        link.execute("INSERT INTO t (b) VALUES (?)", (n,))
        return link.execute("SELECT b FROM t WHERE b = ?", (n,)).fetchone()[0]

    assert [await _core.run(work, n) for n in range(20)] == list(range(20))
    assert database.pool.stats()["connections_num"] == 1


@on_a_loop
async def test_a_cursor_with_rows_left_holds_the_slot(database: Database) -> None:
    def work() -> None:
        link = database.link()
        link.executemany("INSERT INTO t (b) VALUES (?)", [(n,) for n in range(5)])
        cursor = link.execute("SELECT b FROM t")
        assert link.holds_slot
        assert cursor.fetchmany(5) == [(0,), (1,), (2,), (3,), (4,)]
        assert not link.holds_slot
        cursor.execute("SELECT b FROM t").close()
        assert not link.holds_slot
        dropped = link.execute("SELECT b FROM t")
        assert link.holds_slot
        del dropped
        assert not link.holds_slot

    await _core.run(work)
    assert database.is_whole()


@on_a_loop
async def test_a_cursor_dropped_outside_its_fiber(database: Database) -> None:
    def work() -> Any:
        link = database.link()
        link.executemany("INSERT INTO t (b) VALUES (?)", [(n,) for n in range(5)])
        return link.execute("SELECT b FROM t")

    cursor = await _core.run(work)
    assert not database.is_whole()
    del cursor
    gc.collect()
    assert database.is_whole()
    assert database.pool.stats()["pool_available"] == 1


@on_a_loop
async def test_a_link_dropped_in_a_transaction(database: Database) -> None:
    def work() -> None:
        link = database.link()
        link.execute("BEGIN")
        link.execute("INSERT INTO t (b) VALUES (1)")

    with pytest.warns(ResourceWarning, match="inside a transaction"):  # noqa: PT031
        await _core.run(work)
        gc.collect()
    stats = database.pool.stats()
    assert (stats["pool_size"], stats["returns_bad"]) == (0, 1)
    assert database.ask("SELECT count(*) FROM t") == (0,)


PINS = [
    ("PRAGMA foreign_keys = 1", "PRAGMA foreign_keys = OFF"),
    ("PRAGMA cache_size(77)", "PRAGMA cache_size = -2000"),
    ("CREATE TEMP TABLE own (a)", "DROP TABLE own"),
    ("CREATE TEMPORARY VIEW own AS SELECT 1", "DROP VIEW own"),
    ("ATTACH ':memory:' AS side", "DETACH side"),
]


@on_a_loop
@pytest.mark.parametrize(("pin", "unpin"), PINS)
async def test_state_pins_the_connection(database: Database, pin: str, unpin: str) -> None:
    def work() -> None:
        link = database.link()
        for _ in range(2):
            link.execute(pin).fetchall()
            assert link.pinned
            assert link.holds_slot
            link.execute("SELECT 1").fetchall()
            assert link.holds_slot
            link.execute(unpin).fetchall()
            assert not link.holds_slot

    await _core.run(work)
    assert database.is_whole()


@on_a_loop
async def test_a_pinned_connection_is_not_handed_on(database: Database) -> None:
    def work() -> None:
        link = database.link()
        link.execute("CREATE TEMP TABLE own (a)")
        link.close()

    await _core.run(work)
    assert database.pool.stats()["pool_size"] == 0


@on_a_loop
@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA table_info(t)",
        "PRAGMA foreign_key_check(t)",
        "PRAGMA user_version = 3",
        "PRAGMA foreign_keys",
    ],
)
async def test_what_does_not_pin(database: Database, sql: str) -> None:
    def work() -> None:
        link = database.link()
        link.execute(sql).fetchall()
        assert not link.holds_slot

    await _core.run(work)


@pytest.mark.parametrize("module", ["fts5(a, b)", "rtree(id, a, b)"])
async def test_a_virtual_table_keeps_its_own_statements(database: Database, module: str) -> None:
    """They are the table's to close, when the connection is."""
    link = database.own()
    try:
        link.execute(f"CREATE VIRTUAL TABLE v USING {module}")
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        link.close()
        pytest.skip(f"SQLite was built without {module}")
    for _ in range(2):
        link.execute("INSERT INTO v (a, b) VALUES (1, 2)")
        link.executemany("INSERT INTO v (a, b) VALUES (?, ?)", [(1, 2), (3, 4)])
        link.execute(
            "INSERT INTO v (a, b) SELECT c0, c1 FROM sqlite_vinyl_batch(?)",
            (Batch([[5, 5], [6, 7]]),),
        )
    open_ones = [link.execute("SELECT a FROM v") for _ in range(3)]  # one is cached, the others not
    assert [cursor.fetchone() is not None for cursor in open_ones] == [True] * 3
    link.close()
    assert database.ask("SELECT count(*) FROM v") == (10,)


async def test_functions_belong_to_their_link(database: Database) -> None:
    database.config.setup = lambda link: link.create_function("base", 0, lambda: "base")

    def twice(x: int) -> int:
        return 2 * x

    def work() -> None:
        link, other = database.link(), database.link()
        link.create_function("twice", 1, twice)
        link.create_function("base", 0, lambda: "own")
        link.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        for _ in range(2):
            assert link.execute("SELECT twice(21), base()").fetchone() == (42, "own")
            assert link.execute("SELECT 'a' < 'b' COLLATE backwards").fetchone() == (0,)
            assert other.execute("SELECT base()").fetchone() == ("base",)
            with pytest.raises(sqlite3.OperationalError, match="no such function"):
                other.execute("SELECT twice(21)")
            with pytest.raises(sqlite3.OperationalError, match="no such collation"):
                other.execute("SELECT 'a' < 'b' COLLATE backwards")
        link.create_function("twice", 1, None)
        with pytest.raises(sqlite3.OperationalError, match="no such function"):
            link.execute("SELECT twice(21)")
        with pytest.raises(sqlite3.ProgrammingError, match="'wide' of 1000"):
            link.create_function("wide", 1000, twice)
        link.close()
        other.close()

    await _core.run(work)


@on_a_loop
async def test_functions_do_not_cost_a_connection(database: Database) -> None:
    def twice(x: int) -> int:
        return 2 * x

    def work(n: int) -> int:
        link = database.link()
        link.create_function("twice", 1, twice)
        return link.execute("SELECT twice(?)", (n,)).fetchone()[0]

    assert [await _core.run(work, n) for n in range(5)] == [0, 2, 4, 6, 8]
    assert database.pool.stats()["connections_num"] == 1
    assert database.is_whole()


async def test_outside_fibers_the_connection_stays(database: Database, mode: str) -> None:
    def work() -> bool:
        link = database.link()
        link.execute("SELECT 1").fetchall()
        held = link.holds_slot
        link.close()
        return held

    assert await _core.run(work) is (mode == "blocking")


# --- used by two at once


@on_a_loop
async def test_two_fibers_on_one_link(database: Database) -> None:
    made: list[Any] = []
    database.config.setup = lambda link: link.create_function("mark", 1, made.append)
    link = database.link()
    slow = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000000)"
        " SELECT mark(max(x)) FROM c"
    )
    first = start(lambda: link.execute(slow).fetchone())
    before = _core.stats()["suspends"]
    await until(lambda: _core.stats()["suspends"] > before + 2)
    second = start(lambda: link.execute("SELECT 1").rowcount)
    with pytest.raises(sqlite3.InterfaceError, match="of another operation"):
        link.execute("SELECT 1")  # the loop itself cannot wait
    assert await first == (None,)
    assert made == [3000000]
    assert await second == -1
    await _core.run(link.close)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await _core.run(link.execute, "SELECT 1")
    assert database.is_whole()


def test_threads_take_turns_on_one_link(database: Database) -> None:
    link = database.link()

    def work(n: int) -> None:
        for k in range(50):
            link.execute("INSERT INTO t (b) VALUES (?)", (1000 * n + k,))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert link.execute("SELECT count(*) FROM t").fetchone() == (200,)
    link.close()


def test_interrupt_from_another_thread(database: Database) -> None:
    reached = threading.Event()
    database.config.setup = lambda link: link.create_function("mark", 0, lambda: reached.set() or 0)
    link = database.own()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            link.execute(
                "WITH RECURSIVE c(x) AS (SELECT mark() UNION ALL SELECT x + 1 FROM c)"
                " SELECT max(x) FROM c"
            )
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(30)
    link.interrupt()
    thread.join(30)
    assert isinstance(caught[0], sqlite3.OperationalError)
    assert caught[0].sqlite_errorname == "SQLITE_INTERRUPT"
    assert link.execute("SELECT 1").fetchone() == (1,)
    link.close()


# --- signals in blocking mode


@pytest.fixture
def raising_signal() -> Iterator[threading.Event]:
    """Once the event is set, a signal whose handler raises LookupError reaches the main thread."""

    def handler(number: int, frame: Any) -> None:
        raise LookupError("a signal")

    go = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def send() -> None:
        if go.wait(30):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=send)
    thread.start()
    yield go
    go.set()
    thread.join()
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_ends_a_scan(database: Database, raising_signal: threading.Event) -> None:
    database.config.setup = lambda link: link.create_function("mark", 0, raising_signal.set)
    link = database.own()
    with pytest.raises(LookupError, match="a signal"):
        link.execute(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
            " SELECT count(CASE WHEN x = 1000 THEN mark() END) FROM c"
        )
    assert link.execute("SELECT 1").fetchone() == (1,)
    link.close()


def test_a_signal_ends_a_wait_for_a_lock(
    database: Database, raising_signal: threading.Event
) -> None:
    holder, link = database.own(), database.own()
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("SELECT 1")
    raising_signal.set()

    def insist() -> None:
        while True:
            with suppress(sqlite3.OperationalError):
                link.execute("INSERT INTO t DEFAULT VALUES")

    with pytest.raises(LookupError, match="a signal"):
        insist()
    holder.rollback()
    holder.close()
    link.execute("INSERT INTO t DEFAULT VALUES")
    link.close()
    assert database.ask("SELECT count(*) FROM t") == (1,)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["close", "drop", "use"])
def test_a_forked_child_leaves_the_parents_database_alone(database: Database, how: str) -> None:
    link = database.link()
    link.execute("BEGIN")
    link.execute("INSERT INTO t (b) VALUES (1)")
    cursor = link.execute("SELECT 1 UNION SELECT 2")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _in_the_child(link, cursor, how)
            del link, cursor
            gc.collect()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert cursor.fetchall() == [(1,), (2,)]
    link.execute("INSERT INTO t (b) VALUES (2)")
    link.commit()
    link.close()
    assert database.ask("SELECT count(*) FROM t") == (2,)
    assert database.ask("PRAGMA integrity_check") == ("ok",)


def _in_the_child(link: Any, cursor: Any, how: str) -> int:
    if how == "close":
        link.close()
    elif how == "use":
        with pytest.raises(sqlite3.OperationalError, match="nothing of it is left"):
            link.execute("SELECT 1")
        link.rollback()
        assert link.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert cursor.fetchall() == []
    return 0
