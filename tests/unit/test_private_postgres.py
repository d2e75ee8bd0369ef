"""tools/private_postgres.py: the server serves, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from private_postgres import PostgresUnavailable, PrivatePostgres


def test_serves_and_asks_for_a_password_over_tcp(postgres_server: PrivatePostgres) -> None:
    assert postgres_server.psql("SELECT 6 * 7") == "42"
    tcp = {"host": "127.0.0.1", "port": postgres_server.port, "user": "vinyl", "dbname": "postgres"}
    psycopg.connect(**tcp, password=postgres_server.password).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**tcp, password="wrong")


def test_does_not_run_as_root(postgres_server: PrivatePostgres) -> None:
    assert Path(f"/proc/{postgres_server.pid}").stat().st_uid != 0


def test_password_is_not_in_its_repr(postgres_server: PrivatePostgres) -> None:
    assert postgres_server.password not in repr(postgres_server)


def test_stop_removes_everything() -> None:
    with PrivatePostgres() as server:
        pid, directory = server.pid, server.directory
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_bad_setting_says_what_the_server_said() -> None:
    server = PrivatePostgres({"no_such_setting": "1"})
    with pytest.raises(PostgresUnavailable, match="no_such_setting"):
        server.start()
    assert not server.directory.exists()


def test_killed_parent_takes_the_server_along() -> None:
    script = (
        "import private_postgres as p; s = p.PrivatePostgres(); s.start();"
        "print(s.pid, s.directory, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "tools")},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        watch = os.pidfd_open(int(pid))
        parent.kill()
    try:
        assert select.select([watch], [], [], 30)[0], "the server outlived its parent"
    finally:
        os.close(watch)
        shutil.rmtree(directory)
