"""The check for vinyl's own app, which is not there to make it when it is missing.

Watched from where a project shows that it means to use vinyl: `vinyl.twin()` in its settings, or a
vinyl engine that is loaded.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, register
from django.core.checks import Warning as CheckWarning

__all__ = ["check_app", "check_app_for_deployment", "watch"]


def watch() -> None:
    """Registers the checks. Idempotent."""
    register(check_app, "vinyl")
    register(check_app_for_deployment, "vinyl", deploy=True)


def check_app(**kwargs: Any) -> list[CheckMessage]:
    """Whether the app is missing from a site, or from a project that has made a twin.

    The engine alone is a choice too, in a script's settings (Django's own tests are run so): that
    is said by `check --deploy` and not by each command.
    """
    served = _served()
    is_site = bool(settings.WSGI_APPLICATION or getattr(settings, "ASGI_APPLICATION", None))
    has_twin = any(alias != by for alias, by in served.items())
    return _missing() if served and (has_twin or is_site) else []


def check_app_for_deployment(**kwargs: Any) -> list[CheckMessage]:
    return _missing() if _served() and not check_app() else []


def _served() -> dict[str, str]:
    from django.db import connections

    from vinyl.aliases import vinyl_alias

    found = ((alias, vinyl_alias(alias)) for alias in connections.settings)
    return {alias: by for alias, by in found if by is not None}


def _missing() -> list[CheckMessage]:
    if apps.is_installed("vinyl"):
        return []
    return [
        CheckWarning(
            "DATABASES has a vinyl engine, but 'vinyl' is not in INSTALLED_APPS: models have no "
            "Model.vinyl, and their instances cannot be awaited.",
            hint="Add 'vinyl' to INSTALLED_APPS.",
            id="vinyl.W005",
        )
    ]
