"""vinyl: on asyncio, on uvloop, and with no loop under vinyl.drive."""

from __future__ import annotations

from typing import Any

from shop.models import Item, Maker, Tag


async def get_2(pk: int) -> Any:
    return await Tag.vinyl.get(pk=pk)


async def get_10(pk: int) -> Any:
    return await Item.vinyl.get(pk=pk)


async def rows(count: int) -> Any:
    return await Item.vinyl.order_by("pk")[:count]


async def values(count: int) -> Any:
    return await Item.vinyl.order_by("pk").values_list()[:count]


async def select_related(count: int) -> Any:
    return await Item.vinyl.select_related("maker").order_by("pk")[:count]


async def prefetch(count: int) -> Any:
    makers = await Maker.vinyl.order_by("pk").prefetch_related("items")[:count]
    return [(maker, list(maker.items.all())) for maker in makers]


async def create() -> Any:
    return (await Tag.vinyl.create(name="new")).name


async def save(pk: int) -> Any:
    tag = Tag(pk=pk, name="saved")
    tag._state.adding = False
    tag._state.db = "vinyl"
    await tag.save(force_update=True)
    return tag.name


async def bulk_create(count: int) -> Any:
    return len(await Tag.vinyl.bulk_create([Tag(name="bulk") for _ in range(count)]))
