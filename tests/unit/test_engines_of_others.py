"""Engines in DATABASES that are neither Django's nor vinyl's: monitoring wrappers, GIS, peers'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = """
from {base}.base import DatabaseWrapper as Base


class DatabaseWrapper(Base):
    pass
"""
PROJECT = """
from django.conf import settings

other = {{"ENGINE": "others", "NAME": "one.sqlite3"}}
mine = {{"ENGINE": "vinyl.backends.sqlite3", "NAME": "{name}"}}
settings.configure(
    INSTALLED_APPS={apps!r}, DATABASES={{"default": other, "second": mine}}, USE_TZ=True
)
import django

django.setup()
from django.db import connections

for alias in {order!r}:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
from vinyl.aliases import vinyl_alias
from vinyl.connections import served_alias

print(vinyl_alias("default"), served_alias("default"), vinyl_alias("second"))
"""


@pytest.mark.parametrize("order", [["default", "second"], ["second", "default"]])
@pytest.mark.parametrize("apps", [["vinyl"], []], ids=["app", "engine-alone"])
@pytest.mark.parametrize(
    ("base", "name", "found"),
    [
        ("django.db.backends.sqlite3", "two.sqlite3", "None None second"),
        ("vinyl.backends.sqlite3", "two.sqlite3", "default default second"),
    ],
    ids=["of-django", "of-vinyl"],
)
def test_an_engine_of_others_is_what_it_derives_from(
    tmp_path: Path, base: str, name: str, found: str, apps: list[str], order: list[str]
) -> None:
    package = tmp_path / "others"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(ENGINE.format(base=base))
    script = tmp_path / "project.py"
    script.write_text(PROJECT.format(name=name, apps=apps, order=order))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == found
