"""Where what was measured goes: build/bench/, and on request docs/.

A page of docs/ has a pair of comments around each generated part:

    <!-- bench:NAME -->
    <!-- /bench:NAME -->
"""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench"
DOCS = ROOT / "docs"
PAGE = "performance.md"


def put(page: str, name: str, text: str) -> str:
    """``page`` with ``text`` between the comments of ``name``."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page has not one part {begin} … {end}")
    return pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", page)


def keep(name: str, text: str, charts: dict[str, str], found: Any, docs: bool) -> None:
    """NAME.md, NAME.json and the charts."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text(text)
    (OUT / f"{name}.json").write_text(json.dumps(found))
    _charts(OUT, charts)
    if docs:
        path = DOCS / PAGE
        path.write_text(put(path.read_text(), name, text))
        _charts(DOCS, charts)


def _charts(directory: Path, charts: dict[str, str]) -> None:
    for name, svg in charts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg)


def versions(packages: list[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """When and where: a figure is worth nothing without."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return (
        f"{date.today().isoformat()}, {os.cpu_count()} cores"
        f"{f' ({model[1].strip()})' if model else ''}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )
