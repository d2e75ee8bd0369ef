"""The limit: bench/limit/, a program in C on the client library that vinyl uses."""

from __future__ import annotations

import subprocess
from typing import Any

import stage
from work import COLUMNS, NEW, Work

from contenders.raw import RawBase, Sql, grouped

LIMIT = stage.ROOT / "limit"


class Contender(RawBase):
    sql = Sql(str)

    async def open(self) -> None:
        self.postgres = "postgresql" in self.entry["ENGINE"]
        name, library = ("postgres", "libpq") if self.postgres else ("sqlite", "sqlite3")
        program = stage.compiled(
            f"limit-{name}", [LIMIT / "limit.c", LIMIT / f"{name}.c"], library=library
        )
        self.child = subprocess.Popen(
            [program, self._where(), *self._new()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def _where(self) -> str:
        if not self.postgres:
            return str(self.entry["NAME"])
        keys = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
        parts = [f"{theirs}={self.entry[mine]}" for mine, theirs in keys.items()]
        return " ".join([*parts, f"dbname={self.entry['NAME']}", "options='-c timezone=UTC'"])

    def _new(self) -> list[str]:
        """As text; PostgreSQL reads it, SQLite has it stored as Django would."""
        new = {name: str(value) for name, value in NEW.items()}
        new["active"] = "1"
        if not self.postgres:
            new["created"] = new["created"].removesuffix("+00:00")
            new["code"] = NEW["code"].hex
        return [new[name] for name in COLUMNS[1:]]

    async def close(self) -> None:
        self.child.communicate()

    def pid(self) -> int:
        return self.child.pid

    def _ask(self, *words: Any) -> str:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(*words, file=self.child.stdin, flush=True)
        if not (line := self.child.stdout.readline()):
            raise RuntimeError("the program in C has ended")
        return line.rstrip("\n")

    def sample(self, work: Work, times: int) -> tuple[None, float]:
        asked = ("sample", work.method, *(work.args or (0,)), times)
        return None, float(self._ask(*asked).split()[0])

    def answer(self, work: Work) -> Any:
        assert self.child.stdout is not None
        line = self._ask("answer", work.method, *(work.args or (0,)))
        rows = []
        while line != "end":
            fields = line.split("\x1f")[1:]
            rows.append(tuple(None if field == "\x1e" else field for field in fields))
            line = self.child.stdout.readline().rstrip("\n")
        return self._shaped(work, rows)

    def _shaped(self, work: Work, rows: list[tuple[Any, ...]]) -> Any:
        match work.shape:
            case "row":
                return rows[0]
            case "rows" | "joined":
                return rows
            case "dicts":
                return [dict(zip(COLUMNS, row, strict=True)) for row in rows]
            case "grouped":
                plain = [self.row(row) for row in rows]
                makers = [row for row in plain if len(row) == 3]
                return grouped(makers, [row for row in plain if len(row) == len(COLUMNS)])
        return VALUES[work.method](rows)


VALUES = {
    "aggregate": lambda rows: rows[0],
    "create": lambda rows: rows[0][0],
    "save": lambda rows: None,
    "bulk_create": lambda rows: int(rows[0][0]),
    "bulk_update": lambda rows: int(rows[0][0]),
    "stream": lambda rows: tuple(map(int, rows[0])),
}  # fmt: skip
