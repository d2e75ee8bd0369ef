"""A server-side cursor that reads ahead: nobody sees it, whatever happens between two chunks."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from fix_links import Links, rows

from vinyl import _core

SERIES = "SELECT n FROM generate_series(1, %s) n"


def opened(link: Any, count: int = 9, *, chunk: int = 2, ahead: bool = True) -> Any:
    cursor = link.cursor("held", withhold=True)
    cursor.itersize = chunk
    cursor.reads_ahead = ahead
    cursor.execute(SERIES, [count])
    return cursor


def numbers(found: list[tuple[int]]) -> list[int]:
    return [n for (n,) in found]


def at_the_server(link: Any) -> int:
    """The row that the server's cursor comes to next, which is lost by that."""
    return rows(link, "FETCH FORWARD 1 FROM held")[0][0]


def statements() -> int:
    return _core.stats()["statements"]


async def test_the_next_rows_are_asked_for_ahead(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = opened(link)
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        assert at_the_server(link) == 5
        assert numbers(cursor.fetchmany(2)) == [3, 4]
        assert numbers(cursor.fetchall()) == [6, 7, 8, 9]
        cursor.close()
        link.close()

    await _core.run(work)


async def test_not_unless_it_was_said(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = opened(link, ahead=False)
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        assert at_the_server(link) == 3
        cursor.close()
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("withhold", [True, False])
async def test_not_in_a_transaction(pg: Links, mode: str, withhold: bool) -> None:
    link = pg.link()

    def work() -> None:
        link.autocommit = False
        cursor = link.cursor("held", withhold=withhold)
        cursor.reads_ahead = True
        cursor.execute(SERIES, [9])
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        assert at_the_server(link) == 3
        link.rollback()
        link.close()

    await _core.run(work)


async def test_it_rests_while_a_transaction_is_open(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = opened(link, 20)
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        link.autocommit = False
        assert numbers(cursor.fetchmany(2)) == [3, 4]
        assert at_the_server(link) == 5
        link.commit()
        link.autocommit = True
        assert numbers(cursor.fetchmany(2)) == [6, 7]
        assert at_the_server(link) == 10
        assert numbers(cursor.fetchmany(2)) == [8, 9]
        cursor.close()
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
async def test_a_short_chunk_is_the_last(pg: Links, mode: str, count: int) -> None:
    link = pg.link()

    def spent(*, ahead: bool) -> int:
        cursor = opened(link, count, chunk=10, ahead=ahead)
        before = statements()
        found: list[int] = []
        while chunk := cursor.fetchmany(10):
            found += numbers(chunk)
        assert found == list(range(1, count + 1))
        taken = statements() - before
        cursor.close()
        return taken

    def work() -> None:
        assert spent(ahead=True) == spent(ahead=False) == count // 10 + 1
        link.close()

    await _core.run(work)


async def test_other_statements_between_chunks(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = opened(link, 21)
        found: list[int] = []
        while chunk := cursor.fetchmany(2):
            found += numbers(chunk)
            match len(found):
                case 2:
                    assert rows(link, "SELECT 5") == [(5,)]
                case 4:
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        rows(link, "SELECT 1 / 0")
                case 6 | 8:
                    link.autocommit = False
                    rows(link, "SAVEPOINT a")
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        rows(link, "SELECT 1 / 0")
                    rows(link, "ROLLBACK TO SAVEPOINT a")
                    link.commit() if len(found) == 6 else link.rollback()
                    link.autocommit = True
                case 10:
                    with link.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
                        assert b"".join(copy) == b"1\n"
                case 12:
                    other = link.cursor("other", withhold=True)
                    other.reads_ahead = True
                    other.execute(SERIES, [3])
                    assert numbers(other.fetchmany(2)) == [1, 2]
                case 14:
                    assert numbers(other.fetchmany(2)) == [3]
                    other.close()
                case 16:
                    assert link.info.transaction_status == 0
                    assert link.autocommit
        assert found == list(range(1, 22))
        cursor.close()
        assert rows(link, "SELECT name FROM pg_cursors") == []
        link.close()

    await _core.run(work)


async def test_a_failed_transaction_gives_no_rows(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = opened(link)
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        link.autocommit = False
        with pytest.raises(psycopg.errors.DivisionByZero):
            rows(link, "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            cursor.fetchmany(2)
        link.rollback()
        link.autocommit = True
        assert numbers(cursor.fetchall()) == [3, 4, 5, 6, 7, 8, 9]
        cursor.close()
        link.close()

    await _core.run(work)


async def test_its_error_comes_when_the_rows_are_asked_for(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        rows(link, "SET client_encoding TO 'LATIN1'")
        for statement_between in (True, False):
            cursor = link.cursor("held", withhold=True)
            cursor.reads_ahead = True
            cursor.execute("SELECT chr(n) FROM generate_series(9728, 9600, -64) n")
            cursor.close()
            cursor = link.cursor("held", withhold=True)
            cursor.reads_ahead = True
            cursor.execute("SELECT chr(n) FROM (VALUES (65), (66), (9731), (67)) v (n)")
            assert cursor.fetchmany(2) == [("A",), ("B",)]
            if statement_between:
                link.autocommit = False
                assert rows(link, "SELECT 5") == [(5,)]
                link.commit()
                link.autocommit = True
            with pytest.raises(psycopg.errors.UntranslatableCharacter):
                cursor.fetchmany(2)
            assert rows(link, "SELECT 6") == [(6,)]
            cursor.close()
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("end", ["close", "drop", "drop all", "again"])
async def test_left_early(pg: Links, mode: str, end: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)

    def work() -> None:
        nonlocal link
        cursor = opened(link, 5000, chunk=1000)
        assert len(cursor.fetchmany(1000)) == 1000
        if end == "again":
            cursor.execute(SERIES, [3])
            assert numbers(cursor.fetchall()) == [1, 2, 3]
        if end in ("close", "again"):
            cursor.close()
            assert link.attached == (mode == "blocking")
        del cursor
        if end != "drop all":
            assert rows(link, "SELECT name FROM pg_cursors") == []
            assert rows(link, "SELECT 5") == [(5,)]
        link.close()
        link = pg.link(pool)  # the pool's one slot is good
        assert rows(link, "SELECT 6") == [(6,)]
        link.close()

    await _core.run(work)


async def test_closed_with_its_rows_under_way(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)

    def work() -> None:
        cursor = opened(link, 5000, chunk=1000)
        assert len(cursor.fetchmany(1000)) == 1000
        link.close()
        with pytest.raises(psycopg.OperationalError, match="connection is closed"):
            cursor.fetchmany(1000)
        cursor.close()
        after = pg.link(pool)
        assert rows(after, "SELECT 6") == [(6,)]
        after.close()

    await _core.run(work)


@pytest.mark.parametrize("statement_between", [True, False])
async def test_killed_with_its_rows_under_way(
    pg: Links, mode: str, statement_between: bool
) -> None:
    link, killer = pg.link(), pg.link()

    def work() -> None:
        cursor = opened(link, 9)
        assert numbers(cursor.fetchmany(2)) == [1, 2]
        pid = link.info.backend_pid
        rows(killer, "SELECT pg_terminate_backend(%s, 5000)", [pid])
        if statement_between:
            with pytest.raises(psycopg.OperationalError):
                rows(link, "SELECT 5")
        found: list[int] = []

        def read() -> None:
            while chunk := cursor.fetchmany(2):
                found.extend(numbers(chunk))

        with pytest.raises(psycopg.OperationalError):
            read()
        assert found in ([], [3, 4])
        cursor.close()
        assert rows(link, "SELECT 6") == [(6,)]
        link.close()
        killer.close()

    await _core.run(work)


async def test_notifications_between_chunks(pg: Links, mode: str) -> None:
    link, other = pg.link(), pg.link()

    def work() -> None:
        link.listen(["rows"])
        cursor = opened(link, 5000, chunk=1000)
        assert len(cursor.fetchmany(1000)) == 1000
        rows(other, "NOTIFY rows, 'now'")
        assert [payload for _, payload, _ in link.notifies(10)] == ["now"]
        assert len(cursor.fetchall()) == 4000
        cursor.close()
        link.close()
        other.close()

    await _core.run(work)


async def test_one_row_at_a_time(pg: Links, mode: str) -> None:
    """Whoever asks for other numbers gets the same rows in the same order."""
    link = pg.link()

    def work() -> None:
        cursor = opened(link, 30, chunk=4)
        found = [next(cursor)[0], cursor.fetchone()[0], *numbers(cursor.fetchmany(5))]
        found += [next(cursor)[0], *numbers(cursor.fetchmany(1)), *numbers(cursor.fetchall())]
        assert found == list(range(1, 31))
        assert cursor.fetchone() is None
        cursor.close()
        link.close()

    await _core.run(work)
