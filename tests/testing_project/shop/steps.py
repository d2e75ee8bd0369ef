"""What the test cases share."""

from __future__ import annotations

import asyncio

import vinyl
from shop.models import Customer


class Undo(Exception):
    """Rolls a block back."""


async def add(name: str) -> None:
    await Customer.vinyl.create(name=name)


async def add_in_block(name: str, *, undo: bool = False, turns: int = 3) -> None:
    """One customer, in a block that lets other tasks run before it ends."""
    async with vinyl.atomic():
        await add(name)
        for _ in range(turns):
            await asyncio.sleep(0)
        if undo:
            raise Undo


async def names() -> list[str]:
    return [customer.name async for customer in Customer.vinyl.order_by("name")]


def plain_names() -> list[str]:
    return sorted(Customer.objects.values_list("name", flat=True))
