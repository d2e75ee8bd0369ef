"""The tests' configuration.  Each concern has a file of its own:

fix_mode      async tests run in every mode: asyncio, uvloop, blocking
fix_postgres  a private PostgreSQL server
fix_engine    Django's DATABASES on each engine, and the tests' tables
fix_plans     the plan cache: checked or trusted, and what it executes
fix_links     links of the PostgreSQL engine, without Django's wrapper
fix_http      the site of tests/web under the ASGI and WSGI handlers
fix_shop      the record shop: third parties' software on vinyl, in this process
fix_served    the same under a server, in a process of its own
fix_browser   a real browser
fix_project   a project on disk, and its server processes
fix_leaks     after each test: no fiber, no connection, no un-awaited operation is left
"""

from __future__ import annotations

import os

import django
import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "library.settings"

pytest_plugins = (
    "fix_mode",
    "fix_postgres",
    "fix_engine",
    "fix_http",
    "fix_shop",
    "fix_project",
    "fix_served",
    "fix_browser",
    "fix_links",
    "fix_adapters",
    "fix_plans",
    "fix_leaks",
)


def pytest_configure(config: pytest.Config) -> None:
    django.setup()
    if hasattr(config, "workerinput"):
        # A worker of pytest-xdist has a thread that talks to its parent; tests fork all the same.
        ignored = "ignore:This process .* is multi-threaded:DeprecationWarning"
        config.addinivalue_line("filterwarnings", ignored)
