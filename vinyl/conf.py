"""The ``VINYL`` setting: one dictionary, read once and again when a test changes it."""

from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

DEFAULTS: dict[str, Any] = {
    # The attribute under which every model gets a VinylManager; None: none does.
    "AUTO_MANAGER": "vinyl",
    # Django's own a-methods run in fibers instead of threads.
    "NATIVE_ASYNC_API": False,
    # A query seen before skips the SQL compiler: True, False, or "check", which compiles all the
    # same and raises where the two differ.
    "PLAN_CACHE": True,
}


def declared() -> dict[str, Any]:
    """What ``settings.VINYL`` says, unchecked beyond being a dictionary."""
    value = getattr(settings, "VINYL", {})
    if not isinstance(value, dict):
        raise ImproperlyConfigured(f"settings.VINYL must be a dictionary, not {value!r}.")
    return value


@cache
def get(key: str) -> Any:
    """One key of ``settings.VINYL``, or its default."""
    return declared().get(key, DEFAULTS[key])


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "VINYL":
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="vinyl.conf")
