"""Prepared statements, formats, cursors of the PostgreSQL engine."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from fix_links import Links, rows

from vinyl import _core

PREPARED = "SELECT COUNT(*) FROM pg_prepared_statements WHERE name LIKE 'vnl%'"


def prepared(link: Any) -> int:
    return rows(link, PREPARED)[0][0]


async def test_prepared_from_the_second_time(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        assert rows(link, "SELECT %s::int", [1]) == [(1,)]
        assert prepared(link) == 0
        assert rows(link, "SELECT %s::int", [2]) == [(2,)]
        assert rows(link, "SELECT %s::int", [3]) == [(3,)]
        assert prepared(link) == 1
        # The type is part of it: this one is a bigint.
        assert rows(link, "SELECT %s::int", [2**33 // 2**32]) == [(2,)]
        link.close()

    await _core.run(work)


async def test_threshold_none_prepares_nothing(pg: Links, mode: str) -> None:
    link = pg.link(config=pg.config(prepare_threshold=None), max_size=1)

    def work() -> None:
        for number in range(5):
            assert rows(link, "SELECT %s::int", [number]) == [(number,)]
        assert prepared(link) == 0
        link.close()

    await _core.run(work)


async def test_the_least_recently_used_is_dropped(pg: Links, mode: str) -> None:
    link = pg.link(config=pg.config(prepared_max=3), max_size=1)

    def work() -> None:
        for number in range(10):
            for _ in range(3):
                assert rows(link, f"SELECT %s::int + {number}", [1]) == [(number + 1,)]
        assert prepared(link) <= 3
        link.close()

    await _core.run(work)


async def test_what_was_prepared_is_lost_behind_a_pooler(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        rows(
            link,
            "CREATE OR REPLACE FUNCTION lose() RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        )
        for number in range(4):
            rows(link, "SELECT %s::int", [number])
        rows(link, "SELECT lose()")
        # In autocommit, and as the first statement of a transaction: once more, unseen.
        assert rows(link, "SELECT %s::int", [7]) == [(7,)]
        link.autocommit = False
        assert rows(link, "SELECT %s::int", [8]) == [(8,)]
        link.commit()
        # No more of it on this pool.
        assert prepared(link) == 0
        link.close()

    await _core.run(work)


async def test_a_changed_table_changes_the_plan(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=2)
    link, other = pg.link(pool), pg.link(pool)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS changing")
        rows(link, "CREATE TABLE changing (a int)")
        rows(link, "INSERT INTO changing VALUES (5)")
        for _ in range(4):
            assert rows(link, "SELECT * FROM changing WHERE a = %s", [5]) == [(5,)]
        other.autocommit = False
        rows(other, "ALTER TABLE changing ALTER a TYPE text, ADD b int DEFAULT 7")
        other.commit()
        assert rows(link, "SELECT * FROM changing WHERE a = %s::text", ["5"]) == [("5", 7)]
        assert rows(link, "SELECT * FROM changing") == [("5", 7)]
        other.close()
        link.close()

    await _core.run(work)


async def test_cached_plan_of_another_shape(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=2)
    link, other = pg.link(pool), pg.link(pool)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS growing")
        rows(link, "CREATE TABLE growing (a int)")
        rows(link, "INSERT INTO growing VALUES (5)")
        link.autocommit = other.autocommit = False
        for _ in range(4):
            assert rows(link, "SELECT * FROM growing WHERE a = %s", [5]) == [(5,)]
            link.commit()
        rows(other, "ALTER TABLE growing ADD b int DEFAULT 7")
        other.commit()
        # 0A000, cached plan must not change result type: prepared anew, unseen.
        assert rows(link, "SELECT * FROM growing WHERE a = %s", [5]) == [(5, 7)]
        link.commit()
        other.close()
        link.close()

    await _core.run(work)


async def test_fetching(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        cursor = link.cursor()
        with pytest.raises(psycopg.ProgrammingError, match="no result available"):
            cursor.fetchone()
        cursor.execute("SELECT n, n::text AS t FROM generate_series(1, 5) n")
        assert cursor.rowcount == 5
        assert [column.name for column in cursor.description] == ["n", "t"]
        assert [column[1] for column in cursor.description] == [23, 25]
        assert cursor.fetchone() == (1, "1")
        assert cursor.fetchmany(2) == [(2, "2"), (3, "3")]
        assert list(cursor) == [(4, "4"), (5, "5")]
        assert cursor.fetchone() is None
        assert cursor.fetchall() == []
        cursor.execute("CREATE TEMP TABLE nothing ()")
        with pytest.raises(psycopg.ProgrammingError, match="didn't produce records"):
            cursor.fetchall()
        assert cursor.description is None
        cursor.executemany("SELECT %s::int", [[1], [2]])
        cursor.close()
        with pytest.raises(psycopg.InterfaceError, match="cursor is closed"):
            cursor.execute("SELECT 1")
        link.close()

    await _core.run(work)


async def test_named_cursor_in_a_transaction(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        link.autocommit = False
        cursor = link.cursor("c1", scrollable=False)
        cursor.execute("SELECT n FROM generate_series(1, %s) n", [10_000])
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        assert rows(link, "SELECT name, is_holdable FROM pg_cursors") == [("c1", False)]
        assert cursor.fetchone() == (4,)
        assert len(cursor.fetchall()) == 9_996
        cursor.close()
        assert rows(link, "SELECT name FROM pg_cursors") == []
        late = link.cursor("c2")
        late.execute("SELECT 1")
        link.commit()
        with pytest.raises(psycopg.OperationalError, match="cursor c2 is gone"):
            late.fetchone()
        late.close()
        link.close()

    await _core.run(work)


async def test_named_cursor_holds_its_slot(pg: Links, mode: str) -> None:
    pool = pg.pool(max_size=1)
    link = pg.link(pool)

    def work() -> None:
        cursor = link.cursor("held", withhold=True)
        cursor.execute("SELECT n FROM generate_series(1, 10) n")
        assert link.attached
        assert cursor.fetchmany(2) == [(1,), (2,)]
        assert rows(link, "SELECT 5") == [(5,)]
        assert len(cursor.fetchall()) == 8
        cursor.close()
        dropped = link.cursor("dropped", withhold=True)
        dropped.execute("SELECT 1")
        del dropped
        # Closed ahead of the next statement, without a destructor doing I/O.
        assert rows(link, "SELECT name FROM pg_cursors") == []
        link.close()

    await _core.run(work)


async def test_errors_are_psycopgs(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        rows(link, "CREATE TEMP TABLE strict (a int CONSTRAINT positive CHECK (a > 0))")
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            rows(link, "INSERT INTO strict VALUES (%s)", [-1])
        assert caught.value.sqlstate == "23514"
        assert caught.value.diag.constraint_name == "positive"
        assert caught.value.diag.severity == "ERROR"
        assert str(caught.value).startswith("new row for relation")
        with pytest.raises(psycopg.DataError, match="NUL"):
            rows(link, "SELECT %s", ["a\0b"])
        with pytest.raises(psycopg.DataError, match="NUL"):
            rows(link, "SELECT '\0'")
        with pytest.raises(psycopg.DataError):
            rows(link, "INSERT INTO strict VALUES (%s)", [2**40])
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt"):
            rows(link, "SELECT %s", [object()])
        with pytest.raises(psycopg.ProgrammingError, match="COPY"):
            rows(link, "COPY strict FROM STDIN")
        with pytest.raises(psycopg.ProgrammingError, match="COPY"):
            rows(link, "COPY strict TO STDOUT")
        assert rows(link, "SELECT 1") == [(1,)]
        link.close()

    await _core.run(work)


async def test_notices(pg: Links, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    link = pg.link()
    seen: list[Any] = []

    def work() -> None:
        link.add_notice_handler(seen.append)
        with caplog.at_level("DEBUG", logger="vinyl.postgresql"):
            rows(link, "DO $$ BEGIN RAISE NOTICE 'hello %', 1; END $$")
        link.close()

    await _core.run(work)
    assert [(notice.severity, notice.message_primary) for notice in seen] == [("NOTICE", "hello 1")]
    assert "NOTICE: hello 1" in caplog.text
