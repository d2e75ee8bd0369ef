"""The manager whose querysets are awaited, and the class attribute that holds it."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any
from weakref import WeakKeyDictionary

from django.db import router
from django.db.models import Manager, Model
from django.db.models.query import QuerySet

from vinyl import conf
from vinyl._core import FIBER, Operation, where
from vinyl.aliases import require
from vinyl.originals import unchanged
from vinyl.plan import calls
from vinyl.queryset import VinylQuerySet, awaitable_class

try:
    from django.db.models import FETCH_ONE
except ImportError:  # Django 6.0 and earlier
    FETCH_ONE: Any = None  # type: ignore[no-redef]

# Each VinylManager that a class has declared, for the system check.
named: list[tuple[type[Model], str]] = []

_Base: Any = Manager.from_queryset(VinylQuerySet)


class VinylManager(_Base):  # type: ignore[misc]
    """``Model.vinyl``: chains are Django's, what fetches is awaited.

    It is a class attribute of its own and no entry in ``_meta.managers``, so it never
    becomes a default or base manager, and a model that declares no other one still
    gets Django's ``objects``.
    """

    @classmethod
    def from_queryset(
        cls, queryset_class: type[QuerySet[Any]], class_name: str | None = None
    ) -> type[VinylManager]:
        if class_name is None:
            class_name = f"{cls.__name__}From{queryset_class.__name__}"
        return super().from_queryset(awaitable_class(queryset_class), class_name)

    name: str | None

    def contribute_to_class(self, cls: type[Model], name: str) -> None:
        self.name = self.name or name
        self.model = cls
        setattr(cls, name, VinylManagerDescriptor(self))
        named.append((cls, name))

    @property
    def db(self) -> str:
        return require(super().db, self.model)

    @functools.wraps(QuerySet.get)
    def get(self, *args: Any, **kwargs: Any) -> Any:
        if self._queryset_class is not VinylQuerySet:
            return self.get_queryset().get(*args, **kwargs)
        if where() == FIBER:
            return calls.get(self, args, kwargs)
        return Operation(calls.get, (self, args, kwargs))

    @functools.wraps(QuerySet.create)
    def create(self, *args: Any, **kwargs: Any) -> Any:
        if args or type(self) is not VinylManager or not unchanged(VinylManager, VinylQuerySet):
            return self.get_queryset().create(*args, **kwargs)
        return _create(self, kwargs) if where() == FIBER else Operation(_create, (self, kwargs))


@functools.wraps(QuerySet.create)
def _create(manager: VinylManager, kwargs: dict[str, Any]) -> Any:
    """What a new queryset of the manager's does, without making one."""
    model: Any = manager.model
    if not model._meta._reverse_one_to_one_field_names.isdisjoint(kwargs):
        return manager.get_queryset().create(**kwargs)
    instance = model(**kwargs)
    alias = manager._db or router.db_for_write(model, **manager._hints)
    instance.save(force_insert=True, using=require(alias, model))
    if FETCH_ONE is not None:
        instance._state.fetch_mode = FETCH_ONE
    return instance


class VinylManagerDescriptor:
    """Gives each class, subclasses and proxies included, its own copy of the manager."""

    def __init__(self, manager: VinylManager) -> None:
        self.manager = manager
        self._bound: WeakKeyDictionary[type[Model], VinylManager] = WeakKeyDictionary()

    def __get__(self, instance: Model | None, owner: type[Model]) -> VinylManager:
        if instance is not None:
            raise AttributeError(f"Manager isn't accessible via {owner.__name__} instances")
        bound = self._bound.get(owner)
        if bound is None:
            bound = self._bound[owner] = self._bind(owner)
        return bound

    def _bind(self, owner: type[Model]) -> VinylManager:
        meta = owner._meta
        if meta.abstract:
            raise AttributeError(f"Manager isn't available; {meta.object_name} is abstract")
        if meta.swapped:
            raise AttributeError(
                f"Manager isn't available; '{meta.label}' has been swapped for '{meta.swapped}'"
            )
        if self.manager.model is owner:
            return self.manager
        manager = copy.copy(self.manager)
        manager.model = owner
        return manager


def add_auto_manager(model: type[Model]) -> None:
    """Gives the model ``settings.VINYL["AUTO_MANAGER"]``, unless it has that name already."""
    name = conf.get("AUTO_MANAGER")
    if not name or model._meta.abstract:
        return
    existing = inspect.getattr_static(model, name, None)
    if existing is None and not hasattr(model, name):
        manager = VinylManager()
        manager.name = name
        manager.model = model
        setattr(model, name, VinylManagerDescriptor(manager))
    elif isinstance(existing, VinylManagerDescriptor) and name not in model.__dict__:
        # Django leaves out a field's descriptor when the class inherits its name.
        for field in model._meta.local_fields:
            if field.attname == name:
                setattr(model, name, field.descriptor_class(field))
