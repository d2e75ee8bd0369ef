"""Which database alias is served by vinyl, and which alias is whose twin."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from django.core.exceptions import ImproperlyConfigured

DJANGO = "django.db.backends."
VINYL = "vinyl.backends."

# alias -> its settings, the vinyl alias that serves it, and that one's settings; valid while
# both are the objects in DATABASES.  Only found ones are kept: while test databases are
# made, two twins have different names for a moment.
_served: dict[str, tuple[object, str, object]] = {}


def twin(conf: Mapping[str, Any], of: str = "default") -> dict[str, Any]:
    """The settings of a second alias for the database that ``conf`` describes.

    The same server and name under the vinyl engine, and in tests a mirror of
    ``of``.  Made for settings files: needs neither settings nor models.
    """
    engine = str(conf.get("ENGINE", ""))
    if not engine.startswith(DJANGO) or engine == DJANGO:
        raise ImproperlyConfigured(
            f"vinyl.twin() needs one of Django's own engines (django.db.backends.…), "
            f"not ENGINE = {engine!r}."
        )
    # Here, since nothing else of vinyl may ever be imported. Not at the top: the engines import us.
    from vinyl import absent

    absent.watch()
    copy = deepcopy(dict(conf))
    copy["ENGINE"] = VINYL + engine.removeprefix(DJANGO)
    copy["TEST"] = {**(copy.get("TEST") or {}), "MIRROR": of}
    return copy


# django.db.connections, once it may be imported: each query asks twice.
_connections: Any = None


def _databases() -> Mapping[str, dict[str, Any]]:
    global _connections
    if _connections is None:
        from django.db import connections

        _connections = connections
    return _connections.settings


def is_vinyl(alias: str) -> bool:
    """Whether the alias itself has a vinyl engine."""
    return vinyl_alias(alias) == alias


def vinyl_alias(alias: str) -> str | None:
    """The alias itself when its engine is vinyl's, else its twin, else None."""
    databases = _databases()
    conf = databases.get(alias)
    kept = _served.get(alias)
    if kept is not None and kept[0] is conf and kept[2] is databases.get(kept[1]):
        return kept[1]
    found = _find(alias)
    if found is not None:
        _served[alias] = (conf, found, databases[found])
    return found


def require(alias: str, model: type | None = None) -> str:
    """`vinyl_alias`, or ImproperlyConfigured naming the setting that is missing."""
    found = vinyl_alias(alias)
    if found is not None:
        return found
    conf = _databases().get(alias)
    whose = f"{model.__name__} is stored in" if model else "This needs"
    if conf is None:
        raise ImproperlyConfigured(f"{whose} DATABASES[{alias!r}], which does not exist.")
    raise ImproperlyConfigured(
        f"{whose} DATABASES[{alias!r}], whose ENGINE {conf['ENGINE']!r} is not a vinyl engine, "
        f"and no other alias is its twin. Set DATABASES['vinyl'] = "
        f"vinyl.twin(DATABASES[{alias!r}], of={alias!r}), or give DATABASES[{alias!r}] "
        f"the ENGINE 'vinyl.backends.…'."
    )


def same_database(one: str | None, other: str | None) -> bool:
    """Whether both aliases name one database: equal, or an alias and its twin."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    found = vinyl_alias(one)
    return found is not None and found == vinyl_alias(other)


def _has_vinyl_engine(conf: Mapping[str, Any]) -> bool:
    engine = conf.get("ENGINE") or ""
    if engine.startswith(VINYL):
        return True
    if engine.startswith(DJANGO) or not engine:
        return False
    # Somebody's own engine may derive from one of ours.
    from django.db.utils import load_backend

    try:
        wrapper = getattr(load_backend(engine), "DatabaseWrapper", None)
    except ImproperlyConfigured as error:
        if "partially initialized module 'vinyl." not in str(error.__cause__):
            raise
        wrapper = None
    if wrapper is None:
        return True  # it imports the engine of ours whose import asks this
    # By name: importing the class here would come back to where this is asked from.
    return any(
        (each.__module__, each.__qualname__) == ("vinyl.backends.base", "SessionMixin")
        for each in wrapper.__mro__
    )


def _place(conf: Mapping[str, Any]) -> tuple[str, ...]:
    """Engine family, server and database name: equal for an alias and its twin."""
    options = conf.get("OPTIONS") or {}
    return (
        str(conf.get("ENGINE") or "").rpartition(".")[2],
        str(conf.get("HOST") or ""),
        str(conf.get("PORT") or ""),
        str(conf.get("NAME") or ""),
        str(options.get("service") or ""),
    )


def _find(alias: str) -> str | None:
    databases = _databases()
    conf = databases.get(alias)
    if conf is None:
        return None
    if _has_vinyl_engine(conf):
        return alias
    place = _place(conf)
    found = [
        name
        for name, other in databases.items()
        if name != alias and _place(other) == place and _has_vinyl_engine(other)
    ]
    for name in found:
        if (databases[name].get("TEST") or {}).get("MIRROR") == alias:
            return name
    return found[0] if found else None
