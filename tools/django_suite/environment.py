"""Django's source distribution, and the virtual environment that its suite runs in."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .place import CHECKOUT, Interpreter, User

#: Requirements of Django's suite that are left out for both sides: they need a system library
#: that PyPI does not bring (libmemcached); its tests skip without it.
LEFT_OUT = ("pylibmc", "pywatchman")
SOURCES = ("src", "vinyl", "meson.build", "meson.options", "pyproject.toml")


def say(text: str) -> None:
    print(f"vinyl: {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], what: str, env: dict[str, str] | None = None) -> str:
    """Runs a step quietly and returns what it printed; shows everything when it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=CHECKOUT, text=True, check=False,
        env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        sys.exit(f"vinyl: {what} failed ({done.returncode}); what it said stands above")
    return done.stdout


def fetch_django(wanted: str, work: Path) -> Path:
    """The unpacked source distribution of Django ``wanted`` ("6.1": the newest 6.1.x at hand)."""
    exact = wanted.count(".") > 1

    def newest(pattern: str) -> Path | None:
        found = [path for path in work.glob(pattern) if version_of(path)[: len(number)] == number]
        return max(found, key=version_of, default=None)

    number = version_of(Path(wanted))
    if unpacked := newest("django-*/"):
        return unpacked
    work.mkdir(parents=True, exist_ok=True)
    say(f"downloading Django {wanted}")
    spec = f"django=={wanted}" if exact else f"django~={wanted}.0"
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    options = ["--no-binary", "django", "--no-deps", "-d", work, spec]
    run([*command, *options], f"downloading {spec}")
    archive = newest("[dD]jango-*.tar.gz")
    assert archive is not None
    name = archive.name.removesuffix(".tar.gz")
    partly = work / "unpacking"
    shutil.rmtree(partly, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partly, filter="data")
    return (partly / name).rename(work / name.lower())


def version_of(path: Path) -> tuple[int, ...]:
    """(6, 1, 3) of a path whose name is django-6.1.3 or Django-6.1.3.tar.gz."""
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


@dataclass(frozen=True)
class Environment:
    """``python``: its interpreter. ``env``: variables for everything that runs in it."""

    python: Path
    env: dict[str, str]
    source: Path

    @property
    def version(self) -> str:
        """Django's version, as "6.1.3"."""
        return self.source.name.removeprefix("django-")


def _requirements(source: Path) -> list[str]:
    names: list[str] = []
    for file in ("py3.txt", "postgres.txt"):
        for line in (source / "tests" / "requirements" / file).read_text().splitlines():
            line = line.partition("#")[0].strip()
            if line and not line.startswith(LEFT_OUT):
                names.append(line)
    return names


def make(source: Path, interpreter: Interpreter, user: User, place: Path) -> Environment:
    """``.venv-django-<version>`` in ``place``, with Django and what its suite needs."""
    version = source.name.removeprefix("django-")
    home = place / f".venv-django-{version}"
    python = home / "bin" / "python"
    wanted = [str(source), *_requirements(source)]
    digest = hashlib.sha256("\0".join([str(interpreter.executable), *wanted]).encode()).hexdigest()
    stamp = home / "stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        say(f"making {home.name} with Python {sys.version.split()[0]}")
        shutil.rmtree(home, ignore_errors=True)
        run([interpreter.executable, "-m", "venv", home], "python -m venv", interpreter.env)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, *wanted], "pip install", interpreter.env)
        user.own(source / "tests")
        stamp.write_text(digest)
    return Environment(python, interpreter.env, source)


def source_digest() -> str:
    """Of every file that our build is made from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = CHECKOUT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def vinyl_installed(environment: Environment, work: Path) -> Iterator[None]:
    """Builds this checkout and installs it, not editable: the suite's user need not read the tree.

    Until the end no other run may install another build in this environment.
    """
    stamp = environment.python.parents[1] / "vinyl-stamp"
    with open(environment.python.parents[1] / "vinyl-lock", "w") as lock:
        digest = source_digest()
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not stamp.exists() or stamp.read_text() != digest:
            say("waiting until no other run uses this environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
            _install(environment, work)
            stamp.write_text(digest)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _install(environment: Environment, work: Path) -> None:
    say("building vinyl")
    # Not shared with a run on another Django, which may be building at this moment.
    build = CHECKOUT / "build" / f"django-suite-{environment.version}"
    wheels = work / f"wheels-{environment.version}"
    shutil.rmtree(wheels, ignore_errors=True)
    options = ["--no-deps", "--no-build-isolation", "-q", "--disable-pip-version-check"]
    run(
        [sys.executable, "-m", "pip", "wheel", *options, f"-Cbuild-dir={build}", "-w", wheels, "."],
        "the build",
    )
    pip = [environment.python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, "greenlet"], "pip install greenlet", environment.env)
    wheel = next(wheels.glob("vinyl-*.whl"))
    run([*pip, "--force-reinstall", "--no-deps", wheel], "installing vinyl", environment.env)
