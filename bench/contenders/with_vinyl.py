"""vinyl: on asyncio, on uvloop, and with no loop under vinyl.drive."""

from __future__ import annotations

from typing import Any

from django.db.models import Avg, Count, Max, Sum
from shop.models import Item, Maker, Tag
from work import CHUNK, NEW, SAVED

import vinyl
from contenders.of_django import DjangoBase


class Contender(DjangoBase):
    async def open(self) -> None:
        self.saved = await Item.vinyl.get(pk=SAVED)
        self.many = await Item.vinyl.order_by("pk")[:1000]

    async def get_2(self, pk: int) -> Any:
        return await Tag.vinyl.get(pk=pk)

    async def get_10(self, pk: int) -> Any:
        return await Item.vinyl.get(pk=pk)

    async def rows(self, count: int) -> Any:
        return await Item.vinyl.order_by("pk")[:count]

    async def values(self, count: int) -> Any:
        return await Item.vinyl.order_by("pk").values()[:count]

    async def values_list(self, count: int) -> Any:
        return await Item.vinyl.order_by("pk").values_list()[:count]

    async def select_related(self, count: int) -> Any:
        return await Item.vinyl.select_related("maker").order_by("pk")[:count]

    async def prefetch(self, count: int) -> Any:
        found = await Maker.vinyl.order_by("pk").prefetch_related("items")[:count]
        return [(maker, list(maker.items.all())) for maker in found]

    async def aggregate(self, maker: int) -> Any:
        found = await Item.vinyl.filter(maker=maker).aggregate(
            n=Count("pk"), stock=Sum("stock"), weight=Avg("weight"), price=Max("price")
        )
        return tuple(found.values())

    async def create(self) -> Any:
        return (await Item.vinyl.create(**NEW)).name

    async def save(self) -> Any:
        self.saved.stock += 1
        await self.saved.save()

    async def bulk_create(self, count: int) -> Any:
        return len(await Item.vinyl.bulk_create([Item(**NEW) for _ in range(count)]))

    async def bulk_update(self, count: int) -> Any:
        for item in self.many:
            item.stock += 1
            item.price += 1
        return await Item.vinyl.bulk_update(self.many, ["stock", "price"])

    async def tasks(self, count: int) -> Any:
        return await vinyl.gather(*[Item.vinyl.get(pk=pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        async for item in Item.vinyl.order_by("pk")[:count].iterator(chunk_size=CHUNK):
            rows += 1
            stock += item.stock
        return rows, stock
