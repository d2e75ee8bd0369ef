"""``OPTIONS["pool"]``, and the pool of each alias."""

from __future__ import annotations

import threading
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from vinyl import _core

__all__ = [
    "POOL_KEYS",
    "close_pools",
    "make_pool",
    "pool_of",
    "pool_options",
    "pool_with",
    "replace_pool",
]

#: psycopg_pool's keys that ``OPTIONS["pool"]`` may have; True and {} mean the defaults.
POOL_KEYS = frozenset(
    {
        "min_size",
        "max_size",
        "max_waiting",
        "max_idle",
        "max_lifetime",
        "name",
        "num_workers",
        "reconnect_failed",
        "reconnect_timeout",
        "timeout",
    }
)

#: Those of psycopg_pool that are meant for psycopg's connections, or that Django sets: the cure.
REFUSED = {
    "check": "a dead connection is noticed from its socket; leave it out",
    "close_returns": "vinyl's connections go back to the pool by themselves; leave it out",
    "configure": "a receiver of django.db.backends.signals.connection_created, or OPTIONS, does it",
    "connection_class": "vinyl's connections are its own; leave it out",
    "conninfo": "set NAME, HOST and the like, or other keys of OPTIONS",
    "kwargs": "set other keys of OPTIONS",
    "open": "the pool opens with its first use; leave it out",
    "reset": "a connection with state of its own is never handed on; leave it out",
}

_pools: dict[str, tuple[Any, Any, _core.Pool]] = {}
_lock = threading.Lock()


def pool_options(alias: str, options: Any) -> dict[str, Any]:
    """What ``_core.Pool`` takes, from ``OPTIONS["pool"]``.

    Raises ImproperlyConfigured, naming the key.
    """
    where = f"DATABASES[{alias!r}]['OPTIONS']['pool']"
    if options in (None, False, True):
        return {}
    if not isinstance(options, dict):
        raise ImproperlyConfigured(f"{where} must be True, False or a dict of options.")
    for key in sorted(REFUSED.keys() & options.keys()):
        if options[key] is not None:
            raise ImproperlyConfigured(f"{where}[{key!r}] cannot be set: {REFUSED[key]}.")
    unknown = sorted(map(str, options.keys() - POOL_KEYS - REFUSED.keys()))
    if unknown:
        raise ImproperlyConfigured(
            f"{where} has unknown keys: {', '.join(unknown)}. "
            f"Known are {', '.join(sorted(POOL_KEYS))}."
        )
    chosen = {key: options[key] for key in POOL_KEYS & options.keys() if options[key] is not None}
    for key in ("min_size", "max_size", "max_waiting", "num_workers"):
        if key in chosen and (isinstance(chosen[key], bool) or not isinstance(chosen[key], int)):
            raise ImproperlyConfigured(f"{where}[{key!r}] must be an int, not {chosen[key]!r}.")
    for key in ("timeout", "max_idle", "max_lifetime", "reconnect_timeout"):
        if key in chosen and (
            isinstance(chosen[key], bool) or not isinstance(chosen[key], int | float)
        ):
            raise ImproperlyConfigured(
                f"{where}[{key!r}] must be a number of seconds, not {chosen[key]!r}."
            )
    # As psycopg_pool: None means no more than min_size, which raises the default otherwise.
    least = chosen.get("min_size", 1)
    if "max_size" not in chosen:
        chosen["max_size"] = least if "max_size" in options else max(10, least)
    return chosen


def make_pool(
    driver: Any, config: Any, alias: str, options: Any, limits: dict[str, Any]
) -> _core.Pool:
    """A new pool, which opens nothing yet. ``limits`` override what ``options`` say.

    Raises ImproperlyConfigured, naming the key.
    """
    chosen = {"name": alias, **pool_options(alias, options), **limits}
    try:
        return _core.Pool(driver, config, threads=bool(options), **chosen)
    except (TypeError, OverflowError) as error:
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]['OPTIONS']['pool']: {error}") from error


def pool_of(alias: str) -> _core.Pool | None:
    """The pool of a vinyl alias, or None before its first connection."""
    known = _pools.get(alias)
    return known[2] if known else None


def pool_with(alias: str, config: Any, options: Any) -> _core.Pool | None:
    """The pool of an alias, if it is one for this ``config`` and these ``options``."""
    known = _pools.get(alias)
    return known[2] if known and known[0] == config and known[1] == options else None


def replace_pool(alias: str, config: Any, options: Any, pool: _core.Pool) -> None:
    """``pool`` is the alias's from now on; the one before closes."""
    with _lock:
        old = _pools.get(alias)
        _pools[alias] = (config, options, pool)
    if old is not None:
        old[2].close()


def close_pools(alias: str | None = None) -> None:
    """Close the idle connections of a pool (None: of all pools), the others when they come back."""
    for name in [alias] if alias else list(_pools):
        if pool := pool_of(name):
            pool.close()
