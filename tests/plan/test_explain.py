"""Golden plans: what `explain` says is reviewed as text. With `UPDATE_PLANS=1` the files are written anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.testing import ListSource

PLANS = Path(__file__).parent.parent / "plans"
ORDERS = pl.DataFrame({"item": ["a", "b"], "amount": [3, 4], "tags": [["x"], ["y", "z"]], "note": ["n", "o"]})


def orders() -> us.Stream:
    return us.from_frame(ORDERS)


def chain() -> us.Stream:
    return (
        orders()
        .with_columns(double=pl.col("amount") * 2)
        .filter(pl.col("item") == "a")
        .explode("tags")
        .select("tags", "double")
    )


def union_of_two() -> us.Stream:
    clicks = us.scan(ListSource({"item": pl.String, "amount": pl.Int64}, {"east": [], "west": []}))
    return orders().select("item", "amount").union(clicks).filter(pl.col("amount") > 3)


def rejected() -> us.Stream:
    return us.scan(ListSource({"a": pl.Int64}, bounded=False)).rejected().select("raw", "reason")


def shared() -> us.Stream:
    base = orders().with_columns(pl.col("amount").cast(pl.Float64)).map_batches(_same, schema=None)
    return base.filter(pl.col("amount") > 1).union(base)


def _same(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


STREAMS: dict[str, Callable[[], us.Stream]] = {
    "chain": chain,
    "union": union_of_two,
    "rejected": rejected,
    "shared": shared,
}
TICKS = us.Settings(whole_query=False)
EXTENSION = {"text": "txt", "mermaid": "mmd", "json": "json"}


@pytest.mark.parametrize("format", EXTENSION)
@pytest.mark.parametrize("name", STREAMS)
def test_the_plan_is_the_reviewed_one(name: str, format: str, update_plans: bool) -> None:
    text = STREAMS[name]().explain(format, TICKS) + "\n"
    if format == "json":
        text = text.replace(json.dumps(str(Path(__file__)))[1:-1], "test_explain.py")
        text = _without_lines(text)
    file = PLANS / f"{name}.{EXTENSION[format]}"
    if update_plans:
        file.write_text(text)
    assert file.read_text() == text


def _without_lines(text: str) -> str:
    """Places in this file without the line number, which moves with every change above."""
    plan = json.loads(text)
    for vertex in plan["physical"]:
        vertex["where"] = vertex["where"] and vertex["where"].split(": ", 1)[1]
    return json.dumps(plan, indent=2) + "\n"


def test_a_bounded_stream_says_that_it_is_one_query() -> None:
    text = chain().explain()
    assert "runs as: one Polars streaming query" in text
    assert "delivery: " in text  # what holds with checkpoints, however it runs without
    assert "runs as" not in chain().explain(settings=TICKS)


def test_html_in_names_is_escaped_in_drawings() -> None:
    stream = us.from_frame({'<img src="x">': [1]}).select('<img src="x">').named('a "b" <i>')
    drawing = stream.explain("mermaid", TICKS)
    assert '"b"' not in drawing
    assert "<img" not in drawing
    assert "<i>" not in drawing


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(us.InvalidQuery, match="no format 'svg'") as caught:
        chain().explain("svg")
    assert "mermaid" in (caught.value.hint or "")


def test_every_vertex_of_the_json_is_complete() -> None:
    plan = json.loads(union_of_two().explain("json", TICKS))
    ids = [vertex["id"] for vertex in plan["physical"]]
    assert len(ids) == len(set(ids)) == 5
    for vertex in plan["physical"]:
        assert {"id", "kind", "inputs", "details", "columns", "changes", "bounded", "where"} == set(vertex)
        assert all(edge["vertex"] in ids for edge in vertex["inputs"])
