"""Values from PostgreSQL decode to what psycopg 3 as Django configures it gives, type for type."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import psycopg
import pytest
from private_postgres import PrivatePostgres
from row_support import Both, both, random_text

UTC = datetime.UTC
RNG = random.Random(20261122)


def _ints(bits: int) -> list[str]:
    edge = 1 << (bits - 1)
    values = [0, 1, -1, 9, 10, 255, 256, -256, edge - 1, -edge]
    values += [RNG.randrange(-edge, edge) >> RNG.randrange(bits) for _ in range(150)]
    return [str(value) for value in values]


def _floats(digits: int, exponent: int) -> list[str]:
    values = ["0", "-0", "1", "1.1", "-2.5", "1e10", "123456", "1234567", "16777216", "16777217"]
    values += ["NaN", "Infinity", "-Infinity", "0.1", "0.3", "1e-5", "9.999999e20"]
    values += ["1e-45", "1.5e-42", "1e-40", "1.1754944e-38", "3.4028235e38"]
    for _ in range(200):
        values.append(f"{RNG.uniform(-10, 10):.{digits}f}e{RNG.randint(-exponent, exponent)}")
    # Powers of two have neighbours at two distances: the shortest decimal is hardest there.
    values += [repr(2.0**power) for power in range(-exponent * 3 - 15, exponent * 3 + 15)]
    return values


def _numerics() -> list[str]:
    values = ["0", "0.00", "-0.00", "1", "1.50", "10000", "9999", "10000.0001", "0.0001", "0.00001"]
    values += ["NaN", "Infinity", "-Infinity", "1e50", "1e-50", "-12345678901234567890.12345678900"]
    values += ["9" * 200, "0." + "0" * 100 + "1", "-" + "12345" * 60 + "." + "67890" * 40]
    for _ in range(250):
        digits = str(RNG.randrange(10 ** RNG.randint(1, 40)))
        scale = "".join(RNG.choice("0123456789") for _ in range(RNG.randint(0, 20)))
        values.append(RNG.choice(["", "-"]) + digits + (f".{scale}" if scale else ""))
    return values


def _dates() -> list[str]:
    values = ["0001-01-01", "9999-12-31", "2000-01-01", "1999-12-31", "2000-02-29", "1900-03-01"]
    values += [
        "1970-01-01",
        "infinity",
        "-infinity",
        "0001-12-31 BC",
        "10000-01-01",
        "4713-01-01 BC",
    ]
    days = [RNG.randrange(1, 3652060) for _ in range(300)]
    return values + [datetime.date.fromordinal(day).isoformat() for day in days]


def _times() -> list[str]:
    values = ["00:00:00", "23:59:59.999999", "24:00:00", "12:00", "01:02:03.4", "01:02:03.000001"]
    for _ in range(100):
        micros = RNG.randrange(86_400_000_000)
        values.append(str((datetime.datetime.min + datetime.timedelta(microseconds=micros)).time()))
    return values


def _timetzs() -> list[str]:
    offsets = ["+00", "-00:30", "+05:30", "-12", "+14", "+15:59:59", "-00:00:01", "+01:02:03"]
    return [time + RNG.choice(offsets) for time in _times()] + [f"10:00:00{o}" for o in offsets]


def _timestamps() -> list[str]:
    values = ["infinity", "-infinity", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"]
    values += ["1999-12-31 23:59:59.999999", "2000-01-01 00:00:00", "1969-12-31 23:59:59.5"]
    values += ["10000-01-01 00:00:00", "0001-12-31 23:59:59 BC", "294276-12-31 23:59:59.999999"]
    values += ["4713-11-24 00:00:00 BC", "2020-03-29 02:30:00", "2020-10-25 02:30:00"]
    return values + [
        f"{date} {time}" for date, time in zip(_dates()[11:], _times()[6:] * 4, strict=False)
    ]


def _instants() -> list[str]:
    values = [f"{stamp}+00" for stamp in _timestamps() if stamp[-1].isdigit()]
    values += ["infinity", "-infinity", "0001-01-01 00:00:00+14", "9999-12-31 23:59:59-12"]
    values += ["0001-01-01 00:00:00-12", "9999-12-31 23:59:59.999999+14", "0001-12-31 23:00 BC"]
    # Around the changes of the clocks in Rome and New York, every 20 minutes: each fold.
    for start in (
        datetime.datetime(2020, 10, 24, 22),
        datetime.datetime(2020, 3, 28, 22),
        datetime.datetime(2020, 11, 1, 3),
    ):
        values += [f"{start + datetime.timedelta(minutes=20 * n)}+00" for n in range(30)]
    return values


def _intervals() -> list[str]:
    values = ["0", "1 day", "-1 day", "1 mon", "-1 mon", "1 year 2 mons 3 days 04:05:06.789"]
    values += ["-1 year -2 mons +3 days -04:05:06.000001", "00:00:00.000001", "-00:00:00.000001"]
    values += ["100:00:00", "-100000:00:54.775807", "100000:00:54.775807", "999999999 days"]
    values += ["1 mon -1 day", "-1 mon 1 day", "1000000000 days", "-999999999 days", "13 mons"]
    values += ["2000000 years", "-2000000 years", "1 day -00:00:01", "24:00:00"]
    for _ in range(200):
        parts = [f"{RNG.randint(-30, 30)} {unit}" for unit in ("years", "mons", "days", "hours")]
        parts += [f"{RNG.uniform(-1e5, 1e5):.{RNG.randint(0, 6)}f} seconds"]
        values.append(" ".join(RNG.sample(parts, RNG.randint(1, 5))))
    return values


def _uuids() -> list[str]:
    values = [0, 1, (1 << 128) - 1, 1 << 64, (1 << 64) - 1]
    return [f"{value:032x}" for value in values + [RNG.getrandbits(128) for _ in range(100)]]


def _addresses() -> list[str]:
    values = ["0.0.0.0", "255.255.255.255", "10.1.2.3/8", "192.168.0.1/32", "::", "::1", "::/0"]
    values += ["::ffff:1.2.3.4", "::1.2.3.4", "1::", "1:0:0:2::3", "fe80::1/64", "0:1:0:1:0:1:0:1"]
    values += ["2001:db8:0:0:1:0:0:1", "1:2:3:4:5:6:7:0", "0:0:3::", "1:0:0:0:2:0:0:0", "::2:0"]
    for _ in range(200):
        groups = [RNG.choice(["0", "0", f"{RNG.getrandbits(16):x}"]) for _ in range(8)]
        values.append(":".join(groups) + RNG.choice(["", f"/{RNG.randint(0, 128)}"]))
        values.append(".".join(str(RNG.randrange(256)) for _ in range(4)))
    return values


def _networks() -> list[str]:
    values = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "192.168.1.0/24",
        "1.2.3.4",
        "::/0",
        "2001:db8::/32",
        "::1",
    ]
    for _ in range(100):
        bits = RNG.randint(0, 32)
        value = RNG.getrandbits(32) >> (32 - bits) << (32 - bits)
        values.append(".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0)) + f"/{bits}")
    return values


def _texts() -> list[str]:
    values = [
        "",
        " ",
        "a",
        "NULL",
        "null",
        "a\nb",
        "'",
        '"',
        "\\",
        "é",
        "😀",
        "\u0100",
        "x" * 70_000,
    ]
    return values + [random_text(RNG, 40) for _ in range(200)]


def _jsons() -> list[str]:
    values = ["null", "true", "1", "1.50", '"a"', "{}", "[]", '{"a": [1, 2.5, null, "é\\n"]}']
    return [*values, '{"k": "' + "y" * 5000 + '"}', "123456789012345678901234567890", "1e400"]


def _byteas() -> list[str]:
    values = ["", "\\x", "\\x00", "\\xff", "\\x5c5c", "\\x27"]
    return values + ["\\x" + RNG.randbytes(RNG.randint(0, 300)).hex() for _ in range(60)]


def _ranges(bounds: list[str]) -> list[str]:
    """Ranges between bounds that are given in ascending order."""
    values = ["empty", "(,)", f"[{bounds[0]},)", f"(,{bounds[0]}]"]
    for _ in range(60):
        low, high = RNG.choice(bounds), RNG.choice(bounds)
        values.append(f"[{low},{low}]")
        low, high = sorted((low, high), key=bounds.index)
        values.append(f"({low},{high})")
    return values


def _multiranges(bounds: list[str]) -> list[str]:
    values = ["{}", "{(,)}", "{empty}"]
    chosen = [value for value in _ranges(bounds) if value != "empty"]
    return values + ["{" + ",".join(RNG.sample(chosen, RNG.randint(1, 4))) + "}" for _ in range(40)]


DAYS = ["1999-12-31", "2020-01-01", "2020-05-05", "2021-02-03"]
STAMPS = ["2020-01-01 10:00:00.5", "2020-05-05 00:00:00", "2021-02-03 04:05:06"]


def _hstores() -> list[str]:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    values = ["", '"a"=>"1"', '"a"=>NULL', '"NULL"=>"NULL"', '""=>""', '"a=>b"=>"c, d"']
    for _ in range(80):
        pairs = [
            f"{quoted(random_text(RNG))}=>{RNG.choice(['NULL', quoted(random_text(RNG))])}"
            for _ in range(RNG.randint(0, 6))
        ]
        values.append(", ".join(pairs))
    return values


def _quoted_array(texts: list[str | None]) -> str:
    items = [
        "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for text in texts
    ]
    return "{" + ",".join(items) + "}"


def _arrays(values: list[str]) -> list[str]:
    """One, two and three dimensions, NULLs, and lower bounds other than 1."""
    short = [value for value in values if len(value) < 300]
    found = ["{}", "{NULL}", "{NULL,NULL}"]
    for _ in range(40):
        texts = RNG.sample(short, min(len(short), RNG.randint(1, 5)))
        items = _quoted_array([None if RNG.random() < 0.2 else text for text in texts])
        size = len(texts)
        found += [items, f"{{{items},{items}}}", f"{{{{{items}}},{{{items}}}}}"]
        found += [f"[5:{4 + size}]={items}", f"[-1:0][2:{1 + size}]={{{items},{items}}}"]
    return found


TYPES: dict[str, list[str]] = {
    "bool": ["t", "f"],
    "int2": _ints(16),
    "int4": _ints(32),
    "int8": _ints(64),
    "oid": ["0", "1", "4294967295", "2147483648"],
    "float4": _floats(7, 37),
    "float8": _floats(17, 300),
    "numeric": _numerics(),
    "numeric(30,10)": ["1", "1.5", "-0.0000000001", "NaN"],
    "text": _texts(),
    "varchar": _texts(),
    "varchar(5)": ["", "abc", "ab   "],
    "bpchar": ["", "abc", "ab   "],
    "char(7)": ["", "abc", "é"],
    "name": ["", "abc", "é" * 20],
    '"char"': ["", "a", "é"],
    "citext": _texts(),
    "xml": ["<a/>", "x"],
    "tsvector": ["", "'a':1 'b':2,3A", "it''s"],
    "tsquery": ["a & b", "!a | (b <-> c)"],
    "money": ["1.50", "-3"],
    "bit(3)": ["101"],
    "varbit": ["", "10101"],
    "point": ["(1,2.5)"],
    "box": ["((1,2),(3,4))"],
    "macaddr": ["08:00:2b:01:02:03"],
    "pg_lsn": ["16/B374D848"],
    "jsonpath": ["$.a[*]"],
    "xid8": ["123456789012"],
    "int2vector": ["1 2 3"],
    "regclass": ["pg_class"],
    "bytea": _byteas(),
    "date": _dates(),
    "time": _times(),
    "timetz": _timetzs(),
    "timestamp": _timestamps(),
    "timestamp(3)": ["2020-01-01 00:00:00.123"],
    "timestamptz": _instants(),
    "interval": _intervals(),
    "uuid": _uuids(),
    "json": _jsons(),
    "jsonb": _jsons()[:-1],
    "inet": _addresses(),
    "cidr": _networks(),
    "hstore": _hstores(),
    "int4range": _ranges(["-5", "0", "7", "100"]),
    "int8range": _ranges(["-5", "0", "7", "5000000000"]),
    "numrange": _ranges(["1.10", "1.2", "3.14159", "9"]),
    "daterange": _ranges(DAYS),
    "tsrange": _ranges([f'"{stamp}"' for stamp in STAMPS]),
    "tstzrange": _ranges([f'"{stamp}+00"' for stamp in STAMPS]),
    "int4multirange": _multiranges(["1", "5", "9", "70"]),
    "nummultirange": _multiranges(["1.10", "1.2", "3.14159", "9"]),
    "datemultirange": _multiranges(DAYS),
    "tstzmultirange": _multiranges([f'"{stamp}+00"' for stamp in STAMPS]),
}
ELEMENTS = """
    bool int2 int4 int8 oid float4 float8 numeric text varchar bpchar name citext bytea date time
    timetz timestamp timestamptz interval uuid json jsonb inet cidr hstore int4range numrange
    daterange tstzrange int4multirange
""".split()  # noqa: SIM905
TYPES |= {f"{name}[]": _arrays(TYPES[name]) for name in ELEMENTS}
TYPES["box[]"] = ["{(1,2),(3,4);(5,6),(7,8)}"]

# What C must do itself, in both formats: a silent fall back to psycopg would still give the
# right values, slowly.
TEXT_ONLY = {"xml", "tsvector", "tsquery", "money", "bit(3)", "varbit", "point", "box", "macaddr"}
TEXT_ONLY |= {"pg_lsn", "jsonpath", "xid8", "int2vector", "regclass", "citext", "citext[]", "box[]"}
TEXT_ONLY |= {'"char"'}

ZONES = {
    "utc": (UTC, "UTC"),
    "rome": (ZoneInfo("Europe/Rome"), "Europe/Rome"),
    "mixed": (UTC, "America/New_York"),
    "naive": (None, "Asia/Kolkata"),
}


@pytest.fixture(scope="module", params=ZONES)
def sides(request: pytest.FixtureRequest, postgres_server: PrivatePostgres) -> Iterator[Both]:
    timezone, server_zone = ZONES[request.param]
    with both(postgres_server, timezone, server_zone) as sides:
        sides.set("IntervalStyle", "postgres")
        yield sides


@pytest.fixture(scope="module")
def utc(postgres_server: PrivatePostgres) -> Iterator[Both]:
    with both(postgres_server, UTC) as sides:
        yield sides


def _compare(sides: Both, type_name: str, texts: list[str]) -> int:
    compared = 0
    for oid, text, binary in sides.raw(type_name, texts):
        if text is None:
            continue
        compared += 1
        expected = sides.load(oid, text)
        given = sides.decode(oid, False, text)
        if expected.error is not None:
            assert expected.error is psycopg.DataError, (text, expected)
            assert given.error is psycopg.DataError, (text, given)
        assert given.shown == expected.shown, text
        if sides.codec.in_c(oid, True):
            assert sides.decode(oid, True, binary).shown == expected.shown, (text, binary)
        assert sides.codec.in_c(oid, True) is (type_name not in TEXT_ONLY)
        assert sides.codec.in_c(oid, False)
    return compared


@pytest.mark.parametrize("type_name", TYPES)
def test_decodes_as_psycopg_does(utc: Both, type_name: str) -> None:
    assert _compare(utc, type_name, TYPES[type_name]) == len(TYPES[type_name])


@pytest.mark.parametrize("type_name", [name for name in TYPES if "tz" in name or "stamp" in name])
def test_decodes_in_the_time_zones(sides: Both, type_name: str) -> None:
    assert _compare(sides, type_name, TYPES[type_name]) == len(TYPES[type_name])


@pytest.mark.parametrize(
    "style", ["ISO, MDY", "German", "SQL, DMY", "SQL, MDY", "Postgres, DMY", "Postgres, MDY"]
)
def test_date_styles(postgres_server: PrivatePostgres, style: str) -> None:
    with both(postgres_server, UTC) as sides:
        plain = [
            date for date in _dates()[:100] if "BC" not in date and not date.startswith("1000")
        ]
        stamps = [stamp for stamp in _timestamps()[:100] if "BC" not in stamp and stamp[4] == "-"]
        sides.connection.execute("SET DateStyle = 'ISO'")
        sides.set("DateStyle", style)
        # Python cannot hold years after 9999; in the other styles psycopg's errors for them differ.
        for type_name, texts in (("date", plain), ("timestamp", stamps)):
            assert _compare(sides, type_name, texts) == len(texts)


def test_what_is_not_parsed_in_another_style_says_so(postgres_server: PrivatePostgres) -> None:
    with both(postgres_server, UTC) as sides:
        sides.set("DateStyle", "German")
        sides.set("IntervalStyle", "iso_8601")
        for type_name, value in (("timestamptz", "2020-01-01 00:00:00+00"), ("interval", "1 day")):
            ((oid, text, binary),) = sides.raw(type_name, [value])
            assert sides.load(oid, text).error is NotImplementedError
            assert sides.decode(oid, False, text).error is NotImplementedError
            assert sides.decode(oid, True, binary).error is None


def test_an_interval_that_overflows_a_timedelta(utc: Both) -> None:
    """psycopg's C loader wraps around here."""
    for oid, text, binary in utc.raw("interval", ["178000000 years", "-178000000 years"]):
        assert utc.decode(oid, False, text).error is psycopg.DataError
        assert utc.decode(oid, True, binary).error is psycopg.DataError


def test_the_longest_intervals_are_exact(utc: Both) -> None:
    """Older psycopg goes through a float here."""
    longest = datetime.timedelta(hours=2562047788, seconds=54, microseconds=775807)
    texts = ["2562047788:00:54.775807", "-2562047788:00:54.775807"]
    for value, raw in zip((longest, -longest), utc.raw("interval", texts), strict=True):
        oid, text, binary = raw
        assert utc.codec.decode(oid, False, text) == value
        assert utc.codec.decode(oid, True, binary) == value


def test_bytea_in_escape_format(utc: Both) -> None:
    try:
        utc.connection.execute("SET bytea_output = 'escape'")
        assert _compare(utc, "bytea", TYPES["bytea"]) == len(TYPES["bytea"])
    finally:
        utc.connection.execute("RESET bytea_output")


def test_void_is_an_empty_text(utc: Both) -> None:
    assert utc.codec.decode(2278, False, b"") == ""
    assert utc.codec.decode(2278, True, b"") == ""


def test_composites_and_records_go_through_psycopg(utc: Both) -> None:
    ((oid, text, _),) = [
        (cursor.pgresult.ftype(0), cursor.pgresult.get_value(0, 0), None)
        for cursor in [utc.connection.execute("SELECT (1, 'a b', NULL::int)")]
        if cursor.pgresult
    ]
    assert utc.decode(oid, False, text).shown == utc.load(oid, text).shown
    assert utc.codec.decode(oid, False, text) == ("1", "a b", None)


def test_registered_loaders_are_honoured(utc: Both) -> None:
    class Cents(psycopg.adapt.Loader):
        def load(self, data: bytes) -> int:
            return int(float(data) * 100)

    adapters = psycopg.adapt.AdaptersMap(utc.connection.adapters)
    codec = type(utc.codec)(adapters)
    assert repr(codec.decode(1700, False, b"1.50")) == "Decimal('1.50')"
    adapters.register_loader("numeric", Cents)
    codec.flush()
    assert codec.decode(1700, False, b"1.50") == 150
    assert codec.decode(1231, False, b"{1.50,NULL}") == [150, None]
    assert not codec.in_c(1700, True)
    assert not codec.in_c(1231, True)


def test_psycopgs_own_map(utc: Both) -> None:
    """Without Django's map jsonb is parsed and timestamptz is in the server's zone."""
    codec = type(utc.codec)()
    codec.set_parameter("TimeZone", "Europe/Rome")
    assert codec.decode(3802, False, b'{"a": [1]}') == {"a": [1]}
    assert codec.decode(3802, True, b'\x01{"a": [1]}') == {"a": [1]}
    moment = codec.decode(1184, False, b"2020-06-01 12:00:00+02")
    assert moment == datetime.datetime(2020, 6, 1, 10, tzinfo=UTC)
    assert str(moment.tzinfo) == "Europe/Rome"
    assert str(codec.decode(869, False, b"10.0.0.1/8")) == "10.0.0.1/8"
    assert type(codec.decode(869, False, b"10.0.0.1/8")).__name__ == "IPv4Interface"


def test_an_unknown_zone_is_utc(utc: Both) -> None:
    codec = type(utc.codec)(utc.connection.adapters)
    codec.set_parameter("TimeZone", "<+03>-03")
    codec.set_parameter("TimeZone", None)
    assert codec.decode(1184, False, b"2020-06-01 12:00:00+03").hour == 9
