"""PgBouncer before the private PostgreSQL server, as another user than root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from private_postgres import PrivatePostgres, free_port, server_identity

START_SECONDS = 20.0


class PgBouncer:
    """A context manager; in transaction mode, with fewer server connections than clients.

    Raises FileNotFoundError when the program is not there (Debian: apt-get install pgbouncer).
    """

    def __init__(self, server: PrivatePostgres, database: str, pool_size: int = 3) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise FileNotFoundError("no pgbouncer here; Debian: apt-get install pgbouncer")
        self.program = program
        self.server = server
        self.database = database
        self.pool_size = pool_size
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="vinyl-pgbouncer-"))

    def __enter__(self) -> Self:
        identity: dict[str, Any] = server_identity()
        self.port = free_port()
        config = self._directory / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n{self.database} = host={self.server.host} port={self.server.port}"
            f" user={self.server.user}\n"
            "[pgbouncer]\npool_mode = transaction\nauth_type = any\nunix_socket_dir =\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"default_pool_size = {self.pool_size}\nmax_client_conn = 200\n"
        )
        if "user" in identity:
            os.chown(self._directory, identity["user"], identity["group"])
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                [self.program, config], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", **identity,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self._directory / "log").read_text(errors="replace")
                self.__exit__()
                raise RuntimeError(f"pgbouncer did not start: {log_text}")
            time.sleep(0.02)

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
