"""The manager whose querysets are awaited, and the class attribute that holds it."""

from __future__ import annotations

import copy
import inspect
from typing import Any
from weakref import WeakKeyDictionary

from django.db.models import Manager, Model
from django.db.models.query import QuerySet

from vinyl import conf
from vinyl.aliases import require
from vinyl.queryset import VinylQuerySet, awaitable_class

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
