"""django-ninja: asynchronous views with its schemas, filters, pagination and authentication."""

from __future__ import annotations

from typing import Any

import pytest
from fix_engine import Engine
from fix_shop import no_new_thread
from recordshop.models import Artist, Label, Record

pytestmark = pytest.mark.modes("asyncio", "uvloop")


async def test_reading(stocked: Engine, shop: Any) -> None:
    customer = shop()
    record = await Record.vinyl.get(title="Milestones")
    with no_new_thread():
        answer = (await customer.get(f"/ninja/records/{record.pk}")).json
        assert answer["title"] == "Milestones"
        assert answer["artist"]["name"] == "Miles Davis"
        assert answer["styles"] == ["Hard bop", "Modal"]
        assert (await customer.get("/ninja/openapi.json")).json["info"]["title"]
        found = (await customer.get("/ninja/records", artist__name="Miles Davis")).json
        assert [each["title"] for each in found] == [
            "Milestones",
            "Kind of Blue",
            "In a Silent Way",
        ]
        found = (
            await customer.get("/ninja/records", artist__name="Miles Davis", copies__gt=0)
        ).json
        assert [each["title"] for each in found] == ["Milestones", "Kind of Blue"]
        assert (await customer.get("/ninja/records", copies__gt="many")).status == 422


async def test_pagination(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        page = (await customer.get("/ninja/pages", page=2)).json
    assert page["count"] == 8
    assert [each["name"] for each in page["items"]] == [
        "John Coltrane",
        "Keith Jarrett",
        "Miles Davis",
    ]


async def test_writing_needs_a_user(stocked: Engine, shop: Any) -> None:
    customer = shop()
    artist, label = await Artist.vinyl.get(name="Pat Metheny"), await Label.vinyl.get(name="ECM")
    data = {
        "title": "Offramp",
        "artist_id": artist.pk,
        "label_id": label.pk,
        "released": "1982-05-01",
        "price": 21.5,
    }
    with no_new_thread():
        assert (await customer.send("POST", "/ninja/records", data)).status == 403  # CSRF
        await customer.get("/admin/login/")
        assert (await customer.send("POST", "/ninja/records", data)).status == 401
        await customer.log_in("ann")
        answer = await customer.send("POST", "/ninja/records", data)
        assert answer.status == 201, answer.text
        assert answer.json["artist"]["name"] == "Pat Metheny"
        wrong = await customer.send("POST", "/ninja/records", data | {"price": "dear"})
        assert wrong.status == 422
    assert await Record.vinyl.filter(title="Offramp").count() == 1


async def test_a_synchronous_view_beside_an_asynchronous_one(stocked: Engine, shop: Any) -> None:
    customer = shop()
    record = await Record.vinyl.get(title="Milestones")
    path = f"/ninja/sync-sale/{record.pk}"
    with no_new_thread():
        await customer.get("/admin/login/")
        assert (await customer.send("POST", path)).status == 401
        await customer.log_in("ann")
        assert (await customer.send("POST", path)).json == {"copies": 1, "by": "ann"}
        assert (await customer.get(path)).json == {"copies": 1}
