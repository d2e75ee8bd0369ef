"""Django as it is, synchronous: what the others are measured against."""

from __future__ import annotations

from typing import Any

from shop.models import Item, Maker, Tag


def get_2(pk: int) -> Any:
    return Tag.objects.using("default").get(pk=pk)


def get_10(pk: int) -> Any:
    return Item.objects.using("default").get(pk=pk)


def rows(count: int) -> Any:
    return list(Item.objects.using("default").order_by("pk")[:count])


def values(count: int) -> Any:
    return list(Item.objects.using("default").order_by("pk").values_list()[:count])


def select_related(count: int) -> Any:
    return list(Item.objects.using("default").select_related("maker").order_by("pk")[:count])


def prefetch(count: int) -> Any:
    makers = Maker.objects.using("default").order_by("pk").prefetch_related("items")[:count]
    return [(maker, list(maker.items.all())) for maker in makers]


def create() -> Any:
    return Tag.objects.using("default").create(name="new").name


def save(pk: int) -> Any:
    tag = Tag(pk=pk, name="saved")
    tag._state.adding = False
    tag._state.db = "default"
    tag.save(force_update=True)
    return tag.name


def bulk_create(count: int) -> Any:
    return len(Tag.objects.using("default").bulk_create([Tag(name="bulk") for _ in range(count)]))
