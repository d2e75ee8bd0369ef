"""``make bench``: vinyl beside Django, in one process, as ratios to synchronous Django.

In every round each contender does each work in turn; a figure is the median over the rounds of
its time divided by Django's in the same round, so that what slows the machine down slows both.
Before anything is timed, each contender's answer is compared with Django's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent / "tools")]

import uvloop  # noqa: E402
from private_postgres import PrivatePostgres  # noqa: E402
from work import WORKS, Work, comparable, fill  # noqa: E402

BASE = "Django sync"
Runner = Callable[[Any, Work, int], tuple[Any, float]]


def run_sync(module: Any, work: Work, times: int) -> tuple[Any, float]:
    function = getattr(module, work.name)
    began = time.perf_counter()
    for _ in range(times):
        answer = function(*work.args)
    return answer, time.perf_counter() - began


async def _repeat(module: Any, work: Work, times: int) -> tuple[Any, float]:
    function = getattr(module, work.name)
    began = time.perf_counter()
    for _ in range(times):
        answer = await function(*work.args)
    return answer, time.perf_counter() - began


@contextmanager
def on_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Runner]:
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda module, work, times: runner.run(_repeat(module, work, times))


def run_driven(module: Any, work: Work, times: int) -> tuple[Any, float]:
    import vinyl

    return vinyl.drive(_repeat(module, work, times))


@contextmanager
def database(engine: str, directory: str) -> Iterator[dict[str, Any]]:
    """An entry of DATABASES with Django's own engine."""
    if engine == "sqlite":
        yield {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(directory, "bench.sqlite3"),
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"},
        }
        return
    with PrivatePostgres() as server:
        server.psql("CREATE DATABASE bench")
        yield server.django("django.db.backends.postgresql", "bench") | {
            "HOST": "127.0.0.1",  # over TCP, as most deployments are
            "PASSWORD": server.password,
        }


def measure(rounds: int, out: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Per work's title: Django's microseconds, and each contender's ratios of all rounds."""
    from contenders import django_async, django_sync, with_vinyl

    with ExitStack() as stack:
        asyncio_runner = stack.enter_context(on_loop(asyncio.new_event_loop))
        uvloop_runner = stack.enter_context(on_loop(uvloop.new_event_loop))
        contenders: dict[str, tuple[Any, Runner]] = {
            BASE: (django_sync, run_sync),
            "Django a*": (django_async, asyncio_runner),
            "vinyl asyncio": (with_vinyl, asyncio_runner),
            "vinyl uvloop": (with_vinyl, uvloop_runner),
            "vinyl blocking": (with_vinyl, run_driven),
        }
        results: dict[str, dict[str, Any]] = {}
        for work in WORKS:
            expected = comparable(run_sync(django_sync, work, 1)[0])
            for name, (module, runner) in contenders.items():
                if comparable(runner(module, work, 1)[0]) != expected:
                    raise SystemExit(f"{name} gives another answer to '{work.title}'")
            seconds: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, (module, runner) in contenders.items():
                    seconds[name].append(runner(module, work, work.times)[1] / work.times)
            results[work.title] = {
                "microseconds": statistics.median(seconds[BASE]) * 1e6,
                "ratios": {
                    name: [a / b for a, b in zip(values, seconds[BASE], strict=True)]
                    for name, values in seconds.items()
                    if name != BASE
                },
            }
            out(f"{work.title:28} {_line(results[work.title])}")
    return results


def _line(result: dict[str, Any]) -> str:
    parts = [f"{result['microseconds']:9.0f} µs"]
    for name, ratios in result["ratios"].items():
        parts.append(f"{name} {statistics.median(ratios):.2f}")
    return "  ".join(parts)


def table(engine: str, results: dict[str, dict[str, Any]]) -> list[str]:
    names = list(next(iter(results.values()))["ratios"])
    lines = [
        f"### {engine}",
        "",
        f"| work | {BASE} | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for title, result in results.items():
        cells = [
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
            for ratios in result["ratios"].values()
        ]
        lines.append(f"| {title} | {result['microseconds']:,.0f} µs | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="where the ratios of every round go")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vinyl-bench-") as directory,
        database(options.engine, directory) as entry,
    ):
        os.environ["VINYL_BENCH_DATABASE"] = json.dumps(entry)
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        call_command("migrate", run_syncdb=True, verbosity=0)
        fill()
        results = measure(options.rounds, lambda text: print(text, file=sys.stderr, flush=True))
        connections.close_all()
        from vinyl.backends.base import close_pools

        close_pools()
    if options.json:
        options.json.write_text(json.dumps(results))
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, Django {django.get_version()}, "
        f"{options.rounds} rounds, load {load:.1f}; median (least - most) of the ratios to {BASE}"
    )
    print("\n".join(["", *table(options.engine, results)]))


if __name__ == "__main__":
    main()
