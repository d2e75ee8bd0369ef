"""SQLAlchemy's ORM, asynchronous: asyncpg on PostgreSQL, aiosqlite on SQLite.

A session for each call.  Like Django, single statements commit themselves (AUTOCOMMIT).
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import uuid
import warnings
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from work import CHUNK, COLUMNS, CONNECTIONS, NEW, SAVED, WRITTEN

from contenders import Base

warnings.filterwarnings("ignore", ".*does \\*not\\* support Decimal objects natively.*")


class Moment(sa.types.TypeDecorator[datetime.datetime]):
    """In UTC; SQLite's have no zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value.replace(tzinfo=datetime.UTC) if value and not value.tzinfo else value


class Model(DeclarativeBase):
    pass


class Tag(Model):
    __tablename__ = "shop_tag"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Maker(Model):
    __tablename__ = "shop_maker"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    founded: Mapped[datetime.date | None] = mapped_column(sa.Date)
    items: Mapped[list[Item]] = relationship(back_populates="maker")


class Item(Model):
    __tablename__ = "shop_item"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    maker_id: Mapped[int] = mapped_column(sa.ForeignKey("shop_maker.id"))
    name: Mapped[str] = mapped_column(sa.String(100))
    text: Mapped[str] = mapped_column(sa.Text)
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    weight: Mapped[float] = mapped_column(sa.Float)
    stock: Mapped[int] = mapped_column(sa.Integer)
    active: Mapped[bool] = mapped_column(sa.Boolean)
    created: Mapped[datetime.datetime] = mapped_column(Moment)
    code: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    maker: Mapped[Maker] = relationship(back_populates="items")


TABLE = [getattr(Item, name) for name in COLUMNS]


class Contender(Base):
    async def open(self) -> None:
        if "postgresql" in self.entry["ENGINE"]:
            url = sa.URL.create(
                "postgresql+asyncpg", self.entry["USER"], self.entry["PASSWORD"],
                self.entry["HOST"], int(self.entry["PORT"]), self.entry["NAME"],
            )  # fmt: skip
        else:
            url = sa.URL.create("sqlite+aiosqlite", database=self.entry["NAME"])
        self.engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        if url.drivername.startswith("sqlite"):

            @sa.event.listens_for(self.engine.sync_engine, "connect")
            def pragmas(connection: Any, record: Any) -> None:
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA foreign_keys=ON")

        self.auto = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with self.session() as session:
            self.saved = await session.get(Item, SAVED)
            found = sa.select(Item.id, Item.stock, Item.price).order_by(Item.id).limit(WRITTEN)
            rows = (await session.execute(found)).mappings()
            self.many = [dict(row) for row in rows]

    async def close(self) -> None:
        await self.engine.dispose()

    def session(self) -> AsyncSession:
        return AsyncSession(self.auto, expire_on_commit=False)

    def transaction(self) -> AsyncSession:
        return AsyncSession(self.engine, expire_on_commit=False)

    async def get_2(self, pk: int) -> Any:
        async with self.session() as session:
            return await session.get_one(Tag, pk)

    async def get_10(self, pk: int) -> Any:
        async with self.session() as session:
            return await session.get_one(Item, pk)

    async def rows(self, count: int) -> Any:
        async with self.session() as session:
            return (await session.scalars(sa.select(Item).order_by(Item.id).limit(count))).all()

    async def values(self, count: int) -> Any:
        async with self.session() as session:
            found = await session.execute(sa.select(*TABLE).order_by(Item.id).limit(count))
            return [dict(row) for row in found.mappings()]

    async def values_list(self, count: int) -> Any:
        async with self.session() as session:
            return (await session.execute(sa.select(*TABLE).order_by(Item.id).limit(count))).all()

    async def select_related(self, count: int) -> Any:
        found = sa.select(Item).options(joinedload(Item.maker, innerjoin=True))
        async with self.session() as session:
            return (await session.scalars(found.order_by(Item.id).limit(count))).all()

    async def prefetch(self, count: int) -> Any:
        found = sa.select(Maker).options(selectinload(Maker.items)).order_by(Maker.id).limit(count)
        async with self.session() as session:
            return [(maker, maker.items) for maker in await session.scalars(found)]

    async def aggregate(self, maker: int) -> Any:
        of = sa.func
        found = sa.select(
            of.count(Item.id), of.sum(Item.stock), of.avg(Item.weight), of.max(Item.price)
        ).where(Item.maker_id == maker)
        async with self.session() as session:
            return tuple((await session.execute(found)).one())

    async def create(self) -> Any:
        async with self.session() as session:
            item = Item(**NEW)
            session.add(item)
            await session.commit()
            return item.name

    async def save(self) -> Any:
        """Its UPDATE has the column that changed, not all."""
        async with self.session() as session:
            session.add(self.saved)
            self.saved.stock += 1
            await session.commit()

    async def bulk_create(self, count: int) -> Any:
        async with self.transaction() as session:
            items = [Item(**NEW) for _ in range(count)]
            session.add_all(items)
            await session.commit()
            return len(items)

    async def bulk_update(self, count: int) -> Any:
        for row in self.many:
            row["stock"] += 1
            row["price"] += 1
        async with self.transaction() as session:
            await session.execute(sa.update(Item), self.many)
            await session.commit()
            return len(self.many)

    async def tasks(self, count: int) -> Any:
        return await asyncio.gather(*[self.get_10(pk) for pk in range(1, count + 1)])

    async def stream(self, count: int) -> Any:
        rows = stock = 0
        found = sa.select(Item).order_by(Item.id).limit(count)
        async with self.transaction() as session:
            async for item in await session.stream_scalars(
                found.execution_options(yield_per=CHUNK)
            ):
                rows += 1
                stock += item.stock
        return rows, stock

    def row(self, found: Any) -> tuple[Any, ...]:
        if isinstance(found, Model):
            return tuple(getattr(found, column.name) for column in found.__table__.columns)
        return super().row(found)

    def joined(self, found: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return self.row(found), self.row(found.maker)
