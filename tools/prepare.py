"""Makes the environment of one purpose: system packages, .venv-PURPOSE, build/PURPOSE.

Called by tools/run.  ``prepare.py demo+postgresql`` also asks for that system package.  Needs only
the standard library of Python 3.11.  Quick when there is nothing to do: what was installed is
remembered as digests in .venv-PURPOSE/, and ninja rebuilds only what changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Purpose:
    """What an environment holds.

    ``group``: the dependency group of pyproject.toml.  ``setup``: meson options of our own build,
    None when the purpose needs no build.  ``system``: names of SYSTEM checks.  ``wishes``: a group
    whose packages are installed one by one; the purpose does without those that cannot be.
    """

    group: str
    setup: tuple[str, ...] | None = None
    system: tuple[str, ...] = ()
    wishes: str = ""


BUILD_NEEDS = ("compiler", "pkg-config", "libpq", "sqlite3", "headers")
SANITIZE = (
    "-Dbuildtype=debug",
    "-Doptimization=1",
    "-Db_sanitize=address,undefined",
    "-Db_lundef=false",
    # greenlet copies slices of the stack, which ASan's stack poisoning takes for overflows.
    "-Dc_args=--param=asan-stack=0",
)
PURPOSES = {
    "test": Purpose(
        "test",
        ("-Dbuildtype=debugoptimized",),
        (*BUILD_NEEDS, "postgresql", "pgbouncer", "browser"),
    ),
    "asan": Purpose("test", SANITIZE, (*BUILD_NEEDS, "postgresql", "libasan")),
    "fuzz": Purpose("lint", None, ("pkg-config", "libpq", "libfuzzer")),
    "demo": Purpose("demo", ("-Dbuildtype=release",), BUILD_NEEDS),
    "suite": Purpose("suite", None, (*BUILD_NEEDS, "postgresql")),
    "bench": Purpose(
        "bench", ("-Dbuildtype=release",), (*BUILD_NEEDS, "postgresql"), "bench-peers"
    ),
    "lint": Purpose("lint"),
    "docs": Purpose("docs"),
}


def answers(*command: str) -> bool:
    """Whether ``command`` can be run and ends with 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def has_postgresql() -> bool:
    return shutil.which("initdb") is not None or any(
        Path("/usr/lib/postgresql").glob("*/bin/initdb")
    )


def has_pgbouncer() -> bool:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


def has_browser() -> bool:
    return answers("chromium", "--version") and answers("chromedriver", "--version")


def has_libasan() -> bool:
    found = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return os.path.isabs(found)


def has_libfuzzer() -> bool:
    source = "int LLVMFuzzerTestOneInput(const char *d, long n) { return 0; }"
    command = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", os.devnull]
    try:
        done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def has_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").exists()


def has_ensurepip() -> bool:
    return answers(sys.executable, "-c", "import ensurepip, venv")


PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# name: (check, Debian's package)
SYSTEM = {
    "compiler": (lambda: answers("cc", "--version"), "gcc libc6-dev"),
    "pkg-config": (lambda: answers("pkg-config", "--version"), "pkg-config"),
    "libpq": (lambda: answers("pkg-config", "--exists", "libpq"), "libpq-dev"),
    "sqlite3": (lambda: answers("pkg-config", "--exists", "sqlite3"), "libsqlite3-dev"),
    "headers": (has_headers, f"{PYTHON}-dev"),
    "ensurepip": (has_ensurepip, f"{PYTHON}-venv"),
    "postgresql": (has_postgresql, "postgresql"),
    "pgbouncer": (has_pgbouncer, "pgbouncer"),
    "wrk": (lambda: shutil.which("wrk") is not None, "wrk"),
    "valgrind": (lambda: Path("/usr/include/valgrind/callgrind.h").exists(), "valgrind"),
    "browser": (has_browser, "chromium chromium-driver fonts-dejavu-core"),
    "libfuzzer": (has_libfuzzer, "clang libclang-rt-14-dev"),
    "libasan": (has_libasan, "gcc libc6-dev"),
}


def say(text: str) -> None:
    print(f"vinyl: {text}", file=sys.stderr, flush=True)


def ensure_system(names: tuple[str, ...]) -> None:
    """Installs what is missing when that can be done here, else says what to install.

    What VINYL_TEST_WAIVE names, the tests do without.
    """
    waived = os.environ.get("VINYL_TEST_WAIVE", "").replace(",", " ").split()
    if "postgresql" in waived:
        waived.append("pgbouncer")  # nothing to stand before
    wanted = [name for name in ("ensurepip", *names) if name not in waived]
    missing = [name for name in wanted if not SYSTEM[name][0]()]
    if not missing:
        return
    packages = " ".join(dict.fromkeys(SYSTEM[name][1] for name in missing)).split()
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"vinyl: this machine lacks {', '.join(missing)}. Install it first; on Debian or "
            f"Ubuntu:\n    sudo apt-get install {' '.join(packages)}"
        )
    say(f"installing {' '.join(packages)} (apt-get)")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=True, stdout=sys.stderr)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(install, env=env, check=True, stdout=sys.stderr)
    left = [name for name in missing if not SYSTEM[name][0]()]
    if left:
        sys.exit(f"vinyl: {', '.join(left)} still missing after installing {' '.join(packages)}")


def install_wishes(pip: list[str], wishes: list[str], env: dict[str, str]) -> None:
    """All, or one by one: one that has no release for this Python or Django leaves the others."""
    django = os.environ.get("VINYL_DJANGO")
    pin = [f"django=={django}"] if django else []

    def install(*names: str) -> str:
        """What pip said when it failed, else nothing."""
        done = subprocess.run(
            [*pip, *pin, *names], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        said = (done.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        return said if done.returncode else ""

    if not wishes or not install(*wishes):
        return
    for wish in wishes:
        if why := install(wish):
            say(f"{wish} cannot be installed here: {why}")


def requirements(project: dict, purpose: Purpose) -> list[str]:
    """The PyPI packages of ``purpose``, a group's includes resolved."""
    groups = project["dependency-groups"]

    def flat(group: str) -> list[str]:
        names: list[str] = []
        for entry in groups[group]:
            names += flat(entry["include-group"]) if isinstance(entry, dict) else [entry]
        return names

    names = flat(purpose.group)
    if purpose.setup is not None:
        names += project["build-system"]["requires"] + ["meson>=1.3", "ninja"]
        names += project["project"]["dependencies"]
    django = os.environ.get("VINYL_DJANGO")
    return [*names, f"django=={django}"] if django else names


@contextmanager
def stamped(path: Path, *identity: str) -> Iterator[bool]:
    """Whether the block has been done before with the same ``identity``; notes it when it ends."""
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    done = path.exists() and path.read_text() == digest
    if not done:
        path.unlink(missing_ok=True)
    yield done
    path.write_text(digest)


def run(command: list[str], env: dict[str, str], what: str) -> None:
    """Runs a step quietly; shows everything it said when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=env, check=False, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        sys.exit(f"vinyl: {what} failed ({done.returncode}); what it said stands above")


def prepare(name: str, more: tuple[str, ...] = ()) -> None:
    purpose = PURPOSES[name]
    ensure_system((*purpose.system, *more))
    home, build = ROOT / f".venv-{name}", ROOT / "build" / name
    python = home / "bin" / "python"
    env = os.environ | {"PATH": f"{home}/bin:{os.environ['PATH']}"}
    env.pop("PYTHONHOME", None)

    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = requirements(project, purpose)
    wishes = project["dependency-groups"][purpose.wishes] if purpose.wishes else []
    identity = (sys.executable, sys.version, str(ROOT), *wanted, *wishes)
    with stamped(home / "stamp", *identity) as fresh:
        if not fresh:
            say(f"making .venv-{name} with Python {sys.version.split()[0]}")
            venv.create(home, clear=True, with_pip=True)
            run([*pip, *wanted], env, "pip install")
            install_wishes(pip, wishes, env)
    if purpose.setup is None:
        return
    with stamped(home / "stamp-build", sys.version, *purpose.setup) as built:
        if built and (build / "build.ninja").exists():
            run([str(home / "bin" / "ninja"), "-C", str(build)], env, "the build")
        else:
            say(f"building into build/{name}")
            shutil.rmtree(build, ignore_errors=True)
            options = [f"-Csetup-args={option}" for option in ("-Dwerror=true", *purpose.setup)]
            editable = ["--no-build-isolation", "--no-deps", f"-Cbuild-dir={build}", "-e", "."]
            run([*pip, *options, *editable], env, "the build")


if __name__ == "__main__":
    asked, *extra = sys.argv[1].split("+") if len(sys.argv) == 2 else [""]
    if asked not in PURPOSES or not set(extra) <= set(SYSTEM):
        sys.exit(f"usage: prepare.py {{{','.join(PURPOSES)}}}[+{{{','.join(SYSTEM)}}}]")
    prepare(asked, tuple(extra))
