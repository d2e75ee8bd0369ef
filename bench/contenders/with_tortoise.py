"""Tortoise ORM: asyncpg on PostgreSQL, aiosqlite on SQLite."""

from __future__ import annotations

import asyncio
from typing import Any

from tortoise import Tortoise, fields
from tortoise.functions import Avg, Count, Max, Sum
from tortoise.models import Model
from work import COLUMNS, CONNECTIONS, NEW, SAVED, WRITTEN

from contenders import Base


class Tag(Model):
    id = fields.BigIntField(primary_key=True)
    name = fields.CharField(max_length=50)

    class Meta:
        table = "shop_tag"


class Maker(Model):
    id = fields.BigIntField(primary_key=True)
    name = fields.CharField(max_length=100)
    founded = fields.DateField(null=True)

    class Meta:
        table = "shop_maker"


class Item(Model):
    id = fields.BigIntField(primary_key=True)
    maker: Any = fields.ForeignKeyField("models.Maker", related_name="items")
    name = fields.CharField(max_length=100)
    text = fields.TextField()
    price = fields.DecimalField(max_digits=10, decimal_places=2)
    weight = fields.FloatField()
    stock = fields.IntField()
    active = fields.BooleanField(default=True)
    created = fields.DatetimeField()
    code = fields.UUIDField()

    class Meta:
        table = "shop_item"


ORDER = {Tag: ("id", "name"), Maker: ("id", "name", "founded"), Item: COLUMNS}


class Contender(Base):
    cannot = {"stream": "it has no streaming: all rows are fetched"}

    async def open(self) -> None:
        if "postgresql" in self.entry["ENGINE"]:
            connection = {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {
                    "host": self.entry["HOST"],
                    "port": int(self.entry["PORT"]),
                    "user": self.entry["USER"],
                    "password": self.entry["PASSWORD"],
                    "database": self.entry["NAME"],
                    "minsize": 1,
                    "maxsize": CONNECTIONS,
                },
            }
        else:
            connection = {
                "engine": "tortoise.backends.sqlite",
                "credentials": {"file_path": self.entry["NAME"], "synchronous": "OFF"},
            }
        await Tortoise.init(
            {
                "connections": {"default": connection},
                "apps": {"models": {"models": [__name__], "default_connection": "default"}},
                "use_tz": True,
                "timezone": "UTC",
            }
        )
        self.saved = await Item.get(pk=SAVED)
        self.many = await Item.all().order_by("id").limit(WRITTEN)

    async def close(self) -> None:
        await Tortoise.close_connections()

    async def get_2(self, pk: int) -> Any:
        return await Tag.get(pk=pk)

    async def get_10(self, pk: int) -> Any:
        return await Item.get(pk=pk)

    async def rows(self, count: int) -> Any:
        return await Item.all().order_by("id").limit(count)

    async def values(self, count: int) -> Any:
        return await Item.all().order_by("id").limit(count).values(*COLUMNS)

    async def values_list(self, count: int) -> Any:
        return await Item.all().order_by("id").limit(count).values_list(*COLUMNS)

    async def select_related(self, count: int) -> Any:
        return await Item.all().select_related("maker").order_by("id").limit(count)

    async def prefetch(self, count: int) -> Any:
        makers = await Maker.all().order_by("id").limit(count).prefetch_related("items")
        return [(maker, list(maker.items)) for maker in makers]

    async def aggregate(self, maker: int) -> Any:
        found = Item.filter(maker_id=maker).annotate(
            n=Count("id"), total=Sum("stock"), mean=Avg("weight"), most=Max("price")
        )
        return tuple(
            (await found.group_by("maker_id").values_list("n", "total", "mean", "most"))[0]
        )

    async def create(self) -> Any:
        return (await Item.create(**NEW)).name

    async def save(self) -> Any:
        self.saved.stock += 1
        await self.saved.save()

    async def bulk_create(self, count: int) -> Any:
        items = [Item(**NEW) for _ in range(count)]
        await Item.bulk_create(items)
        return len(items)

    async def bulk_update(self, count: int) -> Any:
        for item in self.many:
            item.stock += 1
            item.price += 1
        return await Item.bulk_update(self.many, ["stock", "price"])

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.get_10(pk) for pk in range(1, count + 1)])

    def row(self, found: Any) -> tuple[Any, ...]:
        if isinstance(found, Model):
            return tuple(getattr(found, name) for name in ORDER[type(found)])
        return super().row(found)

    def joined(self, found: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return self.row(found), self.row(found.maker)
