"""How a read was written: what the caller's bytecode says."""

from __future__ import annotations

import dis
import sys

_LOADS = {dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap}


def written_as_attribute(depth: int = 0) -> bool:
    """Whether the frame `depth` levels above the caller's caller is at ``ob.name``.

    False for ``getattr()``, ``hasattr()``, ``operator.attrgetter`` and reads by C code.
    """
    frame = sys._getframe(depth + 2)
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] in _LOADS
