"""Django's converters in C give what Django's own give."""

from __future__ import annotations

import datetime
import random
import uuid
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connections, models
from django.db.models.expressions import Col
from django.test import override_settings
from fix_engine import installed

from vinyl import _sqlite3

UTC = datetime.UTC
STAMP = datetime.datetime(2026, 7, 2, 3, 4, 5, 6)

VALUES: dict[Any, list[Any]] = {
    models.BooleanField: [0, 1, 2, 1.0, True, False, None, "x"],
    models.DateField: [datetime.date(2026, 1, 2), "2026-01-02", STAMP, None],
    models.TimeField: [datetime.time(1, 2, 3, 4), "01:02:03", None],
    models.DateTimeField: [
        STAMP,
        STAMP.replace(fold=1),
        STAMP.replace(tzinfo=UTC),
        "2026-01-02 03:04:05",
        None,
    ],
    models.UUIDField: [uuid.UUID(int=5).hex, "F" * 32, str(uuid.UUID(int=2**100)), None],
}


def answer(converter: Any, value: Any) -> Any:
    try:
        result = converter[0](value, converter[1], None)
    except Exception as error:
        return type(error), str(error)
    return type(result), repr(result), getattr(result, "fold", None)


def both(alias: str, field: Any) -> tuple[Any, Any]:
    """Our converter of the field's column, and Django's."""
    field.set_attributes_from_name("x")
    ops = connections[alias].ops
    expression = Col("t", field)
    (ours,) = ops.get_db_converters(expression)
    (djangos,) = super(type(ops), ops).get_db_converters(expression)
    if isinstance(field, models.DecimalField):
        djangos = super(type(ops), ops).get_decimalfield_converter(expression)
    assert type(ours) is type(len)
    assert type(djangos) is not type(len)
    return (ours, expression), (djangos, expression)


@pytest.fixture
def alias() -> Any:
    with installed({"default": {"ENGINE": "vinyl.backends.sqlite3", "NAME": ":memory:"}}):
        yield "default"


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_equal_to_django(alias: str, cls: Any) -> None:
    ours, djangos = both(alias, cls())
    for value in [*VALUES[cls], object, b"x", [], 2**70, -1, "\ud800", "z" * 32]:
        if cls in (models.BooleanField, models.UUIDField) or not isinstance(value, list):
            assert answer(ours, value) == answer(djangos, value), value


@pytest.mark.parametrize("places", [0, 1, 2, 6, 14, 20])
def test_decimals(alias: str, places: int) -> None:
    ours, djangos = both(alias, models.DecimalField(max_digits=20, decimal_places=places))
    narrow, djangos_narrow = both(alias, models.DecimalField(max_digits=5, decimal_places=places))
    rng = random.Random(places)
    values: list[Any] = [
        None,
        0.0,
        -0.0,
        5,
        -7,
        2**60,
        0.5,
        1.5,
        2.5,
        0.05,
        0.045,
        1e15,
        1e-7,
        -1e-9,
    ]
    values += [float("inf"), float("nan"), 999999999999999.0, 123456789012345.6, 0.1 + 0.2, "1.5"]
    values += [rng.randrange(-(10**9), 10**9) / 10 ** rng.randrange(12) for _ in range(3000)]
    values += [rng.uniform(-1, 1) * 10 ** rng.randrange(-12, 17) for _ in range(3000)]
    for value in values:
        assert answer(ours, value) == answer(djangos, value), value
        assert answer(narrow, value) == answer(djangos_narrow, value), value


def test_zones(alias: str) -> None:
    with override_settings(USE_TZ=False):
        ops = connections[alias].ops
        (converter,) = ops.get_db_converters(Col("t", models.DateTimeField()))
        assert converter(STAMP, None, None) == STAMP
    rome = ZoneInfo("Europe/Rome")
    converter = _sqlite3.converter("datetime", lambda *args: 1 / 0, rome)
    assert converter(STAMP, None, None) == STAMP.replace(tzinfo=rome)
    with pytest.raises(ZeroDivisionError):
        converter("x", None, None)


def test_bad_calls() -> None:
    for kind in ("bool", "date", "datetime", "uuid", "decimal"):
        with pytest.raises(TypeError):
            _sqlite3.converter(kind, print)(1)
    with pytest.raises(ValueError, match="no converter"):
        _sqlite3.converter("x", print)
    assert _sqlite3.converter("decimal", print, None, -1) is print
    assert Decimal("0.10") == _sqlite3.converter("decimal", print, None, 2, 5)(0.1, None, None)
