"""Garbled bytes raise DataError or give a value; nothing is read out of bounds (`make asan`)."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator

import psycopg
import pytest
from private_postgres import PrivatePostgres
from row_support import Both, both

SEEDS = {
    "bool": "t",
    "int2": "-300",
    "int4": "70000",
    "int8": "-5000000000",
    "oid": "4294967295",
    "float4": "1.1",
    "float8": "-1.5e300",
    "numeric": "-12345.67890",
    "text": "héllo",
    "bytea": "\\x00ff5c27",
    "date": "2020-02-29",
    "time": "12:34:56.789",
    "timetz": "12:34:56.789+05:30",
    "timestamp": "2020-02-29 12:34:56.789",
    "timestamptz": "2020-02-29 12:34:56.789+00",
    "interval": "-1 year -2 mons +3 days -04:05:06.000001",
    "uuid": "12345678123456781234567812345678",
    "json": '{"a": [1, "é"]}',
    "jsonb": '{"a": [1, "é"]}',
    "inet": "10.1.2.3/8",
    "cidr": "2001:db8::/32",
    "hstore": '"a"=>"1", "b\\"c"=>NULL',
    "int4range": "[1,5)",
    "daterange": "[2020-01-01,)",
    "tstzrange": '["2020-01-01 00:00:00+00",)',
    "int4multirange": "{[1,5),[7,9)}",
    "int4[]": "[0:1][2:3]={{1,NULL},{3,4}}",
    "text[]": '{"a,b","c\\"d",NULL,""}',
    "numeric[]": "{1.5,NaN}",
    "hstore[]": '{"a=>1",NULL}',
    "int4range[]": '{"[1,5)",empty}',
}
ROUNDS = 3000
INTERESTING = (
    0,
    1,
    2,
    4,
    0x7F,
    0x80,
    0xFF,
    ord('"'),
    ord("\\"),
    ord("{"),
    ord("}"),
    ord(","),
    ord("9"),
)


@pytest.fixture(scope="module")
def utc(postgres_server: PrivatePostgres) -> Iterator[Both]:
    with both(postgres_server, datetime.UTC) as sides:
        sides.set("IntervalStyle", "postgres")
        yield sides


def garble(rng: random.Random, data: bytes) -> bytes:
    """Truncated, lengthened, bytes changed, a length field made huge or negative."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        match rng.randrange(6):
            case 0:
                del out[rng.randint(0, len(out)) :]
            case 1:
                at = rng.randint(0, len(out))
                out[at:at] = rng.randbytes(rng.randint(1, 5))
            case 2 if out:
                out[rng.randrange(len(out))] = rng.choice(INTERESTING)
            case 3 if out:
                out[rng.randrange(len(out))] = rng.randrange(256)
            case 4 if len(out) >= 4:
                at = rng.randrange(len(out) - 3)
                size = rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, len(out), 0])
                out[at : at + 4] = size.to_bytes(4, "big")
            case 5 if out:
                at = rng.randrange(len(out))
                del out[at : at + rng.randint(1, 4)]
    return bytes(out)


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
