"""``make bench WORK=instructions``: instructions that the client's process executes for one call.

They are counted by callgrind, without the server and the kernel, and hardly depend on what else
the machine does: two runs differ by less than 1 %.  Each call's profile is kept too:

    make bench WORK=instructions DB=postgresql WORKS="get_10 create"
    callgrind_annotate build/bench/callgrind/postgresql.get_10.vinyl-asyncio.out | head -60
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import entries
import pages
import stage
from lanes import Lane
from work import WORKS, Work, chosen

DEFAULT = "Django sync, vinyl blocking, vinyl asyncio"
LIGHT = {"get_2", "get_10", "aggregate", "create", "save"}
# Under callgrind all takes fifty times as long: 1,000 rows say what 10,000 would.
FEWER = {
    "values": ("1,000 rows, values()", 1000),
    "values_list": ("1,000 rows, values_list()", 1000),
    "prefetch": ("prefetch 10 → 1,000", 10),
    "tasks": ("10 tasks get one each", 10),
    "stream": ("stream 4,000 rows", 4000),
}
LEFT_OUT = {"rows_10000", "bulk_update"}  # unless they are asked for: they take minutes
PROFILES = pages.OUT / "callgrind"


def times_of(work: Work) -> tuple[int, int]:
    """Calls that warm up, and calls that are counted."""
    if work.key in LIGHT:
        return 30, 30
    return (3, 3) if work.key in ("select_related", "tasks") else (1, 1)


def works_of(names: list[str]) -> list[Work]:
    """What is counted: the works of ``names``, on fewer rows."""
    found = chosen(names or [work.key for work in WORKS if work.key not in LEFT_OUT])
    return [
        replace(work, title=FEWER[work.key][0], args=(FEWER[work.key][1],))
        if work.key in FEWER
        else work
        for work in found
    ]


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("*", "-async")).strip("-")


# --- in the process that callgrind watches


def child(options: argparse.Namespace) -> None:
    entry = stage.entry_of_environ()
    stage.setup(entry)
    from work import undo

    callgrind = ctypes.CDLL(os.environ["VINYL_BENCH_CALLGRIND"])
    callgrind.vnl_bench_start()
    lanes = [Lane(each, entry) for each in entries.chosen(options.contenders, options.engine)]
    for lane in lanes:
        lane.open()
    gc.freeze()
    for work in works_of(options.works):
        for lane in lanes:
            if not lane.cannot(work):
                _count(lane, work, callgrind)
                print(f"{work.key} {lane.name}", file=sys.stderr, flush=True)
                if work.writes:
                    undo()
    for lane in lanes:
        lane.close()
    stage.tear_down()


def _count(lane: Lane, work: Work, callgrind: Any) -> None:
    """The counters start at a call's beginning; they are read at the next one's, or at the end."""
    warm, times = times_of(work)
    more = 1 if work.key in LIGHT else 0  # of a heavy one's, the end of the loop's run is nothing
    title = f"{work.key} {lane.name}".encode()
    call: Callable[..., Any] = getattr(lane.contender, work.method)
    number = 0

    def between(*args: Any) -> Any:
        nonlocal number
        if number == warm:
            callgrind.vnl_bench_zero()
        elif number == warm + times:
            callgrind.vnl_bench_dump(title)
        number += 1
        return call(*args)

    gc.collect()
    lane.mode.sample(lane.contender, between, work.args, warm + times + more)
    if not more:
        callgrind.vnl_bench_dump(title)


# --- and outside of it


def counts_of(directory: Path, engine: str) -> dict[str, dict[str, int]]:
    """Instructions by work and lane; the profiles are moved to where they are kept."""
    PROFILES.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, int]] = {}
    for path in directory.glob("callgrind.out.*"):
        text = path.read_text(errors="replace")
        title = re.search(r"^desc: Trigger: Client Request: (\S+) (.+)$", text, re.M)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
        if title and total:
            key, name = title[1], title[2]
            found.setdefault(key, {})[name] = int(total[1])
            (PROFILES / f"{engine}.{key}.{slug(name)}.out").write_text(text)
    return found


def table(engine: str, works: list[Work], counts: dict[str, dict[str, int]]) -> list[str]:
    names = [
        entry.name for entry in entries.ENTRIES if any(entry.name in c for c in counts.values())
    ]
    lines = [
        f"| work, {engine} | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for work in works:
        by_name = counts.get(work.key, {})
        if entries.BASE not in by_name:
            continue
        calls = times_of(work)[1]
        cells = []
        for name in names:
            if name not in by_name:
                cells.append("")
                continue
            cell = f"{by_name[name] / calls / 1000:,.0f}"
            if name != entries.BASE:
                cell += f" · {by_name[name] / by_name[entries.BASE]:.2f}"
            cells.append(cell)
        lines.append(f"| {work.title} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--works", nargs="*", default=[])
    parser.add_argument("--contenders", default="")
    parser.add_argument("--docs", action="store_true", help="also into docs/performance.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.contenders = options.contenders or DEFAULT
    if options.child:
        return child(options)
    works = works_of(options.works)
    entries.chosen(options.contenders, options.engine)  # a wrong name, before anything starts
    library = stage.compiled("callgrind.so", [stage.ROOT / "callgrind.c"], "-shared", "-fPIC")
    with (
        tempfile.TemporaryDirectory(prefix="vinyl-count-") as directory,
        stage.database(options.engine, directory) as entry,
    ):
        stage.setup(entry)
        stage.fill_tables()
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        command.append(f"--callgrind-out-file={directory}/callgrind.out.%p")
        again = [sys.executable, __file__, *sys.argv[1:], "--child"]
        env = os.environ | {"PYTHONHASHSEED": "0", "VINYL_BENCH_CALLGRIND": str(library)}
        subprocess.run([*command, *again], env=env, check=True)
        counts = counts_of(Path(directory), options.engine)
    head = f"{pages.machine()}. Thousands of instructions for one call · ratio to {entries.BASE}."
    text = "\n".join([head, "", *table(options.engine, works, counts)]) + "\n"
    pages.keep(f"instructions-{options.engine}", text, {}, counts, options.docs)
    print(text)


if __name__ == "__main__":
    main()
