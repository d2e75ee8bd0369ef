"""A contender in a process of its own, and what speaks to it: pickles over its pipes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

from lanes import Entry, Lane, Sample
from work import Work


class RemoteLane:
    """A Lane in a child.  A sample is timed there, so it costs nobody the way."""

    def __init__(self, entry: Entry, database: dict[str, Any]) -> None:
        self.entry = entry
        self.name = entry.name
        self._child = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the bench
        )  # fmt: skip
        self._ask("__init__", entry, database)

    def _ask(self, method: str, *args: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        pickle.dump((method, args), self._child.stdin)
        self._child.stdin.flush()
        good, answer = pickle.load(self._child.stdout)
        if not good:
            raise RuntimeError(answer)
        return answer

    def open(self) -> None:
        self._ask("open")

    def close(self) -> None:
        self._ask("close")
        self._child.communicate()

    def pid(self) -> int:
        return self._ask("pid")

    def cannot(self, work: Work) -> str:
        return self._ask("cannot", work)

    def answer(self, work: Work) -> Any:
        return self._ask("answer", work)

    def sample(self, work: Work, times: int) -> Sample:
        return None, self._ask("sample", work, times)[1]


def lane_of(entry: Entry, database: dict[str, Any]) -> Lane | RemoteLane:
    return RemoteLane(entry, database) if entry.own_process else Lane(entry, database)


def serve() -> None:
    """The child: what it is asked, one after the other, until its input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not be taken for an answer
    lane: Lane | None = None
    while True:
        try:
            method, args = pickle.load(source)
        except EOFError:
            return
        try:
            if method == "__init__":
                lane = Lane(*args)
                answer = None
            else:
                answer = getattr(lane, method)(*args)
                if method == "sample":
                    answer = None, answer[1]
            reply = pickle.dumps((True, answer))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            reply = pickle.dumps((False, f"{type(error).__name__}: {first}"))
        target.write(reply)
        target.flush()


if __name__ == "__main__":
    serve()
