"""``make bench``: vinyl beside Django and its peers, as ratios to synchronous Django.

In every round each contender does each work in turn, all in one process but for a few.  A figure is
the median over the rounds of its time divided by Django's in the same round, so that what slows the
machine down slows both.  Before anything is timed, each contender's answer, and what it wrote, are
compared with Django's.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from typing import Any

import entries
import memory
import pages
import report
import stage
from contest import Results, measure, open_lanes
from lanes import Entry
from work import chosen


def about(options: argparse.Namespace, names: list[Entry]) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "machine": pages.machine(),
        "packages": pages.versions(["Django", *(each.package for each in names if each.package)]),
        "rounds": options.rounds,
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--works", nargs="*", default=[], help="keys or methods of work.py")
    parser.add_argument("--contenders", default="", help="parts of names, comma-separated")
    parser.add_argument("--docs", action="store_true", help="also into docs/performance.md")
    options = parser.parse_args()
    try:
        works = chosen(options.works)
        wanted = entries.chosen(options.contenders, options.engine)
    except ValueError as error:
        parser.error(str(error))
    results = Results(options.engine, about(options, wanted))
    with (
        tempfile.TemporaryDirectory(prefix="vinyl-bench-") as directory,
        stage.database(options.engine, directory) as entry,
    ):
        stage.setup(entry)
        stage.fill_tables()
        results.about["server"] = stage.server_version()
        lanes = open_lanes(wanted, entry, results.absent)
        gc.freeze()  # what the libraries loaded is nobody's garbage to look through
        try:
            measure(lanes, works, options.rounds, results)
        except KeyboardInterrupt:
            print("ended early: what is measured is reported", file=sys.stderr)
            options.docs = False
        for lane in reversed(lanes):
            lane.close()
        stage.tear_down()
        if "stream" in results.works:
            memory.measure([lane.entry for lane in lanes], results)
    if not results.works:
        sys.exit("nothing was measured")
    results.about["load_after"] = os.getloadavg()[0]
    report.write(results, options.docs)


if __name__ == "__main__":
    main()
