"""System checks: settings that would otherwise be noticed at the first query."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.db import connections
from django.db.models.manager import ManagerDescriptor

from vinyl import aliases, conf, manager


@register("vinyl")
def check_setting(**kwargs: Any) -> list[CheckMessage]:
    """``settings.VINYL``: known keys with usable values."""
    value = getattr(settings, "VINYL", {})
    if not isinstance(value, dict):
        return [Error(f"VINYL must be a dictionary, not {value!r}.", id="vinyl.E001")]
    errors: list[CheckMessage] = [
        Error(
            f"VINYL has an unknown key {key!r}.",
            hint=f"The keys are {', '.join(conf.DEFAULTS)}.",
            id="vinyl.E002",
        )
        for key in value
        if key not in conf.DEFAULTS
    ]
    name = value.get("AUTO_MANAGER", "vinyl")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        errors.append(
            Error(
                f"VINYL['AUTO_MANAGER'] must be the name of an attribute or None, not {name!r}.",
                id="vinyl.E003",
            )
        )
    if not isinstance(value.get("NATIVE_ASYNC_API", False), bool):
        errors.append(Error("VINYL['NATIVE_ASYNC_API'] must be True or False.", id="vinyl.E004"))
    return errors


@register("vinyl")
def check_databases(**kwargs: Any) -> list[CheckMessage]:
    """A vinyl engine somewhere, and a twin that follows its original in tests."""
    databases = connections.settings
    served = {alias: aliases.vinyl_alias(alias) for alias in databases}
    if not any(served.values()):
        return [
            CheckWarning(
                "No alias in DATABASES has a vinyl engine, so nothing can be awaited.",
                hint="Set DATABASES['vinyl'] = vinyl.twin(DATABASES['default']).",
                id="vinyl.W001",
            )
        ]
    return [
        CheckWarning(
            f"DATABASES[{by!r}] is the twin of {alias!r} but no mirror of it in tests.",
            hint=f"Make it with vinyl.twin(DATABASES[{alias!r}], of={alias!r}).",
            id="vinyl.W002",
        )
        for alias, by in served.items()
        if by is not None
        and by != alias
        and (databases[by].get("TEST") or {}).get("MIRROR") != alias
    ]


@register("vinyl")
def check_managers(**kwargs: Any) -> list[CheckMessage]:
    """A VinylManager named ``objects`` on a model without another manager: Django, which does
    not see it, puts its own there."""
    return [
        Error(
            f"{model.__name__}.{name} is declared as a VinylManager, but is Django's own manager: "
            "a VinylManager is never a default manager.",
            hint=f"Give the VinylManager another name, or {model.__name__} another manager too.",
            obj=model,
            id="vinyl.E005",
        )
        for model, name in manager.named
        if isinstance(model.__dict__.get(name), ManagerDescriptor)
    ]
