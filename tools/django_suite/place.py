"""Where the suite runs, and as whom.

Some of Django's tests assert what a file's permissions forbid, so the suite cannot run as root;
whoever it runs as must be able to read the Python, the environment and the source tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class User:
    """Whom the suite runs as. ``switch``: arguments for subprocess, empty for ourselves."""

    name: str
    uid: int
    gid: int
    switch: dict[str, Any]

    def own(self, *paths: Path) -> None:
        """Gives the paths, and all below them, to this user."""
        if self.switch:
            names = [str(path) for path in paths]
            subprocess.run(["chown", "-R", f"{self.uid}:{self.gid}", *names], check=True)


def choose_user() -> User:
    """Ourselves, or ``nobody`` when we are root."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid, {})
    for name in ("nobody", "postgres"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            ids = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            return User(name, entry.pw_uid, entry.pw_gid, ids)
    sys.exit("vinyl: Django's suite cannot run as root, and there is no user nobody or postgres")


def is_public(path: Path) -> bool:
    """Whether everybody may enter every directory on the way to ``path``."""
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.resolve().parents)


def public_path() -> list[str]:
    """The directories of PATH that the suite's user may search."""
    return [
        entry
        for entry in os.environ["PATH"].split(os.pathsep)
        if os.path.isdir(entry) and (os.geteuid() != 0 or is_public(Path(entry, "program")))
    ]


def home() -> Path:
    """Where environments, sources and results are: this checkout, if others may read it."""
    if os.geteuid() != 0 or is_public(CHECKOUT / "tools"):
        return CHECKOUT
    digest = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    place = Path("/var/tmp", f"vinyl-django-suite-{digest}")
    place.mkdir(mode=0o755, exist_ok=True)
    return place


@dataclass(frozen=True)
class Interpreter:
    """A Python that the suite's user may run, and what its environment needs."""

    executable: Path
    env: dict[str, str]


def readable_python(under: Path) -> Interpreter:
    """Our own base interpreter; a copy (hard links where possible) when it is root's alone."""
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if os.geteuid() != 0 or is_public(prefix / "bin" / name):
        return Interpreter(prefix / "bin" / name, {})
    copy = under / "python" / ".".join(map(str, sys.version_info[:3]))
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        copy.parent.mkdir(parents=True, exist_ok=True)
        links = subprocess.run(["cp", "-al", str(prefix), str(copy)], capture_output=True)
        if links.returncode:
            shutil.rmtree(copy, ignore_errors=True)
            subprocess.run(["cp", "-a", str(prefix), str(copy)], check=True)
        (copy / "complete").touch()
    return Interpreter(copy / "bin" / name, {"LD_LIBRARY_PATH": str(copy / "lib")})
