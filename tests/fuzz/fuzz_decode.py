"""``make fuzz``: garbled values through the decoders of src/row, built with AddressSanitizer.

Each run has another seed, which it prints; ``--seed`` repeats one. What is being decoded stands in
``--note``, so that it is known after a crash.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import django  # noqa: E402
import psycopg  # noqa: E402
from django.conf import settings  # noqa: E402
from garbling import SEEDS, garble  # noqa: E402
from private_postgres import PrivatePostgres  # noqa: E402
from row_support import Both, both  # noqa: E402

ROUND = 500


def corpus(sides: Both) -> list[tuple[str, int, bool, bytes]]:
    """(type, oid, binary, bytes) of every seed in both formats."""
    found = []
    for name, text in SEEDS.items():
        ((oid, *formats),) = sides.raw(name, [text])
        found += [(name, oid, binary, bytes(formats[binary])) for binary in (False, True)]
    return found


def run(sides: Both, seed: int, seconds: float, note: Path) -> int:
    rng = random.Random(seed)
    values = corpus(sides)
    decoded = refused = 0
    end = time.monotonic() + seconds
    with open(note, "wb", buffering=0) as file:
        while time.monotonic() < end:
            name, oid, binary, data = rng.choice(values)
            garbled = data
            for _ in range(ROUND):
                # Garbled again and again: what is left of a length field meets the next one.
                garbled = garble(rng, data if rng.randrange(8) else garbled)
                if len(garbled) > 4096:
                    garbled = data
                file.seek(0)
                file.truncate()
                file.write(f"{name} oid {oid} binary {binary} {garbled.hex()}\n".encode())
                outcome = sides.decode(oid, binary, garbled)
                decoded += outcome.error is None
                refused += outcome.error is psycopg.DataError
                if outcome.error not in (None, psycopg.DataError):
                    print(f"{name}, binary {binary}, {garbled.hex()}: {outcome.error}")
                    return 1
    print(f"decoders: seed {seed}, {decoded:,} decoded, {refused:,} refused")
    return int(not decoded or not refused)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--note", type=Path, required=True)
    options = parser.parse_args()
    settings.configure(USE_TZ=True)
    django.setup()
    print(f"decoders: seed {options.seed}", flush=True)
    with PrivatePostgres() as server, both(server, datetime.UTC) as sides:
        sides.set("IntervalStyle", "postgres")
        return run(sides, options.seed, options.seconds, options.note)


if __name__ == "__main__":
    sys.exit(main())
