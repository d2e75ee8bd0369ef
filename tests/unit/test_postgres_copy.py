"""COPY through cursor.copy()."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from fix_links import Links, rows

from vinyl import _core


async def test_both_ways(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS copied")
        link.autocommit = False
        rows(link, "CREATE TABLE copied (a int, b text)")
        link.commit()
        with link.cursor() as cursor:
            with cursor.copy("COPY copied FROM STDIN WITH (FORMAT csv, NULL %s)", ["none"]) as copy:
                for number in range(20_000):
                    copy.write(f"{number},{'x' * 100}\n")
                copy.write(b"20000,none\n")
                with pytest.raises(psycopg.ProgrammingError, match="to be written"):
                    copy.read()
                with pytest.raises(psycopg.InterfaceError, match="another statement"):
                    rows(link, "SELECT 1")
            assert cursor.rowcount == 20_001
            with cursor.copy("COPY copied TO STDOUT") as copy:
                with pytest.raises(psycopg.ProgrammingError, match="to be read"):
                    copy.write("x")
                data = b"".join(copy)
                assert copy.read() == b""
            assert data.count(b"\n") == 20_001
            assert data.endswith(b"20000\t\\N\n")
        assert rows(link, "SELECT COUNT(*) FROM copied") == [(20_001,)]
        link.rollback()
        assert rows(link, "SELECT COUNT(*) FROM copied") == [(0,)]
        link.rollback()
        link.close()

    await _core.run(work)


def fail_in_the_middle(cursor: Any) -> None:
    with cursor.copy("COPY copied_early FROM STDIN") as copy:
        copy.write("1\n")
        raise KeyError


async def test_left_early_and_wrong(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS copied_early")
        rows(link, "CREATE TABLE copied_early (a int)")
        with link.cursor() as cursor:
            with pytest.raises(KeyError):
                fail_in_the_middle(cursor)
            with cursor.copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT") as copy:
                assert copy.read() == b"1\n"
            with (
                pytest.raises(psycopg.DataError, match="invalid input syntax"),
                cursor.copy("COPY copied_early FROM STDIN") as copy,
            ):
                copy.write("one\n")
            with (
                pytest.raises(psycopg.errors.DivisionByZero),
                cursor.copy(
                    "COPY (SELECT 1 / (5 - n) FROM generate_series(1, 9) n) TO STDOUT"
                ) as copy,
            ):
                list(copy)
            for sql, error in [
                ("SELECT 1", psycopg.ProgrammingError),
                ("COPY missing TO STDOUT", psycopg.errors.UndefinedTable),
            ]:
                with pytest.raises(error), cursor.copy(sql):
                    raise AssertionError
            with pytest.raises(psycopg.ProgrammingError, match="context manager"):
                cursor.copy("COPY copied_early FROM STDIN").write("1\n")
        assert rows(link, "SELECT COUNT(*) FROM copied_early") == [(0,)]
        link.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_cancelled(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)

    def work() -> None:
        with link.cursor() as cursor:
            sql = "COPY (SELECT n, pg_sleep(0.001) FROM generate_series(1, 100000) n) TO STDOUT"
            with cursor.copy(sql) as copy:
                for _ in copy:
                    pass

    async def task_of() -> None:
        await _core.run(work)

    task = asyncio.create_task(task_of())
    while not link.attached:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _core.run(rows, link, "SELECT 1") == [(1,)]
    stats = pool.stats()
    assert stats["pool_available"] == stats["pool_size"]
