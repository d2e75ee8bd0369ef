"""What Django's SQLite backend makes of dates, times and UUIDs, made in C or left to Django."""

from __future__ import annotations

import datetime
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connections
from django.db.models import Value
from django.test import override_settings
from fix_engine import Engine, installed
from hypothesis import given
from hypothesis import strategies as st
from library.models import Sample
from sample_values import as_id
from sqlite_support import Database

from vinyl import _core, _sqlite3

UTC = datetime.UTC


class Stamp(datetime.datetime):
    def __str__(self) -> str:
        return "a stamp"


class Day(datetime.date):
    def __str__(self) -> str:
        return "a day"


class NoOffset(datetime.tzinfo):
    def utcoffset(self, when: Any) -> None:
        return None


class Refusing(datetime.tzinfo):
    def utcoffset(self, when: Any) -> datetime.timedelta:
        raise LookupError("no offset today")


MOMENTS: list[Any] = [
    None,
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
    datetime.datetime(2026, 2, 3, 4, 5, 6, 7, UTC),
    datetime.datetime(2026, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(0))),
    datetime.datetime(2026, 7, 3, 4, 5, tzinfo=ZoneInfo("Europe/Rome")),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Rome"), fold=1),
    datetime.datetime(2026, 7, 3, tzinfo=ZoneInfo("UTC")),
    datetime.datetime(2026, 7, 3, tzinfo=NoOffset()),
    datetime.datetime(2026, 7, 3, tzinfo=Refusing()),
    datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
    Stamp(2026, 1, 1),
    Stamp(2026, 1, 1, tzinfo=UTC),
    datetime.date(2026, 1, 1),
    "2026-01-01",
    5,
]
CLOCKS: list[Any] = [
    None,
    datetime.time(),
    datetime.time(23, 59, 59, 999999),
    datetime.time(1, 2, 3, 40),
    datetime.time(1, tzinfo=UTC),
    datetime.time(1, tzinfo=NoOffset()),
    "01:02",
]
DAYS: list[Any] = [
    None,
    datetime.date(1, 1, 1),
    datetime.date(9999, 12, 31),
    Day(2026, 1, 1),
    *MOMENTS,
]


@pytest.fixture(params=[None, "Europe/Rome"])
def zone(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[True, False])
def session(request: pytest.FixtureRequest, zone: str | None) -> Iterator[Any]:
    entry = {"ENGINE": "vinyl.backends.sqlite3", "NAME": ":memory:", "TIME_ZONE": zone}
    with override_settings(USE_TZ=request.param), installed({"default": entry}):
        yield connections["default"]


def outcome(function: Any, *args: Any) -> Any:
    try:
        value = function(*args)
    except Exception as error:
        return type(error), str(error)
    return type(value), value


def both(session: Any, name: str, value: Any) -> tuple[Any, Any]:
    ours = getattr(session.ops, name)
    djangos = getattr(super(type(session.ops), session.ops), name)
    assert ours.__func__ is not djangos.__func__
    return outcome(ours, value), outcome(djangos, value)


@pytest.mark.parametrize(
    ("kind", "values"), [("date", DAYS), ("time", CLOCKS), ("datetime", MOMENTS)]
)
def test_as_django(session: Any, kind: str, values: list[Any]) -> None:
    for value in [*values, Value(1)]:
        for _ in range(2):
            ours, djangos = both(session, f"adapt_{kind}field_value", value)
            assert ours == djangos, value


def refuse(*args: Any) -> Any:
    raise AssertionError("left to Django")


class InC:
    """Operations whose usual values are not left to Django."""

    connection = type("Connection", (), {"timezone": UTC})
    date = _sqlite3.adapter("date", refuse, {})
    time = _sqlite3.adapter("time", refuse, {})
    datetime = _sqlite3.adapter("datetime", refuse, {"USE_TZ": True})


@given(value=st.one_of(st.datetimes(), st.datetimes(timezones=st.just(UTC))))
def test_any_datetime(value: datetime.datetime) -> None:
    assert InC().datetime(value) == str(value.replace(tzinfo=None))


@given(value=st.dates())
def test_any_date(value: datetime.date) -> None:
    assert InC().date(value) == str(value)


@given(value=st.times())
def test_any_time(value: datetime.time) -> None:
    assert InC().time(value) == str(value)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_settings_that_change(engine: Engine) -> None:
    value = datetime.datetime(2026, 1, 2, tzinfo=UTC)
    ops = connections[engine.alias].ops
    assert ops.adapt_datetimefield_value(value) == "2026-01-02 00:00:00"
    with override_settings(USE_TZ=False), pytest.raises(ValueError, match="USE_TZ is False"):
        ops.adapt_datetimefield_value(value)
    assert ops.adapt_datetimefield_value(value) == "2026-01-02 00:00:00"
    with override_settings(USE_TZ=True):
        assert ops.adapt_datetimefield_value(value) == "2026-01-02 00:00:00"


def test_adapters_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no adapter 'day'"):
        _sqlite3.adapter("day", str, {})
    with pytest.raises(TypeError):
        _sqlite3.adapter("date", str, None)
    with pytest.raises(AssertionError, match="left to Django"):
        InC().date("2026-01-01")
    with pytest.raises(AssertionError, match="left to Django"):
        InC().datetime()


class Named(uuid.UUID):
    @property
    def hex(self) -> str:
        return "by name"


def test_uuids() -> None:
    for value in (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4(), Named(int=5)):
        assert _sqlite3.uuid_hex(value) == value.hex
    for number in (2**128, -1, "x"):
        odd = uuid.UUID(int=1)
        object.__setattr__(odd, "int", number)
        assert outcome(_sqlite3.uuid_hex, odd) == outcome(lambda odd=odd: odd.hex)
    with pytest.raises(AttributeError):
        _sqlite3.uuid_hex(5)


@pytest.mark.parametrize(
    "value", [each for each in MOMENTS if isinstance(each, datetime.datetime)], ids=as_id
)
def test_is_aware(value: datetime.datetime) -> None:
    def aware(value: datetime.datetime) -> bool:
        return value.utcoffset() is not None

    assert outcome(_core.is_aware, value) == outcome(aware, value)


def test_decimals_go_by_their_adapter(adapters: Callable[..., Any]) -> None:
    class Money(Decimal):
        pass

    link = Database.at(":memory:").own()

    def asked(value: Any) -> Any:
        return link.execute("SELECT typeof(?1), ?1", (value,)).fetchone()

    assert asked(Decimal("1.50")) == ("text", "1.50")
    assert asked(Decimal("1E+3")) == ("text", "1E+3")
    with pytest.raises(sqlite3.ProgrammingError, match="type 'Money' is not supported"):
        asked(Money(1))
    adapters(Decimal, float)
    assert asked(Decimal("1.50")) == ("real", 1.5)
    adapters(Money, repr)
    assert asked(Money(1)) == ("text", "Decimal('1')")
    del sqlite3.adapters[Decimal, sqlite3.PrepareProtocol]
    with pytest.raises(sqlite3.ProgrammingError, match=r"type 'decimal\.Decimal' is not supported"):
        asked(Decimal(1))
    link.close()


def test_saved_and_filtered(engine: Engine) -> None:
    """By every way: the instance's, many at once, a filter."""
    moment = datetime.datetime(2026, 2, 3, 4, 5, 6, 7, UTC)
    values = {
        "day": moment.date(), "clock": moment.time(), "moment": moment, "ident": uuid.UUID(int=5),
        "exact": Decimal("1.5"),
    }  # fmt: skip
    first = Sample.objects.create(**values)
    second, third = Sample.objects.bulk_create([Sample(**values), Sample(**values)])
    third.save()
    Sample.objects.bulk_update([second, third], list(values))
    assert Sample.objects.filter(**values).count() == 3
    assert Sample.objects.values_list(*values).distinct().get() == tuple(values.values())
    first.refresh_from_db()
    assert first.moment == moment
