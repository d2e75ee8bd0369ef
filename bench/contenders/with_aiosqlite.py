"""aiosqlite as it is: SQLite's own values in tuples, one connection and its thread."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from decimal import Decimal
from typing import Any

import aiosqlite
from work import CHUNK, WRITTEN

from contenders.raw import LOADED, RawBase, Sql, grouped


class Contender(RawBase):
    engines = ("sqlite",)
    sql = Sql(lambda number: "?")

    def encode(self, value: Any) -> Any:
        """As Django stores it: the driver has no types of its own."""
        match value:
            case Decimal():
                return str(value)
            case uuid.UUID():
                return value.hex
            case datetime.datetime():
                return value.replace(tzinfo=None).isoformat(" ")
        return value

    async def open(self) -> None:
        # Transactions are begun where they are wanted; statements are kept prepared.
        self.connection = await aiosqlite.connect(self.entry["NAME"], isolation_level=None)
        await self.connection.execute("PRAGMA synchronous=OFF")
        await self.connection.execute("PRAGMA foreign_keys=ON")
        self.load(await self.get_10(LOADED[0]), await self.rows(LOADED[1]))

    async def close(self) -> None:
        await self.connection.close()

    async def _one(self, sql: str, *args: Any) -> Any:
        async with self.connection.execute(sql, args) as cursor:
            return await cursor.fetchone()

    async def _all(self, sql: str, *args: Any) -> Any:
        return await self.connection.execute_fetchall(sql, args)

    async def get_2(self, pk: int) -> Any:
        return await self._one(self.sql.get_2, pk)

    async def get_10(self, pk: int) -> Any:
        return await self._one(self.sql.get_10, pk)

    async def rows(self, count: int) -> Any:
        return await self._all(self.sql.rows, count)

    async def values(self, count: int) -> Any:
        async with self.connection.execute(self.sql.rows, (count,)) as cursor:
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]

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
        await self._many(self.sql.insert.removesuffix(" RETURNING id"), [self.new] * count)
        return count

    async def bulk_update(self, count: int) -> Any:
        await self._many(self.sql.update, self.changed())
        return WRITTEN

    async def _many(self, sql: str, rows: list[Any]) -> None:
        await self.connection.execute("BEGIN")
        await self.connection.executemany(sql, rows)
        await self.connection.execute("COMMIT")

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.get_10(pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        async with self.connection.execute(self.sql.rows, (count,)) as cursor:
            while found := await cursor.fetchmany(CHUNK):
                for row in found:
                    rows += 1
                    stock += row[6]
        return rows, stock
