"""What the raw drivers share: the SQL, and rows made comparable.

They answer with the driver's own rows, not with instances: less than an ORM does.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from work import COLUMNS, NEW, SAVED, WRITTEN

from contenders import Base

_ITEM = ", ".join(f"i.{name}" for name in COLUMNS)
_WRITTEN = COLUMNS[1:]
_TYPES = {
    "maker_id": "bigint", "name": "text", "text": "text", "price": "numeric",
    "weight": "double precision", "stock": "int", "active": "boolean",
    "created": "timestamptz", "code": "uuid",
}  # fmt: skip


@dataclass(frozen=True)
class Sql:
    """The works' statements; ``mark`` writes the placeholder of a number from 1 on."""

    mark: Callable[[int], str]

    def _marks(self, count: int) -> str:
        return ", ".join(self.mark(n + 1) for n in range(count))

    @property
    def get_2(self) -> str:
        return f"SELECT id, name FROM shop_tag WHERE id = {self.mark(1)}"

    @property
    def get_10(self) -> str:
        return f"SELECT {_ITEM} FROM shop_item i WHERE i.id = {self.mark(1)}"

    @property
    def rows(self) -> str:
        return f"SELECT {_ITEM} FROM shop_item i ORDER BY i.id LIMIT {self.mark(1)}"

    @property
    def joined(self) -> str:
        return (
            f"SELECT {_ITEM}, m.id, m.name, m.founded FROM shop_item i "
            f"JOIN shop_maker m ON m.id = i.maker_id ORDER BY i.id LIMIT {self.mark(1)}"
        )

    @property
    def makers(self) -> str:
        return f"SELECT id, name, founded FROM shop_maker ORDER BY id LIMIT {self.mark(1)}"

    def items_of(self, count: int) -> str:
        return f"SELECT {_ITEM} FROM shop_item i WHERE i.maker_id IN ({self._marks(count)})"

    @property
    def aggregate(self) -> str:
        return (
            "SELECT count(id), sum(stock), avg(weight), max(price) FROM shop_item "
            f"WHERE maker_id = {self.mark(1)}"
        )

    @property
    def insert(self) -> str:
        columns = ", ".join(_WRITTEN)
        return (
            f"INSERT INTO shop_item ({columns}) VALUES ({self._marks(len(_WRITTEN))}) RETURNING id"
        )

    @property
    def save(self) -> str:
        sets = ", ".join(f"{name} = {self.mark(n + 1)}" for n, name in enumerate(_WRITTEN))
        return f"UPDATE shop_item SET {sets} WHERE id = {self.mark(len(_WRITTEN) + 1)}"

    @property
    def insert_arrays(self) -> str:
        """PostgreSQL: one array for each column."""
        arrays = ", ".join(
            f"{self.mark(n + 1)}::{_TYPES[name]}[]" for n, name in enumerate(_WRITTEN)
        )
        columns = ", ".join(_WRITTEN)
        return f"INSERT INTO shop_item ({columns}) SELECT * FROM unnest({arrays}) RETURNING id"

    @property
    def update_arrays(self) -> str:
        return (
            "UPDATE shop_item i SET stock = u.stock, price = u.price FROM unnest("
            f"{self.mark(1)}::bigint[], {self.mark(2)}::int[], {self.mark(3)}::numeric[]) "
            "u(id, stock, price) WHERE i.id = u.id"
        )

    @property
    def update(self) -> str:
        marks = [self.mark(n) for n in (1, 2, 3)]
        return f"UPDATE shop_item SET stock = {marks[0]}, price = {marks[1]} WHERE id = {marks[2]}"


def grouped(makers: Sequence[Any], items: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    of: dict[int, list[Any]] = {maker[0]: [] for maker in makers}
    for item in items:
        of[item[1]].append(item)
    return [(maker, of[maker[0]]) for maker in makers]


class RawBase(Base):
    """``new`` is a new row, ``saved`` the values of the row to save, ``many`` those to update."""

    sql: Sql

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.new = [self.encode(NEW[name]) for name in _WRITTEN]
        self.saved: list[Any] = []
        self.many: list[list[Any]] = []

    def load(self, saved: Sequence[Any], many: Sequence[Sequence[Any]]) -> None:
        self.saved = [*saved[1:], saved[0]]
        self.many = [[row[6], row[4], row[0]] for row in many]  # stock, price, id

    def changed(self) -> list[list[Any]]:
        for row in self.many:
            row[0] += 1
            row[1] += 1
        return self.many

    def saved_again(self) -> list[Any]:
        self.saved[5] += 1
        return self.saved

    def encode(self, value: Any) -> Any:
        return value

    def row(self, found: Any) -> tuple[Any, ...]:
        return plain(tuple(found.values()) if isinstance(found, dict) else tuple(found))


LOADED = (SAVED, WRITTEN)


def plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row of items, makers, tags or an item with its maker, as Django gives it."""
    kinds = {2: _TAG, 3: _MAKER, 10: _ITEM_KINDS, 13: (*_ITEM_KINDS, *_MAKER)}[len(values)]
    return tuple(kind(value) for kind, value in zip(kinds, values, strict=True))


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(f"{float(value):.2f}")


def _bool(value: Any) -> bool:
    return value in ("t", "1") if isinstance(value, str) else bool(value)


def _moment(value: Any) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _day(value: Any) -> datetime.date:
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


def _uuid(value: Any) -> uuid.UUID:
    return uuid.UUID(value) if isinstance(value, str) else value


_TAG = (int, str)
_MAKER = (int, str, _day)
_ITEM_KINDS = (int, int, str, str, _decimal, float, int, _bool, _moment, _uuid)
