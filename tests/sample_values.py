"""Values for each field of library.Sample."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db import models
from django.db.models import Value
from django.utils.translation import gettext_lazy

UTC = datetime.UTC
ROME = ZoneInfo("Europe/Rome")


class Text(str):
    __slots__ = ()


class Stamp(datetime.datetime):
    pass


#: For each field of Sample, values that are plain and values that its methods have to see.
VALUES: dict[str, list[Any]] = {
    "flag": [True, False, None, 1, "t"],
    "small": [1, -5, None, True, "7", 3.0],
    "big": [2**40, 0, None, "12"],
    "real": [1.5, None, 3, "2.5", float("inf")],
    "exact": [Decimal("1.5"), Decimal("-0.000001"), None, 3, 1.25, "7.5"],
    "text": ["a", "", "né\\'\"{},", None, 5, Text("sub"), gettext_lazy("lazy")],
    "data": [b"\x00\xff", None, bytearray(b"x"), memoryview(b"y")],
    "day": [
        datetime.date(2026, 1, 2),
        None,
        "2026-02-03",
        datetime.datetime(2026, 3, 4, tzinfo=UTC),
    ],
    "clock": [datetime.time(1, 2, 3, 4), None, "05:06"],
    "moment": [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        datetime.datetime(2026, 7, 2, 3, 4, tzinfo=ROME),
        None,
        "2026-01-02T03:04:05Z",
        Stamp(2026, 1, 1, tzinfo=UTC),
    ],
    "span": [datetime.timedelta(1, 2, 3), datetime.timedelta(-1), None],
    "ident": [uuid.UUID(int=7), None, "00000000-0000-0000-0000-000000000008"],
    "document": [{"a": [1, None]}, [], None, "text", Value(None, models.JSONField())],
    "address": ["10.0.0.1", "::1", None, ""],
}


def as_id(value: object) -> str:
    """The repr without an address: pytest-xdist wants the same ids in each of its workers."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
