"""The checks of ``make lint``.  Runs them all, says which failed, ends with 1 if any did.

Usage: lint.py BUILD_DIR, a configured and built meson directory of this tree.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_DIRS = ("vinyl", "tests", "tools", "examples", "bench")
MAX_LINES = 700  # 600 is the aim; from here on a file has to be divided


def tracked(*patterns: str) -> list[str]:
    """The files of the tree that match, new ones that are not ignored included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(name for name in set(listed.stdout.split()) if (ROOT / name).exists())


def passes(*command: str) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def clang_format() -> bool:
    good = True
    for name in tracked("*.c", "*.h"):
        shown = subprocess.run(
            ["clang-format", "--dry-run", "--Werror", name],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if shown.returncode:
            print(f"{name} is not formatted; clang-format -i {name}")
            good = False
    return good


def clang_tidy(build: Path) -> bool:
    """clang-tidy over every C file that the build compiles, a few at a time."""
    entries = json.loads((build / "compile_commands.json").read_text())
    sources = sorted({str((build / entry["file"]).resolve()) for entry in entries})

    def one(source: str) -> bool:
        done = subprocess.run(
            ["clang-tidy", "--quiet", "-p", str(build), source],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout or done.stderr, flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        return all(list(workers.map(one, sources)))


def compiles() -> bool:
    return all(
        compileall.compile_dir(ROOT / name, quiet=1, force=True)
        for name in PYTHON_DIRS
        if (ROOT / name).is_dir()
    )


def exports(build: Path) -> bool:
    """Every extension module exports its PyInit function and nothing else."""
    modules = sorted(build.glob("src/**/*.so"))
    good = bool(modules)
    for module in modules:
        listed = subprocess.run(
            ["nm", "-D", "--defined-only", "--format=posix", str(module)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        names = {line.split()[0] for line in listed.stdout.splitlines()}
        if names != {f"PyInit_{module.name.split('.')[0]}"}:
            print(f"{module.name} exports {sorted(names)}")
            good = False
    return good


def sizes() -> bool:
    """No source file is longer than MAX_LINES lines."""
    long = {
        name: lines
        for name in tracked("*.c", "*.h", "*.py")
        if (lines := len((ROOT / name).read_text().splitlines())) > MAX_LINES
    }
    for name, lines in long.items():
        print(f"{name} has {lines} lines; {MAX_LINES} is the limit")
    return not long


def main(build: Path) -> int:
    checks: dict[str, Callable[[], bool]] = {
        "ruff check": lambda: passes("ruff", "check", "--quiet", "."),
        "ruff format": lambda: passes("ruff", "format", "--check", "--quiet", "."),
        "clang-format": clang_format,
        "clang-tidy": lambda: clang_tidy(build),
        "compileall": compiles,
        "exported symbols": lambda: exports(build),
        "file sizes": sizes,
    }
    failed = []
    for name, check in checks.items():
        good = check()
        print(f"{'ok    ' if good else 'FAILED'} {name}", flush=True)
        if not good:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(ROOT / sys.argv[1]))
