"""``make fuzz``: libFuzzer over the Python-free C that reads what others wrote, then the decoders.

Targets are ``tests/fuzz/fuzz_*.c``. What they learn stays in ``build/fuzz/corpus``; an input that
breaks one is left in ``build/fuzz`` and named, and the command ends with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "fuzz"
#: Target: the sources it is linked with.
TARGETS = {
    "sql": ("src/driver/postgres/sql.c", "src/driver/postgres/sql_scan.c"),
    "shard": ("src/pool/shard.c",),
}
FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1",
    "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
    "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined",
)  # fmt: skip


def build(target: str) -> Path:
    found = subprocess.run(
        ["pkg-config", "--cflags", "libpq"], capture_output=True, text=True, check=True
    )
    program = PLACE / target
    sources = [f"tests/fuzz/fuzz_{target}.c", *TARGETS[target]]
    includes = ["-Isrc", "-Itests/fuzz", *found.stdout.split()]
    subprocess.run(["clang", *FLAGS, *includes, *sources, "-o", str(program)], cwd=ROOT, check=True)
    return program


def fuzz(program: Path, seconds: int) -> bool:
    corpus = PLACE / "corpus" / program.name
    corpus.mkdir(parents=True, exist_ok=True)
    words = ROOT / "tests" / "fuzz" / f"{program.name}.dict"
    command = [
        str(program), str(corpus), f"-max_total_time={seconds}", "-max_len=512", "-timeout=10",
        "-print_final_stats=1", f"-artifact_prefix={PLACE}/{program.name}-",
        *([f"-dict={words}"] if words.exists() else []),
    ]  # fmt: skip
    done = subprocess.run(command, text=True, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        print(f"{program.name}: broken; the input is in {PLACE}", flush=True)
        return False
    units = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{program.name}: {int(units[0].split()[-1]):,} inputs", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    good = [fuzz(build(target), options.seconds) for target in TARGETS]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
