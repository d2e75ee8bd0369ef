"""In the suite's process: runs a package's tests on the databases of VINYL_PACKAGE.

It has the name of Django's script because launch.py runs that; it is run in one of launch's modes.
VINYL_PACKAGE is a JSON object: ``source``, ``runner``, ``arguments``, ``settings``, ``engine`` (a
dotted path), ``server`` (what DATABASES says of the server, or null for SQLite), ``apps`` (more
INSTALLED_APPS).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

QUICK_HASHER = "django.contrib.auth.hashers.MD5PasswordHasher"
package = json.loads(os.environ["VINYL_PACKAGE"])


def database(alias: str, entry: dict[str, Any]) -> dict[str, Any]:
    """``entry`` of the package's DATABASES on our engine and server; its tests' keys stay."""
    test = {key: value for key, value in entry.get("TEST", {}).items() if key in ("MIRROR",)}
    kept = {key: entry[key] for key in ("ATOMIC_REQUESTS",) if key in entry} | {"TEST": test}
    if package["server"] is None:
        return {**kept, "ENGINE": package["engine"], "NAME": ":memory:"}
    return {**kept, **package["server"], "ENGINE": package["engine"], "NAME": f"package_{alias}"}


def change(settings: Any) -> None:
    from django.conf import global_settings

    # Half of the time of some packages' tests, on both sides, would be spent on passwords.
    if settings.PASSWORD_HASHERS == global_settings.PASSWORD_HASHERS:
        settings.PASSWORD_HASHERS = [QUICK_HASHER, *global_settings.PASSWORD_HASHERS]
    databases = settings.DATABASES
    settings.DATABASES = {alias: database(alias, databases[alias]) for alias in databases}
    apps = [*settings.INSTALLED_APPS]
    apps += [app for app in package["apps"] if app not in apps]
    settings.INSTALLED_APPS = apps


def change_settings() -> None:
    """Whichever way the package configures Django: with a settings module, or in its code."""
    from django.conf import LazySettings, Settings

    init, configure = Settings.__init__, LazySettings.configure

    def changed_init(self: Settings, module: str) -> None:
        init(self, module)
        change(self)

    def changed_configure(self: LazySettings, *args: Any, **options: Any) -> None:
        configure(self, *args, **options)
        change(self)

    Settings.__init__ = changed_init  # type: ignore[method-assign]
    LazySettings.configure = changed_configure  # type: ignore[method-assign]


def main() -> int:
    os.chdir(package["source"])
    sys.path.insert(0, package["source"])
    if package["settings"]:
        os.environ["DJANGO_SETTINGS_MODULE"] = package["settings"]
    change_settings()
    if package["runner"] == "pytest":
        import pytest

        # One without a section for pytest must not take that of our checkout, which it is in.
        names = [name for name in ("pytest.ini", "pyproject.toml") if os.path.exists(name)]
        options = [f"--config-file={names[0]}"] if names else ["--rootdir=."]
        options += ["-q", "-p", "packages_suite.record", "-p", "no:cacheprovider"]
        return int(pytest.main([*options, *package["arguments"]]))
    from django.core.management import execute_from_command_line

    options = ["--noinput", "--testrunner=django_suite.record.RecordingRunner"]
    execute_from_command_line(["manage.py", "test", *options, *package["arguments"]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
