"""Where in the user's program a step was asked for, and where a user's function failed."""

from __future__ import annotations

import linecache
import sys
import sysconfig
import traceback
from pathlib import Path
from types import CodeType

_PACKAGE = str(Path(__file__).parent)
_CHECKOUT_ROOMS = tuple(str(Path(__file__).parent.parent / room) for room in ("io", "state"))
_OURS = (_PACKAGE, *_CHECKOUT_ROOMS)
_COMMAND_LINE = f"{_PACKAGE}/cli"
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_CELLS = "/ipykernel_"
"""What the names have in common that a notebook gives to its cells."""

_ENGINES = tuple(f"{sysconfig.get_path('platlib')}/{name}/" for name in ("polars", "pyarrow", "numpy"))


def user_location() -> str | None:
    """`file:line: source text` of the nearest caller outside this library, or None in a bare interpreter."""
    frame = sys._getframe(1)
    while frame is not None and not _is_users(frame.f_code):
        if frame.f_code.co_filename.startswith(_COMMAND_LINE):  # whoever called that is nobody's program
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else _place(frame.f_code.co_filename, frame.f_lineno)


def raised_at(error: BaseException) -> str | None:
    """The line of the user's own code in which it was raised, or None when none took part."""
    lines = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [(code.co_filename, line) for code, line in lines if _is_users(code)]
    return _place(*users[-1]) if users else None


def _is_users(code: CodeType) -> bool:
    """Neither ours, nor Python's own (a thread begins there), nor that of an engine."""
    name = code.co_filename
    if name == "<string>" and code.co_name == "__init__":  # a dataclass writes its own
        return False
    in_python = name.startswith(_STANDARD_LIBRARY) and "site-packages" not in name
    return not (in_python or name.startswith(("<frozen", *_OURS, *_ENGINES)))


def _place(name: str, line: int) -> str:
    linecache.checkcache(name)
    source = linecache.getline(name, line).strip()
    where = f"{'cell' if _CELLS in name else name}:{line}"
    return f"{where}: {source}" if source else where
