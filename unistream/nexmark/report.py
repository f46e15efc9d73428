"""What was measured, as a table for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import unistream as us
from unistream.nexmark.measure import Plan, Result

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, ...]

_HEADS = (
    "query",
    "mode",
    "M events/s",
    "least - most",
    "cores",
    "peak",
    "state",
    "checkpoints",
    "rows out",
    "tick p50 / p99",
    "latency p50 / p99",
)
_LEFT = 2
"""Columns of text; the others are numbers."""

_COUNTS = ("peak_bytes", "checkpoint_bytes", "checkpoints", "rows_out", "ticks")
_NO_PART = ("whole_query", "checkpoints_kept", "progress_interval", "debug")


def rows(results: Sequence[Result]) -> list[Row]:
    """Heads, then one row for each result; a column that none of them fills is left out."""
    table = [_HEADS, *(_row(result) for result in results)]
    used = [any(row[place] != "-" for row in table[1:]) for place in range(len(_HEADS))]
    return [tuple(cell for cell, keep in zip(row, used, strict=True) if keep) for row in table]


def _row(result: Result) -> Row:
    median, least, most = (rate / 1e6 for rate in result.events_per_second)
    written, checkpoints = result.median("checkpoint_bytes"), result.median("checkpoints")
    return (
        result.query,
        result.mode,
        f"{median:.3g}",
        f"{least:.3g} - {most:.3g}",
        f"{result.median('cores'):.1f}",
        size(result.median("peak_bytes")),
        size(result.state_bytes),
        "-" if written is None else f"{checkpoints:.0f}: {size(written)}",
        f"{result.median('rows_out'):,.0f}",
        _pair(result.medians("tick_ms")),
        _pair(result.medians("latency_ms")),
    )


def size(nbytes: float | None) -> str:
    """Bytes as people read them.

    >>> size(None), size(0), size(1536), size(2.5e9)
    ('-', '0 B', '1.5 KB', '2.5 GB')
    """
    if nbytes is None:
        return "-"
    for unit in ("B", "KB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"


def _pair(milliseconds: tuple[float, float] | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds[0]:.1f} / {milliseconds[1]:.1f} ms"


def plain_table(results: Sequence[Result]) -> str:
    """Lines of text, for pipes and files."""
    table = rows(results)
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if place < _LEFT else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def rich_table(results: Sequence[Result]) -> Table:
    """The same for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    heads, *body = rows(results)
    table = Table(box=SIMPLE_HEAD)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < _LEFT else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    return table


def to_dict(
    plan: Plan, results: Sequence[Result], machine: Mapping[str, Any], complete: bool = True
) -> dict[str, Any]:
    """Everything as plain values: the machine, what was asked for, medians, and each run by itself.

    Times are in seconds but where the name says milliseconds, sizes in bytes. `complete` is false when not
    all runs were made.
    """
    asked = {**asdict(plan), "folder": None if plan.folder is None else str(plan.folder)}
    return {
        "machine": dict(machine),
        "plan": asked,
        "settings": _settings(plan),
        "complete": complete,
        "results": [_plain(result) for result in results],
    }


def _settings(plan: Plan) -> dict[str, Any]:
    """Those that have a part in what was measured, wherever they were set."""
    given: dict[str, Any] = {"tick_rows": plan.tick_rows}
    if plan.checkpoint is not None:
        given["checkpoint_interval"] = plan.checkpoint
    settings = asdict(us.Settings.load(given))
    return {name: value for name, value in settings.items() if name not in _NO_PART}


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def _plain(result: Result) -> dict[str, Any]:
    median, least, most = result.events_per_second
    pairs = {name: result.medians(name) for name in ("tick_ms", "latency_ms")}
    return {
        "query": result.query,
        "mode": result.mode,
        "events": result.samples[0].events,
        "events_per_second": {"median": median, "least": least, "most": most},
        **{name: result.median(name) for name in ("seconds", "cores")},
        **{name: _whole(result.median(name)) for name in _COUNTS},
        "state_bytes": result.state_bytes,
        **{
            name: None if pair is None else dict(zip(("p50", "p99"), pair, strict=True))
            for name, pair in pairs.items()
        },
        "runs": [asdict(sample) for sample in result.samples],
    }
