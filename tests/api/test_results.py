"""What a stream gives directly, and how streams, jobs and runs show themselves."""

from __future__ import annotations

import io
import sys
import threading
from contextlib import redirect_stdout
from types import ModuleType

import polars as pl
import pytest

import unistream as us
from unistream.api import display
from unistream.api.display import TerminalView, progress_text
from unistream.api.html import progress_html
from unistream.io.base import Wait
from unistream.io.memory import MemorySink
from unistream.runtime.progress import Progress, SourceProgress
from unistream.testing import ListSource

SCHEMA = {"n": pl.Int64}


@pytest.mark.parametrize(
    ("verb", "way_out"),
    [("sort", r"\.collect\(\)\.sort\("), ("limit", r"write \.head\(n\)"), ("write_csv", "sink_csv")],
)
def test_verbs_of_frames_name_the_way_out(verb: str, way_out: str) -> None:
    with pytest.raises(AttributeError, match=f"a stream has no '{verb}'.*{way_out}"):
        getattr(us.from_frame({"n": [1]}), verb)
    assert not hasattr(us.from_frame({"n": [1]}), "unheard_of")


def test_progress_and_windows_are_short_in_a_shell() -> None:
    progress = us.from_frame({"n": [1, 2]}).filter(pl.col("n") > 1).sink(MemorySink()).run(progress=False)
    assert repr(progress).startswith("<Progress finished: ")
    assert "where" not in repr(us.tumbling("1m"))


def endless() -> us.Stream:
    return us.scan(ListSource(SCHEMA, [(n,) for n in range(100)], bounded=False))


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("unistream")]


# collect, head, batches, show


def test_collect_of_an_unbounded_stream_is_refused_with_the_ways_out() -> None:
    with pytest.raises(us.InvalidQuery, match="would never end") as caught:
        endless().collect()
    assert "head(n)" in (caught.value.hint or "")
    assert "endless().collect()" in (caught.value.where or "")


def test_collect_keeps_order_and_schema_even_when_nothing_comes() -> None:
    rows = us.from_frame({"a": list(range(1000)), "b": ["x"] * 1000})
    for settings in (us.Settings(), us.Settings(whole_query=False, tick_rows=7)):
        assert rows.collect(settings=settings)["a"].to_list() == list(range(1000))
        empty = rows.filter(pl.col("a") < 0).collect(settings=settings)
        assert (empty.height, empty.schema) == (0, rows.schema)


def test_head_stops_reading_as_soon_as_it_has_its_rows() -> None:
    polled = 0

    def rows() -> object:
        nonlocal polled
        for n in range(1_000_000):
            polled = n
            yield {"n": n}

    stream = us.scan_iterable(rows, schema=SCHEMA)
    assert stream.head(3)["n"].to_list() == [0, 1, 2]
    assert polled < 999_999
    assert not alive()


def test_head_of_an_unbounded_stream_ends() -> None:
    assert endless().head(5)["n"].to_list() == [0, 1, 2, 3, 4]
    assert not alive()


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (-1, 0), (2, 2), (50, 3)])
def test_head_of_few_rows(n: int, expected: int) -> None:
    frame = us.from_frame({"n": [1, 2, 3]}).head(n)
    assert (frame.height, frame.schema) == (expected, pl.Schema(SCHEMA))


def test_leaving_the_loop_over_batches_closes_the_sources() -> None:
    for frame in endless().batches():
        assert frame.columns == ["n"]
        assert alive()
        break
    assert not alive()


def test_an_error_in_the_loop_over_batches_closes_the_sources() -> None:
    with pytest.raises(KeyError):
        for _ in endless().batches():
            raise KeyError
    assert not alive()


def test_batches_hold_all_rows_once() -> None:
    frames = list(us.from_frame({"n": range(10)}).batches(settings=us.Settings(tick_rows=3)))
    assert [n for frame in frames for n in frame["n"]] == list(range(10))
    assert all(frame.height <= 3 for frame in frames)
    assert pl.concat(endless().batches(until="available")).height == 100


def test_batches_of_a_failing_stream_raise_and_close() -> None:
    def fail(frame: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("no")

    with pytest.raises(us.JobFailed, match="ValueError: no"):
        list(endless().map_batches(fail, schema=SCHEMA).batches())
    assert not alive()


def test_show_prints_the_first_rows() -> None:
    text = io.StringIO()
    with redirect_stdout(text):
        us.from_frame({"n": range(100, 200)}).show(2)
    assert "100" in text.getvalue()
    assert "101" in text.getvalue()
    assert "102" not in text.getvalue()


def test_a_live_view_ends_by_itself() -> None:
    text = io.StringIO()
    with redirect_stdout(text):
        endless().show(3, seconds=0.3)
    assert not alive()


def test_a_bounded_stream_that_updates_shows_its_final_table() -> None:
    counts = us.from_frame({"k": ["a", "b", "a"]}).group_by("k").agg(n=pl.len())
    assert counts.head(5).sort("k").rows() == [("a", 2), ("b", 1)]
    assert counts.head(1).height == 1
    text = io.StringIO()
    with redirect_stdout(text):
        counts.show()
    assert "shape: (2, 2)" in text.getvalue()


def test_batches_of_a_stream_that_updates_are_its_changes() -> None:
    rows = us.scan(ListSource({"k": pl.String}, [("a",), ("a",)], bounded=False))
    counts = rows.group_by("k").agg(n=pl.len())
    frames = list(counts.batches(until="available"))
    assert frames[0].columns == ["op", "k", "n"]
    assert pl.concat(frames)["op"][0] == "+I"
    assert counts.head(1).rows() in ([("+I", "a", 1)], [("+I", "a", 2)])  # as many as have come
    text = io.StringIO()
    with redirect_stdout(text):
        counts.show(3, seconds=0.3)
    assert not alive()


# job(a, b)


def test_a_job_of_several_sinks_shares_its_source_and_counts_once() -> None:
    rows = us.from_frame({"n": range(10)})
    small, large = MemorySink(), MemorySink()
    both = us.job(rows.filter(pl.col("n") < 3).sink(small), rows.filter(pl.col("n") >= 3).sink(large))
    progress = both.run(progress=False)
    assert (small.result().height, large.result().height) == (3, 7)
    assert (progress.rows_in, progress.rows_out, progress.status) == (10, 10, "finished")
    assert set(progress.operators) >= {"memory-1", "memory-2"}


def test_jobs_nest() -> None:
    sinks = [MemorySink() for _ in range(3)]
    first, second, third = (us.from_frame({"n": [1]}).sink(sink) for sink in sinks)
    us.job(us.job(first, second), third).run(progress=False)
    assert [sink.result().height for sink in sinks] == [1, 1, 1]


def test_a_job_needs_a_sink() -> None:
    with pytest.raises(us.InvalidQuery, match="at least one sink"):
        us.job()


def test_a_job_can_run_again() -> None:
    seen: list[int] = []
    job = us.from_frame({"n": [1, 2]}).sink_batches(lambda frame: seen.append(frame.height))
    job.run(progress=False)
    job.run(progress=False)
    assert seen == [2, 2]


def test_an_unknown_until_is_refused() -> None:
    with pytest.raises(us.InvalidSettings, match="until='later'"):
        us.from_frame({"n": [1]}).sink(MemorySink()).start(until="later")  # type: ignore[arg-type]


# split, named, pipe


def test_split_gives_each_row_to_exactly_one_branch() -> None:
    frame = pl.DataFrame({"n": [1, None, 5, 20, 7]})
    parts = us.from_frame(frame).split({"low": pl.col("n") < 6, "odd": pl.col("n") % 2 == 1}, rest="rest")
    got = {name: part.collect()["n"].to_list() for name, part in parts.items()}
    assert got == {"low": [1, 5], "odd": [7], "rest": [None, 20]}
    with pytest.raises(us.InvalidQuery, match="two branches"):
        us.from_frame(frame).split({"low": pl.col("n") < 6}, rest="low")


def test_a_name_shows_in_explain_and_counters() -> None:
    stream = us.from_frame({"n": [1, 2]}).map_batches(lambda f: f, schema=SCHEMA).named("clean")
    settings = us.Settings(whole_query=False)
    assert "clean [operator]" in stream.explain(settings=settings)
    progress = stream.sink(MemorySink()).run(progress=False, settings=settings)
    assert progress.operators["clean"]["rows_out"] == 2


def test_streams_are_never_changed() -> None:
    rows = us.from_frame({"n": [1, 2, 3]})
    before = rows.explain()
    rows.filter(pl.col("n") > 1).select(m=pl.col("n")).named("x")
    assert rows.explain() == before
    assert rows.columns == ["n"]


# How things look

EVIL = '<script>alert("x")</script>'


def test_a_stream_shows_what_it_is_without_running() -> None:
    stream = us.from_frame({"n": [1], "s": ["x"]})
    assert repr(stream) == "<Stream bounded [n: Int64, s: String]>"
    assert repr(endless()) == "<Stream unbounded [n: Int64]>"
    html = us.from_frame({EVIL: [1]})._repr_html_()
    assert EVIL not in html
    assert "&lt;script&gt;" in html


def test_many_columns_are_cut_short() -> None:
    html = us.from_frame({f"c{n}": [n] for n in range(250)})._repr_html_()
    assert "c199" in html
    assert "c200" not in html
    assert "and 50 more" in html


def test_a_job_says_that_it_has_not_started() -> None:
    assert repr(us.from_frame({"n": [1]}).sink(MemorySink())) == "<Job bounded to memory; not started>"


def test_progress_is_escaped_and_tells_what_is_left() -> None:
    waiting = SourceProgress(rows=1, nbytes=0, waiting_for=EVIL)
    progress = Progress(status="running", done=0.25, seconds_left=125, sources={"list-1": waiting}, late=3)
    text = progress_text(progress)
    assert "25%, 2m05s left" in text
    assert "3 late" in text
    html = progress_html(progress)
    assert EVIL not in html
    assert 'value="0.250"' in html
    assert progress.to_dict()["sources"]["list-1"]["waiting_for"] == EVIL


def test_a_run_shows_its_counts() -> None:
    run = us.from_frame({"n": [1, 2]}).sink(MemorySink()).start()
    run.wait(20)
    assert repr(run) == "<Run finished: 2 rows in, 2 out>"
    assert "finished" in run._repr_html_()


def test_a_progress_display_does_not_change_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    slow = us.scan(ListSource(SCHEMA, [(1,), Wait(1.5), (2,)]))
    progress = slow.sink(MemorySink()).run(progress=True, settings=us.Settings(whole_query=False))
    assert progress.rows_out == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rows in" in shown.err


def test_brackets_are_no_markup_in_a_terminal() -> None:
    text = io.StringIO()
    view = TerminalView(text)
    view.open()
    waiting = SourceProgress(rows=1, nbytes=0, waiting_for="[/red] and [bold]")
    view.close(Progress(status="running", sources={"list-1": waiting}))
    assert ": [/red] and [bold]" in text.getvalue()


def test_a_live_view_in_a_notebook_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    module = ModuleType("IPython.display")
    module.HTML = str  # type: ignore[attr-defined]
    module.display = lambda html, display_id: shown.append(html)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    waiting = SourceProgress(rows=1, nbytes=0, waiting_for=EVIL)
    display._Drawing().frame(
        pl.DataFrame({"s": [EVIL]}), Progress(status="running", sources={"list-1": waiting})
    )
    assert shown
    assert EVIL not in shown[0]
    assert shown[0].count("&lt;script&gt;") == 2
