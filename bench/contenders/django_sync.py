"""Django as it is, synchronous: what the others are measured against."""

from __future__ import annotations

from typing import Any

from django.db.models import Avg, Count, Max, Sum
from shop.models import Item, Maker, Tag
from work import CHUNK, NEW, SAVED

from contenders.of_django import DjangoBase


class Contender(DjangoBase):
    async def open(self) -> None:
        self.saved = Item.objects.get(pk=SAVED)
        self.many = list(Item.objects.order_by("pk")[:1000])

    def get_2(self, pk: int) -> Any:
        return Tag.objects.get(pk=pk)

    def get_10(self, pk: int) -> Any:
        return Item.objects.get(pk=pk)

    def rows(self, count: int) -> Any:
        return list(Item.objects.order_by("pk")[:count])

    def values(self, count: int) -> Any:
        return list(Item.objects.order_by("pk").values()[:count])

    def values_list(self, count: int) -> Any:
        return list(Item.objects.order_by("pk").values_list()[:count])

    def select_related(self, count: int) -> Any:
        return list(Item.objects.select_related("maker").order_by("pk")[:count])

    def prefetch(self, count: int) -> Any:
        found = Maker.objects.order_by("pk").prefetch_related("items")[:count]
        return [(maker, list(maker.items.all())) for maker in found]

    def aggregate(self, maker: int) -> Any:
        found = Item.objects.filter(maker=maker).aggregate(
            n=Count("pk"), stock=Sum("stock"), weight=Avg("weight"), price=Max("price")
        )
        return tuple(found.values())

    def create(self) -> Any:
        return Item.objects.create(**NEW).name

    def save(self) -> Any:
        self.saved.stock += 1
        self.saved.save()

    def bulk_create(self, count: int) -> Any:
        return len(Item.objects.bulk_create([Item(**NEW) for _ in range(count)]))

    def bulk_update(self, count: int) -> Any:
        for item in self.many:
            item.stock += 1
            item.price += 1
        return Item.objects.bulk_update(self.many, ["stock", "price"])

    def tasks(self, count: int) -> Any:
        return [Item.objects.get(pk=pk) for pk in range(1, count + 1)]

    def stream(self, count: int) -> Any:
        rows = stock = 0
        for item in Item.objects.order_by("pk")[:count].iterator(chunk_size=CHUNK):
            rows += 1
            stock += item.stock
        return rows, stock
