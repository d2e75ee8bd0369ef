"""tools/prepare.py: what it says and does about what a machine lacks."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import prepare
import pytest


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VINYL_TEST_WAIVE", raising=False)
    monkeypatch.setitem(prepare.SYSTEM, "ensurepip", (lambda: True, "python3-venv"))
    monkeypatch.setitem(prepare.SYSTEM, "libpq", (lambda: False, "libpq-dev"))
    monkeypatch.setitem(prepare.SYSTEM, "sqlite3", (lambda: False, "libsqlite3-dev"))


@pytest.mark.usefixtures("lacking")
def test_says_what_to_install_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="apt-get install libpq-dev libsqlite3-dev"):
        prepare.ensure_system(("libpq", "sqlite3"))


@pytest.mark.usefixtures("lacking")
def test_installs_as_root_and_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(prepare.subprocess, "run", lambda command, **kwargs: ran.append(command))
    with pytest.raises(SystemExit, match="libpq, sqlite3 still missing"):
        prepare.ensure_system(("libpq", "sqlite3"))
    assert ran[0][:2] == ["apt-get", "update"]
    assert ran[1][-2:] == ["libpq-dev", "libsqlite3-dev"]


@pytest.mark.usefixtures("lacking")
def test_what_is_waived_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("VINYL_TEST_WAIVE", "libpq, sqlite3")
    prepare.ensure_system(("libpq", "sqlite3"))


@pytest.mark.parametrize(
    ("what", "package"), [("browser", "chromium chromium-driver"), ("pgbouncer", "pgbouncer")]
)
def test_the_tests_need_more_programs_and_say_which(
    monkeypatch: pytest.MonkeyPatch, what: str, package: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("VINYL_TEST_WAIVE", raising=False)
    _check, packages = prepare.SYSTEM[what]
    monkeypatch.setitem(prepare.SYSTEM, what, (lambda: False, packages))
    assert what in prepare.PURPOSES["test"].system
    with pytest.raises(SystemExit, match=f"apt-get install {package}"):
        prepare.ensure_system((what,))


def test_stamp_is_of_work_that_ended(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"

    def work_that_fails() -> None:
        with prepare.stamped(stamp, "a"):
            raise LookupError

    with pytest.raises(LookupError):
        work_that_fails()
    for wanted in (False, True):
        with prepare.stamped(stamp, "a") as done:
            assert done is wanted
    with prepare.stamped(stamp, "b") as done:
        assert not done


def test_requirements_of_each_purpose() -> None:
    project = prepare.tomllib.loads((prepare.ROOT / "pyproject.toml").read_text())
    for name, purpose in prepare.PURPOSES.items():
        names = prepare.requirements(project, purpose)
        assert names, name
        if purpose.setup is not None:
            assert {"meson>=1.3", "ninja", *project["project"]["dependencies"]} <= set(names), name


def test_a_wish_that_cannot_be_installed_is_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
import sys
print(*sys.argv[1:], file=open("asked", "a"))
sys.exit("No matching distribution" if "no-such" in str(sys.argv) else 0)
"""
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    pip = [sys.executable, "-c", script]
    prepare.install_wishes(pip, ["there>=1", "no-such-package>=1", "too>=1"], dict(os.environ))
    said = capsys.readouterr().err
    assert said.count("cannot be installed here") == 1
    assert "no-such-package>=1 cannot be installed here: No matching distribution" in said
    assert (tmp_path / "asked").read_text().splitlines() == [
        "there>=1 no-such-package>=1 too>=1", "there>=1", "no-such-package>=1", "too>=1",
    ]  # fmt: skip
    prepare.install_wishes(pip, ["there>=1", "too>=1"], dict(os.environ))
    assert (tmp_path / "asked").read_text().splitlines()[4:] == ["there>=1 too>=1"]
