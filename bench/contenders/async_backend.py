"""django-async-backend: Django's code rewritten as coroutines, on psycopg."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from django.db.models import Avg, Count, Max, Sum
from django_async_backend.db import async_connections, async_new_connection
from shop.models import Item, Tag
from work import NEW, SAVED

from contenders.of_django import DjangoBase

ALIAS = "peer"


class Contender(DjangoBase):
    engines = ("postgresql",)
    cannot = {
        "prefetch": "it has no prefetch_related",
        "stream": "it has no aiterator: all rows are fetched",
    }

    def around(self) -> AbstractAsyncContextManager[None]:
        """A connection belongs to the task that used it first: each sample has its own."""
        return async_new_connection()

    async def open(self) -> None:
        self.items = Item.async_objects.db_manager(ALIAS)
        self.tags = Tag.async_objects.db_manager(ALIAS)
        async with async_new_connection():
            self.saved = await self.items.aget(pk=SAVED)
            self.many = [item async for item in self.items.order_by("pk")[:1000]]

    async def close(self) -> None:
        await async_connections[ALIAS].close_pool()

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

    async def aggregate(self, maker: int) -> Any:
        found = await self.items.filter(maker=maker).aaggregate(
            n=Count("pk"), stock=Sum("stock"), weight=Avg("weight"), price=Max("price")
        )
        return tuple(found.values())

    async def create(self) -> Any:
        return (await self.items.acreate(**NEW)).name

    async def save(self) -> Any:
        self.saved.stock += 1
        await self.saved.async_save(using=ALIAS)

    async def bulk_create(self, count: int) -> Any:
        return len(await self.items.abulk_create([Item(**NEW) for _ in range(count)]))

    async def bulk_update(self, count: int) -> Any:
        for item in self.many:
            item.stock += 1
            item.price += 1
        return await self.items.abulk_update(self.many, ["stock", "price"])

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(
            *[async_new_connection(self.get_10(pk)) for pk in range(1, count + 1)]
        )
