"""`Stream.side_output`: rows that a step gives beside its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.testing import Crashed, ListSource, assert_same_rows, crash_at, verify

SIZES = {"k": pl.String, "v": pl.Int64}


class Sorted(us.ProcessFunction):
    """Numbers the rows of a key; large and negative ones are told beside."""

    output = {"k": pl.String, "n": pl.Int64}
    side_outputs = {"large": SIZES, "negative": {"v": pl.Int64}}
    n = us.ValueState(pl.Int64, default=0)

    def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[dict[str, Any]]:
        self.n.value += 1
        if row["v"] < 0:
            ctx.emit_to("negative", {"v": row["v"]})
        elif row["v"] > 10 * self.n.value:
            ctx.emit_to("large", {"k": key, "v": row["v"]})
        else:
            yield {"k": key, "n": self.n.value}


ROWS = pl.DataFrame({"k": ["a", "b", "a", "a"], "t": [1, 2, 3, 4], "v": [11, 5, -3, 31]})


def sorted_rows(rows: us.Stream | None = None) -> us.Stream:
    return (us.from_frame(ROWS) if rows is None else rows).group_by("k").process(Sorted())


def test_rows_of_a_side_output() -> None:
    made = sorted_rows()
    assert made.collect().rows() == [("b", 1)]
    large = made.side_output("large")
    assert large.schema == pl.Schema(SIZES)
    assert large.bounded
    assert large.collect().rows() == [("a", 11), ("a", 31)]
    assert made.side_output("negative").collect().rows() == [(-3,)]


def test_it_is_found_behind_further_steps() -> None:
    further = sorted_rows().filter(pl.col("n") > 5).with_columns(m=1).named("last")
    assert further.side_output("large").collect().height == 2


def test_what_comes_out_is_a_stream_as_any_other() -> None:
    large = sorted_rows().side_output("large")
    assert large.filter(pl.col("v") > 20).select(w=pl.col("v") * 2).collect().rows() == [(62,)]
    timed = large.with_event_time("v", unit="s").window(us.tumbling("20s")).agg(n=pl.len())
    assert timed.collect().rows() == [(0, 20, 1), (20, 40, 1)]


def test_all_outputs_of_one_job() -> None:
    made = sorted_rows()
    main, large, negative = [], [], []
    us.job(
        made.sink_batches(main.append),
        made.side_output("large").sink_batches(large.append),
        made.side_output("negative").sink_batches(negative.append),
    ).run(progress=False)
    assert [pl.concat(frames).height for frames in (main, large, negative)] == [1, 2, 1]


def test_without_end() -> None:
    source = ListSource(ROWS.schema, [ROWS], bounded=False)
    large = sorted_rows(us.scan(source)).side_output("large")
    assert not large.bounded
    assert large.collect(until="available").height == 2


def test_the_way_rows_arrive_does_not_matter() -> None:
    rows = us.from_frame(pl.concat([ROWS, ROWS, ROWS]))
    for tag in ("large", "negative"):
        verify(sorted_rows(rows).side_output(tag), seeds=6)


def test_a_crash_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    made = sorted_rows(us.scan(ListSource(ROWS.schema, ROWS.rows())))
    job = us.job(
        made.sink_parquet(tmp_path / "main"), made.side_output("large").sink_parquet(tmp_path / "large")
    )
    settings = us.Settings(checkpoint_interval="1ms")
    with crash_at("sink.commit", hit=2):
        runtime = job.runtime(checkpoint=tmp_path / "ckpt", threads=False, settings=settings)
        with pytest.raises(Crashed):
            try:
                runtime.open()
                while runtime.step():
                    pass
                runtime.conclude()
            finally:
                runtime.close()
    job.run(checkpoint=tmp_path / "ckpt", progress=False)
    assert pl.read_parquet(tmp_path / "main/*.parquet").rows() == [("b", 1)]
    got = pl.read_parquet(tmp_path / "large/*.parquet")
    assert_same_rows(pl.DataFrame({"k": ["a", "a"], "v": [11, 31]}), got)


def test_explain_shows_where_rows_leave() -> None:
    made = sorted_rows()
    assert "large, negative" in made.explain()
    text = made.side_output("large").explain()
    assert "side output 'large'" in text
    assert "process-1.large" in text


# Mistakes


def test_an_unknown_tag_is_told_those_there_are() -> None:
    with pytest.raises(us.InvalidQuery, match="No step of this stream has a side output 'lagre'") as caught:
        sorted_rows().side_output("lagre")
    assert caught.value.hint == "did you mean 'large'?"
    assert "test_side_outputs.py" in (caught.value.where or "")
    with pytest.raises(us.InvalidQuery) as caught:
        sorted_rows().side_output("x")
    assert caught.value.hint == "there are 'large', 'negative'"


def test_a_stream_without_side_outputs_says_who_has_them() -> None:
    with pytest.raises(us.InvalidQuery) as caught:
        us.from_frame(ROWS).side_output("large")
    assert "ProcessFunction" in (caught.value.hint or "")


@pytest.mark.parametrize("tag", ["late", "rejected"])
def test_the_engines_own_have_verbs(tag: str) -> None:
    rows = us.from_frame(ROWS).with_event_time("t", unit="s").window(us.tumbling("2s")).agg(n=pl.len())
    with pytest.raises(us.InvalidQuery) as caught:
        rows.side_output(tag)
    assert f".{tag}()" in (caught.value.hint or "")


def test_one_of_several_steps_is_not_guessed() -> None:
    first = sorted_rows()
    second = first.with_columns(v=pl.col("n") * 100).group_by("k").process(Sorted())
    assert second.side_output("large").collect().rows() == [("b", 100)]
    assert first.side_output("large").collect().height == 2
    for several in (second.filter(pl.col("n") > 0), first.union(sorted_rows())):
        with pytest.raises(us.InvalidQuery, match="Several steps") as caught:
            several.side_output("large")
        assert "directly behind" in (caught.value.hint or "")
