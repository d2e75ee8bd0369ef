"""The packages whose tests run here, and how each of them runs its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package of PyPI whose source distribution has tests.

    ``runner``: "pytest" or "django", with ``arguments``.  ``settings``: DJANGO_SETTINGS_MODULE,
    where the package does not say it itself.  ``settings_text``: the text of such a module.
    ``requires``: what its tests import, none of which is left out for one side only.
    ``unskip``: the reason of a skip that it gives by comparing the name of the ENGINE.
    ``postgresql_env``: a variable that tells its tests that they run on PostgreSQL.
    """

    runner: str
    arguments: tuple[str, ...]
    settings: str = ""
    settings_text: str = ""
    requires: tuple[str, ...] = ()
    unskip: str = ""
    postgresql_env: tuple[str, str] = ("", "")


SIMPLE_HISTORY = """
from runtests import get_default_settings

globals().update(get_default_settings())
"""

PACKAGES = {
    "djangorestframework": Package(
        "pytest",
        ("tests",),
        requires=(
            *("dj-database-url", "importlib-metadata", "pytest-django", "django-filter"),
            *("django-guardian", "markdown", "pygments", "inflection", "legacy-cgi", "pytz"),
        ),
        unskip="Requires PostgreSQL database backend",
    ),
    "django-filter": Package(
        "django",
        ("tests",),
        "tests.settings",
        requires=("djangorestframework", "django-crispy-forms", "markdown", "pytz"),
    ),
    "django-debug-toolbar": Package(
        "django",
        ("tests",),
        "tests.settings",
        requires=("django-csp", "django-template-partials", "html5lib", "jinja2", "pygments"),
    ),
    "django-guardian": Package(
        "pytest", ("guardian/testapp/tests",), requires=("pytest-django", "django-environ")
    ),
    "django-simple-history": Package(
        "django",
        ("simple_history.tests", "simple_history.registry_tests"),
        "vinyl_simple_history_settings",
        SIMPLE_HISTORY,
    ),
    "django-treebeard": Package(
        "pytest",
        ("tests",),
        "tests.settings",
        requires=("pytest-django",),
        postgresql_env=("DATABASE_ENGINE", "psql"),
    ),
    "django-allauth": Package(
        "pytest",
        ("tests",),
        requires=(
            *("pytest-django>=4.11,<4.13", "pytest-asyncio", "pillow", "djangorestframework"),
            *("django-ninja", "pyyaml", "oauthlib", "requests", "pyjwt[crypto]", "qrcode"),
            *("fido2<3", "python3-openid", "python3-saml"),
        ),
    ),
}
