"""What may be a bytea comes in binary the first time too: its statement is described before."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from adversity_support.proxy import Proxy
from fix_links import Links, rows
from psycopg.adapt import Loader

from vinyl import _core

PARSED = b"1\x00\x00\x00\x04"  # ParseComplete

#: Types that C decodes in binary, and some that it does not.
VALUES = [
    "1", "1.5::float8", "1.50::numeric", "'x'::text", "true", "NULL::bytea", "'2020-01-02'::date",
    "'2020-01-02 03:04:05+00'::timestamptz", "'1 day'::interval", "'[1,2)'::int4range",
    "'{1,2}'::int[]", "'{\"a\": 1}'::jsonb", "'10.0.0.1/8'::inet", "gen_random_uuid() IS NULL",
    "'(1,2)'::point", "'<a/>'::xml", "'1'::money", "ROW(1, 'a')", "'{\"\\\\x01\"}'::bytea[]",
    "(acldefault('r', 10::oid))[1]", "'a b'::tsvector", "B'101'", "'00:11:22:33:44:55'::macaddr",
]  # fmt: skip


class Counted:
    """Counts the statements that the server parsed, on the way through a proxy."""

    def __init__(self, pg: Links, proxy: Proxy) -> None:
        self.parsed = 0
        proxy.change = self._count
        self.link = pg.link(
            pg.pool(pg.config(pg.params(host="127.0.0.1", port=str(proxy.port))), max_size=1)
        )
        self.link.autocommit = True
        self.seen = 0

    def _count(self, data: bytes, passed: int) -> bytes:
        self.parsed += data.count(PARSED)
        return data

    def of(self, sql: str, params: Any = None) -> int:
        before = self.parsed
        with self.link.cursor() as cursor:
            cursor.execute(sql, params)
        return self.parsed - before


async def test_only_what_may_be_a_bytea_is_described(pg: Links, mode: str) -> None:
    def work() -> None:
        with Proxy(pg.server) as proxy:
            counted = Counted(pg, proxy)
            counted.of("DROP TABLE IF EXISTS described, others")
            counted.of("CREATE TABLE described (id int, payload bytea)")
            counted.of("CREATE TABLE others (id int)")
            assert counted.of("SELECT 1") == 2  # the names were read again
            assert counted.of("SELECT 2") == 1
            assert counted.of("SELECT * FROM others") == 1
            assert counted.of("SELECT id, COUNT(*) FROM described GROUP BY id") == 1
            assert counted.of("INSERT INTO described (payload) VALUES (%s)", [b"x"]) == 1
            assert counted.of("INSERT INTO described VALUES (1, %s) RETURNING id", [b"x"]) == 1
            assert counted.of("SELECT * FROM described") == 2
            assert counted.of("SELECT * FROM described") == 1
            assert counted.of("SELECT * FROM described") == 0  # prepared
            assert counted.of("SELECT payload FROM described") == 2
            assert counted.of("DELETE FROM described RETURNING payload") == 2
            counted.of("ALTER TABLE described RENAME COLUMN payload TO load")
            assert counted.of("SELECT 3") == 3  # DEALLOCATE ALL is due, too
            assert counted.of("SELECT load FROM described") == 2
            counted.link.close()

    await _core.run(work)


async def test_in_a_transaction(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    notices: list[Any] = []  # a second BEGIN is warned of
    link.add_notice_handler(notices.append)

    def work() -> None:
        link.autocommit = False
        rows(link, "CREATE TEMP TABLE made (payload bytea) ON COMMIT DROP")
        rows(link, "INSERT INTO made VALUES (%s)", [b"\x00\xff"])
        assert rows(link, "SELECT payload FROM made") == [(b"\x00\xff",)]
        with pytest.raises(psycopg.errors.UndefinedColumn):
            rows(link, "SELECT payload, missing FROM made")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            rows(link, "SELECT payload FROM made")
        link.rollback()
        for _ in range(2):  # the question brings the BEGIN, the statement none
            assert rows(link, "SELECT decode('00', 'hex')") == [(b"\0",)]
            assert link.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert notices == []
        link.rollback()
        assert rows(link, "SELECT txid_current() = txid_current(), 'x'::bytea") == [(True, b"x")]
        link.rollback()
        link.close()

    await _core.run(work)


@pytest.mark.parametrize("value", VALUES)
async def test_the_first_answer_is_the_second(pg: Links, mode: str, value: str) -> None:
    """Beside a bytea, each type decodes as it does in text; twice the same."""
    link = pg.link(max_size=1)

    def work() -> None:
        plain = rows(link, f"SELECT {value}")[0][0]
        for _ in range(3):
            ((blob, found),) = rows(link, f"SELECT '\\xff00'::bytea, {value}")
            assert blob == b"\xff\x00"
            assert (found, type(found)) == (plain, type(plain))
        link.close()

    await _core.run(work)


async def test_a_registered_loader_is_asked_for_text(pg: Links, mode: str) -> None:
    class Shout(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode() + "!"

    link = pg.link(max_size=1)

    def work() -> None:
        adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
        adapters.register_loader("bytea", Shout)
        link.adapters = adapters
        for _ in range(3):
            assert rows(link, "SELECT '\\xff'::bytea") == [("\\xff!",)]
        link.close()

    await _core.run(work)


async def test_literals_and_parameters(pg: Links, mode: str) -> None:
    link = pg.link(max_size=1)

    def work() -> None:
        for text in ["a", "b", "a"]:
            assert rows(link, "SELECT repeat(%s, 2), %s", [text, b"\xff"]) == [(text * 2, b"\xff")]
            # A parameter whose type the server cannot tell: tried again as a literal.
            assert rows(link, "SELECT 'x'::bytea, %s", [text]) == [(b"x", text)]
            assert rows(link, "SELECT 'y'::bytea WHERE 1 = %s", [1]) == [(b"y",)]
        link.close()

    await _core.run(work)
