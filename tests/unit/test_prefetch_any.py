"""Any lookups at all leave behind what Django's leave one by one."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from django.db import models as django_models
from django.db.models import Prefetch
from fix_engine import Engine
from library.models import Author, Book, Genre, Note, Profile, Publisher
from prefetch_support import fill, one_after_the_other, tree

from vinyl import _core

SEEDS = int(os.environ.get("VINYL_PREFETCH_SEEDS", "50"))

#: model -> relation -> the model at its end
GRAPH: dict[Any, dict[str, Any]] = {
    Author: {"books": Book, "profile": Profile},
    Profile: {"author": Author},
    Book: {
        "author": Author, "publisher": Publisher, "genres": Genre, "notes": Note,
    },
    Publisher: {"books": Book},
    Genre: {"books": Book},
    Note: {"subject": None, "content_type": None},
}  # fmt: skip


def some_lookup(
    dice: random.Random, model: Any, depth: int = 3, attributes: dict[str, Any] | None = None
) -> Any:
    names: list[str] = []
    nearby = GRAPH[model] | (attributes or {})
    while True:
        name = dice.choice([*nearby]) if dice.random() < 0.99 else "wrong"
        names.append(name)
        model = nearby.get(name)
        nearby = GRAPH.get(model, {})
        if model is None or len(names) == depth or dice.random() < 0.5:
            break
    path = "__".join(names)
    if model is None or dice.random() < 0.6:
        return path
    queryset = None
    if dice.random() < 0.8:
        queryset = model.objects.order_by(dice.choice(["pk", "-pk"]))
        if dice.random() < 0.4:
            queryset = queryset.filter(pk__gt=dice.randrange(3))
        if dice.random() < 0.1:
            queryset = queryset.none()
        if dice.random() < 0.2 and model is Book:
            queryset = queryset.select_related("author", "publisher")
        for _ in range(dice.choice([0, 0, 1, 2])):
            queryset = queryset.prefetch_related(some_lookup(dice, model, 2))
    to_attr = dice.choice([None, "x", "y", "z"])
    if to_attr is not None and attributes is not None and len(names) == 1:
        attributes.setdefault(to_attr, model)
    return Prefetch(path, queryset, to_attr)


def some_lookups(seed: int) -> tuple[Any, list[Any], list[str]]:
    """A model, lookups, and what is fetched before."""
    dice = random.Random(seed)
    model = dice.choice([Author, Book, Book, Publisher, Genre, Note])
    attributes: dict[str, Any] = {}
    lookups = [some_lookup(dice, model, 3, attributes) for _ in range(dice.randint(2, 6))]
    before = [some_lookup(dice, model, 2) for _ in range(dice.choice([0, 0, 0, 1, 2]))]
    return model, lookups, [each for each in before if isinstance(each, str)]


def outcome(seed: int) -> Any:
    model, lookups, before = some_lookups(seed)
    instances = list(model.objects.order_by("pk"))
    try:
        django_models.prefetch_related_objects(instances[::2], *before)
        django_models.prefetch_related_objects(instances, *lookups)
    except (AttributeError, ValueError, TypeError) as error:
        return type(error), str(error)
    return tree(instances, {})


@pytest.mark.parametrize("seed", range(0, SEEDS, 25))
async def test_any_lookups(
    engine: Engine, mode: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare() -> None:
        fill()
        for each in range(seed, seed + 25):
            with one_after_the_other(monkeypatch):
                expected = outcome(each)
            assert outcome(each) == expected, (each, some_lookups(each))

    await _core.run(compare)
