"""Instances that hang together, and how they do after a prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import EmptyResultSet
from django.db import models as django_models
from django.db.models import Model, QuerySet
from django.db.models import query as django_query
from django.db.models.base import ModelState
from library.models import Author, Book, Genre, Note, Profile, Publisher

from vinyl import _core, prefetch


def fill() -> None:
    houses = [Publisher.objects.create(name=f"P{n}") for n in range(2)]
    genres = [Genre.objects.create(name=f"g{n}") for n in range(3)]
    for n in range(4):
        author = Author.objects.create(name=f"A{n}")
        if n:
            Profile.objects.create(author=author)
        for k in range(n):
            book = Book.objects.create(
                title=f"B{n}{k}", author=author, publisher=[None, *houses][k], pages=k
            )
            book.genres.set(genres[: k + 1])
            Note.objects.create(subject=book, text=f"n{k}")


def sql_of(query: Any) -> Any:
    try:
        return query.sql_with_params()
    except EmptyResultSet:
        return None


def tree(value: Any, seen: dict[int, int]) -> Any:
    """What hangs together, with the identity of each instance by the order of its discovery."""
    if isinstance(value, Model):
        if id(value) in seen:
            return seen[id(value)]
        seen[id(value)] = len(seen)
        value._state.fields_cache  # noqa: B018 - the same whether made yet or not
        return type(value).__name__, [(k, tree(v, seen)) for k, v in vars(value).items()]
    if isinstance(value, ModelState):
        kept = {k: v for k, v in vars(value).items() if k != "peers"}
        peers = [tree(ref(), seen) for ref in getattr(value, "peers", ())]
        return sorted((k, tree(v, seen)) for k, v in kept.items()), peers
    if isinstance(value, QuerySet):
        cache = value._result_cache
        return (
            sql_of(value.query),
            None if cache is None else [tree(each, seen) for each in cache],
            value._prefetch_done,
            tree(value._hints, seen),
            [(f.name, tree(obs, seen)) for f, obs in value._known_related_objects.items()],
        )
    if isinstance(value, dict):
        return [(key, tree(item, seen)) for key, item in value.items()]
    if isinstance(value, list):
        return [tree(item, seen) for item in value]
    return repr(value)


@contextmanager
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in (django_query, django_models):
            patch.setattr(module, "prefetch_related_objects", prefetch._django)
        yield


class Trips:
    """Round trips of statements, and how many statements flew with others."""

    def __enter__(self) -> Trips:
        self._before = _core.stats()
        return self

    def __exit__(self, *error: object) -> None:
        after = _core.stats()
        made = {name: after[name] - self._before[name] for name in after}
        self.statements = made["statements"]
        self.flown = made["flown"]
        self.count = made["statements"] - made["flown"] + made["flights"]
