"""Where in the user's program a step was asked for."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)
_CHECKOUT_ROOMS = tuple(str(Path(__file__).parent.parent / room) for room in ("io", "state"))


def user_location() -> str | None:
    """`file:line: source text` of the nearest caller outside this library, or None in a bare interpreter."""
    frame = sys._getframe(1)
    inside = (_PACKAGE, *_CHECKOUT_ROOMS)
    while frame is not None and frame.f_code.co_filename.startswith(inside):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return None
    name, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(name, line).strip()
    where = f"{name}:{line}"
    return f"{where}: {source}" if source else where
