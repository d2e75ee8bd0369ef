"""What the compilers of every vinyl engine have: rows go through their converters in C.

Where an instance is plain, that is, where no code of the model's own runs while one is made,
a `_core.Hydrator` makes it (see ``rows``); everywhere else the model's ``from_db`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.fields.files import FileDescriptor
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.signals import post_init, pre_init

from vinyl import _core
from vinyl.originals import guard_of

__all__ = ["FastRows", "hydrator_of", "state_classes"]

#: What descriptors of Django's fields do when an attribute is set: for a new
#: instance the same as setting an item of its __dict__.
_PLAIN_SETTERS = frozenset({ForeignKeyDeferredAttribute.__set__, FileDescriptor.__set__})

_hydrators: WeakKeyDictionary[type[Model], tuple[Any, _core.Hydrator | None]] = WeakKeyDictionary()


def _has_plain_fields(model: type[Model]) -> bool:
    for field in model._meta.concrete_fields:
        for klass in model.__mro__:
            if field.attname in klass.__dict__:
                setter = getattr(type(klass.__dict__[field.attname]), "__set__", None)
                if setter is not None and setter not in _PLAIN_SETTERS:
                    return False
                break
    return True


def _is_plain(model: type[Model]) -> bool:
    return (
        getattr(model.from_db, "__func__", None) is Model.from_db.__func__  # type: ignore[attr-defined]
        and model.__init__ is Model.__init__
        and model.__new__ is object.__new__
        and model.__setattr__ is object.__setattr__
        and type(model).__call__ is type.__call__
        and not (pre_init.receivers and pre_init.has_listeners(model))
        and not (post_init.receivers and post_init.has_listeners(model))
    )


def state_classes() -> tuple[type, type]:
    """Of an instance's state, and of what makes its cache."""
    return ModelState, type(vars(ModelState).get("fields_cache"))


def hydrator_of(model: type[Model]) -> _core.Hydrator | None:
    """What makes the model's instances from rows, or None where Django has to."""
    if not _is_plain(model):
        return None
    fields = model._meta.concrete_fields  # another object when fields change
    known = _hydrators.get(model)
    if known is None or known[0] is not fields:
        names = tuple(field.attname for field in fields)
        plain = _has_plain_fields(model) and not model._meta.abstract
        known = (
            fields,
            _core.Hydrator(model, ModelState, names, guard_of(*state_classes())) if plain else None,
        )
        _hydrators[model] = known
    return known[1]


class FastRows:
    """Mixin of each engine's SQLCompiler."""

    connection: Any

    def apply_converters(
        self, rows: Iterable[Any], converters: dict[int, tuple[list[Any], Any]]
    ) -> Iterator[list[Any]]:
        return _core.ConvertedRows(rows, converters, self.connection)
