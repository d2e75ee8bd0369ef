"""Statements of one link that are sent together: Connection.execute_together()."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from adversity_support.proxy import Proxy
from fix_links import Links, rows
from flight_support import flown

from vinyl import _core

PARSE_COMPLETE = b"1\x00\x00\x00\x04"
INSERT = "INSERT INTO pairs VALUES (%s, %s) RETURNING b"


def make_table(link: Any) -> None:
    rows(link, "DROP TABLE IF EXISTS pairs")
    rows(
        link,
        "CREATE TABLE pairs (a int PRIMARY KEY, b text)",
    )


def together(link: Any, *statements: tuple[str, Any], reads: bool = False) -> list[Any]:
    cursors = link.execute_together(statements, reads=reads)
    return [cursor.fetchall() if cursor.description else cursor.rowcount for cursor in cursors]


def know(link: Any, *statements: tuple[str, Any]) -> None:
    """They run once, alone: a transaction begins with what is known."""
    link.autocommit = False
    for sql, params in statements:
        rows(link, sql, params)
    link.rollback()


async def test_inside_a_transaction(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        make_table(link)
        know(link, (INSERT, [0, "zero"]))
        for first in (1, 11, 21):  # not prepared, preparing, prepared
            with flown(3):
                assert together(
                    link,
                    (INSERT, [first, "one"]),
                    (INSERT, [first + 1, "two"]),
                    ("SELECT count(*) FROM pairs WHERE a >= %s", [first]),
                ) == [[("one",)], [("two",)], [(2,)]]
            assert link.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            link.commit()
        prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'"
        assert rows(link, prepared) == [(1,)]
        assert rows(link, "SELECT count(*) FROM pairs") == [(6,)]
        link.close()

    await _core.run(work)


async def test_the_first_error_is_raised(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        make_table(link)
        know(link, (INSERT, [1, "one"]))
        statements = [(INSERT, [number, "x"]) for number in (1, 2, 2, 3)]
        with flown(4), pytest.raises(psycopg.errors.UniqueViolation) as caught:
            together(link, *statements)
        assert caught.value.diag.constraint_name == "pairs_pkey"
        assert "(a)=(2)" in str(caught.value)
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            together(link, *statements)
        link.rollback()
        assert rows(link, "SELECT count(*) FROM pairs") == [(0,)]
        # What the flight has prepared can be used, what was skipped is not taken for prepared.
        assert together(link, *statements[:2]) == [[("x",)], [("x",)]]
        link.rollback()
        link.close()

    await _core.run(work)


async def test_selects_in_autocommit(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        statements = [("SELECT %s::int + 1", [number]) for number in (1, 2, 3)]
        for _ in range(3):
            with flown(3):
                assert together(link, *statements, reads=True) == [[(2,)], [(3,)], [(4,)]]
        # Each is alone with its error; the first one is raised.
        with pytest.raises(psycopg.errors.DivisionByZero):
            together(link, ("SELECT 1", None), ("SELECT 1/%s", [0]), ("SELECT 1", None), reads=True)
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        # Not sent together: they write, there is but one, one has literals, several are in one.
        with flown():
            assert together(link, *statements) == [[(2,)], [(3,)], [(4,)]]
            assert together(link, statements[0], reads=True) == [[(2,)]]
            assert together(link, reads=True) == []
            literal = ("SELECT %s", ["text"])
            assert together(link, literal, ("SELECT 1", None), reads=True) == [[("text",)], [(1,)]]
            several = ("SELECT 1; SELECT 2", None)
            assert together(link, several, ("SELECT 1", None), reads=True) == [[(1,)], [(1,)]]
        link.close()

    await _core.run(work)


async def test_a_refused_select_is_tried_again(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        make_table(link)
        rows(link, "INSERT INTO pairs VALUES (1, 'x')")
        changing = "SELECT * FROM pairs WHERE a < %s"
        for _ in range(3):
            rows(link, changing, [5])
        other = pg.link()
        rows(other, "ALTER TABLE pairs ADD c int")
        other.close()
        with flown(2):  # the cached plan has changed its columns
            assert together(link, (changing, [5]), ("SELECT 1", None), reads=True) == [
                [(1, "x", None)],
                [(1,)],
            ]
        # A parameter where the server wants a literal.
        grouped = "SELECT a %% %s FROM pairs GROUP BY a %% %s"
        wanted = "SELECT to_char(a, 'x') || CASE WHEN %s THEN 'y' END FROM pairs"
        got = together(link, (grouped, [2, 2]), (wanted, [True]), ("SELECT 2", None), reads=True)
        assert got[0] == [(1,)]
        assert got[2] == [(2,)]
        # In a transaction that begins with them all are sent again.
        link.autocommit = False
        for _ in range(3):
            rows(link, changing, [5])
            link.rollback()
        other = pg.link()
        rows(other, "ALTER TABLE pairs ADD d int")
        other.close()
        with flown(2, 2):
            assert together(link, ("SELECT 1", None), (changing, [5])) == [
                [(1,)],
                [(1, "x", None, None)],
            ]
        link.rollback()
        link.close()

    await _core.run(work)


async def test_prepared_statements_that_are_gone(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        make_table(link)
        rows(
            link,
            "CREATE OR REPLACE FUNCTION lose() RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        )
        know(link, *[(INSERT, [number, "x"]) for number in (1, 2, 3)])
        rows(link, "SELECT lose()")
        link.rollback()
        assert together(link, (INSERT, [1, "x"]), (INSERT, [2, "y"])) == [[("x",)], [("y",)]]
        link.commit()
        assert rows(link, "SELECT count(*) FROM pairs") == [(2,)]
        assert link.config.pooler is True
        link.rollback()
        link.close()

    await _core.run(work)


def in_strands(link: Any, *statements: tuple[str, Any]) -> None:
    link.parks = 1
    try:
        _core.together([functools.partial(link.execute, *each) for each in statements])
    finally:
        link.parks = 0


@pytest.mark.parametrize("way", [in_strands, together])
async def test_the_error_inside_a_transaction_is_the_first(
    pg: Links, mode: str, way: Callable[..., Any]
) -> None:
    """And not that of a statement sent afterwards, which says that the transaction has failed."""
    link = pg.link(max_size=1)

    def work() -> None:
        make_table(link)
        rows(link, "ALTER TABLE pairs ADD c bytea")  # what may give one is described from now on
        known, stale = ("SELECT a FROM pairs WHERE a > %s", [0]), ("SELECT b FROM pairs", None)
        link.autocommit = False
        rows(link, "SELECT 1")
        with flown(), pytest.raises(psycopg.errors.UndefinedTable):
            way(link, known, ("SELECT b FROM missing", None))
        link.rollback()
        for _ in range(8):
            rows(link, *known)
            rows(link, *stale)
        link.rollback()
        with psycopg.connect(**pg.params()) as other:
            other.execute("ALTER TABLE pairs ALTER b TYPE int USING 1")
        rows(link, "SELECT 1")
        with flown(2), pytest.raises(psycopg.errors.FeatureNotSupported):
            way(link, known, stale)
        link.rollback()
        # The first of a transaction goes alone where it is not known, and the others together.
        unknown, zero = ("SELECT a + 1 FROM pairs WHERE a > %s", [0]), ("SELECT 1 / %s::int", [0])
        rows(link, *known)
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            rows(link, *zero)
        link.rollback()
        with pytest.raises(psycopg.errors.DivisionByZero):
            way(link, unknown, known, zero)
        link.rollback()
        link.close()

    await _core.run(work)


async def test_more_statements_than_are_kept(pg: Links, mode: str) -> None:
    link = pg.link(config=pg.config(prepared_max=3), max_size=1)

    def work() -> None:
        statements = [(f"SELECT %s::int + {number}", [1]) for number in range(8)]
        for _ in range(4):
            assert together(link, *statements, *statements[:2], reads=True) == [
                [(number + 1,)] for number in (*range(8), 0, 1)
            ]
        count = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'vnl%%'"
        assert rows(link, count)[0][0] <= 3
        link.close()

    await _core.run(work)


async def test_large_values_are_described_first(pg: Links, mode: str) -> None:
    def work() -> None:
        with Proxy(pg.server) as proxy:
            parsed = 0

            def count(data: bytes, passed: int) -> bytes:
                nonlocal parsed
                parsed += data.count(PARSE_COMPLETE)
                return data

            proxy.change = count
            params = pg.params(host="127.0.0.1", port=str(proxy.port))
            link = pg.link(config=pg.config(params), max_size=1)
            rows(link, "DROP TABLE IF EXISTS blobs")
            rows(link, "CREATE TABLE blobs (a int, b bytea)")
            rows(link, "INSERT INTO blobs VALUES (1, 'x')")
            rows(link, "SELECT 1")
            statements = [
                ("SELECT a, b FROM blobs", None),
                ("SELECT a FROM blobs", None),
                ("SELECT b FROM blobs WHERE a = %s", [1]),
            ]
            before = parsed
            with flown(3):
                got = together(link, *statements, reads=True)
            assert got == [[(1, b"x")], [(1,)], [(b"x",)]]
            assert parsed - before == 3 + 2
            link.autocommit = False
            rows(link, "SELECT 1")
            wrong = ("SELECT b, missing FROM blobs", None)
            with flown(), pytest.raises(psycopg.errors.UndefinedColumn):
                together(link, statements[0], wrong, statements[1])
            link.rollback()
            link.autocommit = True
            with flown(2), pytest.raises(psycopg.errors.UndefinedColumn):
                together(link, statements[0], wrong, statements[1], reads=True)
            link.close()

    await _core.run(work)


async def test_wrong_arguments(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        for wrong in ([1], [("SELECT 1",)], [("SELECT 1", None, 2)], ["ab"]):
            with pytest.raises(TypeError, match="pairs of a statement and its parameters"):
                link.execute_together(wrong)
        with pytest.raises(TypeError):
            link.execute_together(5)
        with pytest.raises(psycopg.ProgrammingError, match="placeholders"):
            link.execute_together([("SELECT %s", []), ("SELECT 1", None)], reads=True)
        assert rows(link, "SELECT 1") == [(1,)]
        link.close()
        with pytest.raises(psycopg.OperationalError, match="closed"):
            link.execute_together([("SELECT 1", None)])

    await _core.run(work)


async def test_a_lost_connection(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"

    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            together(link, ("SELECT 1", None), (kill, None), ("SELECT 2", None), reads=True)
        assert rows(link, "SELECT 1") == [(1,)]
        link.autocommit = False
        with pytest.raises(psycopg.OperationalError):
            together(link, ("SELECT 1", None), (kill, None), ("SELECT 2", None))
        # The first may have been taken for done.
        with pytest.raises(psycopg.OperationalError, match="its transaction with it"):
            rows(link, "SELECT 1")
        link.rollback()
        assert rows(link, "SELECT 1") == [(1,)]
        link.rollback()
        link.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_a_cancelled_flight(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def sleep(autocommit: bool) -> None:
        link.autocommit = autocommit
        slow = ("SELECT pg_sleep(100)", None)
        together(link, ("SELECT 1", None), slow, ("SELECT 2", None), reads=True)

    def after() -> None:
        assert rows(link, "SELECT 1") == [(1,)]
        assert link.attached
        link.rollback()
        link.close()

    def pid() -> int:
        return rows(link, "SELECT pg_backend_pid()")[0][0]

    before = await _core.run(pid)
    for autocommit in (True, False):
        task = asyncio.ensure_future(_core.run(sleep, autocommit))
        while not pg.server.psql("SELECT 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if autocommit:
            assert await _core.run(pid) == before
    await _core.run(link.rollback)
    await _core.run(after)


@pytest.mark.modes("asyncio", "uvloop")
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("behind", [1, 4])
async def test_a_cancel_ends_what_is_behind_too(
    pg: Links, mode: str, ahead: int, behind: int
) -> None:
    """On a connection that is kept, unless the machine is too busy to do it in time."""
    link = pg.link(max_size=1)
    sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    quick, slow = [("SELECT 1", None)], [(f"SELECT pg_sleep({100 + n})", None) for n in range(9)]

    def sleep() -> None:
        together(link, *quick * ahead, *slow[: 1 + behind], *quick, reads=True)

    def pid() -> int:
        return rows(link, "SELECT pg_backend_pid()")[0][0]

    kept = False
    for _ in range(10):
        before = await _core.run(pid)
        task = asyncio.ensure_future(_core.run(sleep))
        while not pg.server.psql(sleeps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        kept = await _core.run(pid) == before
        if not kept:
            pg.server.psql(f"SELECT pg_terminate_backend({before})")
        while pg.server.psql(sleeps):
            await asyncio.sleep(0)
        if kept:
            break
    assert kept
    await _core.run(link.close)


async def test_a_limit_for_each_answer(pg: Links, mode: str) -> None:
    link = pg.link(config=pg.config(command_timeout=0.4), max_size=1)
    statements = [("SELECT pg_sleep(0.25)", None)] * 3

    def work() -> None:
        assert len(together(link, *statements, reads=True)) == 3
        with pytest.raises(psycopg.OperationalError, match="command_timeout"):
            together(link, *statements, ("SELECT pg_sleep(60)", None), reads=True)
        assert rows(link, "SELECT 1") == [(1,)]
        link.close()

    await _core.run(work)
