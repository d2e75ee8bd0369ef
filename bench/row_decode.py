"""ns per value: our decoders against psycopg-c's loaders, as Django configures them.

    pip install "psycopg[c]"; python bench/row_decode.py "dbname=test"

psycopg's time is Transformer.load_rows() over a result of one column, less the same over NULLs
(the tuples); ours is the decoder alone, in a C loop.  Best of seven rounds each.
"""

from __future__ import annotations

import datetime
import sys
import time
from zoneinfo import ZoneInfo

import psycopg
from django.conf import settings
from psycopg import pq
from psycopg.adapt import AdaptersMap, Transformer
from vinyl._postgres import _Codec

ROWS = 10_000
ROUNDS = 7
VALUES = [
    ("int4", "12345"),
    ("int8", "1234567890123"),
    ("bool", "t"),
    ("float8", "1234.5678"),
    ("numeric", "12345.67"),
    ("text", "a text of some thirty characters"),
    ("text", "ein Text mit Umläuten, dreißig Zeichen"),
    ("bytea", "\\x000102030405060708090a0b0c0d0e0f"),
    ("date", "2026-11-22"),
    ("time", "12:34:56.789"),
    ("timestamp", "2026-11-22 12:34:56.789"),
    ("timestamptz", "2026-11-22 12:34:56.789+00"),
    ("interval", "3 days 04:05:06.7"),
    ("uuid", "12345678-1234-5678-1234-567812345678"),
    ("jsonb", '{"a": [1, 2.5, null], "b": "text"}'),
    ("inet", "192.168.0.1"),
    ("int4[]", "{1,2,3,4,5,6,7,8,9,10}"),
    ("text[]", "{one,two,three,NULL}"),
    ("int4range", "[1,5)"),
]


def best(function) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        function()
        times.append((time.perf_counter_ns() - start) / ROWS)
    return min(times)


def psycopg_ns(connection, adapters, sql: str, binary: bool) -> float:
    cursor = psycopg.Cursor(connection)
    cursor.execute(sql, binary=binary)
    transformer = Transformer(adapters)
    transformer.set_pgresult(cursor.pgresult)
    return best(lambda: transformer.load_rows(0, ROWS, tuple))


def main(conninfo: str) -> None:
    settings.configure()
    from django.db.backends.postgresql.psycopg_any import get_adapters_template

    print(f"psycopg {psycopg.__version__} ({pq.__impl__}); ns per value (ratio to psycopg text)")
    print(f"{'type':<12}{'psycopg text':>14}{'ours text':>16}{'ours binary':>18}")
    with psycopg.connect(conninfo, client_encoding="UTF8") as connection:
        connection.execute("SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'")
        for zone in (datetime.UTC, ZoneInfo("Europe/Zurich")):
            adapters = AdaptersMap(get_adapters_template(True, zone))
            connection._adapters = adapters
            connection.execute(f"SET TimeZone = '{zone}'")
            codec = _Codec(adapters)
            codec.set_parameter("TimeZone", str(zone))
            nulls = psycopg_ns(
                connection, connection, f"SELECT NULL::int FROM generate_series(1, {ROWS})", False
            )
            for name, value in VALUES:
                if zone is not datetime.UTC and name != "timestamptz":
                    continue
                sql = f"SELECT '{value}'::{name} FROM generate_series(1, {ROWS})"
                theirs = psycopg_ns(connection, connection, sql, False) - nulls
                line = f"{name:<12}{theirs:>14.0f}"
                for binary in (False, True):
                    cursor = psycopg.Cursor(connection)
                    cursor.execute(sql, binary=binary)
                    oid = cursor.pgresult.ftype(0)
                    data = cursor.pgresult.get_value(0, 0)
                    ours = min(codec.bench(oid, binary, data, ROWS) for _ in range(ROUNDS))
                    line += f"{ours:>9.0f} ({ours / theirs:.2f})"
                print(line, "" if zone is datetime.UTC else str(zone))


if __name__ == "__main__":
    main(sys.argv[1])
