"""A statement means the same with parameters as with literals."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from fix_links import Links, rows
from psycopg.types.json import Jsonb

from vinyl import _core

SETUP = """
CREATE TEMP TABLE thing (
    id int PRIMARY KEY, name varchar(20), day date, data jsonb, price numeric(8, 2), tags text[]
);
INSERT INTO thing VALUES (1, 'one', '2020-01-01', '{"a": 1}', 1.5, '{x}'),
    (2, 'two', '2020-01-02', '{"a": 2}', 2.5, '{y}'), (3, 'two', NULL, NULL, 3.5, NULL)
"""

# Statements of the shapes that Django writes, with what they answer.
SAME: list[tuple[str, list[Any], list[tuple[Any, ...]]]] = [
    ('SELECT "thing"."id" FROM "thing" WHERE "thing"."name" = %s', ["one"], [(1,)]),
    ('SELECT "id" FROM "thing" WHERE "day" = %s', ["2020-01-02"], [(2,)]),
    ('SELECT "id" FROM "thing" WHERE "name" IN (%s, %s) ORDER BY "id"', ["one", "x"], [(1,)]),
    ('SELECT "id" FROM "thing" WHERE "name"::text LIKE %s ORDER BY 1', ["tw%"], [(2,), (3,)]),
    ('SELECT "id" FROM "thing" WHERE UPPER("name"::text) LIKE UPPER(%s)', ["ON%"], [(1,)]),
    ('SELECT JSONB_BUILD_OBJECT(%s, "id") FROM "thing" WHERE "id" = %s', ["k", 1], [({"k": 1},)]),
    ("SELECT CONCAT(%s, %s)", ["a", None], [("a",)]),
    ("SELECT COALESCE(%s, %s)", [None, "b"], [("b",)]),
    ("SELECT (%s)::numeric + %s", ["1.5", 1], [(Decimal("2.5"),)]),
    (
        'SELECT "name" || %s, COUNT(*) FROM "thing" GROUP BY "name" || %s ORDER BY 1',
        ["!", "!"],
        [("one!", 1), ("two!", 2)],
    ),
    (
        'SELECT "id" %% %s, COUNT(*) FROM "thing" GROUP BY "id" %% %s ORDER BY 1',
        [2, 2],
        [(0, 1), (1, 2)],
    ),
    (
        'SELECT DISTINCT ON ("price" * %s) "price" * %s FROM "thing" ORDER BY "price" * %s',
        [2, 2, 2],
        [(Decimal(n),) for n in ("3.00", "5.00", "7.00")],
    ),
    ('SELECT "data" -> %s FROM "thing" WHERE "id" = %s', ["a", 1], [(1,)]),
    ('SELECT "id" FROM "thing" WHERE "data" @> %s', [Jsonb({"a": 2})], [(2,)]),
    ('SELECT "id" FROM "thing" WHERE "tags" = %s::text[]', [["x"]], [(1,)]),
    ("SELECT CASE WHEN %s THEN %s ELSE %s END", [True, "yes", "no"], [("yes",)]),
    ("SELECT '%%', %s -- 100%%\n", ["it's"], [("%", "it's")]),
    ("SELECT INTERVAL %s", ["1 day"], [(datetime.timedelta(days=1),)]),
    ("SELECT %s::int, %s", [2**40 // 2**39, 2**40], [(2, 2**40)]),
    ("SELECT %s", [2**80], [(Decimal(2**80),)]),
    ("EXPLAIN (COSTS OFF) SELECT %s", ["x"], [("Result",)]),
]


@pytest.mark.parametrize(("sql", "params", "answer"), SAME)
async def test_as_with_literals(
    pg: Links, mode: str, sql: str, params: list[Any], answer: list[tuple[Any, ...]]
) -> None:
    link = pg.link()

    def work() -> None:
        rows(link, SETUP)
        link.autocommit = False  # a refused statement could not be tried again in here
        for _ in range(4):  # text, then prepared, then binary
            assert rows(link, sql, params) == answer
        link.commit()
        link.close()

    await _core.run(work)


async def test_equal_values_are_one_expression_only_where_it_matters(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        # Untyped text next to columns of different types: never one parameter.
        rows(link, SETUP)
        found = rows(
            link, 'SELECT "id" FROM "thing" WHERE "name" = %s OR "day" = %s', ["2020-01-01"] * 2
        )
        assert found == [(1,)]
        link.close()

    await _core.run(work)


async def test_insert_and_conflict(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        rows(link, SETUP)
        insert = (
            'INSERT INTO "thing" ("id", "name", "day") VALUES (%s, %s, %s), (%s, %s, %s)'
            ' ON CONFLICT ("id") DO UPDATE SET "name" = %s RETURNING "id", "name"'
        )
        values = [3, "x", None, 4, "it's\\", "2020-01-01", "updated"]
        assert rows(link, insert, values) == [(3, "updated"), (4, "it's\\")]
        update = 'UPDATE "thing" SET "name" = %s, "price" = %s WHERE "id" = %s'
        with link.cursor() as cursor:
            cursor.execute(update, ["n", None, 4])
            assert cursor.rowcount == 1
            assert cursor.statusmessage == "UPDATE 1"
            assert (
                cursor.query == """UPDATE "thing" SET "name" = 'n', "price" = NULL WHERE "id" = 4"""
            )
        link.close()

    await _core.run(work)


async def test_several_statements(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        rows(link, "CREATE TEMP TABLE two (a int); INSERT INTO two VALUES (%s), (%s)", [1, 2])
        assert rows(link, "SELECT a FROM two ORDER BY a") == [(1,), (2,)]
        link.close()

    await _core.run(work)


async def test_named_and_mapping_parameters(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        assert rows(link, "SELECT %(a)s::int, %(b)s, %(a)s::int", {"a": 1, "b": "x"}) == [
            (1, "x", 1)
        ]
        with pytest.raises(psycopg.ProgrammingError, match="query parameter missing: b"):
            rows(link, "SELECT %(b)s", {"a": 1})
        with pytest.raises(psycopg.ProgrammingError, match="sequence"):
            rows(link, "SELECT %s", {"a": 1})
        with pytest.raises(psycopg.ProgrammingError, match="mixed"):
            rows(link, "SELECT %s, %(a)s", [1])
        with pytest.raises(psycopg.ProgrammingError, match="got '%d'"):
            rows(link, "SELECT %d", [1])
        with pytest.raises(psycopg.ProgrammingError, match="2 placeholders but 1 parameters"):
            rows(link, "SELECT %s, %s", [1])
        assert rows(link, "SELECT '100%'") == [("100%",)]
        link.close()

    await _core.run(work)


async def test_server_side_binding(pg: Links, mode: str) -> None:
    link = pg.link(config=pg.config(server_side_binding=True))

    def work() -> None:
        assert rows(link, "SELECT %s::int", [5]) == [(5,)]
        with pytest.raises(psycopg.errors.UndefinedParameter):
            rows(link, "CREATE TEMP TABLE x (a int DEFAULT %s)", [5])
        link.close()

    await _core.run(work)


async def test_seventy_thousand_parameters(pg: Links, mode: str) -> None:
    link = pg.link()

    def work() -> None:
        holes = ", ".join(["(%s)"] * 70_000)
        sql = f"SELECT COUNT(*), MAX(x) FROM (VALUES {holes}) AS v(x)"
        assert rows(link, sql, list(range(70_000))) == [(70_000, 69_999)]
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("value", ["text", 5, [1, 2], ["x"], None, b"\x00\xff", bytearray(b"a")])
async def test_a_binary_of_anything(pg: Links, mode: str, value: Any) -> None:
    """Where it holds no bytes, psycopg says what becomes of it: an error, or bytes made of it."""
    link = pg.link()

    def outcome(fetch: Any, *args: Any) -> Any:
        try:
            return [bytes(cell) for cell in fetch(*args)[0]]
        except TypeError as error:
            return str(error)

    def theirs(sql: str, params: list[Any]) -> Any:
        with psycopg.connect(**pg.params()) as connection:
            return psycopg.ClientCursor(connection).execute(sql, params).fetchall()  # Django's

    def work() -> None:
        sql = "SELECT %s::bytea, %s::bytea"
        for params in ([psycopg.Binary(value)] * 2, [psycopg.Binary(b"ok"), psycopg.Binary(value)]):
            assert outcome(rows, link, sql, params) == outcome(theirs, sql, params)
        link.close()

    await _core.run(work)
