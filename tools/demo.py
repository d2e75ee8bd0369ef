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


def command(server: str, port: int, *, quiet: bool) -> list[str]:
    level = "warning" if quiet else "info"
    if server == "asgi":
        more = ["atlas.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
        return [sys.executable, "-m", "uvicorn", *more, "--log-level", level]
    more = ["atlas.wsgi:application", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
    return [sys.executable, "-m", "gunicorn", *more, "--no-control-socket", "--log-level", level]


@contextlib.contextmanager
def serving(
    server: str, env: dict[str, str], port: int, *, quiet: bool
) -> Iterator[subprocess.Popen[bytes]]:
    command_line = command(server, port, quiet=quiet)
    with subprocess.Popen(command_line, cwd=ATLAS, env=env, start_new_session=True) as process:
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
    parser.add_argument("--server", choices=("asgi", "wsgi"), help="asgi; --check: both")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    # A plain kill ends everything in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        env = os.environ | stack.enter_context(database(options.db, fresh=options.check))
        manage(env, "migrate", "--verbosity", "0")
        manage(env, "load_world", "--if-empty")
        if options.check:
            servers = [options.server] if options.server else ["asgi", "wsgi"]
            return max(check(env, server, options.db) for server in servers)
        return serve(env, options.server or "asgi", options.port or 8000)


def check(env: dict[str, str], server: str, db: str) -> int:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    print(f"\n{server}, {db}", flush=True)
    with serving(server, env, port, quiet=True) as process:
        if not wait_until_up(process, url):
            print(f"The server did not come up on {url}", file=sys.stderr)
            return 1
        return visit_everything(Visitor(url), db, server)


def serve(env: dict[str, str], server: str, port: int) -> int:
    url = f"http://127.0.0.1:{port}"
    with serving(server, env, port, quiet=False) as process:
        if not wait_until_up(process, url):
            print(f"The server did not come up on {url}", file=sys.stderr)
            return 1
        print(f"\n  The atlas is on {url} (Ctrl-C ends it)")
        print(f"  The admin: {url}/admin/ (user admin, password atlas)\n", flush=True)
        return process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: {' '.join(map(str, error.cmd[1:]))} ended with {error.returncode}")
