"""``manage.py vinyl``: what vinyl is made of and how this project uses it."""

from __future__ import annotations

import platform
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import django
from django.core.management.base import BaseCommand
from django.db import connections

import vinyl
from vinyl import conf
from vinyl.aliases import vinyl_alias
from vinyl.backends.pools import POOL_KEYS
from vinyl.bridge import pool_stats
from vinyl.plan import statement
from vinyl.plan.node import count_nodes

_ENGINES = ("vinyl.backends.postgresql", "vinyl.backends.sqlite3")


class Command(BaseCommand):
    """Needs no database; ``--connect`` asks each one for its version."""

    help = "Shows vinyl's engines, the versions of their libraries, the pools and the modes."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--connect", action="store_true", help="Connect, and show the servers' versions."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._section("Versions", _versions())
        self._section("Engines", _engines())
        self._section("Databases", self._databases(options["connect"]))
        self._section("Modes", _modes())

    def _section(self, title: str, rows: Iterator[tuple[str, str]]) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(title))
        for name, value in rows:
            self.stdout.write(f"  {name:<20} {value}")

    def _databases(self, connect: bool) -> Iterator[tuple[str, str]]:
        for alias, database in connections.settings.items():
            served = vinyl_alias(alias)
            if served is None:
                yield alias, f"{database['ENGINE']}: not vinyl's, threads in async code"
                continue
            if served != alias:
                yield alias, f"{database['ENGINE']}, in coroutines and fibers {served!r}"
                continue
            yield alias, f"{database['ENGINE']}, {_pool(alias, database)}"
            if connect:
                with connections[alias].cursor():
                    yield "", f"server {'.'.join(map(str, _server(alias)))}"
                connections[alias].close()


def _server(alias: str) -> tuple[int, ...]:
    return connections[alias].get_database_version()


def _pool(alias: str, database: dict[str, Any]) -> str:
    stats = pool_stats(alias)
    limits = f"pool of {stats['pool_min']} to {stats['pool_max']}"
    options = database["OPTIONS"].get("pool")
    more = [
        f"{key} {options[key]}"
        for key in sorted(POOL_KEYS - {"min_size", "max_size"})
        if isinstance(options, dict) and key in options
    ]
    return ", ".join([limits, *more])


def _versions() -> Iterator[tuple[str, str]]:
    yield "vinyl", vinyl.__version__
    yield "Python", platform.python_version()
    yield "Django", django.get_version()
    for package in ("greenlet", "psycopg", "uvloop", "uvicorn"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


def _engines() -> Iterator[tuple[str, str]]:
    for engine in _ENGINES:
        name = engine.rpartition(".")[2]
        try:
            import_module(f"{engine}.base")
        except Exception as error:  # a library is missing: said in Django's words
            yield name, str(error).strip().splitlines()[0]
        else:
            yield name, _library(name)


def _library(engine: str) -> str:
    if engine == "postgresql":
        number = import_module("vinyl._postgres").libpq_version
        return f"libpq {number // 10000}.{number % 10000}"
    return f"SQLite {import_module('vinyl._sqlite3').sqlite_version}"


def _modes() -> Iterator[tuple[str, str]]:
    manager = conf.get("AUTO_MANAGER")
    yield "AUTO_MANAGER", f"Model.{manager}" if manager else "off"
    native = conf.get("NATIVE_ASYNC_API")
    yield "NATIVE_ASYNC_API", "on: Django's a-methods in fibers" if native else "off"
    plans = conf.get("PLAN_CACHE")
    yield "PLAN_CACHE", "checked at each hit" if plans == "check" else "on" if plans else "off"
    counted = ", ".join(f"{count} {name}" for name, count in statement.stats.items())
    yield "plans", f"{count_nodes()} steps known; {counted} in this process"
