"""Whether classes are as Django and vinyl wrote them.

What skips a method of Django's gives its answer only as long as nobody has replaced that method.
"""

from __future__ import annotations

import contextlib
import os
from types import FunctionType
from typing import Any

import django

from vinyl._core import Unchanged

__all__ = ["guard_of", "is_original", "methods_unchanged", "unchanged"]

_PLACES = tuple(
    os.path.join(os.path.dirname(os.path.abspath(file)), "") for file in (django.__file__, __file__)
)
#: Whose objects that can be called are no stand-ins: classes, methods in C, caches.
_MAKERS = frozenset({"builtins", "functools", "django", "vinyl", "abc"})
#: Attributes that no query passes: what django-stubs-ext gives to Django's classes.
_HARMLESS = frozenset({"__class_getitem__"})
_guards: dict[tuple[type, ...], tuple[Unchanged, bool]] = {}


def unchanged(*classes: type) -> bool:
    """Whether no method of these classes, bases included, has been replaced.

    A class of somebody else's, which derives from one of Django's, is one that was changed.
    """
    guard, original = _guards.get(classes) or _guard(classes)
    return original if guard() else _guard(classes)[1]


def guard_of(*classes: type) -> Unchanged | None:
    """What says whether these classes are still as Django wrote them; None where they are not."""
    return _guard(classes)[0] if unchanged(*classes) else None


def _guard(classes: tuple[type, ...]) -> tuple[Unchanged, bool]:
    guard = Unchanged(*classes)
    original = all(_is_original(base) for cls in classes for base in cls.__mro__)
    _guards[classes] = guard, original
    return guard, original


def methods_unchanged(cls: type, names: tuple[str, ...]) -> bool:
    """Whether these attributes of ``cls``, which may have others of its own, are original: in each
    of its bases, for vinyl's mixins go on to what they hide."""
    known = _methods.get((cls, names))
    if known is None or not known[0]():
        dicts = [vars(base) for base in cls.__mro__]
        original = all(is_original(own[name]) for own in dicts for name in names if name in own)
        known = _methods[cls, names] = Unchanged(cls), original
    return known[1]


_methods: dict[tuple[type, tuple[str, ...]], tuple[Unchanged, bool]] = {}


def is_original(attribute: Any) -> bool:
    """Whether a class's attribute is nothing to be called, or what Django or vinyl wrote."""
    function = _function(attribute)
    if function is not None:
        return function.__code__.co_filename.startswith(_PLACES)
    return not callable(attribute) or type(attribute).__module__.partition(".")[0] in _MAKERS


def _is_original(cls: type) -> bool:
    return all(is_original(value) for name, value in vars(cls).items() if name not in _HARMLESS)


def _function(value: Any) -> FunctionType | None:
    """The function behind a method, a property, a cached property or a context manager."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, value)
    if not isinstance(value, FunctionType):
        return None
    if value.__code__.co_filename == contextlib.__file__:
        return _function(getattr(value, "__wrapped__", None)) or value
    return value
