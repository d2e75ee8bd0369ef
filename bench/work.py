"""What is measured: each work is a method of every contender (see contenders/__init__.py)."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MAKERS = 2000
ITEMS_OF_MAKER = 100
ITEMS = MAKERS * ITEMS_OF_MAKER
FILLED = 10_000  # by Django; the rest of the items are copies made by the database
CHUNK = 2000
TASKS = 64
CONNECTIONS = 10
MANY_ROUNDS = 1000
SAVED = 7  # the item that `save` saves
WRITTEN = 1000  # how many `bulk_update` writes, the first ones
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
COLUMNS = (
    "id", "maker_id", "name", "text", "price", "weight", "stock", "active", "created", "code",
)  # fmt: skip
# What `create` and `bulk_create` write: all of an item but its key.
NEW: dict[str, Any] = {
    "maker_id": 1,
    "name": "a new item",
    "text": "some words of a description " * 3,
    "price": Decimal("12.50"),
    "weight": 2.5,
    "stock": 3,
    "active": True,
    "created": START,
    "code": uuid.UUID(int=2**100 + 1),
}


@dataclass(frozen=True)
class Work:
    """``method(*args)`` of a contender.

    ``shape`` says what it answers: "row", "rows", "dicts", "joined" (an item with its maker),
    "grouped" (a maker and its items), "totals" or
    "value".  ``writes``: what it leaves in the database is
    compared too, and taken back.  ``rounds`` bounds the rounds of a long one.
    """

    key: str
    method: str
    title: str
    args: tuple[Any, ...] = ()
    shape: str = "value"
    writes: bool = False
    rounds: int = MANY_ROUNDS


WORKS = (
    Work("get_2", "get_2", "get by pk, 2 columns", (1,), "row"),
    Work("get_10", "get_10", "get by pk, 10 columns", (1,), "row"),
    Work("rows_1000", "rows", "1,000 rows into models", (1000,), "rows"),
    Work("rows_10000", "rows", "10,000 rows into models", (10_000,), "rows"),
    Work("values", "values", "10,000 rows, values()", (10_000,), "dicts"),
    Work("values_list", "values_list", "10,000 rows, values_list()", (10_000,), "rows"),
    Work("select_related", "select_related", "select_related, 100 rows", (100,), "joined"),
    Work("prefetch", "prefetch", "prefetch 100 → 10,000", (100,), "grouped"),
    Work("aggregate", "aggregate", "aggregate, 4 of 100 rows", (1,), "totals"),
    Work("create", "create", "create one", writes=True),
    Work("save", "save", "save one", writes=True),
    Work("bulk_create", "bulk_create", "bulk_create 1,000", (1000,), writes=True),
    Work("bulk_update", "bulk_update", "bulk_update 1,000, 2 columns", (WRITTEN,), writes=True),
    Work("tasks", "tasks", f"{TASKS} tasks get one each, pool of {CONNECTIONS}", (TASKS,), "rows"),
    Work("stream", "stream", "stream 200,000 rows", (ITEMS,), rounds=3),
)


def chosen(names: Iterable[str]) -> list[Work]:
    """The works of ``names``, each a key or a method ("rows" is both of its works)."""
    wanted = list(names)
    known = {name for work in WORKS for name in (work.key, work.method)}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"no work is named {', '.join(unknown)}; there are {', '.join(w.key for w in WORKS)}"
        )
    return [work for work in WORKS if not wanted or {work.key, work.method} & set(wanted)]


def fill() -> None:
    """The rows that the works read."""
    from django.db import connection
    from shop.models import Item, Maker, Tag

    Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(100)])
    day = datetime.date(1990, 1, 1)
    Maker.objects.bulk_create([Maker(name=f"maker {n}", founded=day) for n in range(MAKERS)])
    Item.objects.bulk_create(
        [
            Item(
                maker_id=n // ITEMS_OF_MAKER + 1,
                name=f"item {n}",
                text="some words of a description " * 3,
                price=Decimal(n) / 100,
                weight=n / 7,
                stock=n,
                active=n % 2 == 0,
                created=START + datetime.timedelta(minutes=n),
                code=uuid.UUID(int=n),
            )
            for n in range(FILLED)
        ],
        batch_size=500,
    )
    rest = ", ".join(COLUMNS[2:])
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE turn(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM turn WHERE k < %s) "
            f"INSERT INTO shop_item (id, maker_id, {rest}) "
            f"SELECT id + k * %s, maker_id + k * %s, {rest} FROM shop_item, turn",
            [ITEMS // FILLED - 1, FILLED, FILLED // ITEMS_OF_MAKER],
        )
        if connection.vendor == "postgresql":
            cursor.execute("SELECT setval('shop_item_id_seq', %s)", [ITEMS])
            cursor.execute("ANALYZE")


def undo() -> None:
    """Takes back what the writing works left."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM shop_item WHERE id > %s", [ITEMS])
        cursor.execute(
            "UPDATE shop_item SET stock = id - 1, price = (id - 1) / 100.0 "
            "WHERE id <= %s AND stock <> id - 1",
            [WRITTEN],
        )


def effect() -> list[tuple[Any, ...]]:
    """What the writing works may have left: the new rows but for their keys, the changed ones."""
    from shop.models import Item

    new = Item.objects.filter(pk__gt=ITEMS).order_by("pk").values_list(*COLUMNS[1:])
    changed = Item.objects.filter(pk__lte=WRITTEN).order_by("pk").values_list("stock", "price")
    return [*new, *changed]
