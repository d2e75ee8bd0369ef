"""django-filter: filter sets in views, in `vinyl.run`, and as DRF's filter backend."""

from __future__ import annotations

from typing import Any

import pytest
from fix_engine import Engine
from fix_shop import no_new_thread
from recordshop.filters import RecordFilter
from recordshop.models import Artist, Label, Record, Style

import vinyl


@pytest.mark.modes("asyncio", "uvloop")
async def test_a_filtered_page(stocked: Engine, shop: Any) -> None:
    customer = shop()
    miles = await Artist.vinyl.get(name="Miles Davis")
    with no_new_thread():
        answer = await customer.get("/filtered", artist=miles.pk, by_price="-price")
        assert answer.json["titles"] == ["Kind of Blue", "In a Silent Way", "Milestones"]
        answer = await customer.get("/filtered", title="BLUE", in_stock="true")
        assert answer.json["titles"] == ["Blue Train", "Kind of Blue"]
        answer = await customer.get("/filtered", artist=0)
        assert (answer.status, set(answer.json)) == (400, {"artist"})
        found = await customer.get("/rest/records/", artist=miles.pk, in_stock="false")
        assert [each["title"] for each in found.json["results"]] == ["In a Silent Way"]
        assert (await customer.get("/rest/records/", artist=0)).status == 400


async def test_a_filter_set_in_a_coroutine(stocked: Engine) -> None:
    """Validation looks up the chosen rows, so it runs in a fiber; the queryset is awaited."""
    label, style = await Label.vinyl.get(name="Blue Note"), await Style.vinyl.get(name="Modal")
    chosen = {"label": label.pk, "styles": [style.pk], "by_price": "price"}
    with no_new_thread():
        found = RecordFilter(chosen, queryset=Record.vinyl.all())
        assert await vinyl.run(found.is_valid), found.errors
        records = await found.qs
    assert [each.title for each in records] == ["Maiden Voyage", "Speak No Evil"]


async def test_the_form_of_a_filter_set(stocked: Engine) -> None:
    """Rendering it reads the choices."""
    found = RecordFilter({"cheaper_than": "24"}, queryset=Record.vinyl.all())
    with no_new_thread():
        html = await vinyl.run(found.form.as_p)
        titles = [each.title for each in await vinyl.run(lambda: list(found.qs))]
    assert html.count("<option") == 8 + 1 + 4 + 1 + 4 + 3 + 3 + 3
    assert titles == ["Head Hunters", "Bright Size Life"]
