"""django-debug-toolbar: its SQL panel shows a request's statements, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from debug_toolbar.toolbar import DebugToolbar
from fix_engine import Engine
from fix_shop import TOOLBAR, Customer, no_new_thread
from recordshop.models import Artist, Record
from recordshop.settings import MIDDLEWARE
from web.client import Visit

import vinyl

pytestmark = pytest.mark.modes("asyncio", "uvloop")
ARTISTS = ("Miles Davis", "Herbie Hancock", "John Coltrane")
KINDS = ("shelf", "sync-shelf", "gathered-shelf")


@pytest.fixture
def toolbar(stocked: Engine, shop: Any) -> Customer:
    return shop(
        DEBUG=True,
        INTERNAL_IPS=["127.0.0.1"],
        MIDDLEWARE=[TOOLBAR, *MIDDLEWARE],
        DEBUG_TOOLBAR_CONFIG={"RESULTS_CACHE_SIZE": 100},
    )


def panel_of(page: Visit) -> dict[str, Any]:
    """What the SQL panel has on the request that brought this page."""
    number = page.headers["djdt-request-id"]
    toolbar = DebugToolbar.fetch(number, "SQLPanel")
    assert toolbar is not None, page.text
    return toolbar.get_panel_by_id("SQLPanel").get_stats()


def statements(page: Visit) -> list[str]:
    return [each["raw_sql"] for each in panel_of(page)["queries"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sql_panel(kind: str, toolbar: Customer) -> None:
    with no_new_thread():
        page = await toolbar.get(f"/{kind}", artist="Miles Davis")
        assert page.status == 200
        assert "djDebug" in page.text
        assert "Kind of Blue" in page.text
        seen = statements(page)
        assert len(seen) == 2, seen
        assert any('FROM "recordshop_artist"' in each for each in seen)
        assert any('FROM "recordshop_record"' in each for each in seen)
        stats = panel_of(page)
        assert all(each["duration"] > 0 for each in stats["queries"])


async def test_no_other_tasks_statements(toolbar: Customer) -> None:
    """Requests of each kind side by side, and a task that has nothing to do with them."""

    async def chatter() -> None:
        while True:
            await Record.vinyl.filter(title="chatter").count()
            await asyncio.sleep(0)

    other = asyncio.create_task(chatter())
    with no_new_thread():
        wanted = [(kind, artist) for kind in KINDS for artist in ARTISTS]
        pages = await asyncio.gather(
            *(toolbar.get(f"/{kind}", artist=artist) for kind, artist in wanted)
        )
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    artists = {each.name: each.pk for each in await Artist.vinyl.all()}
    for (kind, artist), page in zip(wanted, pages, strict=True):
        params = [str(each["params"]) for each in panel_of(page)["queries"]]
        assert len(params) == 2, (kind, params)
        assert artist in params[0] + params[1]
        others = [str(name) for name in ARTISTS if name != artist]
        assert not any(name in each for name in others for each in params)
        if kind != "gathered-shelf":
            assert f"{artists[artist]}" in params[1]


async def test_the_log_is_the_requests_alone(toolbar: Customer) -> None:
    """Once the request is over its connection is as it was."""
    await toolbar.get("/shelf", artist="Miles Davis")
    page = await toolbar.get("/sync-shelf", artist="Miles Davis")
    await Record.vinyl.count()
    assert len(statements(page)) == 2
    assert vinyl.pool_stats()["requests_errors"] == 0


async def test_the_panels_page_and_the_admin(toolbar: Customer) -> None:
    with no_new_thread():
        await toolbar.log_in("admin")
        page = await toolbar.get("/admin/recordshop/record/")
        assert "12 records" in page.text
        seen = statements(page)
        assert sum("recordshop_record" in each for each in seen) >= 3
        number = page.headers["djdt-request-id"]
        answer = await toolbar.get(
            "/__debug__/render_panel/", request_id=number, panel_id="SQLPanel"
        )
        content = answer.json["content"]
        assert "recordshop_record" in content
