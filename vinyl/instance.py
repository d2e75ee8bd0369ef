"""Instances: which ones are vinyl's, and their methods that are awaited in coroutines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.db import router
from django.db.models import Model

from vinyl._core import DRIVEN, LOOP, Operation, where, written_in_coroutine
from vinyl.aliases import vinyl_alias
from vinyl.plan import write

METHODS = ("save", "delete", "refresh_from_db", "full_clean", "validate_unique")
ASYNC_METHODS = ("asave", "adelete", "arefresh_from_db")
# Where an instance keeps what was assigned to a generic foreign key before the content type
# was known: {name of the column of the content type: (name of the relation, value)}.
UNSETTLED = "_vinyl_unsettled"


def alias_of(instance: Model) -> str | None:
    """The vinyl alias that the instance belongs to; a new one, where it would be written."""
    return vinyl_alias(_database_of(instance))


def _database_of(instance: Model) -> str:
    db = instance._state.db
    return router.db_for_write(type(instance), instance=instance) if db is None else db


def awaits(instance: Model) -> bool:
    """Whether we are where I/O of this instance has to be awaited."""
    mode = where()
    return mode in (LOOP, DRIVEN) and alias_of(instance) is not None


def adopt(objects: Iterable[Any]) -> None:
    """Counts instances of a plain alias as of its twin, inside fibers and coroutines."""
    for each in objects:
        if isinstance(each, Model) and each._state.db is not None:
            each._state.db = vinyl_alias(each._state.db) or each._state.db


def wrap_methods(model: type[Model]) -> None:
    """Wraps, in place, each class of the model's MRO that defines one of METHODS, so that
    a user's override with its super() call runs whole, in one fiber."""
    write.install()
    for cls in model.__mro__:
        for name in METHODS:
            method = cls.__dict__.get(name)
            if (
                isinstance(method, FunctionType)
                and not _is_done(method)
                and not inspect.iscoroutinefunction(method)
            ):
                setattr(cls, name, _awaitable(method))
    for name in ASYNC_METHODS:
        method = Model.__dict__[name]
        if not _is_done(method):
            setattr(Model, name, _native(method, name[1:]))


def _is_done(method: Any) -> bool:
    return hasattr(method, "_vinyl_wrapped")


def _awaitable(method: Callable[..., Any]) -> Callable[..., Any]:
    call = _in_fiber(method)

    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A plain mixin may serve other classes than models too.
        if not (isinstance(self, Model) and awaits(self) and written_in_coroutine()):
            return method(self, *args, **kwargs)
        return Operation(call, (self, *args), kwargs)

    start._vinyl_wrapped = True  # type: ignore[attr-defined]
    return start


def _native(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not awaits(self):
            return method(self, *args, **kwargs)
        return Operation(_in_fiber(getattr(type(self), name)), (self, *args), kwargs)

    start._vinyl_wrapped = True  # type: ignore[attr-defined]
    return markcoroutinefunction(start)


def _in_fiber(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as an operation calls it, under its own name for messages. `using` is never
    passed: the method may be a user's narrow override. An instance is marked only where the
    routers' answer is not the vinyl alias itself: else all that is Django's finds it anyway."""

    @functools.wraps(method)
    def call(self: Model, *args: Any, **kwargs: Any) -> Any:
        state = self._state
        before, alias = state.db, _database_of(self)
        ours = vinyl_alias(alias)
        if ours == alias:
            settle(self)
            return method(self, *args, **kwargs)
        state.db = ours
        try:
            settle(self)
            return method(self, *args, **kwargs)
        finally:
            if before is None and state.adding:
                state.db = None

    return call


def is_unsettled(instance: Model, column: str) -> bool:
    """Whether the column waits for the content type of what was assigned."""
    data = instance.__dict__
    return UNSETTLED in data and column in data[UNSETTLED] and column not in data


def settle(instance: Model) -> None:
    """In a fiber or plain sync code: finds out the content types that are missing."""
    if UNSETTLED not in instance.__dict__:
        return
    for column, (name, value) in instance.__dict__[UNSETTLED].items():
        if column not in instance.__dict__:
            setattr(instance, name, value)
    instance.__dict__.pop(UNSETTLED, None)
