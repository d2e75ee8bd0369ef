"""`SELECT … FROM sqlite_vinyl_batch(?)` inserts what `VALUES` inserts, as one statement."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fix_adapters import Celsius
from sample_values import as_id
from sqlite_support import Database
from vinyl._sqlite3 import Batch

from vinyl import _sqlite3

Rows = list[tuple[Any, ...]]


def batch_of(rows: Rows) -> Batch:
    return Batch([list(column) for column in zip(*rows, strict=True)])


def in_values(insert: str, rows: Rows, rest: str = "") -> tuple[str, list[Any]]:
    row = "(" + ", ".join("?" * len(rows[0])) + ")"
    text = f"{insert} VALUES {', '.join([row] * len(rows))} {rest}"
    return text, [value for each in rows for value in each]


def in_batch(insert: str, rows: Rows, rest: str = "") -> tuple[str, list[Any]]:
    names = ", ".join(f"c{n}" for n in range(len(rows[0])))
    return f"{insert} SELECT {names} FROM sqlite_vinyl_batch(?) WHERE 1 {rest}", [batch_of(rows)]


def shown(link: Any, table: str) -> Any:
    columns = [row[1] for row in link.execute(f"PRAGMA table_xinfo({table})")]
    quoted = ", ".join(f"typeof({name}), quote({name})" for name in columns)
    return link.execute(f"SELECT {quoted} FROM {table} ORDER BY 2").fetchall()


def outcome(link: Any, sql: str, params: Any) -> Any:
    """All that can be seen of a statement."""
    before = link.total_changes
    cursor = link.cursor()
    try:
        cursor.execute(sql, params)
        rows = cursor.fetchall()
    except Exception as error:
        code = getattr(error, "sqlite_errorname", None)
        return (
            type(error), str(error), code, link.in_transaction, link.total_changes - before,
        )  # fmt: skip
    names = None if cursor.description is None else [each[0] for each in cursor.description]
    changes = link.total_changes - before
    return rows, names, cursor.rowcount, cursor.lastrowid, link.in_transaction, changes


ITEM = "CREATE TABLE t (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, a UNIQUE, b DEFAULT 5)"
#: Schema, first rows of t, INSERT, rows, what follows.
CASES: dict[str, tuple[str, Rows, str, Rows, str]] = {
    "plain": (ITEM, [], "INSERT INTO t (a, b)", [(n, n * 2) for n in range(7)], ""),
    "returning": (
        ITEM, [(1, 1)], "INSERT INTO t (a, b)", [(5, 5), (6, None)], "RETURNING t.id, t.b, a AS x"
    ),
    "default": (ITEM, [], "INSERT INTO t (a)", [(3,), (4,)], "RETURNING id, b"),
    "keys": (
        ITEM, [], "INSERT INTO t (id, a)", [(9, 1), (None, 2), (3, 3), (None, 4)], "RETURNING id"
    ),
    "key that is no integer": (ITEM, [], "INSERT INTO t (id, a)", [(9, 1), ("x", 2)], ""),
    "unique": (ITEM, [(2, 0)], "INSERT INTO t (a, b)", [(1, 1), (2, 2), (3, 3)], "RETURNING id"),
    "unique in the batch": (ITEM, [], "INSERT INTO t (a, b)", [(1, 1), (2, 2), (1, 3)], ""),
    "or ignore": (
        ITEM, [(2, 0)], "INSERT OR IGNORE INTO t (a, b)", [(1, 1), (2, 2), (1, 3), (4, 4)], ""
    ),
    "or replace": (
        ITEM, [(2, 0)], "INSERT OR REPLACE INTO t (a, b)", [(1, 1), (2, 2), (1, 3)], "RETURNING *"
    ),
    "or rollback": (
        ITEM, [(2, 0)], "INSERT OR ROLLBACK INTO t (a, b)", [(1, 1), (2, 2), (3, 3)], ""
    ),
    "or fail": (ITEM, [(2, 0)], "INSERT OR FAIL INTO t (a, b)", [(1, 1), (2, 2), (3, 3)], ""),
    "upsert": (
        ITEM, [(2, 0)], "INSERT INTO t (a, b)", [(1, 1), (2, 2), (1, 3), (2, 4)],
        "ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b + t.b RETURNING id, b",
    ),
    "upsert that skips": (
        ITEM, [(2, 0)], "INSERT INTO t (a, b)", [(1, 1), (2, 2), (1, 3)],
        "ON CONFLICT (a) DO NOTHING RETURNING id",
    ),
    "not null": (
        "CREATE TABLE t (a NOT NULL, b)", [(7, 7)], "INSERT INTO t (a, b)", [(1, 1), (None, 2)], ""
    ),
    "check": (
        "CREATE TABLE t (a, b CHECK (b > 0))",
        [(7, 7)], "INSERT INTO t (a, b)", [(1, 1), (2, -2)], "",
    ),
    "foreign key to a row of the batch": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t)",
        [(1, None)], "INSERT INTO t (a, b)", [(2, 3), (3, 2), (4, 1)], "RETURNING a",
    ),
    "foreign key to nothing": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t)",
        [(1, None)], "INSERT INTO t (a, b)", [(2, 3), (4, 9)], "",
    ),
    "foreign key to nothing, and no unique key": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t)",
        [(1, None)], "INSERT INTO t (a, b)", [(2, 9), (1, 1)], "",
    ),
    "deferred foreign key": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
        [(1, None)], "INSERT INTO t (a, b)", [(2, 3), (4, 9)], "",
    ),
    "triggers": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE u (a, b);"
        "CREATE TRIGGER before BEFORE INSERT ON t BEGIN INSERT INTO u"
        " VALUES ('before', (SELECT count(*) FROM t)); END;"
        "CREATE TRIGGER after AFTER INSERT ON t BEGIN INSERT INTO u"
        " VALUES (NEW.b, (SELECT sum(b) FROM t)); UPDATE t SET b = -b WHERE a = NEW.a; END",
        [(1, 1)], "INSERT INTO t (a, b)", [(2, 20), (3, 30), (4, 40)], "RETURNING a, b",
    ),
    "a trigger that refuses": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE u (a, b);"
        "CREATE TRIGGER before BEFORE INSERT ON t WHEN NEW.b = 30 BEGIN"
        " SELECT RAISE(ABORT, 'not that one'); END",
        [(1, 1)], "INSERT INTO t (a, b)", [(2, 20), (3, 30), (4, 40)], "RETURNING a, b",
    ),
    "a trigger that skips": (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b);"
        "CREATE TRIGGER before BEFORE INSERT ON t WHEN NEW.b = 30 BEGIN SELECT RAISE(IGNORE); END",
        [(1, 1)], "INSERT INTO t (a, b)", [(2, 20), (3, 30), (4, 40)], "RETURNING a, b",
    ),
    "a trigger that inserts more": (
        ITEM + "; CREATE TRIGGER more AFTER INSERT ON t WHEN NEW.a < 100 BEGIN"
        " INSERT INTO t (a) VALUES (NEW.a + 100); END",
        [(1, 1)], "INSERT INTO t (a, b)", [(2, 20), (3, 30)], "RETURNING id, a",
    ),
    "affinities": (
        "CREATE TABLE t (a integer, b text, c real, d blob, e numeric)", [], "INSERT INTO t",
        [("1", 1, 1, 1, "1.50"), ("x", 2.5, "3", "y", b"z"), (2.0, b"\0", 3, 1.0, "0x1")], "",
    ),
    "strict": (
        "CREATE TABLE t (a integer, b text) STRICT", [], "INSERT INTO t (a, b)",
        [(1, "x"), ("y", "z")], "",
    ),
    "without rowid": (
        "CREATE TABLE t (a text PRIMARY KEY, b) WITHOUT ROWID", [("m", 0)], "INSERT INTO t (a, b)",
        [("z", 1), ("a", 2)], "RETURNING a",
    ),
    "generated": (
        "CREATE TABLE t (a, b GENERATED ALWAYS AS (a * 2), c GENERATED ALWAYS AS (a + 1) STORED)",
        [], "INSERT INTO t (a)", [(1,), (2,)], "RETURNING b, c",
    ),
    "a view": (
        "CREATE TABLE u (a, b); CREATE VIEW t AS SELECT a, b FROM u; CREATE TRIGGER instead"
        " INSTEAD OF INSERT ON t BEGIN INSERT INTO u VALUES (NEW.a, NEW.b); END",
        [(1, 1)], "INSERT INTO t (a, b)", [(2, 2), (3, 3)], "",
    ),
    "no such table": ("CREATE TABLE u (a)", [], "INSERT INTO t (a)", [(1,), (2,)], ""),
    "no such column": ("CREATE TABLE t (b)", [], "INSERT INTO t (a)", [(1,), (2,)], ""),
    "other number of columns": ("CREATE TABLE t (a, b)", [], "INSERT INTO t (a)", [(1, 2)] * 2, ""),
}  # fmt: skip

#: Differ by where SQLite finds the fault, as the texts of the statements do.
OTHER_TEXT = {"other number of columns"}


def played(path: Path, case: str, write: Callable[..., Any], in_block: bool) -> Any:
    schema, first, insert, rows, rest = CASES[case]
    link = Database.at(path).own()
    try:
        link.execute("PRAGMA foreign_keys = ON")
        link.executescript(schema)
        for row in first:
            link.execute(f"INSERT INTO t (a, b) VALUES {row!r}".replace("None", "NULL"))
        if in_block:
            link.execute("BEGIN")
            link.execute("CREATE TABLE mark (a)")
        seen = [outcome(link, *write(insert, rows, rest)) for _ in range(2)]
        if in_block and link.in_transaction:
            seen.append(outcome(link, "INSERT INTO mark VALUES (?)", (1,)))
            seen.append(outcome(link, "COMMIT", ()))
        if link.in_transaction:
            link.rollback()
        tables = link.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        return seen, [(name, shown(link, name)) for (name,) in tables.fetchall()]
    finally:
        link.close()


@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_values(fast_path: Path, case: str, in_block: bool) -> None:
    by_values = played(fast_path / "a", case, in_values, in_block)
    by_batch = played(fast_path / "b", case, in_batch, in_block)
    if case in OTHER_TEXT:
        assert by_values[0][0][0] is by_batch[0][0][0] is sqlite3.OperationalError
        assert by_values[1] == by_batch[1]
    else:
        assert by_batch == by_values


# --- values


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __conform__(self, protocol: Any) -> str | None:
        return f"<{self.x}>" if protocol is sqlite3.PrepareProtocol else None


VALUES: list[Any] = [
    0, -1, 2**63 - 1, -(2**63), True, False, None, 1.5, -0.0, float("nan"), float("inf"), "", "né",
    "a\0b", "\U0001f600", b"", b"\0\xff", bytearray(b"xy"), memoryview(b"abc")[1:], Text("sub"),
    Number(7), Point(3), Decimal("1.50"), "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_every_value(tmp_path: Path, encoding: str) -> None:
    rows = [(value, VALUES[-1 - n]) for n, value in enumerate(VALUES)]
    seen = []
    for name, write in (("a", in_values), ("b", in_batch)):
        link = Database.at(tmp_path / name).own()
        link.execute(f'PRAGMA encoding = "{encoding}"')
        link.execute("CREATE TABLE t (a, b)")
        link.execute("CREATE TABLE u (a text, b integer)")
        for table in "tu":
            link.execute(*write(f"INSERT INTO {table} (a, b)", rows))
            seen.append(shown(link, table))
        link.close()
    assert seen[:2] == seen[2:]
    assert len(seen[0]) == len(VALUES)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**100, "\ud800", object(), 1j, memoryview(b"abcd")[::2]],
    ids=as_id,
)
def test_values_that_cannot_be(tmp_path: Path, value: Any) -> None:
    """The error is that of the parameter in VALUES, and nothing was run."""
    link = Database.at(tmp_path / "a").own()
    link.execute("CREATE TABLE t (a, b)")
    rows = [(1, 2), (3, value), (value, object())]
    by_values = outcome(link, *in_values("INSERT INTO t", rows))
    assert isinstance(by_values[0], type)
    assert outcome(link, *in_batch("INSERT INTO t", rows)) == by_values
    assert link.execute("SELECT count(*) FROM t").fetchone() == (0,)
    link.close()


@pytest.mark.parametrize("value", ["x" * 2000, b"x" * 2000], ids=["text", "blob"])
def test_too_big(tmp_path: Path, value: Any) -> None:
    link = Database.at(tmp_path / "a").own()
    link.execute("CREATE TABLE t (a, b)")
    link.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    rows = [(1, 2), (3, value)]
    by_values = outcome(link, *in_values("INSERT INTO t", rows))
    assert by_values[0] is sqlite3.DataError
    assert outcome(link, *in_batch("INSERT INTO t", rows)) == by_values
    assert link.execute("SELECT count(*) FROM t").fetchone() == (0,)
    link.close()


@pytest.mark.parametrize(
    "adapted", ["text", 5, 2.5, None, b"blob", bytearray(b"array"), Text("sub")], ids=repr
)
def test_registered_adapters(tmp_path: Path, adapters: Any, adapted: Any) -> None:
    adapters(Celsius, lambda value: adapted)
    adapters(bool, lambda value: f"<{value}>")
    adapters(bytes, lambda value: value.hex())
    rows = [(Celsius(n), True, b"\1\2", Text("t")) for n in range(3)]
    seen = []
    for name, write in (("a", in_values), ("b", in_batch)):
        link = Database.at(tmp_path / name).own()
        link.execute("CREATE TABLE t (a, b, c, d)")
        link.execute(*write("INSERT INTO t", rows))
        seen.append(shown(link, "t"))
        link.close()
    assert seen[0] == seen[1]
    assert seen[0][0][3] == "'<True>'"


def test_an_adapter_that_raises(tmp_path: Path, adapters: Any) -> None:
    class Unfit(Exception):
        pass

    def refuse(value: Celsius) -> float:
        if value.degrees == 2:
            raise Unfit
        return value.degrees

    adapters(Celsius, refuse)
    link = Database.at(tmp_path / "a").own()
    link.execute("CREATE TABLE t (a)")
    with pytest.raises(Unfit):
        link.execute(*in_batch("INSERT INTO t", [(Celsius(n),) for n in range(5)]))
    assert link.execute("SELECT count(*) FROM t").fetchone() == (0,)
    link.close()


# --- batches


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ([], ValueError, "1 to 100 columns, not 0"),
        ([[1]] * 101, ValueError, "1 to 100 columns, not 101"),
        ([[1, 2], [1]], ValueError, "as long as each other"),
        ([[1], "x"], TypeError, "a list or a tuple, not str"),
        (([1],), TypeError, "must be list, not tuple"),
    ],
)
def test_batches_that_cannot_be(columns: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Batch(columns)
    with pytest.raises(TypeError, match="no keyword arguments"):
        Batch([[1]], more=2)  # type: ignore[call-arg]


def test_all_columns(tmp_path: Path) -> None:
    count = _sqlite3.BATCH_COLUMNS
    assert count == 100
    link = Database.at(tmp_path / "a").own()
    link.execute(f"CREATE TABLE t ({', '.join(f'a{n}' for n in range(count))})")
    rows = [tuple(range(row, row + count)) for row in range(3)]
    link.execute(*in_batch("INSERT INTO t", rows))
    assert link.execute("SELECT * FROM t").fetchall() == rows
    link.close()


def test_without_a_batch_there_are_no_rows(tmp_path: Path) -> None:
    link = Database.at(tmp_path / "a").own()
    for text, params in (
        ("SELECT * FROM sqlite_vinyl_batch", ()),
        ("SELECT * FROM sqlite_vinyl_batch(?)", (5,)),
        ("SELECT * FROM sqlite_vinyl_batch(?)", (None,)),
        ("SELECT * FROM sqlite_vinyl_batch(?)", (Batch([[]]),)),
    ):
        assert link.execute(text, params).fetchall() == []
    assert link.execute("SELECT c0, c1, c2, c99, batch, rowid FROM sqlite_vinyl_batch(?)",
                        (Batch([["x", "y"], [1, 2]]),)).fetchall() == [
        ("x", 1, None, None, None, 0), ("y", 2, None, None, None, 1),
    ]  # fmt: skip
    rows = "sqlite_vinyl_batch(?1)"
    joined = f"SELECT a.c0, b.c0 FROM {rows} a JOIN {rows} b ON a.c0 < b.c0"
    assert link.execute(joined, (Batch([[1, 2, 3]]),)).fetchall() == [(1, 2), (1, 3), (2, 3)]
    # Elsewhere it is a value like any other that no adapter knows.
    with pytest.raises(sqlite3.ProgrammingError, match=r"'vinyl\._sqlite3\.Batch' is not supp"):
        link.execute("SELECT * FROM sqlite_vinyl_batch(:b)", {"b": Batch([[1]])})
    link.execute("CREATE VIEW v AS SELECT c0 FROM sqlite_vinyl_batch")
    with pytest.raises(sqlite3.OperationalError, match="unsafe use of virtual table"):
        link.execute("SELECT * FROM v")
    link.close()


def test_limits_that_are_lower(tmp_path: Path) -> None:
    """They are for the user's statements: one of two columns is within them."""
    link = Database.at(tmp_path / "a").own()
    link.execute("CREATE TABLE t (a, b)")
    link.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, 2)
    link.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100)
    link.execute(*in_batch("INSERT INTO t", [(1, 2), (3, 4)]))
    assert link.execute("SELECT * FROM t").fetchall() == [(1, 2), (3, 4)]
    assert link.getlimit(sqlite3.SQLITE_LIMIT_COLUMN) == 2
    assert link.getlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH) == 100
    link.close()


def test_one_prepared_statement_for_any_number(tmp_path: Path) -> None:
    link = Database.at(tmp_path / "a").own()
    link.execute("CREATE TABLE t (a)")
    text = "INSERT INTO t SELECT c0 FROM sqlite_vinyl_batch(?)"
    for count in (5, 1, 300, 2, 0):
        assert link.execute(text, (Batch([list(range(count))]),)).rowcount == count
    many = [(Batch([[n] * n]),) for n in range(1, 4)]
    assert link.executemany(text, many).rowcount == 6
    link.execute("ALTER TABLE t ADD COLUMN b DEFAULT 9")  # SQLite prepares it anew
    with pytest.raises(sqlite3.OperationalError, match="2 columns but 1 values"):
        link.execute(text, (Batch([[1]]),))
    link.execute(text.replace("t ", "t (a) ", 1), (Batch([[1]]),))
    assert link.execute("SELECT count(*), count(b) FROM t").fetchone() == (315, 315)
    link.close()


def test_values_live_as_long_as_the_statement(tmp_path: Path) -> None:
    link = Database.at(tmp_path / "a").own()
    cursor = link.cursor()
    columns = [[f"text {n}" for n in range(50)], [bytearray(b"x%d" % n) for n in range(50)]]
    cursor.execute("SELECT c0, c1 FROM sqlite_vinyl_batch(?)", (Batch(columns),))
    del columns
    gc.collect()
    filler = [f"TEXT {n}" for n in range(5000)]
    assert cursor.fetchall() == [(f"text {n}", b"x%d" % n) for n in range(50)]
    assert len(filler) == 5000
    link.close()
