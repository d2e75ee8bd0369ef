"""Django REST framework: its views and serializers, under our ASGI handler and in `vinyl.run`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from fix_engine import Engine
from fix_shop import no_new_thread
from recordshop import rest
from recordshop.models import Artist, Label, Record, Track
from rest_framework.serializers import ValidationError
from rest_framework.test import APIRequestFactory, force_authenticate

import vinyl

TRACKS = [
    {"side": "A", "number": 1, "title": "Barcarole", "seconds": 197},
    {"side": "A", "number": 2, "title": "Are You Going with Me?", "seconds": 531},
]


async def a_new_record(**more: Any) -> dict[str, Any]:
    artist, label = await Artist.vinyl.get(name="Pat Metheny"), await Label.vinyl.get(name="ECM")
    data = {"title": "Offramp", "artist": artist.pk, "label": label.pk, "styles": []}
    return {**data, "released": "1982-05-01", "price": "21.50", "tracks": TRACKS, **more}


@pytest.mark.modes("asyncio", "uvloop")
async def test_a_viewset_under_asgi(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        page = (await customer.get("/rest/records/", page=2)).json
        assert (page["count"], len(page["results"])) == (12, 5)
        assert (await customer.send("POST", "/rest/records/", {})).status == 403
        await customer.log_in("ann")
        assert (await customer.get("/rest/whoami/")).json == {"user": "ann"}
        answer = await customer.send("POST", "/rest/records/", await a_new_record())
        assert answer.status == 201, answer.text
        assert answer.json["artist_name"] == "Pat Metheny"
        place = f"/rest/records/{answer.json['id']}/"
        assert (await customer.get(place)).json["tracks"] == TRACKS
        assert (await customer.send("POST", f"{place}sell/")).status == 409
        answer = await customer.send("PATCH", place, {"copies": 2, "price": "19.00"})
        assert (answer.status, answer.json["price"]) == (200, "19.00")
        assert (await customer.send("POST", f"{place}sell/")).json == {"copies": 1}
        assert (await customer.send("DELETE", place)).status == 204
        assert (await customer.get(place)).status == 404
    assert await Track.vinyl.filter(title="Barcarole").count() == 0


@pytest.mark.modes("asyncio", "uvloop")
async def test_what_is_not_valid(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        await customer.log_in("ann")
        data = await a_new_record(artist=0, price="0.10", released="soon")
        answer = await customer.send("POST", "/rest/records/", data)
        assert answer.status == 400
        assert set(answer.json) == {"artist", "price", "released"}
        miles = await Artist.vinyl.get(name="Miles Davis")
        data = await a_new_record(artist=miles.pk, title="Milestones")
        answer = await customer.send("POST", "/rest/records/", data)
        assert "must make a unique set" in answer.text


@pytest.mark.modes("asyncio", "uvloop")
async def test_generic_views_and_the_browsable_api(stocked: Engine, shop: Any) -> None:
    customer = shop()
    with no_new_thread():
        await customer.log_in("admin")
        answer = await customer.send("POST", "/rest/artists/", {"name": "Bill Evans"})
        assert answer.status == 201
        place = f"/rest/artists/{answer.json['id']}/"
        assert (await customer.send("PUT", place, {"name": "Bill Evans", "formed": 1950})).json == {
            "id": answer.json["id"],
            "name": "Bill Evans",
            "formed": 1950,
            "records": [],
        }
        page = await customer.get("/rest/records/", format="api")
        assert "Kind of Blue" not in page.text  # on the second page
        assert "Moanin&#x27;" in page.text
        # The form's choices are read while the page is rendered.
        assert "Keith Jarrett" in page.text


def _in_use(engine: Engine) -> int:
    stats = vinyl.pool_stats(engine.alias)
    return stats["pool_size"] - stats["pool_available"]


@pytest.mark.modes("asyncio", "uvloop")
async def test_many_at_once(stocked: Engine, shop: Any) -> None:
    customer = shop()
    before = _in_use(stocked)
    with no_new_thread():
        answers = await asyncio.gather(
            *(customer.get("/rest/records/", page=1 + each % 3) for each in range(24))
        )
        counts = [len(each.json["results"]) for each in answers]
        assert counts == [5, 5, 2] * 8
    assert _in_use(stocked) == before


async def test_generic_views_in_run(stocked: Engine) -> None:
    """A synchronous view is called like any other function, in all modes."""
    ann = await User.vinyl.get(username="ann")
    make = APIRequestFactory()
    with no_new_thread():
        request = make.post("/rest/records/", await a_new_record(), format="json")
        view = rest.RecordViewSet.as_view({"get": "list", "post": "create"})
        assert (await vinyl.run(view, request)).status_code == 403
        force_authenticate(request, ann)
        response = await vinyl.run(view, request)
        assert response.status_code == 201, response.data
        response = await vinyl.run(view, make.get("/rest/records/", {"artist": "", "page": 3}))
        assert [each["title"] for each in response.data["results"]] == [
            "Bright Size Life",
            "Offramp",
            "Speak No Evil",
        ]
        await vinyl.run(response.render)
        assert b"Barcarole" in response.content


async def test_serializers_in_run(stocked: Engine) -> None:
    with no_new_thread():
        serializer = rest.RecordSerializer(data=await a_new_record())
        assert await vinyl.run(serializer.is_valid), serializer.errors
        record = await vinyl.run(serializer.save)
        assert await record.tracks.count() == 2
        assert await (await record.artist).records.count() == 2
        wrong = rest.RecordSerializer(data=await a_new_record(label=0))
        with pytest.raises(ValidationError, match="does_not_exist"):
            await vinyl.run(wrong.is_valid, raise_exception=True)


async def test_serializing_what_is_fetched(stocked: Engine) -> None:
    """What needs no fetch is plain: a serializer of fetched instances is called as it is."""
    records = await Record.vinyl.select_related("artist").prefetch_related("styles", "tracks")
    data = rest.RecordSerializer(records, many=True).data
    assert len(data) == 12
    assert {each["artist_name"] for each in data} >= {"Miles Davis", "Pat Metheny"}
    assert sum(len(each["tracks"]) for each in data) == 10


async def test_a_serializer_that_must_fetch_says_so(stocked: Engine) -> None:
    record = await Record.vinyl.get(title="Blue Train")
    with pytest.raises(vinyl.NotFetched, match=r"vinyl\.run"):
        _ = rest.RecordSerializer(record).data
    data = await vinyl.run(lambda: rest.RecordSerializer(record).data)
    assert len(data["tracks"]) == 5
