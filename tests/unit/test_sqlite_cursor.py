"""Cursors of the SQLite engine: placeholders, values in and out, what the statement did."""

from __future__ import annotations

import datetime
import gc
import sqlite3
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fix_mode import run_in_mode
from sqlite_support import Database

from vinyl import _core


@pytest.fixture
def link(tmp_path: Path) -> Any:
    link = Database.at(tmp_path / "a.sqlite3").own()
    link.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield link
    link.close()


def one(link: Any, sql: str, params: Any = None, *, format: bool = True) -> Any:
    return link.cursor(format=format).execute(sql, params).fetchone()


# --- placeholders


@pytest.mark.parametrize(
    ("sql", "params", "row"),
    [
        ("SELECT %s, %s", [1, "x"], (1, "x")),
        ("SELECT '%%', %s", (1,), ("%", 1)),
        ("SELECT '%%s', %s", (1,), ("%s", 1)),
        ("SELECT 100 %% 7, %s", (1,), (2, 1)),
        ("SELECT %(a)s, '%%', %(b)s, %(a)s", {"a": 1, "b": 2}, (1, "%", 2, 1)),
        ("SELECT %(a)s", MappingProxyType({"a": 3, "unused": 4}), (3,)),
        ("SELECT %(a)s", OrderedDict(a=5), (5,)),
        ("SELECT '%s', '%%'", None, ("%s", "%%")),
        ("SELECT '%%'", (), ("%",)),
    ],
)
def test_djangos_placeholders(link: Any, sql: str, params: Any, row: tuple[Any, ...]) -> None:
    assert one(link, sql, params) == row


def test_sqlites_placeholders_on_a_raw_cursor(link: Any) -> None:
    assert one(link, "SELECT ?, '%s', '%%'", (1,), format=False) == (1, "%s", "%%")
    assert one(link, "SELECT :a, :b, :a", {"a": 1, "b": 2}, format=False) == (1, 2, 1)


@pytest.mark.parametrize(
    "sql", ["SELECT %d", "SELECT %", "SELECT %(a", "SELECT %(a)d", "SELECT %s"]
)
def test_a_bad_named_placeholder(link: Any, sql: str) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="Placeholders"):
        one(link, sql, {"a": 1})


def test_missing_parameters(link: Any) -> None:
    with pytest.raises(KeyError, match="b"):
        one(link, "SELECT %(b)s", {"a": 1})
    with pytest.raises(sqlite3.ProgrammingError, match="parameter :b"):
        one(link, "SELECT :b", {"a": 1}, format=False)
    with pytest.raises(sqlite3.ProgrammingError, match="uses 2, and there are 1"):
        one(link, "SELECT %s, %s", [1])
    with pytest.raises(sqlite3.ProgrammingError, match="uses 1, and there are 0"):
        one(link, "SELECT ?")
    with pytest.raises(sqlite3.ProgrammingError, match="uses 0, and there are 1"):
        one(link, "SELECT 1", [1])


# --- values


class Text(str):
    pass


class Number(int):
    pass


class Conforming:
    def __conform__(self, protocol: Any) -> str | None:
        return "conformed" if protocol is sqlite3.PrepareProtocol else None


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (True, 1),
        (1.5, 1.5),
        (float("inf"), float("inf")),
        (float("nan"), None),
        ("", ""),
        ("ä\U0001f40d\0z", "ä\U0001f40d\0z"),
        ("x" * 100_000, "x" * 100_000),
        (b"", b""),
        (b"\0\xff", b"\0\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[1:3], b"bc"),
        (Text("sub"), "sub"),
        (Number(7), 7),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.datetime(2020, 1, 2, 3, 4), "2020-01-02 03:04:00"),
        (Conforming(), "conformed"),
    ],
)
def test_values_as_sqlite3_has_them(link: Any, value: Any, stored: Any) -> None:
    link.execute("INSERT INTO t (b) VALUES (?)", (value,))
    found = link.execute("SELECT b FROM t").fetchone()[0]
    assert (found, type(found)) == (stored, type(stored))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
def test_an_integer_out_of_range(link: Any, value: int) -> None:
    with pytest.raises(OverflowError, match="too large to convert to SQLite INTEGER"):
        link.execute("SELECT ?", (value,))


def test_a_lone_surrogate(link: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        link.execute("SELECT ?", ("\ud800",))


def test_a_type_without_an_adapter_is_named(link: Any) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="parameter 2: type 'object'"):
        link.execute("SELECT ?, ?", (1, object()))


def test_an_adapter_registered_for_a_basic_type(link: Any) -> None:
    key = (bool, sqlite3.PrepareProtocol)
    sqlite3.register_adapter(bool, lambda value: "yes" if value else "no")
    try:
        assert one(link, "SELECT %s", [True]) == ("yes",)
    finally:
        del sqlite3.adapters[key]
    assert one(link, "SELECT %s", [True]) == (1,)


def test_too_many_parameters(link: Any) -> None:
    most = link.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    holes = ",".join(["?"] * (most + 1))
    with pytest.raises(sqlite3.OperationalError, match="too many SQL variables"):
        link.execute(f"SELECT {holes}", [1] * (most + 1))


def test_text_that_is_not_utf8(link: Any) -> None:
    with pytest.raises(sqlite3.OperationalError, match="UTF-8 column 'c'"):
        link.execute("SELECT CAST(x'ff' AS TEXT) AS c").fetchone()


def test_a_nul_in_the_sql(link: Any) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="null character"):
        link.execute("SELECT 1\0")


# --- converters


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("bool", 1, True),
        ("bool", 0, False),
        ("bool", 2, False),
        ("date", "2020-02-29", datetime.date(2020, 2, 29)),
        ("date", "2020-2-9", datetime.date(2020, 2, 9)),
        ("time", "23:59:59", datetime.time(23, 59, 59)),
        ("time", "23:59:59.000001", datetime.time(23, 59, 59, 1)),
        ("time", "23:59", datetime.time(23, 59)),
        ("datetime", "2020-01-02 03:04:05", datetime.datetime(2020, 1, 2, 3, 4, 5)),
        ("datetime", "2020-01-02T03:04:05.5", datetime.datetime(2020, 1, 2, 3, 4, 5, 500000)),
        (
            "timestamp",
            "2020-01-02 03:04:05.000006+02:00",
            datetime.datetime(
                2020, 1, 2, 3, 4, 5, 6, datetime.timezone(datetime.timedelta(hours=2))
            ),
        ),
        ("datetime(6)", "2020-01-02 03:04:05", datetime.datetime(2020, 1, 2, 3, 4, 5)),
        ("datetime", None, None),
        ("datetime", "never", None),
    ],
)
def test_djangos_converters(link: Any, declared: str, text: Any, value: Any) -> None:
    link.execute(f"CREATE TABLE c (v {declared})")
    link.execute("INSERT INTO c VALUES (?)", (text,))
    assert link.execute("SELECT v FROM c").fetchone() == (value,)


def test_an_impossible_date_is_refused_as_by_django(link: Any) -> None:
    link.execute("CREATE TABLE c (v date)")
    link.execute("INSERT INTO c VALUES ('2021-02-29')")
    with pytest.raises(ValueError, match="day"):
        link.execute("SELECT v FROM c").fetchone()
    assert not link.in_transaction


def test_a_converter_of_ones_own_wins(link: Any) -> None:
    before = sqlite3.converters["DATE"]
    link.execute("CREATE TABLE c (v date)")
    link.execute("INSERT INTO c VALUES ('2021-02-03')")
    sqlite3.register_converter("date", lambda text: ("mine", text))
    try:
        assert link.execute("SELECT v AS x FROM c").fetchone() == (("mine", b"2021-02-03"),)
    finally:
        sqlite3.converters["DATE"] = before


def test_a_converter_that_is_replaced(link: Any) -> None:
    link.execute("CREATE TABLE c (v strange)")
    link.execute("INSERT INTO c VALUES (1)")
    try:
        for answer in ("one", "other"):
            sqlite3.register_converter("strange", lambda text, answer=answer: answer)
            assert link.execute("SELECT v FROM c").fetchone() == (answer,)
    finally:
        del sqlite3.converters["STRANGE"]
    assert link.execute("SELECT v FROM c").fetchone() == (1,)


def test_a_converter_named_in_the_column(link: Any) -> None:
    cursor = link.execute("""SELECT '2020-01-02' AS "day [date]" """)
    assert cursor.description[0][0] == "day"
    assert cursor.fetchone() == (datetime.date(2020, 1, 2),)


# --- what a statement did


def test_rowcount_and_lastrowid(link: Any) -> None:
    cursor = link.cursor(format=True)
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (-1, None, None)
    cursor.execute("INSERT INTO t (b) VALUES (%s), (%s)", [1, 2])
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (2, 2, None)
    cursor.execute("UPDATE t SET b = 3")
    assert (cursor.rowcount, cursor.lastrowid) == (2, 2)
    cursor.execute("SELECT b AS one, a FROM t")
    assert cursor.rowcount == -1
    assert [column[0] for column in cursor.description] == ["one", "a"]
    assert all(column[1:] == (None,) * 6 for column in cursor.description)
    cursor.execute("WITH x AS (SELECT 1) DELETE FROM t")
    assert cursor.rowcount == 2
    cursor.execute("-- nothing at all")
    assert (cursor.rowcount, cursor.fetchall(), cursor.description) == (-1, [], None)


def test_returning(link: Any) -> None:
    cursor = link.execute("INSERT INTO t (b) VALUES (1), (2) RETURNING a, b")
    assert cursor.fetchall() == [(1, 1), (2, 2)]
    assert cursor.rowcount == 2
    # One that is not read to its end is carried out all the same.
    link.execute("INSERT INTO t (b) VALUES (3), (4) RETURNING a").close()
    assert one(link, "SELECT count(*) FROM t") == (4,)


def test_executemany(link: Any) -> None:
    cursor = link.cursor(format=True)
    cursor.executemany("INSERT INTO t (b) VALUES (%s)", ([n] for n in range(1000)))
    assert cursor.rowcount == 1000
    cursor.executemany("UPDATE t SET b = -%(b)s WHERE b = %(b)s", [{"b": 1}, {"b": 2}])
    assert cursor.rowcount == 2
    cursor.executemany("INSERT INTO t (b) VALUES (%s)", [])
    assert cursor.rowcount == 0
    assert one(link, "SELECT count(*), min(b) FROM t") == (1000, -2)
    with pytest.raises(sqlite3.ProgrammingError, match="DML"):
        cursor.executemany("SELECT %s", [[1]])


def test_executemany_ends_at_the_row_that_fails(link: Any) -> None:
    with pytest.raises(sqlite3.IntegrityError) as caught:
        link.executemany("INSERT INTO t (a) VALUES (?)", [(1,), (2,), (1,), (3,)])
    assert caught.value.sqlite_errorname == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
    assert one(link, "SELECT count(*) FROM t") == (2,)


@pytest.mark.modes("asyncio", "blocking")
def test_rows_may_come_from_the_same_connection(link: Any, mode: str) -> None:
    link.executemany("INSERT INTO t (b) VALUES (?)", ((n,) for n in range(1000)))

    async def copy() -> None:
        await _core.run(work)

    def work() -> None:
        rows = link.execute("SELECT b + 5000 FROM t WHERE b < 500")
        link.executemany("INSERT INTO t (b) VALUES (?)", rows)

    run_in_mode(mode, copy)
    assert one(link, "SELECT count(*), max(b) FROM t") == (1500, 5499)


def test_rows_that_fail_to_come(link: Any) -> None:
    def rows() -> Any:
        for n in range(300):
            yield (n,)
        raise LookupError("no more")

    link.execute("BEGIN")
    with pytest.raises(LookupError, match="no more"):
        link.executemany("INSERT INTO t (b) VALUES (?)", rows())
    assert one(link, "SELECT count(*) FROM t") == (200,)
    link.rollback()

    def closing() -> Any:
        for n in range(300):
            yield (n,)
        link.close()
        yield (1,)

    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        link.executemany("INSERT INTO t (b) VALUES (?)", closing())


# --- fetching


def test_fetching(link: Any) -> None:
    link.executemany("INSERT INTO t (b) VALUES (?)", [(n,) for n in range(10)])
    cursor = link.execute("SELECT b FROM t ORDER BY a")
    assert cursor.fetchone() == (0,)
    assert cursor.fetchmany() == [(1,)]
    cursor.arraysize = 3
    assert cursor.fetchmany() == [(2,), (3,), (4,)]
    assert cursor.fetchmany(2) == [(5,), (6,)]
    assert next(cursor) == (7,)
    assert cursor.fetchmany(0) == []
    assert list(cursor) == [(8,), (9,)]
    assert (cursor.fetchone(), cursor.fetchmany(5), cursor.fetchall()) == (None, [], [])


def test_a_row_factory(link: Any) -> None:
    cursor = link.execute("SELECT 1 AS one, 2 AS two UNION SELECT 3, 4")
    cursor.row_factory = lambda cursor, row: dict(
        zip([column[0] for column in cursor.description], row, strict=True)
    )
    assert cursor.fetchone() == {"one": 1, "two": 2}
    link.row_factory = lambda cursor, row: row[0]
    assert link.execute("SELECT 5, 6").fetchall() == [5]
    link.row_factory = lambda cursor, row: row[7]
    with pytest.raises(IndexError):
        link.execute("SELECT 5, 6").fetchall()


def test_two_cursors_on_one_statement(link: Any) -> None:
    link.executemany("INSERT INTO t (b) VALUES (?)", [(n,) for n in range(5)])
    sql = "SELECT b FROM t ORDER BY a"
    a, b = link.execute(sql), link.execute(sql)
    assert [a.fetchone(), b.fetchone(), a.fetchone(), b.fetchone()] == [(0,), (0,), (1,), (1,)]
    assert (a.fetchall(), b.fetchall()) == ([(2,), (3,), (4,)],) * 2


def test_a_schema_that_changes_under_a_cached_statement(link: Any) -> None:
    assert [c[0] for c in link.execute("SELECT * FROM t").description] == ["a", "b"]
    link.execute("ALTER TABLE t ADD COLUMN day date DEFAULT '2020-01-02'")
    link.execute("INSERT INTO t (b) VALUES (1)")
    cursor = link.execute("SELECT * FROM t")
    assert [c[0] for c in cursor.description] == ["a", "b", "day"]
    assert cursor.fetchall() == [(1, 1, datetime.date(2020, 1, 2))]


def test_a_cache_of_few_statements(tmp_path: Path) -> None:
    link = Database.at(tmp_path / "a.sqlite3", cached_statements=2).own()
    for _ in range(3):
        assert [link.execute(f"SELECT {n}").fetchall() for n in range(10)] == [
            [(n,)] for n in range(10)
        ]
    open_ones = [link.execute(f"SELECT {n} UNION ALL SELECT -1") for n in range(10)]
    assert [cursor.fetchall() for cursor in open_ones] == [[(n,), (-1,)] for n in range(10)]
    link.close()


def test_closed_things(link: Any) -> None:
    cursor = link.execute("SELECT 1 UNION SELECT 2")
    cursor.close()
    for call in (cursor.fetchone, cursor.fetchall, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            call()
    left = link.execute("SELECT 1 UNION SELECT 2")
    link.close()
    for call in (left.fetchone, link.cursor, lambda: link.execute("SELECT 1"), link.commit):
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            call()
    link.close()


def test_a_cursor_outlives_its_connections_name(tmp_path: Path) -> None:
    link = Database.at(tmp_path / "a.sqlite3").own()
    cursor = link.execute("SELECT 1 UNION SELECT 2")
    del link
    gc.collect()
    assert cursor.fetchall() == [(1,), (2,)]


def test_errors_name_what_is_wrong(link: Any) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere") as caught:
        link.execute("SELECT * FROM nowhere")
    assert caught.value.sqlite_errorname == "SQLITE_ERROR"
    with pytest.raises(sqlite3.ProgrammingError, match="one statement"):
        link.execute("SELECT 1; SELECT 2")
    assert link.execute("SELECT 1; -- and no more\n ;").fetchall() == [(1,)]
    with pytest.raises(TypeError, match="must be str"):
        link.execute(b"SELECT 1")
