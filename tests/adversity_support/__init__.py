"""What the tests of tests/adversity share: counts, cancelling at a chosen point, a proxy, the state
of the pool and of the server afterwards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: ``make adversity`` sets it: the counts that docs/reliability.md reports.
FULL = os.environ.get("VINYL_ADVERSITY", "") == "full"


def count(small: int, full: int) -> int:
    """How many trials: ``small`` in `make test`, ``full`` in `make adversity`."""
    return full if FULL else small


def report(measure: str, **figures: Any) -> None:
    """Appends what was measured to the file named by VINYL_ADVERSITY_REPORT, one JSON a line."""
    name = os.environ.get("VINYL_ADVERSITY_REPORT")
    if name:
        with Path(name).open("a") as file:
            file.write(json.dumps({"measure": measure, **figures}) + "\n")
