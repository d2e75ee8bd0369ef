"""A bytea of 100 MB out and in: how much memory at most."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from adversity_support import count, report
from fix_engine import DATABASE, Engine

pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
MEGABYTES = count(20, 100)

MEASURE = """
import asyncio, os, re, resource, sys
sys.path[:0] = sys.argv[4:]
os.environ["DJANGO_SETTINGS_MODULE"] = "library.settings"
from django.conf import settings
host, port, user, name = sys.argv[1].split()
settings.DATABASES = {"default": {"ENGINE": "vinyl.backends.postgresql", "NAME": name,
                                  "USER": user, "HOST": host, "PORT": port}}
import django
django.setup()
from library.models import Sample

SIZE = int(sys.argv[2]) << 20

def memory(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{key}:\\s+(\\d+) kB", file.read())[1]) << 10

async def main():
    await Sample.vinyl.create(data=b"warm")
    pk = (await Sample.vinyl.create(data=b"x")).pk
    await Sample.vinyl.get(pk=pk)
    before = memory("VmRSS")
    if sys.argv[3] == "in":
        data = b"\\xab" * SIZE
        await Sample.vinyl.filter(pk=pk).update(data=data)
    else:
        from django.db import connections
        import vinyl
        async with vinyl.cursor() as cur:
            await cur.execute("UPDATE library_sample SET data = decode(repeat('ab', %s), 'hex')"
                              " WHERE id = %s", [SIZE, pk])
        data = (await Sample.vinyl.get(pk=pk)).data
        assert len(data) == SIZE and bytes(data[:2]) == b"\\xab\\xab"
    print((memory("VmHWM") - before) / SIZE)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["in", "out"])
def test_peak(engine: Engine, way: str) -> None:
    """The peak above what the process had before, the payload itself included."""
    server = engine.server
    assert server is not None
    done = subprocess.run(
        [
            sys.executable, "-c", MEASURE,
            f"{server.host} {server.port} {server.user} {DATABASE}",
            str(MEGABYTES), way, str(Path(__file__).parent.parent),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    factor = float(done.stdout)
    report("bytea", way=way, megabytes=MEGABYTES, peak_by_payload=round(factor, 2))
    assert factor < 2.5
