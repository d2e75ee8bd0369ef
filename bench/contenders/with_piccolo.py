"""Piccolo: asyncpg on PostgreSQL, aiosqlite on SQLite.

It runs in a process of its own: it registers converters of its own for all of Python's sqlite3.
"""

from __future__ import annotations

import asyncio
from typing import Any

from piccolo.columns import (
    UUID,
    BigSerial,
    Boolean,
    Date,
    DoublePrecision,
    ForeignKey,
    Integer,
    Numeric,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import SQLiteEngine
from piccolo.query.functions.aggregate import Avg, Count, Max, Sum
from piccolo.table import Table
from work import CHUNK, CONNECTIONS, NEW, SAVED

from contenders import Base


class Tag(Table, tablename="shop_tag"):
    id = BigSerial(primary_key=True)
    name = Varchar(50)


class Maker(Table, tablename="shop_maker"):
    id = BigSerial(primary_key=True)
    name = Varchar(100)
    founded = Date(null=True)


class Item(Table, tablename="shop_item"):
    id = BigSerial(primary_key=True)
    maker = ForeignKey(Maker, db_column_name="maker_id")
    name = Varchar(100)
    text = Text()
    price = Numeric((10, 2))
    weight = DoublePrecision()
    stock = Integer()
    active = Boolean()
    created = Timestamptz()
    code = UUID()


FRESH = {("maker" if name == "maker_id" else name): value for name, value in NEW.items()}


class Contender(Base):
    cannot = {
        "values_list": "it has no rows as tuples",
        "prefetch": "it has no reverse relations",
        "bulk_update": "it has none",
    }

    async def open(self) -> None:
        self.postgres = "postgresql" in self.entry["ENGINE"]
        if self.postgres:
            config = {
                "host": self.entry["HOST"],
                "port": int(self.entry["PORT"]),
                "user": self.entry["USER"],
                "password": self.entry["PASSWORD"],
                "database": self.entry["NAME"],
            }
            self.engine: Any = PostgresEngine(config, extensions=(), log_queries=False)
            await self.engine.start_connection_pool(min_size=1, max_size=CONNECTIONS)
        else:
            self.engine = SQLiteEngine(path=self.entry["NAME"])
        for table in (Tag, Maker, Item):
            table._meta._db = self.engine
        self.saved = await Item.objects().get(Item.id == SAVED)

    async def close(self) -> None:
        if self.postgres:
            await self.engine.close_connection_pool()

    async def get_2(self, pk: int) -> Any:
        return await Tag.objects().get(Tag.id == pk)

    async def get_10(self, pk: int) -> Any:
        return await Item.objects().get(Item.id == pk)

    async def rows(self, count: int) -> Any:
        return await Item.objects().order_by(Item.id).limit(count)

    async def values(self, count: int) -> Any:
        return await Item.select().order_by(Item.id).limit(count)

    async def select_related(self, count: int) -> Any:
        return await Item.objects(Item.maker).order_by(Item.id).limit(count)

    async def aggregate(self, maker: int) -> Any:
        found = await Item.select(
            Count(Item.id, alias="n"),
            Sum(Item.stock, alias="total"),
            Avg(Item.weight, alias="mean"),
            Max(Item.price, alias="most"),
        ).where(Item.maker == maker)
        return tuple(found[0].values())

    async def create(self) -> Any:
        return (await Item.objects().create(**FRESH)).name

    async def save(self) -> Any:
        self.saved.stock += 1
        await self.saved.save()

    async def bulk_create(self, count: int) -> Any:
        return len(await Item.insert(*[Item(**FRESH) for _ in range(count)]))

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.get_10(pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        found = Item.objects().order_by(Item.id).limit(count)
        async with await found.batch(batch_size=CHUNK) as batch:
            async for items in batch:
                for item in items:
                    rows += 1
                    stock += item.stock
        return rows, stock

    def comparable(self, shape: str, answer: Any) -> Any:
        if shape == "dicts":
            return [
                {("maker_id" if key == "maker" else key): value for key, value in each.items()}
                for each in answer
            ]
        return super().comparable(shape, answer)

    def row(self, found: Any) -> tuple[Any, ...]:
        if isinstance(found, Table):
            columns = found._meta.columns
            values = [getattr(found, column._meta.name) for column in columns]
            return tuple(v.id if isinstance(v, Table) else v for v in values)
        return super().row(found)

    def joined(self, found: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return self.row(found), self.row(found.maker)
