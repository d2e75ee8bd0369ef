"""``make bench WORK=http``: requests a second of the same Django project, side by side.

All servers run from the beginning to the end, one worker each; wrk visits one at a time, in
alternating short rounds. A ratio is a contender's requests a second by synchronous Django's of the
same round. The processor time of the server's processes for each request is the steadier figure
on a machine that others use too. Before anything is timed, each contender's answers are compared
with Django's.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
sys.path[1:1] = [str(ROOT.parent.parent / "tools"), str(ROOT.parent)]

import chart  # noqa: E402
import pages  # noqa: E402
from contender import BASE, CONTENDERS, Contender  # noqa: E402
from private_postgres import PrivatePostgres, free_port  # noqa: E402


@dataclass(frozen=True)
class Work:
    title: str
    longer: int  # its rounds last so many times as long: 64 requests in flight take seconds


WORKS = {
    "json": Work("JSON, no query", 1),
    "get": Work("one get", 1),
    "gets": Work("twenty gets", 2),
    "fortunes": Work("fortunes", 1),
    "updates": Work("twenty updates", 4),
}
# The figures to reach, of vinyl under uvicorn: issue 8.
TARGETS = {"get": 1.8, "gets": 3.5}
TARGET_OF = "vinyl, uvicorn"
CLIENTS = 64
THREADS = 8
START_SECONDS = 60.0
SETTLE_SECONDS = 20.0
SEED = 7


@dataclass(frozen=True)
class Sample:
    rate: float
    cpu: float  # microseconds of the server's processes for each request


class Server:
    def __init__(self, contender: Contender, environ: dict[str, str]) -> None:
        self.contender = contender
        self.port = free_port()
        self._process = subprocess.Popen(
            self._command(), cwd=ROOT, env=environ, start_new_session=True
        )

    def _command(self) -> list[str]:
        run = [sys.executable, "-m", self.contender.server, "application:application"]
        if self.contender.server == "uvicorn":
            more = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port"]
            return [*run, *more, str(self.port), "--log-level", "error"]
        more = ["--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "error"]
        return [*run, *more, "--no-control-socket", "--bind", f"127.0.0.1:{self.port}"]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                return self.answer("json") and None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.contender.name} did not start")
            time.sleep(0.1)

    def answer(self, path: str) -> str:
        with urllib.request.urlopen(self.url(path), timeout=30) as answer:
            return answer.read().decode()

    def cpu(self) -> float:
        """Seconds of processor time that the server's processes have used."""
        ticks = 0
        for pid in _descendants(self._process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def measure(self, path: str, seconds: int, clients: int) -> Sample:
        before = self.cpu()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", self.url(path)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        used = self.cpu() - before
        if re.search(r"Non-2xx|(connect|read|write) [1-9]", done):
            raise SystemExit(f"{self.contender.name}, {path}: {done}")
        self._settle()
        count = int(re.search(r"(\d+) requests in", done)[1])
        rate = float(re.search(r"Requests/sec: +([\d.]+)", done)[1])
        return Sample(rate, used * 1e6 / max(count, 1))

    def _settle(self) -> None:
        """Waits until the requests that wrk has left behind are over: they are not the next's."""
        deadline = time.monotonic() + SETTLE_SECONDS
        used = -1.0
        while used != (used := self.cpu()) and time.monotonic() < deadline:
            time.sleep(0.2)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _descendants(int(child))


def comparable(answer: str) -> str:
    return html.unescape(answer)


def check(servers: list[Server], postgres: PrivatePostgres) -> None:
    """Each gives Django's answer, and leaves in the database what Django leaves there."""
    for path in WORKS:
        expected: tuple[str, str] | None = None
        for server in servers:
            postgres.psql(RESET, "bench")
            seen = comparable(server.answer(f"{path}?seed={SEED}")), postgres.psql(DIGEST, "bench")
            expected = expected or seen
            if seen != expected:
                raise SystemExit(f"{server.contender.name}, {path}: {seen}, not {expected}")


RESET = "UPDATE board_number SET value = id * 31 % 10000"
DIGEST = "SELECT md5(string_agg(id || ':' || value, ',' ORDER BY id)) FROM board_number"


@contextlib.contextmanager
def database() -> Iterator[tuple[dict[str, Any], PrivatePostgres]]:
    with PrivatePostgres() as server:
        server.psql("CREATE DATABASE bench")
        yield (
            server.django("", "bench") | {"HOST": "127.0.0.1", "PASSWORD": server.password},
            server,
        )


FILL = """
import vinyl._core  # an editable install is rebuilt here, not by several servers at once
import django; django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from board.models import *
Number.objects.bulk_create([Number(value=n * 31 % NUMBERS) for n in range(NUMBERS)])
Fortune.objects.bulk_create(
    [Fortune(message=f"fortune {n}: <b>a fool & his money</b>, フレームワーク") for n in range(12)]
)
"""


def environ_of(contender: Contender, entry: dict[str, Any], middleware: bool) -> dict[str, str]:
    settings = json.dumps(contender.settings(entry, middleware))
    return os.environ | {
        "VINYL_BENCH_CONTENDER": settings,
        "DJANGO_SETTINGS_MODULE": "settings",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of a light work's round")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--middleware", action="store_true", help="startproject's middleware")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--only", nargs="+", help="parts of contenders' names")
    parser.add_argument("--docs", action="store_true", help="also into docs/performance.md")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    with database() as (entry, postgres), contextlib.ExitStack() as stack:
        env = environ_of(BASE, entry, False)
        subprocess.run([sys.executable, "-c", FILL], cwd=ROOT, env=env, check=True)
        servers = []
        for contender in CONTENDERS:
            only = options.only or [contender.name]
            if contender is not BASE and not any(part in contender.name for part in only):
                continue
            if contender.package and not pages.versions([contender.package]):
                print(f"{contender.name} is not installed here", file=sys.stderr, flush=True)
                continue
            servers.append(Server(contender, environ_of(contender, entry, options.middleware)))
            stack.callback(servers[-1].stop)
        for server in servers:
            server.wait_until_up()
        check(servers, postgres)
        samples = measure(servers, options)
    text = "\n".join(report(samples, options)) + "\n"
    part = "http-middleware" if options.middleware else "http"
    drawn = {f"bench/{part}.svg": chart.draw(CHART, panels(samples), most=4.0)}
    found = {
        path: {n: [vars(s) for s in each] for n, each in of.items()} for path, of in samples.items()
    }
    pages.keep(part, text, drawn, found, options.docs)
    print(text)


def measure(servers: list[Server], options: Any) -> dict[str, dict[str, list[Sample]]]:
    samples: dict[str, dict[str, list[Sample]]] = {}
    for path in options.works:
        work = WORKS[path]
        by_name = samples[path] = {server.contender.name: [] for server in servers}
        for server in servers:
            server.measure(path, work.longer, options.clients)  # warm
        for number in range(options.rounds):
            # There and back, so that nobody always follows the same one.
            for server in servers if number % 2 == 0 else reversed(servers):
                by_name[server.contender.name].append(
                    server.measure(path, options.seconds * work.longer, options.clients)
                )
        for name, found in by_name.items():
            line = f"{work.title:16} {name:30} {_cell(found, by_name[BASE.name])}"
            print(line, file=sys.stderr, flush=True)
    return samples


def _cell(found: list[Sample], base: list[Sample]) -> str:
    rate = statistics.median(sample.rate for sample in found)
    cpu = statistics.median(sample.cpu for sample in found)
    of = ratios(found, base)
    spread = f"{statistics.median(of):.2f} ({min(of):.2f} - {max(of):.2f})"
    used = statistics.median(
        mine.cpu / theirs.cpu for mine, theirs in zip(found, base, strict=True)
    )
    return f"{rate:,.0f} · {spread} · {cpu:,.0f} µs ({used:.2f})"


def ratios(found: list[Sample], base: list[Sample]) -> list[float]:
    return [mine.rate / theirs.rate for mine, theirs in zip(found, base, strict=True)]


def targets(samples: dict[str, dict[str, list[Sample]]]) -> list[str]:
    lines = []
    for path, least in TARGETS.items():
        if TARGET_OF in (of := samples.get(path, {})):
            mine = statistics.median(ratios(of[TARGET_OF], of[BASE.name]))
            verdict = "reached" if mine >= least else "**missed**"
            lines.append(f"| {WORKS[path].title}, {TARGET_OF} | {least} | {mine:.2f} | {verdict} |")
    return (
        ["| figure to reach | at least | measured | |", "|---|---|---|---|", *lines, ""]
        if lines
        else []
    )


CHART = "Requests a second of one worker, by synchronous Django's: more is better"


def panels(samples: dict[str, dict[str, list[Sample]]]) -> list[chart.Panel]:
    found = []
    for path, of in samples.items():
        base = of[BASE.name]
        bars = [
            chart.Bar(name, chart.kind_of(name), tuple(ratios(each, base)))
            for name, each in of.items()
            if name != BASE.name
        ]
        rate = statistics.median(sample.rate for sample in base)
        found.append(chart.Panel(f"{WORKS[path].title} · {rate:,.0f}/s", tuple(bars)))
    return found


def report(samples: dict[str, dict[str, list[Sample]]], options: Any) -> list[str]:
    names = list(next(iter(samples.values())))
    packages = ["Django", "uvicorn", "uvloop", "gunicorn", "psycopg", "django-async-backend"]
    name = "http-middleware" if options.middleware else "http"
    lines = [
        f"{pages.machine()}; "
        + ", ".join(f"{name} {number}" for name, number in pages.versions(packages).items())
        + f"; wrk -c {options.clients}, {options.rounds} rounds of {options.seconds} s or more, "
        + ("startproject's middleware" if options.middleware else "no middleware")
        + f"; load {options.load:.1f} before.",
        "",
        f"![{CHART}](bench/{name}.svg)",
        "",
        *targets(samples),
        "Requests a second · ratio to Django's (least - most) · processor time each (its ratio).",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for path, by_name in samples.items():
        cells = [_cell(by_name[name], by_name[BASE.name]) for name in names]
        lines.append(f"| {WORKS[path].title} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
