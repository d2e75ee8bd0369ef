"""Decoding and binding keep no memory, whether they succeed or fail."""

from __future__ import annotations

import datetime
import gc
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from private_postgres import PrivatePostgres
from psycopg.types.json import Jsonb
from psycopg.types.range import Range
from row_support import Both, both
from vinyl._postgres import _Codec

UTC = datetime.UTC
ROUNDS = 150
# A cache that grows once, a free list: far below one block per round.
SLACK = ROUNDS // 8
TEXTS = {
    "int8": "123456789012",
    "numeric": "1.50",
    "bytea": "\\x0102",
    "timestamptz": "2020-01-01 10:00:00+00",
    "timetz": "10:00:00+05:30",
    "interval": "1 day 00:00:01",
    "uuid": "12345678123456781234567812345678",
    "json": '{"a": [1]}',
    "jsonb": '{"a": [1]}',
    "inet": "::1",
    "hstore": '"a"=>"1", "b"=>NULL',
    "tstzrange": '["2020-01-01 00:00:00+00",)',
    "int4multirange": "{[1,5),[7,9)}",
    "text[]": '{"a\\"b",NULL,{}}'.replace("{}", "c"),
    "numeric[]": "{{1.5},{2}}",
    "point": "(1,2)",
}
VALUES: list[Any] = [
    1 << 80,
    1.5,
    "text é",
    b"bytes",
    bytearray(b"x"),
    datetime.datetime(2020, 1, 1, tzinfo=UTC),
    datetime.time(1, tzinfo=UTC),
    datetime.timedelta(1),
    Jsonb({"a": 1}),
    Range(1, 5),
    [1, None, 1 << 40],
    ["a", "b"],
    [Range(datetime.date(2020, 1, 1), None)],
    (1, "a"),
    {"a": "b"},
    "nul \0",
    [1, "mixed"],
    object(),
    Jsonb(object()),
]


@pytest.fixture(scope="module")
def utc(postgres_server: PrivatePostgres) -> Iterator[Both]:
    with both(postgres_server, UTC) as sides:
        sides.set("IntervalStyle", "postgres")
        yield sides


def blocks_kept(function: Callable[[], None]) -> int:
    """Memory blocks that ROUNDS calls leave behind: the least of several turns, for a leak shows
    in each, and the interpreter's attribute cache fills up only once."""
    kept = []
    for _ in range(20):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(ROUNDS):
            function()
        gc.collect()
        kept.append(sys.getallocatedblocks() - before)
        if kept[-1] < SLACK:
            break
    return min(kept)


def test_blocks_kept_sees_a_leak() -> None:
    leak: list[Any] = []
    assert blocks_kept(lambda: leak.append(object())) >= ROUNDS


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("type_name", TEXTS)
def test_decoding(utc: Both, type_name: str, binary: bool) -> None:
    ((oid, *formats),) = utc.raw(type_name, [TEXTS[type_name]])
    data = bytes(formats[binary])
    rng = random.Random(type_name)
    garbled = [data[: rng.randrange(len(data))] for _ in range(8)] + [data + b"x"]

    def decode() -> None:
        utc.codec.decode(oid, binary, data)
        for bad in garbled:
            with suppress(Exception):
                utc.codec.decode(oid, binary, bad)

    assert blocks_kept(decode) < SLACK


@pytest.mark.parametrize("value", VALUES, ids=[str(n) for n in range(len(VALUES))])
def test_binding(utc: Both, value: Any) -> None:
    def bind() -> None:
        for function in (utc.codec.bind, utc.codec.literal):
            with suppress(Exception):
                function(value)

    assert blocks_kept(bind) < SLACK


def test_contexts() -> None:
    template = get_adapters_template(True, UTC)

    def make() -> None:
        codec = _Codec(template)
        codec.set_parameter("TimeZone", "Europe/Rome")
        codec.decode(1007, False, b"{1,2}")
        codec.decode(2249, False, b"(1,2)")
        codec.bind([1, 2])
        codec.bind(Range(1, 2))
        codec.flush()
        codec.decode(1184, False, b"2020-01-01 10:00:00+00")

    assert blocks_kept(make) < SLACK
