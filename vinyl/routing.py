"""Django's router, taught that an alias and its twin are one database."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models import Model
from django.db.utils import ConnectionRouter

from vinyl._core import PLAIN, where
from vinyl.aliases import same_database, vinyl_alias


class Router(ConnectionRouter):
    """In coroutines and fibers the plain alias means its twin; relations between both are fine."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return here(super().db_for_read(model, **hints))

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return here(super().db_for_write(model, **hints))

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool:
        for chosen in self.routers:
            method = getattr(chosen, "allow_relation", None)
            answer = None if method is None else method(obj1, obj2, **hints)
            if answer is not None:
                return answer
        return same_database(obj1._state.db, obj2._state.db)


def here(alias: str) -> str:
    """The alias that serves `alias` where we are."""
    if where() == PLAIN:
        return alias
    return vinyl_alias(alias) or alias


def install() -> None:
    """Adapts the one router object, which everybody has imported by name."""
    if type(router) is ConnectionRouter:
        router.__class__ = Router
