"""System checks: settings that would otherwise be noticed at the first query."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, pairwise
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.models.manager import ManagerDescriptor

from vinyl import aliases, conf, manager
from vinyl.bridge import pool_stats


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
    if value.get("PLAN_CACHE", True) not in (True, False, "check"):
        errors.append(Error("VINYL['PLAN_CACHE'] must be True, False or 'check'.", id="vinyl.E020"))
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
        if by is not None and by != alias and _mirrored(by) not in (alias, *_missing_alias(by))
    ]


def _mirrored(alias: str) -> Any:
    return (connections.settings[alias].get("TEST") or {}).get("MIRROR")


def _missing_alias(alias: str) -> list[str]:
    """What the alias mirrors, when there is no such alias: vinyl.E006 says so."""
    of = _mirrored(alias)
    return [of] if of and of not in connections.settings else []


@register("vinyl")
def check_options(**kwargs: Any) -> list[CheckMessage]:
    """OPTIONS of the vinyl engines, which would be refused at the first connection."""
    errors: list[CheckMessage] = []
    for alias in connections.settings:
        if aliases.is_vinyl(alias):
            try:
                connections[alias].check_options()
            except ImproperlyConfigured as error:
                errors.append(Error(str(error), id="vinyl.E008"))
    return errors


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


@register("vinyl")
def check_twins(**kwargs: Any) -> list[CheckMessage]:
    """What a vinyl alias mirrors in tests is the alias of the same database."""
    databases = connections.settings
    errors: list[CheckMessage] = []
    for alias in databases:
        of = _mirrored(alias)
        if not of or not aliases.is_vinyl(alias):
            continue
        if of not in databases:
            errors.append(
                Error(
                    f"DATABASES[{alias!r}] is a twin of {of!r}, which does not exist.",
                    hint=f"Name the other alias: vinyl.twin(DATABASES[…], of=…), not {of!r}.",
                    id="vinyl.E006",
                )
            )
        elif of != alias and aliases.vinyl_alias(of) is None:
            errors.append(
                Error(
                    f"DATABASES[{alias!r}] is a twin of {of!r}, but names another database.",
                    hint=f"Make it with vinyl.twin(DATABASES[{of!r}], of={of!r}).",
                    id="vinyl.E007",
                )
            )
    return errors


@register("vinyl")
def check_unserved(**kwargs: Any) -> list[CheckMessage]:
    """Every database can be awaited, if one can: fibers may meet the others too."""
    databases = connections.settings
    served = {alias: aliases.vinyl_alias(alias) for alias in databases}
    if not any(served.values()):
        return []  # vinyl.W001
    return [
        CheckWarning(
            f"DATABASES[{alias!r}] has neither a vinyl engine nor a twin: in fibers (vinyl.run(), "
            "synchronous views under vinyl's ASGI handler, NATIVE_ASYNC_API) it blocks the event "
            "loop, on one connection that all tasks share.",
            hint=f"Give it a twin, or use {alias!r} in views with @vinyl.in_thread only.",
            id="vinyl.W003",
        )
        for alias, by in served.items()
        if by is None and not databases[alias]["ENGINE"].endswith(".dummy")
    ]


@register("vinyl")
def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """Synchronous middleware side by side shares a fiber."""
    from vinyl.handlers.modes import wants_async

    try:
        asynchronous = [wants_async(path) for path in settings.MIDDLEWARE]
    except Exception:  # Django says so when the middleware is loaded
        return []
    starts = [now and not before for before, now in pairwise([False, *asynchronous])]
    if starts.count(True) < 2:
        return []
    names = list(compress(settings.MIDDLEWARE, asynchronous))
    return [
        Info(
            "MIDDLEWARE changes between synchronous and asynchronous more than once; each change "
            "costs a request another fiber.",
            hint=f"If their order does not matter, list these together: {', '.join(names)}.",
            id="vinyl.I001",
        )
    ]


@register(Tags.database)
def check_pools(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A pool never asks for more connections than its server gives. Connects."""
    warnings: list[CheckMessage] = []
    for alias in databases or ():
        if not aliases.is_vinyl(alias) or connections[alias].vendor != "postgresql":
            continue
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END)"
                " FROM pg_settings WHERE name IN ('max_connections', 'reserved_connections',"
                " 'superuser_reserved_connections')"
            )
            (given,) = cursor.fetchone()
        size = pool_stats(alias)["pool_max"]
        if size > given:
            warnings.append(
                CheckWarning(
                    f"DATABASES[{alias!r}] has a pool of up to {size} connections; its server "
                    f"gives at most {given}, to all processes together.",
                    hint="Lower OPTIONS['pool']['max_size'], or raise max_connections.",
                    id="vinyl.W004",
                )
            )
    return warnings
