"""Django's own async API: each query hops through a thread."""

from __future__ import annotations

from typing import Any

from shop.models import Item, Maker, Tag


async def get_2(pk: int) -> Any:
    return await Tag.objects.using("default").aget(pk=pk)


async def get_10(pk: int) -> Any:
    return await Item.objects.using("default").aget(pk=pk)


async def rows(count: int) -> Any:
    return [item async for item in Item.objects.using("default").order_by("pk")[:count]]


async def values(count: int) -> Any:
    found = Item.objects.using("default").order_by("pk").values_list()[:count]
    return [row async for row in found]


async def select_related(count: int) -> Any:
    found = Item.objects.using("default").select_related("maker").order_by("pk")[:count]
    return [item async for item in found]


async def prefetch(count: int) -> Any:
    makers = Maker.objects.using("default").order_by("pk").prefetch_related("items")[:count]
    return [(maker, list(maker.items.all())) async for maker in makers]


async def create() -> Any:
    return (await Tag.objects.using("default").acreate(name="new")).name


async def save(pk: int) -> Any:
    tag = Tag(pk=pk, name="saved")
    tag._state.adding = False
    tag._state.db = "default"
    await tag.asave(force_update=True)
    return tag.name


async def bulk_create(count: int) -> Any:
    tags = [Tag(name="bulk") for _ in range(count)]
    return len(await Tag.objects.using("default").abulk_create(tags))
