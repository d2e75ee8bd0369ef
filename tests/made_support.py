"""Models that no app has, and instances of them made in C."""

from __future__ import annotations

from typing import Any

from django.db import models

from vinyl import _core


def plan(hydrator: Any, names: tuple[str, ...], **kwargs: Any) -> Any:
    columns = tuple(range(len(names)))
    node = (hydrator, names, columns, -1, None, None, (), None)
    return _core.RowPlan(node, "db", kwargs.get("fetch_mode"), {}, None, (), ())


def make_model(fields: int, **members: Any) -> type[models.Model]:
    """A model that no app has, so that each test has a class that no instance was made of."""
    meta = type("Meta", (), {"app_label": "library", "managed": False})
    names = {f"f{n}": models.IntegerField() for n in range(fields)}
    name = f"Made{len(made)}"
    members = {"__module__": __name__, "Meta": meta, **names, **members}
    cls = type(models.Model)(name, (models.Model,), members)
    made.append(cls)
    return cls


made: list[type[models.Model]] = []


def names_of(model: type[models.Model]) -> tuple[str, ...]:
    return tuple(field.attname for field in model._meta.concrete_fields)
