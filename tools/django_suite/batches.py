"""Which test apps there are, and which of them share a process.

A process per app would set up its databases 200 times, one process for all would lose everything
with a crash: big apps run alone, the others in groups of neighbours.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: Not runnable as apps (as in runtests.py), or not ours to judge: GIS needs engines of its own.
NOT_APPS = frozenset({"gis_tests", "import_error_package", "test_runner_apps"})
#: Longest first: they start first.
ALONE = (
    "admin_scripts", "auth_tests", "admin_views", "cache", "test_runner", "migrations", "queries",
    "schema", "i18n", "servers", "view_tests", "staticfiles_tests", "forms_tests", "backends",
    "postgres_tests", "model_fields", "expressions", "db_functions", "template_tests",
    "utils_tests", "delete", "transactions", "sessions_tests", "admin_inlines", "admin_widgets",
    "test_utils", "lookup", "aggregation", "annotations", "prefetch_related", "fixtures",
    "async", "asgi", "handlers", "select_for_update", "constraints", "inspectdb", "introspection",
)  # fmt: skip
GROUP_SIZE = 14


def list_apps(tests: Path) -> list[str]:
    """The test apps of Django's tests/ directory."""
    return sorted(
        path.name
        for path in tests.iterdir()
        if (path / "__init__.py").exists() and path.name not in NOT_APPS
    )


def make_batches(tests: Path, wanted: list[str], without: list[str]) -> list[tuple[str, ...]]:
    """The apps ``wanted`` (empty: all), as they are to run together, the longest first.

    ``without``: apps that do not run; who shares a process with whom stays the same.
    """
    known = list_apps(tests)
    unknown = sorted({*wanted, *without} - set(known))
    if unknown:
        sys.exit(f"vinyl: Django's suite has no app {', '.join(unknown)}")
    chosen = [app for app in known if not wanted or app in wanted]
    alone = [(app,) for app in ALONE if app in chosen]
    rest = [app for app in chosen if app not in ALONE]
    # A few apps run one by one, so that what is kept of Django's own runs serves other choices too.
    size = GROUP_SIZE if not wanted or len(rest) > GROUP_SIZE else 1
    groups = [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
    left = [tuple(app for app in apps if app not in without) for apps in alone + groups]
    return [apps for apps in left if apps]
