"""What the tests of the plan cache look at: what went past Django's cursor, with and without
"check"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test.utils import override_settings

from vinyl import direct


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL that went past Django's cursor."""
    seen: list[str] = []
    execute = direct.execute

    def counted(session: Any, sql: str, params: Any, **how: Any) -> Any:
        seen.append(sql)
        return execute(session, sql, params, **how)

    monkeypatch.setattr(direct, "execute", counted)
    return seen


@pytest.fixture(params=("check", True), ids=("checked", "trusted"))
def planning(request: pytest.FixtureRequest) -> Iterator[Any]:
    with override_settings(VINYL={"PLAN_CACHE": request.param}):
        yield request.param
