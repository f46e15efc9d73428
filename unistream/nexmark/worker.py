"""One trial in a process of its own: `python -m unistream.nexmark.worker` with a case as JSON as input."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from unistream import errors
from unistream.nexmark.trial import Case, run_case


def main() -> None:
    """Write the sample, or the error, as JSON."""
    case = msgspec.json.decode(sys.stdin.buffer.read(), type=Case)
    try:
        said: dict[str, Any] = {"sample": run_case(case)}
    except errors.UnistreamError as error:
        said = {"error": {"kind": type(error).__name__, "arguments": error.args}}
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    main()
