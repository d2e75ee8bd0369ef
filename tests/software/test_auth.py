"""Django's auth and sessions in asynchronous and synchronous views of one site."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from fix_engine import Engine
from fix_shop import no_new_thread

import vinyl

pytestmark = pytest.mark.modes("asyncio", "uvloop")
BACKENDS = ("db", "cached_db", "signed_cookies", "cache")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_session_through_both_kinds_of_views(
    backend: str, stocked: Engine, shop: Any
) -> None:
    customer = shop(SESSION_ENGINE=f"django.contrib.sessions.backends.{backend}")
    with no_new_thread():
        assert (await customer.get("/counter")).status == 302
        assert (await customer.post("/login", username="ann", password="no")).status == 403
        await customer.log_in("ann")
        for number in range(1, 7, 2):
            answer = (await customer.get("/basket")).json
            assert answer == {"user": "ann", "count": number, "may": False, "where": 1}
            answer = (await customer.get("/counter")).json
            assert answer == {"user": "ann", "count": number + 1, "where": 3}
        assert await Session.vinyl.count() == (backend in ("db", "cached_db"))
        await customer.get("/logout")
        assert (await customer.get("/counter")).status == 302
        assert await Session.vinyl.count() == 0


async def test_permissions(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        await customer.log_in("admin")
        assert (await customer.get("/basket")).json["may"] is True
        await customer.get("/logout")
        await customer.log_in("ann")
        assert (await customer.get("/basket")).json["may"] is False


async def test_a_changed_password_ends_the_session(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        await customer.log_in("ann")
        assert (await customer.get("/counter")).status == 200
        ann = await User.vinyl.get(username="ann")
        ann.set_password("another")
        await ann.save()
        assert (await customer.get("/counter")).status == 302
    assert vinyl.pool_stats(stocked.alias)["requests_errors"] == 0
