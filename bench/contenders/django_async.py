"""Django's own async API: each query hops through a thread."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Avg, Count, Max, Sum
from shop.models import Item, Maker, Tag
from work import CHUNK, NEW, SAVED

from contenders.of_django import DjangoBase


class Contender(DjangoBase):
    alias = "default"

    async def open(self) -> None:
        self.items = Item.objects.db_manager(self.alias)
        self.makers = Maker.objects.db_manager(self.alias)
        self.tags = Tag.objects.db_manager(self.alias)
        self.saved = await self.items.aget(pk=SAVED)
        self.many = [item async for item in self.items.order_by("pk")[:1000]]

    async def get_2(self, pk: int) -> Any:
        return await self.tags.aget(pk=pk)

    async def get_10(self, pk: int) -> Any:
        return await self.items.aget(pk=pk)

    async def rows(self, count: int) -> Any:
        return [item async for item in self.items.order_by("pk")[:count]]

    async def values(self, count: int) -> Any:
        return [row async for row in self.items.order_by("pk").values()[:count]]

    async def values_list(self, count: int) -> Any:
        return [row async for row in self.items.order_by("pk").values_list()[:count]]

    async def select_related(self, count: int) -> Any:
        found = self.items.select_related("maker").order_by("pk")[:count]
        return [item async for item in found]

    async def prefetch(self, count: int) -> Any:
        found = self.makers.order_by("pk").prefetch_related("items")[:count]
        return [(maker, list(maker.items.all())) async for maker in found]

    async def aggregate(self, maker: int) -> Any:
        found = await self.items.filter(maker=maker).aaggregate(
            n=Count("pk"), stock=Sum("stock"), weight=Avg("weight"), price=Max("price")
        )
        return tuple(found.values())

    async def create(self) -> Any:
        return (await self.items.acreate(**NEW)).name

    async def save(self) -> Any:
        # What asave() is in Django; in a coroutine vinyl, where it is installed, takes that name.
        self.saved.stock += 1
        await sync_to_async(self.saved.save)()

    async def bulk_create(self, count: int) -> Any:
        return len(await self.items.abulk_create([Item(**NEW) for _ in range(count)]))

    async def bulk_update(self, count: int) -> Any:
        for item in self.many:
            item.stock += 1
            item.price += 1
        return await self.items.abulk_update(self.many, ["stock", "price"])

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.items.aget(pk=pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        async for item in self.items.order_by("pk")[:count].aiterator(chunk_size=CHUNK):
            rows += 1
            stock += item.stock
        return rows, stock
