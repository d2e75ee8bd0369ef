"""The fixtures of fix_engine: each test finds empty tables, on the engine it asked for."""

from __future__ import annotations

from django.db import connection, connections
from fix_engine import Engine
from library.models import Publisher


def _one_row(engine: Engine) -> None:
    assert not Publisher.objects.exists()
    Publisher.objects.create(name="first")
    assert Publisher.objects.count() == 1


def test_plain_sync_code_on_the_engine(engine: Engine) -> None:
    assert connection.vendor == engine.name
    assert connection.settings_dict["ENGINE"].startswith("vinyl.backends.")
    _one_row(engine)


def test_tables_are_empty_again(engine: Engine) -> None:
    _one_row(engine)


def test_twin_keeps_djangos_own_backend(twin: Engine) -> None:
    assert connections["default"].settings_dict["ENGINE"].startswith("django.db.backends.")
    assert connections["vinyl"].settings_dict["ENGINE"].startswith("vinyl.backends.")
    _one_row(twin)
    assert Publisher.objects.using("vinyl").count() == 1
