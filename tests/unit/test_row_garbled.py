"""Garbled bytes raise DataError or give a value; nothing is read out of bounds (`make asan`)."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator

import psycopg
import pytest
from garbling import SEEDS, garble
from private_postgres import PrivatePostgres
from row_support import Both, both

ROUNDS = 3000


@pytest.fixture(scope="module")
def utc(postgres_server: PrivatePostgres) -> Iterator[Both]:
    with both(postgres_server, datetime.UTC) as sides:
        sides.set("IntervalStyle", "postgres")
        yield sides


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("type_name", SEEDS)
def test_garbled(utc: Both, type_name: str, binary: bool) -> None:
    rng = random.Random(f"{type_name} {binary}")
    ((oid, *formats),) = utc.raw(type_name, [SEEDS[type_name]])
    seed = bytes(formats[binary])
    assert utc.decode(oid, binary, seed).error is None
    refused = 0
    for _ in range(ROUNDS):
        data = garble(rng, seed)
        outcome = utc.decode(oid, binary, data)
        if outcome.error is not None:
            assert outcome.error is psycopg.DataError, (data, outcome)
            refused += 1
    # Any bytes are a bytea, most are a text; every other type has something to refuse.
    assert refused > (0 if type_name not in {"bytea"} else -1), type_name


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("type_name", sorted(SEEDS.keys() - {"text", "bytea", "hstore", "json"}))
def test_nothing_at_all(utc: Both, type_name: str, binary: bool) -> None:
    ((oid, *_),) = utc.raw(type_name, [SEEDS[type_name]])
    if (type_name, binary) == ("jsonb", False):
        assert utc.codec.decode(oid, binary, b"") == ""  # Django parses it
    elif type_name in {"inet", "cidr"} and not binary:
        assert utc.codec.decode(oid, binary, b"") == ""
    else:
        assert utc.decode(oid, binary, b"").error is psycopg.DataError


@pytest.mark.parametrize("type_name", ["int4[]", "int4multirange", "hstore"])
def test_a_lying_count_allocates_nothing(utc: Both, type_name: str) -> None:
    ((oid, _, binary),) = utc.raw(type_name, [SEEDS[type_name]])
    data = bytearray(binary)
    at = 12 if type_name == "int4[]" else 0
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    assert utc.decode(oid, True, bytes(data)).error is psycopg.DataError


def test_deep_nesting(utc: Both) -> None:
    assert utc.decode(1007, False, b"{" * 100_000).error is psycopg.DataError
    assert utc.decode(1007, False, b"{" * 100_000 + b"}" * 100_000).error is psycopg.DataError


def test_errors_name_the_type_and_show_little(utc: Both) -> None:
    with pytest.raises(psycopg.DataError, match=r"can't decode integer: 'x{60}'\.\.\. \(text"):
        utc.codec.decode(23, False, b"x" * 500)
    with pytest.raises(
        psycopg.DataError, match=r"can't decode int4: '0102' \(binary format, 2 byt"
    ):
        utc.codec.decode(23, True, b"\x01\x02")
    with pytest.raises(psycopg.DataError, match="date too large"):
        utc.codec.decode(1082, False, b"infinity")
    with pytest.raises(psycopg.DataError, match="timestamp too small"):
        utc.codec.decode(1114, False, b"-infinity")
