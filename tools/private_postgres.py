"""A PostgreSQL server of one's own: in a temporary directory, on a unix socket and a free port of
127.0.0.1, gone without a trace afterwards.  The tests and the demo use it.

    with PrivatePostgres() as server:
        server.host, server.port, server.user, server.password

Over the unix socket every role is trusted; over TCP a password is asked for (scram-sha-256).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PR_SET_PDEATHSIG = 1
START_SECONDS = 60.0
STOP_SECONDS = 20.0
# Nothing here survives the process, so nothing needs to reach the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class PostgresUnavailable(RuntimeError):
    """No private server can be had here; the message says why and what to do."""


def find_binaries() -> Path:
    """The directory of initdb and postgres; the newest when there are several."""
    on_path = shutil.which("initdb")
    if on_path and (Path(on_path).resolve().parent / "postgres").exists():
        return Path(on_path).resolve().parent
    found = [
        path.parent
        for pattern in ("/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb")
        for path in Path("/").glob(pattern.lstrip("/"))
    ]
    if not found:
        raise PostgresUnavailable(
            "no PostgreSQL server binaries (initdb, postgres) found;"
            " Debian: apt-get install postgresql"
        )
    return max(found, key=_version)


def _version(binaries: Path) -> list[int]:
    """The version in a path like /usr/lib/postgresql/15/bin or /usr/pgsql-15/bin."""
    return [int(part) for part in binaries.parent.name.removeprefix("pgsql-").split(".")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_identity() -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresUnavailable("running as root, and there is no user postgres or nobody to run as")


def _environment() -> dict[str, str]:
    """The server's programs get neither our libpq settings nor the sanitizer under test."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "LD_PRELOAD" and not name.startswith("PG")
    }


def _die_with_parent() -> None:
    # SIGINT is PostgreSQL's fast shutdown: even a killed test run leaves no server behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class PrivatePostgres:
    """A context manager; ``stop`` may be called early and twice.

    ``settings`` are server settings (``{"log_statement": "all"}``), added to those above.
    Raises PostgresUnavailable, with the server's own words, when it does not start.
    """

    user = "vinyl"

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.settings = SETTINGS | (settings or {})
        self.password = secrets.token_urlsafe(12)
        self.port = 0
        self.directory = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<PrivatePostgres in {self.directory}, port {self.port}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """The directory of the unix socket."""
        return str(self.directory)

    @property
    def pid(self) -> int:
        """The process id of the server's main process."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def django(self, engine: str, name: str, **more: Any) -> dict[str, Any]:
        """An entry of DATABASES for the database ``name``, over the unix socket."""
        return {
            "ENGINE": engine,
            "NAME": name,
            "USER": self.user,
            "HOST": self.host,
            "PORT": str(self.port),
            **more,
        }

    def conninfo(self, name: str = "postgres") -> str:
        """libpq's connection string for the database ``name``, over the unix socket."""
        return f"host={self.host} port={self.port} user={self.user} dbname={name}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Runs ``sql`` with the server's own client; the answer, unaligned and without headers."""
        command = [find_binaries() / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
        done = subprocess.run(
            [*command, self.conninfo(database)],
            capture_output=True, text=True, check=False, env=_environment(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self) -> None:
        self._identity = server_identity()
        binaries = find_binaries()
        self.directory = Path(tempfile.mkdtemp(prefix="vinyl-pg-"))
        try:
            if "user" in self._identity:
                os.chown(self.directory, self._identity["user"], self._identity["group"])
                self.directory.chmod(0o755)  # clients of any user reach the socket
            self._initdb(binaries)
            self._launch(binaries)
        except BaseException:
            self.stop()
            raise

    def _initdb(self, binaries: Path) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password)
        if "user" in self._identity:
            os.chown(secret, self._identity["user"], self._identity["group"])
        secret.chmod(0o600)
        command = [
            binaries / "initdb", "-D", self.directory / "data", "-U", self.user, "-E", "UTF8",
            "--locale=C", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256",
            "--pwfile", secret,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", env=_environment(),
            **self._identity,
        )  # fmt: skip
        secret.unlink()
        if done.returncode:
            raise PostgresUnavailable(
                f"initdb failed: {done.stderr.strip() or done.stdout.strip()}"
            )

    def _launch(self, binaries: Path, port: int = 0) -> None:
        # Between choosing a free port and taking it someone else may: then try the next.
        for _ in range(5):
            self.port = port or free_port()
            options = {
                "listen_addresses": "127.0.0.1",
                "port": str(self.port),
                "unix_socket_directories": str(self.directory),
            } | self.settings
            command = [binaries / "postgres", "-D", self.directory / "data"]
            for name, value in options.items():
                command += ["-c", f"{name}={value}"]
            with open(self.directory / "log", "wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    env=_environment(), start_new_session=True, preexec_fn=_die_with_parent,
                    **self._identity,
                )  # fmt: skip
            if self._became_ready(binaries):
                return
            if "Address already in use" not in self.log():
                break
        raise PostgresUnavailable(f"the server did not start: {self.log()}")

    def _became_ready(self, binaries: Path) -> bool:
        assert self._process is not None
        question = [binaries / "pg_isready", "-q", "-h", self.host, "-p", str(self.port)]
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if subprocess.run(question, check=False, env=_environment()).returncode == 0:
                return True
            time.sleep(0.02)
        return False

    def log(self) -> str:
        """What the server wrote to its log."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "log").read_text(errors="replace").strip()
        return ""

    def restart(self) -> None:
        """Ends the server at once, as a crash does, and starts it again on the same port."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._launch(find_binaries(), self.port)

    def stop(self) -> None:
        """Ends the server (clients are cut off) and removes its directory."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)
