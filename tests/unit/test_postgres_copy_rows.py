"""COPY by rows: write_row(), rows(), read_row() and set_types()."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import uuid
from typing import Any

import psycopg
import pytest
from fix_engine import Engine
from fix_links import Links, rows
from psycopg.types.json import Jsonb

import vinyl
from vinyl import _core

UTC = dt.UTC
COLUMNS = {
    "i": "int4", "l": "int8", "n": "numeric", "f": "float8", "b": "bool", "t": "text", "y": "bytea",
    "d": "date", "c": "time", "s": "timestamp", "z": "timestamptz", "v": "interval", "u": "uuid",
    "j": "jsonb", "a": "int4[]", "w": "text[]",
}  # fmt: skip
NASTY = "tab\there, line\nfeed, return\r, back\\slash, \\N, \\., \b\v\f \"' ü 名 \U0001f600"
FULL: tuple[Any, ...] = (
    -7, 2**40, decimal.Decimal("1.50"), 1.5, True, NASTY, b"\x00\xff\\\t\n",
    dt.date(2020, 2, 29), dt.time(1, 2, 3, 4), dt.datetime(2020, 1, 2, 3, 4, 5, 6),
    dt.datetime(2020, 1, 2, 3, 4, 5, 6, UTC), dt.timedelta(days=1, seconds=2),
    uuid.UUID(int=5), Jsonb({"a": "\\ \t"}), [1, 2], ["a\\b", "c\td", None],
)  # fmt: skip
EMPTY = (None,) * len(COLUMNS)
LOADED = (*FULL[:13], {"a": "\\ \t"}, *FULL[14:])


def make(link: Any) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    rows(link, "DROP TABLE IF EXISTS by_rows")
    rows(link, f"CREATE TABLE by_rows (n0 serial, {columns})")


NAMES = f"by_rows ({', '.join(COLUMNS)})"
READ = f"COPY (SELECT {', '.join(COLUMNS)} FROM by_rows ORDER BY n0) TO STDOUT"


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("typed", [False, True], ids=["untyped", "typed"])
async def test_all_types(pg: Links, mode: str, binary: bool, typed: bool) -> None:
    link = pg.link(max_size=1)
    suffix = " (FORMAT binary)" if binary else ""

    def work() -> None:
        make(link)
        with link.cursor() as cursor:
            with cursor.copy(f"COPY {NAMES} FROM STDIN{suffix}") as copy:
                if typed or binary:  # a binary int is an int2 else
                    copy.set_types(list(COLUMNS.values()))
                copy.write_row(FULL)
                copy.write_row(list(EMPTY))
            assert cursor.rowcount == 2
            found = rows(link, f"SELECT {', '.join(COLUMNS)} FROM by_rows ORDER BY n0")
            assert found == [LOADED, EMPTY]
            with cursor.copy(READ + suffix) as copy:
                copy.set_types(list(COLUMNS.values()))
                assert list(copy.rows()) == [LOADED, EMPTY]
                assert copy.read_row() is None
                assert list(copy.rows()) == []
            assert cursor.rowcount == 2
        link.close()

    await _core.run(work)


async def test_without_types_rows_are_text_or_bytes(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        with link.cursor() as cursor:
            sql = "COPY (SELECT 1, NULL, E'a\\tb\\\\', ''::text, '\\N') TO STDOUT"
            with cursor.copy(sql) as copy:
                assert copy.read_row() == ("1", None, "a\tb\\", "", "\\N")
                assert copy.read_row() is None
            with cursor.copy("COPY (SELECT 1, NULL, 'ü') TO STDOUT (FORMAT binary)") as copy:
                assert list(copy.rows()) == [(b"\0\0\0\x01", None, "ü".encode())]
            with cursor.copy("COPY (SELECT 1 WHERE false) TO STDOUT (FORMAT binary)") as copy:
                assert list(copy.rows()) == []
            with cursor.copy("COPY (SELECT) TO STDOUT") as copy:
                assert list(copy.rows()) in ([()], [("",)])  # psycopg's is ("",)
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
async def test_the_same_as_psycopg(pg: Links, mode: str, binary: bool) -> None:
    """Rows written by the one are read by the other, and come out alike."""
    link = pg.link(max_size=1)
    suffix = " (FORMAT binary)" if binary else ""
    kinds = list(COLUMNS.values())

    def work() -> None:
        make(link)
        with (
            psycopg.connect(**pg.params(), autocommit=True) as other,
            other.cursor() as theirs,
            link.cursor() as ours,
        ):
            for cursor in (theirs, ours):
                with cursor.copy(f"COPY {NAMES} FROM STDIN{suffix}") as copy:
                    copy.set_types(kinds)
                    for _ in range(3):
                        copy.write_row(FULL)
                        copy.write_row(EMPTY)
            outcome = []
            for cursor in (theirs, ours):
                for types in (kinds, None):
                    with cursor.copy(READ + suffix) as copy:
                        if types:
                            copy.set_types(types)
                        outcome.append(list(copy.rows()))
            assert outcome[0] == outcome[2]
            assert outcome[1] == outcome[3]
            assert len(outcome[0]) == 12
            assert rows(link, "SELECT COUNT(DISTINCT (i, l, n, f, t, y, z, a)) FROM by_rows") == [
                (2,)
            ]
        link.close()

    await _core.run(work)


async def test_many(pg: Links, mode: str) -> None:
    """More than the buffers hold, mixed with write()."""
    link = pg.link(max_size=1)
    many = 50_000

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS by_rows_many")
        rows(link, "CREATE TABLE by_rows_many (n serial, a int, b text)")
        with link.cursor() as cursor:
            with cursor.copy("COPY by_rows_many (a, b) FROM STDIN") as copy:
                for number in range(many):
                    copy.write_row((number, "x" * (number % 50)))
                    if number % 1000 == 0:
                        copy.write(f"-1\tin its place {number}\n")
                copy.write_row([many, "y" * 1_000_000])
            assert cursor.rowcount == many + 51
            with cursor.copy("COPY (SELECT a, b FROM by_rows_many ORDER BY n) TO STDOUT") as copy:
                copy.set_types(["int4", "text"])
                found = list(copy.rows())
        assert found[:3] == [(0, ""), (-1, "in its place 0"), (1, "x")]
        assert found[-1] == (many, "y" * 1_000_000)
        assert [a for a, _ in found if a >= 0] == list(range(many + 1))
        link.close()

    await _core.run(work)


async def test_binary_of_nothing(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS by_rows_many")
        rows(link, "CREATE TABLE by_rows_many (a int2)")
        with link.cursor() as cursor:
            with cursor.copy("COPY by_rows_many FROM STDIN (FORMAT binary)"):
                pass
            with cursor.copy("COPY by_rows_many FROM STDIN (FORMAT binary)") as copy:
                copy.write_row([1])
            with cursor.copy("COPY by_rows_many TO STDOUT (FORMAT binary)") as copy:
                data = copy.read()
                while more := copy.read():
                    data += more
            with cursor.copy("COPY by_rows_many FROM STDIN (FORMAT binary)") as copy:
                copy.write(data)
        assert rows(link, "SELECT a FROM by_rows_many") == [(1,), (1,)]
        link.close()

    await _core.run(work)


def write_bad(cursor: Any, row: Any, error: type[BaseException], match: str) -> None:
    """The row is refused where it is written; the copy goes on without it."""
    with cursor.copy("COPY by_rows_many FROM STDIN") as copy:
        copy.write_row(["before"])
        with pytest.raises(error, match=match):
            copy.write_row(row)
        copy.write_row(["after"])


async def test_errors(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        rows(link, "DROP TABLE IF EXISTS by_rows_many")
        rows(link, "CREATE TABLE by_rows_many (a text)")
        with link.cursor() as cursor:
            for row, error, match in [
                (["a\0b"], psycopg.DataError, "NUL"),
                ([object()], psycopg.ProgrammingError, "adapt"),
                ("text", TypeError, "a sequence of values, not str"),
                (5, TypeError, "not iterable"),
            ]:
                write_bad(cursor, row, error, match)
                assert rows(link, "SELECT a FROM by_rows_many") == [("before",), ("after",)]
                rows(link, "DELETE FROM by_rows_many")
            with (
                pytest.raises(psycopg.errors.BadCopyFileFormat, match="extra data"),
                cursor.copy("COPY by_rows_many FROM STDIN") as copy,
            ):
                copy.write_row(["a", "b"])
            with cursor.copy("COPY (SELECT 1, 2) TO STDOUT") as copy:
                with pytest.raises(psycopg.ProgrammingError, match="to be read"):
                    copy.write_row([1])
                with pytest.raises(KeyError, match="no such type"):
                    copy.set_types(["no such type"])
                copy.set_types(["int4"])
                with pytest.raises(psycopg.DataError, match="named 1 columns"):
                    copy.read_row()
            with cursor.copy("COPY (SELECT 'x') TO STDOUT") as copy:
                copy.set_types(["int4"])
                with pytest.raises(psycopg.DataError):
                    copy.read_row()
        assert rows(link, "SELECT COUNT(*) FROM by_rows_many") == [(0,)]
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
class TestInCoroutines:
    async def test_both_ways(self, engine: Engine, mode: str) -> None:
        async with vinyl.cursor() as cur:
            async with cur.copy("COPY library_genre (id, name) FROM STDIN") as copy:
                for number in range(10_000):
                    await copy.write_row((number, f"{number}\t\\"))
            assert cur.rowcount == 10_000
            sql = r"SELECT id, NULLIF(name, E'0\t\\') FROM library_genre ORDER BY id"
            async with cur.copy(f"COPY ({sql}) TO STDOUT") as copy:
                copy.set_types(["int8", "text"])
                first = await copy.read_row()
                found = [row async for row in copy.rows()]
            assert first == (0, None)
            assert found == [(n, f"{n}\t\\") for n in range(1, 10_000)]

    async def test_errors_are_djangos(self, engine: Engine, mode: str) -> None:
        from django.db import DataError, ProgrammingError

        async with vinyl.cursor() as cur:
            with pytest.raises(DataError, match="invalid input syntax"):
                async with cur.copy("COPY library_genre (id) FROM STDIN") as copy:
                    await copy.write_row(["one"])
            async with cur.copy("COPY library_genre (name) FROM STDIN") as copy:
                with pytest.raises(ProgrammingError, match="adapt"):
                    await copy.write_row([object()])
            await cur.execute("SELECT COUNT(*) FROM library_genre")
            assert await cur.fetchone() == (0,)

    @pytest.mark.modes("asyncio", "uvloop")
    @pytest.mark.parametrize("way", ["in", "out"])
    async def test_cancelled_in_the_middle(self, engine: Engine, mode: str, way: str) -> None:
        started = asyncio.Event()

        async def copy_out() -> None:
            async with vinyl.cursor() as cur:
                sql = "COPY (SELECT n, pg_sleep(0.001) FROM generate_series(1, 100000) n) TO STDOUT"
                async with cur.copy(sql) as copy:
                    async for _ in copy.rows():
                        started.set()

        async def copy_in() -> None:
            async with (
                vinyl.cursor() as cur,
                cur.copy("COPY library_genre (name) FROM STDIN") as copy,
            ):
                for number in range(10_000_000):
                    await copy.write_row([f"tag {number}"])
                    if number == 10_000:
                        started.set()
                        await asyncio.sleep(0)

        task = asyncio.create_task(copy_in() if way == "in" else copy_out())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with vinyl.cursor() as cur:
            await cur.execute("SELECT COUNT(*) FROM library_genre")
            assert await cur.fetchone() == (0,)
        stats = vinyl.pool_stats("default")
        assert stats["pool_available"] == stats["pool_size"]
