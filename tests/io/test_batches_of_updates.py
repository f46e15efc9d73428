"""What a function is called with by a stream that updates: what to put and to delete, or exact changes."""

from __future__ import annotations

from typing import Any

import polars as pl

import unistream as us
from unistream.testing import ListSource

Rows = list[tuple[Any, ...]]


def batches(stream: us.Stream) -> Rows:
    rows: Rows = []
    job = stream.sink_batches(lambda frame: rows.extend(frame.rows()))
    job.run(progress=False, settings=us.Settings(tick_rows=1, whole_query=False))
    return rows


def large_totals() -> us.Stream:
    """Totals of `b` never pass the filter, those of `a` do and then no more, those of `c` stay."""
    rows = [("a", 1), ("a", 5), ("b", 1), ("b", -9), ("c", 3), ("a", -9), ("c", 1)]
    totals = us.scan(ListSource({"k": pl.String, "v": pl.Int64}, rows)).group_by("k").agg(pl.col("v").sum())
    return totals.filter(pl.col("v") > 2)


def test_rows_to_put_and_to_delete_make_the_table() -> None:
    table: dict[str, int] = {}
    for op, k, v in batches(large_totals()):
        if op in ("+I", "+U"):
            table[k] = v
        else:
            assert op == "-D"
            table.pop(k, None)
    assert table == dict(large_totals().collect().rows()) == {"c": 4}


def test_changes_are_exact() -> None:
    assert batches(large_totals().changes()) == [
        ("+I", "a", 6),
        ("+I", "c", 3),
        ("-D", "a", 6),
        ("-U", "c", 3),
        ("+U", "c", 4),
    ]
