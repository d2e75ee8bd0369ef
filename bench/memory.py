"""What streaming takes of memory: each lane in a fresh process of its own.

The child says by how many KiB the resident memory rose, at its peak, above what it was after a
short stream.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path

import entries
import stage
from contest import Results, why
from lanes import Entry, Lane
from work import CHUNK, Work, chosen

ROUGHLY = 10 * 60.0  # seconds; a child that takes longer hangs


def status(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1])


def grown(lane: Lane, work: Work) -> int:
    """KiB."""
    lane.sample(Work(work.key, work.method, work.title, (2 * CHUNK,)), 1)
    gc.collect()
    pid = lane.pid()
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before = status(pid, "VmRSS")
    lane.sample(work, 1)
    return status(pid, "VmHWM") - before


def measure(wanted: list[Entry], results: Results) -> None:
    for entry in wanted:
        if not results.works["stream"][entry.name].seconds:
            continue
        command = [sys.executable, __file__, results.engine, entry.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ROUGHLY)
        if done.returncode:
            raise RuntimeError(f"memory of {entry.name}: {done.stderr[-2000:]}")
        results.memory[entry.name] = json.loads(done.stdout.splitlines()[-1]) / 1024
        print(
            f"memory of {entry.name}: {results.memory[entry.name]:.1f} MiB",
            file=sys.stderr,
            flush=True,
        )


def child(engine: str, name: str) -> None:
    database = stage.entry_of_environ()
    stage.setup(database)
    (entry,) = (each for each in entries.ENTRIES if each.name == name)
    lane = Lane(entry, database)
    lane.open()
    found = grown(lane, chosen(["stream"])[0])
    lane.close()
    stage.tear_down()
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        child(*sys.argv[1:])
    except Exception as error:
        sys.exit(why(error))
