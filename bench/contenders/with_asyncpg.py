"""asyncpg as it is: records, one connection; a pool for the work with tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from work import CHUNK, CONNECTIONS, WRITTEN

from contenders.raw import LOADED, RawBase, Sql, grouped


class Contender(RawBase):
    engines = ("postgresql",)
    sql = Sql(lambda number: f"${number}")

    async def open(self) -> None:
        where = {
            "host": self.entry["HOST"],
            "port": int(self.entry["PORT"]),
            "user": self.entry["USER"],
            "password": self.entry["PASSWORD"],
            "database": self.entry["NAME"],
        }
        self.connection = await asyncpg.connect(**where)
        self.pool = await asyncpg.create_pool(**where, min_size=1, max_size=CONNECTIONS)
        self.load(await self.get_10(LOADED[0]), await self.rows(LOADED[1]))

    async def close(self) -> None:
        await self.connection.close()
        await self.pool.close()

    async def get_2(self, pk: int) -> Any:
        return await self.connection.fetchrow(self.sql.get_2, pk)

    async def get_10(self, pk: int) -> Any:
        return await self.connection.fetchrow(self.sql.get_10, pk)

    async def rows(self, count: int) -> Any:
        return await self.connection.fetch(self.sql.rows, count)

    async def values(self, count: int) -> Any:
        return [dict(row) for row in await self.connection.fetch(self.sql.rows, count)]

    async def values_list(self, count: int) -> Any:
        return [tuple(row) for row in await self.connection.fetch(self.sql.rows, count)]

    async def select_related(self, count: int) -> Any:
        return await self.connection.fetch(self.sql.joined, count)

    async def prefetch(self, count: int) -> Any:
        makers = await self.connection.fetch(self.sql.makers, count)
        keys = [maker["id"] for maker in makers]
        return grouped(makers, await self.connection.fetch(self.sql.items_of(len(keys)), *keys))

    async def aggregate(self, maker: int) -> Any:
        return tuple(await self.connection.fetchrow(self.sql.aggregate, maker))

    async def create(self) -> Any:
        await self.connection.fetchval(self.sql.insert, *self.new)
        return self.new[1]

    async def save(self) -> Any:
        await self.connection.execute(self.sql.save, *self.saved_again())

    async def bulk_create(self, count: int) -> Any:
        columns = [[value] * count for value in self.new]
        return len(await self.connection.fetch(self.sql.insert_arrays, *columns))

    async def bulk_update(self, count: int) -> Any:
        stocks, prices, keys = zip(*self.changed(), strict=True)
        await self.connection.execute(self.sql.update_arrays, keys, stocks, prices)
        return WRITTEN

    async def tasks(self, count: int) -> Any:
        one = self.pool.fetchrow
        return await asyncio.gather(*[one(self.sql.get_10, pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        async with self.connection.transaction():
            async for row in self.connection.cursor(self.sql.rows, count, prefetch=CHUNK):
                rows += 1
                stock += row["stock"]
        return rows, stock
