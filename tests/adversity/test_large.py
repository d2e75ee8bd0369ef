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
import vinyl
from library.models import Sample

SIZE = int(sys.argv[2]) << 20

def memory(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{key}:\\s+(\\d+) kB", file.read())[1]) << 10

async def make():
    pk = (await Sample.vinyl.create(data=b"x")).pk
    async with vinyl.cursor() as cur:
        await cur.execute("UPDATE library_sample SET data = decode(repeat('ab', %s), 'hex')"
                          " WHERE id = %s", [SIZE, pk])
    return pk

async def write(pk):
    data = b"\\xab" * SIZE
    await Sample.vinyl.filter(pk=pk).update(data=data)
    return data

async def get(pk):
    return (await Sample.vinyl.get(pk=pk)).data

async def again(pk):
    small = await Sample.vinyl.create(data=b"x")
    await get(small.pk)
    return await get(pk)

async def block(pk):
    async with vinyl.atomic():
        return await get(pk)

async def iterator(pk):
    async for sample in Sample.vinyl.filter(pk=pk).iterator(chunk_size=10):
        return sample.data

async def raw(pk):
    async with vinyl.cursor() as cur:
        await cur.execute("SELECT * FROM library_sample AS s WHERE s.id = %s", [pk])
        row = await cur.fetchone()
        return row[[column[0] for column in cur.description].index("data")]

async def literal(pk):
    async with vinyl.cursor() as cur:
        await cur.execute("SELECT data, repeat(%s, 2) FROM library_sample WHERE id = %s", ["x", pk])
        return (await cur.fetchone())[0]

async def returning(pk):
    async with vinyl.cursor() as cur:
        await cur.execute("UPDATE library_sample SET id = id WHERE id = %s RETURNING data", [pk])
        return (await cur.fetchone())[0]

async def unmanaged(pk):
    async with vinyl.atomic(), vinyl.cursor() as cur:
        await cur.execute("CREATE TEMPORARY TABLE big ON COMMIT DROP AS"
                          " SELECT decode(repeat('ab', %s), 'hex') AS payload", [SIZE])
        await cur.execute("SELECT payload FROM big")
        return (await cur.fetchone())[0]

async def main():
    pk = await make()
    before = memory("VmRSS")
    data = await globals()[sys.argv[3]](pk)
    assert len(data) == SIZE and bytes(data[:2]) == bytes(data[-2:]) == b"\\xab\\xab"
    print((memory("VmHWM") - before) / SIZE)

asyncio.run(main())
"""


WAYS = [
    "write", "get", "again", "block", "iterator", "raw", "literal", "returning", "unmanaged",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
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
