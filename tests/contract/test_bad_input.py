"""What bad input gets: Django's errors, naming the value, with no password anywhere."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from django.db import DataError, OperationalError, connections
from fix_engine import Engine, installed
from fix_mode import run_in_mode
from library.models import Author

import vinyl

SECRET = "open-sesame"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
async def test_an_integer_that_no_column_holds(database: Engine, value: int) -> None:
    async with vinyl.cursor() as cursor:
        with pytest.raises(DataError) as caught:
            if database.name == "sqlite":
                await cursor.execute("SELECT %s", [value])
            else:
                await cursor.execute("SELECT %s::bigint", [value])
    if database.name == "sqlite":
        assert isinstance(caught.value, OverflowError)  # as Django's own backend
        assert "parameter 1 is" in str(caught.value)
        assert len(str(caught.value)) < 200
    assert await Author.vinyl.count() == 0


def shown(error: BaseException) -> str:
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(lines)


def test_no_password_in_a_traceback_with_locals(engine: Engine, mode: str) -> None:
    if engine.name == "sqlite":
        return  # has none
    entry: dict[str, Any] = {**engine.conf, "PASSWORD": SECRET, "HOST": "127.0.0.1", "PORT": "1"}

    async def count() -> None:
        with pytest.raises(OperationalError) as caught:
            await Author.vinyl.count()
        assert SECRET not in shown(caught.value)

    with installed({"default": entry}):
        del entry  # this frame is in the traceback too
        run_in_mode(mode, count)
        with pytest.raises(OperationalError) as caught:
            connections.create_connection("default").ensure_connection()
    text = shown(caught.value)
    assert "conn_params" in text  # the frames that hold the parameters are in it
    assert SECRET not in text
