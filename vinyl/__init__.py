"""Native async database access for Django: no threads, no fork, an engine in C.

Every name is loaded on first use, so that a settings file can say
``vinyl.twin(...)`` before Django is set up.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "NotFetched": "vinyl.exceptions",
    "Notification": "vinyl.notify",
    "PoolTimeout": "vinyl.exceptions",
    "VinylManager": "vinyl.manager",
    "VinylQuerySet": "vinyl.queryset",
    "as_async": "vinyl.bridge",
    "atomic": "vinyl.transaction",
    "await_": "vinyl.bridge",
    "cursor": "vinyl.cursors",
    "drive": "vinyl.bridge",
    "gather": "vinyl.bridge",
    "in_thread": "vinyl.threads",
    "independent": "vinyl.scopes",
    "listen": "vinyl.notify",
    "on_commit": "vinyl.transaction",
    "pool_stats": "vinyl.bridge",
    "run": "vinyl.bridge",
    "twin": "vinyl.aliases",
}

__all__ = [
    "NotFetched",
    "Notification",
    "PoolTimeout",
    "VinylManager",
    "VinylQuerySet",
    "as_async",
    "atomic",
    "await_",
    "cursor",
    "drive",
    "gather",
    "in_thread",
    "independent",
    "listen",
    "on_commit",
    "pool_stats",
    "run",
    "twin",
]

if TYPE_CHECKING:
    from vinyl.aliases import twin
    from vinyl.bridge import as_async, await_, drive, gather, pool_stats, run
    from vinyl.cursors import cursor
    from vinyl.exceptions import NotFetched, PoolTimeout
    from vinyl.manager import VinylManager
    from vinyl.notify import Notification, listen
    from vinyl.queryset import VinylQuerySet
    from vinyl.scopes import independent
    from vinyl.threads import in_thread
    from vinyl.transaction import atomic, on_commit


def __getattr__(name: str) -> Any:
    try:
        module = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module 'vinyl' has no attribute {name!r}") from None
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
