"""psycopg 3 as it is, asynchronous: tuples, one connection; a pool for the work with tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from work import CHUNK, CONNECTIONS, WRITTEN

from contenders.raw import LOADED, RawBase, Sql, grouped


class Contender(RawBase):
    engines = ("postgresql",)
    sql = Sql(lambda number: "%s")

    async def open(self) -> None:
        where = {
            "host": self.entry["HOST"],
            "port": self.entry["PORT"],
            "user": self.entry["USER"],
            "password": self.entry["PASSWORD"],
            "dbname": self.entry["NAME"],
            "autocommit": True,
        }
        self.connection = await psycopg.AsyncConnection.connect(**where)
        self.pool = AsyncConnectionPool(kwargs=where, min_size=1, max_size=CONNECTIONS, open=False)
        await self.pool.open()
        self.load(await self.get_10(LOADED[0]), await self.rows(LOADED[1]))

    async def close(self) -> None:
        await self.connection.close()
        await self.pool.close()

    async def _one(self, sql: str, *args: Any) -> Any:
        return await (await self.connection.execute(sql, args)).fetchone()

    async def _all(self, sql: str, *args: Any) -> Any:
        return await (await self.connection.execute(sql, args)).fetchall()

    async def get_2(self, pk: int) -> Any:
        return await self._one(self.sql.get_2, pk)

    async def get_10(self, pk: int) -> Any:
        return await self._one(self.sql.get_10, pk)

    async def rows(self, count: int) -> Any:
        return await self._all(self.sql.rows, count)

    async def values(self, count: int) -> Any:
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(self.sql.rows, (count,))
            return await cursor.fetchall()

    values_list = rows

    async def select_related(self, count: int) -> Any:
        return await self._all(self.sql.joined, count)

    async def prefetch(self, count: int) -> Any:
        makers = await self._all(self.sql.makers, count)
        keys = [maker[0] for maker in makers]
        return grouped(makers, await self._all(self.sql.items_of(len(keys)), *keys))

    async def aggregate(self, maker: int) -> Any:
        return await self._one(self.sql.aggregate, maker)

    async def create(self) -> Any:
        await self._one(self.sql.insert, *self.new)
        return self.new[1]

    async def save(self) -> Any:
        await self.connection.execute(self.sql.save, self.saved_again())

    async def bulk_create(self, count: int) -> Any:
        columns = [[value] * count for value in self.new]
        return len(await self._all(self.sql.insert_arrays, *columns))

    async def bulk_update(self, count: int) -> Any:
        stocks, prices, keys = zip(*self.changed(), strict=True)
        columns = [list(keys), list(stocks), list(prices)]
        await self.connection.execute(self.sql.update_arrays, columns)
        return WRITTEN

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self._pooled(pk) for pk in range(1, count + 1)])

    async def _pooled(self, pk: int) -> Any:
        async with self.pool.connection() as connection:
            return await (await connection.execute(self.sql.get_10, (pk,))).fetchone()

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        async with self.connection.transaction(), self.connection.cursor("stream") as cursor:
            cursor.itersize = CHUNK
            await cursor.execute(self.sql.rows, (count,))
            async for row in cursor:
                rows += 1
                stock += row[6]
        return rows, stock
