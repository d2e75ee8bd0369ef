"""Contract, sections 2 and 3: models whose primary key has several columns."""

from __future__ import annotations

from typing import Any

import pytest
from press.models import Seat, Writer

import vinyl


async def numbers(hall: int) -> list[Any]:
    return [*await Seat.vinyl.filter(hall=hall).values_list("number", "name")]


async def test_bulk_create(database: Any) -> None:
    seats = [Seat(hall=1, number=n, name=str(n)) for n in range(3)]
    assert await Seat.vinyl.bulk_create(seats) == seats
    assert await numbers(1) == [(0, "0"), (1, "1"), (2, "2")]
    again = [Seat(pk=(1, n), name="x") for n in (2, 3)]
    await Seat.vinyl.bulk_create(again, ignore_conflicts=True)
    assert await numbers(1) == [(0, "0"), (1, "1"), (2, "2"), (3, "x")]
    await Seat.vinyl.bulk_create(
        again, update_conflicts=True, update_fields=["name"], unique_fields=["hall", "number"]
    )
    assert (await numbers(1))[2:] == [(2, "x"), (3, "x")]


async def test_of_a_relation(database: Any) -> None:
    ann = await Writer.vinyl.create(name="Ann")
    await ann.seats.bulk_create([Seat(hall=2, number=n, taken_by=ann) for n in (1, 2)])
    seat = await ann.seats.create(hall=2, number=3)
    assert seat.pk == (2, 3)
    # Not remove(): Django's looks for the keys in a set, and refuses that itself.
    await ann.seats.add(Seat(hall=2, number=4), bulk=False)
    assert [each.pk for each in await ann.seats.all()] == [(2, 1), (2, 2), (2, 3), (2, 4)]
    await ann.seats.clear()
    assert await ann.seats.count() == 0


async def test_one_row(database: Any) -> None:
    await Seat.vinyl.bulk_create([Seat(hall=h, number=n) for h in (1, 2) for n in (1, 2)])
    for number in (1, 2):
        seat = await Seat.vinyl.get(pk=(1, number))
        seat.name = "mine"
        await seat.save()
        await seat.refresh_from_db()
        assert (seat.pk, seat.name) == ((1, number), "mine")
    assert await Seat.vinyl.filter(pk__in=[(1, 1), (2, 2)]).count() == 2
    assert [*await Seat.vinyl.in_bulk([(2, 1)])] == [(2, 1)]
    assert await Seat.vinyl.bulk_update([seat], ["name"]) == 1
    assert await seat.delete() == (1, {"press.Seat": 1})
    assert await Seat.vinyl.count() == 3
    with pytest.raises(Seat.DoesNotExist):
        await Seat.vinyl.get(pk=(1, 2))


async def test_in_a_fiber(database: Any) -> None:
    def plain() -> int:
        Seat.vinyl.bulk_create([Seat(hall=1, number=n) for n in range(4)])
        Seat.objects.bulk_create([Seat(hall=2, number=n) for n in range(4)])
        return Seat.vinyl.count()

    assert await vinyl.run(plain) == 8
