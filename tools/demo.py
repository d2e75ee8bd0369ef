"""Serves examples/atlas, with its data loaded; with --check, visits every page and ends.

The SQLite file is kept in .vinyl/ between runs.  A PostgreSQL server is a private one, gone
afterwards.  --check works on a database of its own and a free port, prints what it saw, and ends
with 0 if all of it was right, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from demo_check import Visitor, visit_everything
from private_postgres import PrivatePostgres, free_port

ROOT = Path(__file__).resolve().parent.parent
ATLAS = ROOT / "examples" / "atlas"
START_SECONDS = 60.0


@contextlib.contextmanager
def database(engine: str, *, fresh: bool) -> Iterator[dict[str, str]]:
    """A database for the atlas; the environment variables that its settings look at."""
    if engine == "postgresql":
        with PrivatePostgres() as server:
            server.psql("CREATE DATABASE atlas")
            print(f"PostgreSQL: a private server in {server.host}", flush=True)
            yield {
                "ATLAS_DB": "postgresql",
                "PGHOST": server.host,
                "PGPORT": str(server.port),
                "PGUSER": server.user,
            }
    elif fresh:
        with tempfile.TemporaryDirectory(prefix="vinyl-atlas-") as directory:
            yield {"ATLAS_DB": "sqlite", "ATLAS_SQLITE": f"{directory}/atlas.sqlite3"}
    else:
        kept = ROOT / ".vinyl"
        kept.mkdir(exist_ok=True)
        yield {"ATLAS_DB": "sqlite", "ATLAS_SQLITE": str(kept / "atlas.sqlite3")}


def manage(env: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ATLAS, env=env, check=True)


@contextlib.contextmanager
def uvicorn(env: dict[str, str], port: int, *, quiet: bool) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "uvicorn", "atlas.asgi:application", "--host", "127.0.0.1",
        "--port", str(port), "--lifespan", "off", "--log-level", "warning" if quiet else "info",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ATLAS, env=env, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_up(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/atlas.css", timeout=5):
                return True
        except urllib.error.HTTPError:
            return True  # it answers; what it answers is looked at later
        except OSError:
            time.sleep(0.05)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    port = options.port or (free_port() if options.check else 8000)
    url = f"http://127.0.0.1:{port}"
    # A plain kill ends everything in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        env = os.environ | stack.enter_context(database(options.db, fresh=options.check))
        manage(env, "migrate", "--verbosity", "0")
        manage(env, "load_world", "--if-empty")
        process = stack.enter_context(uvicorn(env, port, quiet=options.check))
        if not wait_until_up(process, url):
            print(f"The server did not come up on {url}", file=sys.stderr)
            return 1
        if options.check:
            return visit_everything(Visitor(url), options.db)
        print(f"\n  The atlas is on {url} (Ctrl-C ends it)\n", flush=True)
        return process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: {' '.join(map(str, error.cmd[1:]))} ended with {error.returncode}")
