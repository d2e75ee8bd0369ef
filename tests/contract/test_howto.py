"""Every example of docs/howto is run: each page is a project on PostgreSQL, with tests of its own.

The first line of a block names the file that it stands in, or says that it is the code from before,
which has to be Python and no more. A shell block is run when it is of ``manage.py``.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_postgres import PrivatePostgres

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "howto").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
execute_from_command_line(sys.argv)
"""
SETTINGS = """
SECRET_KEY = "x"
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
VINYL = """
INSTALLED_APPS += ["vinyl"]
DATABASES = {"default": {"ENGINE": "vinyl.backends.postgresql", "NAME": "shop"}}
"""
MODELS = """
from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=50)


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    number = models.IntegerField()
    paid = models.BooleanField(default=False)

    class Meta:
        ordering = ["number"]
"""


@pytest.fixture
def environment(postgres_server: PrivatePostgres) -> Iterator[dict[str, str]]:
    """libpq finds the server by itself: a page need not name one."""
    postgres_server.psql("CREATE DATABASE shop")
    yield os.environ | {
        "PGHOST": postgres_server.host,
        "PGPORT": str(postgres_server.port),
        "PGUSER": postgres_server.user,
    }
    postgres_server.psql("DROP DATABASE shop WITH (FORCE)")


def write(page: Path, directory: Path) -> list[list[str]]:
    """Makes the project of a page; the commands that the page shows."""
    files = {"settings.py": SETTINGS, "models.py": MODELS, "urls.py": "urlpatterns = []\n"}
    if page.stem != "adding":
        files["settings.py"] += VINYL
    commands = []
    for language, text in BLOCK.findall(page.read_text()):
        if language == "sh":
            lines = [line.split() for line in text.splitlines()]
            commands += [line[2:] for line in lines if line[:2] == ["python", "manage.py"]]
            continue
        if language != "python":
            continue
        tree = ast.parse(text)
        assert tree.body, text
        name = text.partition("\n")[0].removeprefix("# ").strip()
        assert name == "before" or name.endswith(".py"), f"which file is this? {text}"
        if name != "before":
            files[name] = files.get(name, "") + text
    shop = directory / "shop"
    shop.mkdir()
    (directory / "manage.py").write_text(MANAGE)
    (shop / "__init__.py").touch()
    for name, text in files.items():
        (shop / name).write_text(text)
    return commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    commands = write(page, tmp_path)
    for command in (*commands, ["makemigrations", "shop"], ["test", "--noinput"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert re.search(r"Ran [1-9]\d* tests?", done.stderr), done.stderr


def test_there_is_a_page_each() -> None:
    names = {page.stem for page in PAGES}
    assert names >= {"adding", "transactions", "tests", "deployment"}
    assert names >= {"from-django-async-backend", "from-sync-to-async"}
