"""What is measured: a function of each contender, its arguments, and how often in one round."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MAKERS = 100
ITEMS_OF_MAKER = 100


@dataclass(frozen=True)
class Work:
    """``name(*args)`` of a contender; ``title`` is for the table; ``times`` calls make a sample."""

    name: str
    title: str
    args: tuple[Any, ...]
    times: int


WORKS = (
    Work("get_2", "get by pk, 2 columns", (1,), 100),
    Work("get_10", "get by pk, 10 columns", (1,), 100),
    Work("rows", "1,000 rows into models", (1000,), 3),
    Work("rows", "10,000 rows into models", (10_000,), 1),
    Work("values", "10,000 rows, values_list", (10_000,), 1),
    Work("select_related", "select_related, 100 rows", (100,), 20),
    Work("prefetch", "prefetch 100 → 10,000", (MAKERS,), 1),
    Work("create", "create one", (), 50),
    Work("save", "save one", (1,), 50),
    Work("bulk_create", "bulk_create 1,000", (1000,), 2),
)


def fill() -> None:
    """The rows that the works read."""
    from shop.models import Item, Maker, Tag

    Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(100)])
    day = datetime.date(1990, 1, 1)
    makers = Maker.objects.bulk_create(
        [Maker(name=f"maker {n}", founded=day) for n in range(MAKERS)]
    )
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    Item.objects.bulk_create(
        [
            Item(
                maker=maker,
                name=f"item {n}",
                text="some words of a description " * 3,
                price=Decimal(n) / 100,
                weight=n / 7,
                stock=n,
                active=n % 2 == 0,
                created=start + datetime.timedelta(minutes=n),
                code=uuid.UUID(int=n),
            )
            for maker in makers
            for n in range(ITEMS_OF_MAKER)
        ],
        batch_size=500,
    )


def comparable(value: Any) -> Any:
    """An answer without what may differ: the alias and the caches of instances."""
    from django.db.models import Model

    if isinstance(value, Model):
        return {name: item for name, item in value.__dict__.items() if not name.startswith("_")}
    if isinstance(value, list | tuple) or type(value).__name__.endswith("QuerySet"):
        return [comparable(each) for each in value]
    return value
