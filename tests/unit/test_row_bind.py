"""Parameters and literals mean to the server what psycopg's ClientCursor makes of the value."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import json
import random
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.backends.postgresql.operations import get_json_dumps
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from django.utils.functional import lazystr
from django.utils.safestring import SafeString
from private_postgres import PrivatePostgres
from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Int4Multirange, Multirange
from psycopg.types.numeric import Float4, Float8, Int2, Int4, Int8, IntNumeric, Oid
from psycopg.types.range import DateRange, Int8Range, Range
from row_support import Both, both, random_text

UTC = datetime.UTC
ROME = ZoneInfo("Europe/Rome")
RNG = random.Random(20261122)


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    HIGH = 3


class Suit(models.TextChoices):
    HEARTS = "h's", "Hearts"


class Size(models.IntegerChoices):
    BIG = 7, "Big"


class Moment(datetime.datetime):
    pass


class Day(datetime.date):
    pass


def _ints() -> list[int]:
    values = [0, 1, -1]
    for bits in (15, 31, 63, 64, 200):
        values += [sign * (1 << bits) + step for sign in (1, -1) for step in (-1, 0, 1)]
    return values + [RNG.randrange(-(1 << 70), 1 << 70) >> RNG.randrange(70) for _ in range(80)]


def _floats() -> list[float]:
    values = [0.0, -0.0, 1.0, -1.5, 1e16, 1e-7, 1e308, 5e-324, float("nan"), float("inf")]
    return [
        *values,
        -float("inf"),
        *(RNG.uniform(-1, 1) * 10 ** RNG.randint(-9, 9) for _ in range(80)),
    ]


def _decimals() -> list[Decimal]:
    texts = "0 -0 0.00 1.50 -1.50 1E+5 1E-10 NaN sNaN Infinity -Infinity 12345678.12345"
    texts += " 2147483647 2147483648 -2147483648 -2147483649 7 -7 9223372036854775807"
    texts += " 9223372036854775808 -9223372036854775808 -9223372036854775809"
    return [Decimal(text) for text in texts.split()]


def _moments() -> list[datetime.datetime]:
    naive = [
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.datetime(2000, 1, 1),
        datetime.datetime(1999, 12, 31, 23, 59, 59, 999999),
        datetime.datetime(2020, 10, 25, 2, 30, fold=0),
        datetime.datetime(2020, 10, 25, 2, 30, fold=1),
        Moment(2020, 1, 1, 1, 1, 1),
    ]
    naive += [
        datetime.datetime.min + datetime.timedelta(microseconds=RNG.randrange(315537897600000000))
        for _ in range(60)
    ]
    odd = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30, seconds=-15))
    aware = [value.replace(tzinfo=tz) for value in naive[2:] for tz in (UTC, ROME, odd)]
    return naive + aware


def _times() -> list[datetime.time]:
    half = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    values = [datetime.time.min, datetime.time.max, datetime.time(1, 2, 3, 4), datetime.time(12)]
    return values + [value.replace(tzinfo=tz) for value in values for tz in (UTC, half)]


def _deltas() -> list[datetime.timedelta]:
    values = [datetime.timedelta(0), datetime.timedelta(days=1), datetime.timedelta(days=-1)]
    values += [datetime.timedelta(seconds=-1), datetime.timedelta(days=-999999999)]
    values += [datetime.timedelta(days=2, seconds=3, microseconds=4), datetime.timedelta.max]
    return values + [
        datetime.timedelta(RNG.randint(-999, 999), RNG.randrange(86400), RNG.randrange(1000000))
        for _ in range(60)
    ]


def _nets() -> list[Any]:
    return [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_interface("2001:db8::1/64"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("2001:db8::/32"),
    ]


def _texts() -> list[str]:
    values = ["", "a", "'", "\\", "\\'", "''", 'x"y', "é😀", "E'", "--", "$1 %s %%", "\n\t\x01"]
    return [*values, SafeString("<b>"), *(random_text(RNG, 30) for _ in range(120))]


JSON = {"a": [1, 2.5, None, "é'\\\"\n\u2028"], "b": {"c": True}}
WHEN = {"at": datetime.datetime(2020, 1, 1), "d": Decimal("1.50")}
SCALARS: dict[str, list[Any]] = {
    "none": [None],
    "bool": [True, False],
    "int": _ints(),
    "wrapped": [
        Int2(5),
        Int2(-5),
        Int4(70000),
        Int4(-7),
        Int8(1),
        Int8(-(2**63)),
        IntNumeric(9),
        IntNumeric(10**30),
        Oid(5),
        Float4(1.5),
        Float8(-1.5),
        Float4("nan"),
    ],
    "enum": [Level.HIGH, Suit.HEARTS, Size.BIG, Colour.RED],
    "float": _floats(),
    "decimal": _decimals(),
    "str": _texts(),
    "bytes": [
        b"",
        b"\x00",
        b"'\\\xff",
        bytes(range(256)),
        bytearray(b"ab"),
        memoryview(b"cd"),
        memoryview(b"abcdef")[2:],
    ],
    "date": [datetime.date.min, datetime.date.max, datetime.date(2000, 1, 1), Day(1999, 12, 31)],
    "time": _times(),
    "datetime": _moments(),
    "timedelta": _deltas(),
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1), uuid.UUID(int=5)]
    + [uuid.UUID(int=RNG.getrandbits(128)) for _ in range(20)],
    "json": [
        Json(JSON),
        Jsonb(JSON),
        Jsonb(None),
        Jsonb("x"),
        Jsonb([1]),
        Json(1.5),
        Jsonb(WHEN, dumps=get_json_dumps(DjangoJSONEncoder)),
        Jsonb(JSON, get_json_dumps(None)),
        Jsonb({}, dumps=lambda value: json.dumps([value]).encode()),
    ],
    "net": _nets(),
    "range": [
        Range(1, 5),
        Range(1, None, "()"),
        Range(empty=True),
        Range(Decimal("1.5"), None),
        Range(datetime.date(2020, 1, 1), None),
        Range(datetime.datetime(2020, 1, 1), None, "[]"),
        Range(datetime.datetime(2020, 1, 1, tzinfo=UTC), None),
        Int8Range(1, 2),
        Range("a", "b"),
        DateRange(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    ],
    "multirange": [Multirange([Range(1, 5), Range(7, 9)]), Int4Multirange([]), Multirange([])],
    "tuple": [(1, "a"), ("x y", None)],
    "hstore": [{"a": "1", "b'\"": None}, {}],
}
LISTS: dict[str, list[Any]] = {
    "int": [
        [1],
        [1, None, 70000],
        [-32768],
        [-32769],
        [2**31],
        [-(2**31)],
        [2**40, 1],
        [2**70, -1],
    ],
    "nested": [[[1, 2], [3, None]], [[[1]], [[70000]]], [[], []]],
    "wrapped": [[Int2(1)], [Int4(1), Int4(2)], [Int8(1)], [IntNumeric(1)], [Oid(1)], [Float4(1.5)]],
    "enum": [[Level.HIGH], [Size.BIG]],
    "bool": [[True, None, False]],
    "float": [[1.5, float("nan"), float("-inf"), None]],
    "decimal": [_decimals()],
    "bytes": [[b"\0'\\", b"", None], [bytearray(b"x")], [memoryview(b"y")]],
    "date": [[datetime.date(2020, 1, 1), None]],
    "time": [[datetime.time(1, 2, 3)], [datetime.time(1, tzinfo=UTC)]],
    "datetime": [[datetime.datetime(2020, 1, 1)], [datetime.datetime(2020, 1, 1, tzinfo=ROME)]],
    "timedelta": [_deltas()[:6]],
    "uuid": [[uuid.UUID(int=7), None]],
    "json": [[Json(JSON)], [Jsonb(JSON), Jsonb([1, "x"])]],
    "net": [_nets()[:1], _nets()[2:3], _nets()[4:], _nets()[:2]],
    "range": [[Range(datetime.date(2020, 1, 1), None)], [Int8Range(1, 2)]],
}

UNKNOWN_LISTS: dict[str, list[Any]] = {
    "empty": [[], [None], [[None], [None]]],
    "str": [[text for text in _texts() if type(text) is str], ["NULL", "null", "", "a,b", "{}"]],
    "mixed": [["a", SafeString("b")], [SafeString("x"), None], ["\u3000x", "\u2003"]],
    "enum": [[Suit.HEARTS, None]],
    "nested": [[["a"], ["b c"]]],
}


@pytest.fixture(scope="module")
def utc(postgres_server: PrivatePostgres) -> Iterator[Both]:
    with both(postgres_server, UTC) as sides:
        sides.set("IntervalStyle", "postgres")
        yield sides


def _row(result: psycopg.pq.abc.PGresult) -> tuple[bytes | None, ...]:
    status = psycopg.pq.ExecStatus(result.status)
    assert status is psycopg.pq.ExecStatus.TUPLES_OK, result.error_message.decode()
    return tuple(result.get_value(0, column) for column in range(result.nfields))


def _meanings(sides: Both, value: Any, cast: str) -> list[tuple[bytes | None, ...]]:
    """(type, text) as the server sees psycopg's literal, our literal, and our parameter."""
    pgconn = sides.connection.pgconn
    reference = psycopg.ClientCursor(sides.connection).mogrify("%s", [value])
    queries = [
        literal + cast.encode() for literal in (reference.encode(), sides.codec.literal(value))
    ]
    found = [_row(pgconn.exec_(b"SELECT pg_typeof(%s), (%s)::text" % (q, q))) for q in queries]
    oid, format_, data = sides.codec.bind(value)
    parameter = b"$1" + cast.encode()
    query = b"SELECT pg_typeof(%s), (%s)::text" % (parameter, parameter)
    if oid == 0 and not cast:  # the server cannot tell a type for unknown
        query = b"SELECT 'unknown', $1::text"
    found.append(_row(pgconn.exec_params(query, [data], [oid], [format_])))
    return found


def _check(sides: Both, values: list[Any], cast: str = "") -> None:
    for value in values:
        reference, literal, parameter = _meanings(sides, value, cast)
        assert literal == reference, value
        assert parameter == reference, value


@pytest.mark.parametrize("kind", SCALARS)
def test_scalars(utc: Both, kind: str) -> None:
    _check(utc, SCALARS[kind])


@pytest.mark.parametrize("kind", LISTS)
def test_lists(utc: Both, kind: str) -> None:
    _check(utc, LISTS[kind])


@pytest.mark.parametrize("kind", UNKNOWN_LISTS)
def test_lists_of_unknown(utc: Both, kind: str) -> None:
    """The server settles their type; how their text is quoted differs among psycopg's versions."""
    for value in UNKNOWN_LISTS[kind]:
        assert utc.codec.bind(value)[0] == 0
    _check(utc, UNKNOWN_LISTS[kind], "::text[]")


@pytest.mark.parametrize("style", ["sql_standard", "iso_8601", "postgres_verbose"])
def test_interval_styles(postgres_server: PrivatePostgres, style: str) -> None:
    with both(postgres_server, UTC) as sides:
        sides.set("IntervalStyle", style)
        _check(sides, [*SCALARS["timedelta"], *LISTS["timedelta"]])


def test_literals_without_standard_conforming_strings(postgres_server: PrivatePostgres) -> None:
    with both(postgres_server, UTC) as sides:
        sides.connection.execute("SET escape_string_warning = off")
        sides.set("standard_conforming_strings", "off")
        for values in (SCALARS["str"], SCALARS["bytes"], SCALARS["json"], LISTS["json"]):
            _check(sides, values)
        _check(sides, UNKNOWN_LISTS["str"], "::text[]")


def test_date_styles(postgres_server: PrivatePostgres) -> None:
    with both(postgres_server, UTC) as sides:
        sides.set("DateStyle", "SQL, DMY")
        _check(sides, SCALARS["date"] + SCALARS["time"] + SCALARS["datetime"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, b"1"),
        (-1, b" -1"),
        (1.0, b"1.0"),
        ("it's", b"'it''s'"),
        ("a\\b", b" E'a\\\\b'"),
        ([1, 2], b"'{1,2}'::int2[]"),
        (None, b"NULL"),
        (datetime.timedelta(days=1, seconds=5), b"'1 day 0:00:05'::interval"),
    ],
)
def test_literals_are_psycopgs(utc: Both, value: Any, expected: bytes) -> None:
    assert utc.codec.literal(value) == expected
    assert psycopg.ClientCursor(utc.connection).mogrify("%s", [value]).encode() == expected


def test_lazy_strings_are_their_text(utc: Both) -> None:
    assert utc.codec.bind(lazystr("it's")) == (0, 0, b"it's")
    assert utc.codec.literal(lazystr("it's")) == b"'it''s'"


def test_a_dict_is_refused_unless_hstore_is_registered() -> None:
    from vinyl._postgres import _Codec

    codec = _Codec(get_adapters_template(True, UTC))
    for bind in (codec.bind, codec.literal):
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'dict'"):
            bind({"a": 1})
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'object'"):
            bind([object()])


BAD: list[tuple[Any, type[Exception]]] = [
    ("a\0b", psycopg.DataError),
    (["a\0b"], psycopg.DataError),
    ([1, "a"], psycopg.DataError),
    ([1, 1.5], psycopg.DataError),
    ([[1], ["a"]], psycopg.DataError),
    (datetime.time(1, tzinfo=ROME), psycopg.DataError),
    (Jsonb("x", dumps=lambda value: "a\0b"), psycopg.DataError),
    ("\ud800", UnicodeEncodeError),
    (["\ud800"], UnicodeEncodeError),
    (Jsonb(object()), TypeError),
    (10**5000, ValueError),
    (object(), psycopg.ProgrammingError),
]


@pytest.mark.parametrize(("value", "error"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_values(utc: Both, value: Any, error: type[Exception]) -> None:
    for bind in (utc.codec.bind, utc.codec.literal):
        with pytest.raises(error):
            bind(value)


def test_a_recursive_list_is_refused(utc: Both) -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    for bind in (utc.codec.bind, utc.codec.literal):
        with pytest.raises(psycopg.DataError, match="recursive"):
            bind(endless)
    endless.clear()


def test_registered_dumpers_are_honoured(utc: Both) -> None:
    class Loud(psycopg.adapt.Dumper):
        oid = 25

        def dump(self, obj: str) -> bytes:
            return obj.upper().encode()

    adapters = psycopg.adapt.AdaptersMap(utc.connection.adapters)
    codec = type(utc.codec)(adapters)
    assert codec.bind("a") == (0, 0, b"a")
    adapters.register_dumper(str, Loud)
    assert codec.bind("a") == (0, 0, b"a")  # looked up before
    codec.flush()
    assert codec.bind("a") == (0, 0, b"A")
    assert codec.literal("a'") == b"'A'''"
    assert codec.bind(["a"])[2] == b"{A}"


def test_psycopgs_own_subclasses_of_dumpers(utc: Both) -> None:
    """set_json_dumps() on a connection's map is honoured."""
    adapters = psycopg.adapt.AdaptersMap(utc.connection.adapters)
    psycopg.types.json.set_json_dumps(lambda value: '"mine"', adapters)
    codec = type(utc.codec)(adapters)
    assert codec.bind(Jsonb(1)) == (3802, 0, b'"mine"')
    assert codec.literal([Jsonb(1)]) == b'\'{"\\\\"mine\\\\""}\'::jsonb[]'.replace(b"'{", b" E'{")


def test_bytes_are_not_copied_but_buffers_are(utc: Both) -> None:
    data = bytearray(b"abc")
    assert utc.codec.bind(data) == (17, 1, b"abc")
    data.extend(b"d")  # no exported buffer is left
    assert utc.codec.bind(data) == (17, 1, b"abcd")


def test_many_classes_share_the_cache(utc: Both) -> None:
    """More classes than the cache has slots: each still binds as its base."""
    classes = [type(f"Text{number}", (str,), {}) for number in range(100)]
    for _ in range(3):
        for number, cls in enumerate(classes):
            assert utc.codec.bind(cls(number)) == (0, 0, str(number).encode())
