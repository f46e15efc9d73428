"""CSV and NDJSON folders hold the rows that were committed, once, and nothing else."""

from __future__ import annotations

import json
import pickle
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import unistream as us
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Chunk, Request, WriterContext
from unistream.io.formats import CsvFormat, NdjsonFormat
from unistream.io.line_files import CsvSource, NdjsonSource
from unistream.io.line_sinks import CsvSink, LineSink, NdjsonSink

ROWS = pl.DataFrame(
    {
        "a": range(100),
        "d": [None if i % 7 == 0 else f'x,"{i}"\n' for i in range(100)],
        "day": [date(2024, 1, 1 + i % 3) for i in range(100)],
    }
)
KINDS = {"csv": (CsvSink, CsvSource), "ndjson": (NdjsonSink, NdjsonSource)}


def context(**options: object) -> WriterContext:
    return WriterContext("job", StreamSchema(ROWS.schema), **options)  # type: ignore[arg-type]


def read_back(folder: Path, kind: str, schema: dict | None = None) -> pl.DataFrame:
    reader = KINDS[kind][1](folder, schema=schema or ROWS.schema).open({}, Request())
    frames = []
    while isinstance(chunk := reader.poll(1000), Chunk):
        frames.append(chunk.frame)
    reader.close()
    return pl.concat(frames)


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_appear_when_their_token_is_committed(tmp_path: Path, kind: str) -> None:
    sink: LineSink = KINDS[kind][0](tmp_path / "out")
    sink.check(StreamSchema(ROWS.schema))
    sink.prepare_target(False)
    writer = sink.open(context(checkpoints=True))
    writer.write(ROWS.head(60))
    first = json.loads(json.dumps(writer.prepare(1)))
    writer.write(ROWS.slice(60))
    second = writer.prepare(2)
    assert writer.prepare(3) is None
    sink.commit([first])
    sink.commit([first])
    assert visible(tmp_path / "out")[-1] == f"part-0-00000001-0000.{kind}"
    assert read_back(tmp_path / "out", kind).equals(ROWS.head(60))
    sink.commit([second])
    assert read_back(tmp_path / "out", kind).equals(ROWS)
    writer.write(ROWS)
    writer.close()
    sink.abort(context())
    assert len(visible(tmp_path / "out")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_leaves_nothing_and_recovery_commits_again(tmp_path: Path, kind: str) -> None:
    sink: LineSink = KINDS[kind][0](tmp_path / "out")
    sink.prepare_target(False)
    writer = sink.open(context(checkpoints=True))
    writer.write(ROWS)
    token = writer.prepare(1)
    writer.write(ROWS)
    writer.prepare(2)  # in no manifest
    writer.write(ROWS)  # and the process ends here
    again = pickle.loads(pickle.dumps(sink))
    again.prepare_target(True)
    again.recover([token], context())
    assert visible(tmp_path / "out") == [f"part-0-00000001-0000.{kind}"]
    assert read_back(tmp_path / "out", kind).equals(ROWS)


def test_partitions_and_rollover(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, partition_by="day", max_file_rows=20)
    sink.prepare_target(False)
    writer = sink.open(context())
    for part in ROWS.iter_slices(13):
        writer.write(part)
    sink.commit([writer.prepare(1)])
    names = visible(tmp_path)
    assert len(names) == 6
    assert names[0] == "day=2024-01-01/part-0-00000001-0000.csv"
    files = [pl.read_csv(tmp_path / name) for name in names]
    assert max(file.height for file in files) == 20
    assert files[0].columns == ["a", "d"]
    assert sorted(pl.concat(files)["a"]) == list(range(100))
    small = NdjsonSink(tmp_path / "small", max_file_bytes=1)
    small.prepare_target(False)
    writer = small.open(context())
    writer.write(ROWS.head(2))
    writer.write(ROWS.head(2))
    small.commit([writer.prepare(1)])
    assert len(visible(tmp_path / "small")) == 2


def test_many_partitions_keep_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistream.io.line_writer.OPEN_FILES", 10)
    sink = NdjsonSink(tmp_path, partition_by=["a"])
    sink.prepare_target(False)
    many = pl.DataFrame({"a": [i % 25 for i in range(75)], "b": range(75)})
    writer = sink.open(WriterContext("job", StreamSchema(many.schema)))
    for part in many.iter_slices(25):
        writer.write(part)
        assert len(writer._open) <= 10
    sink.commit([writer.prepare(1)])
    got = [
        json.loads(line)["b"] for path in tmp_path.rglob("*.ndjson") for line in path.read_text().splitlines()
    ]
    assert sorted(got) == list(range(75))


def test_without_checkpoints_age_and_size_decide(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, max_file_age="10s", max_file_rows=150)
    writer = sink.open(context(bounded=False))
    assert not writer.due(0)
    writer.write(ROWS)
    assert [writer.due(second * 1_000_000) for second in (5, 14, 15)] == [False, False, True]
    writer.prepare(1)
    assert not writer.due(60_000_000)
    writer.write(ROWS)
    writer.write(ROWS)
    assert writer.due(60_000_000)
    assert not sink.open(context(bounded=True)).due(0)


def test_age_is_counted_anew_when_the_clock_is_put_back(tmp_path: Path) -> None:
    writer = CsvSink(tmp_path, max_file_age="10s").open(context(bounded=False))
    writer.write(ROWS)
    seconds = (5_000, 5_009, 1_000, 1_009, 1_010)
    assert [writer.due(second * 1_000_000) for second in seconds] == [False, False, False, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_result_is_a_file_too(tmp_path: Path, kind: str) -> None:
    sink: LineSink = KINDS[kind][0](tmp_path)
    writer = sink.open(context())
    writer.write(ROWS.clear())
    sink.commit([writer.prepare(1)])
    assert visible(tmp_path) == [f"part-0-00000001-0000.{kind}"]
    assert read_back(tmp_path, kind).is_empty()


def test_modes(tmp_path: Path) -> None:
    def run(mode: str, job: str) -> None:
        sink = CsvSink(tmp_path / "out", mode=mode)  # type: ignore[arg-type]
        sink.prepare_target(False)
        writer = sink.open(WriterContext(job, StreamSchema(ROWS.schema)))
        writer.write(ROWS)
        sink.commit([writer.prepare(1)])

    run("error", "one")
    with pytest.raises(ConnectorError, match="not empty"):
        run("error", "two")
    run("append", "two")
    assert read_back(tmp_path / "out", "csv").height == 200
    run("overwrite", "three")
    assert read_back(tmp_path / "out", "csv").equals(ROWS)


def test_refusals(tmp_path: Path) -> None:
    def check(sink: LineSink, **columns: object) -> None:
        sink.check(StreamSchema(pl.Schema(columns)))  # type: ignore[arg-type]

    with pytest.raises(InvalidQuery, match="CSV cannot hold column 'l'"):
        check(CsvSink(tmp_path), l=pl.List(pl.Int64))
    check(NdjsonSink(tmp_path), l=pl.List(pl.Int64))
    with pytest.raises(InvalidQuery, match="NDJSON cannot hold column 's'"):
        check(NdjsonSink(tmp_path), s=pl.Struct({"x": pl.Binary()}))
    with pytest.raises(InvalidQuery, match="'dy' not found in partition_by"):
        check(CsvSink(tmp_path, partition_by="dy"), day=pl.Date(), a=pl.Int64())
    with pytest.raises(InvalidQuery, match="none is left"):
        check(CsvSink(tmp_path, partition_by="a"), a=pl.Int64())
    with pytest.raises(InvalidSettings, match="one ASCII character"):
        CsvSink(tmp_path, separator="::")
    with pytest.raises(InvalidSettings, match="max_file_rows"):
        CsvSink(tmp_path, max_file_rows=0)


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), texts, numbers), max_size=8))
def test_any_rows_come_back(rows: list[tuple]) -> None:
    schema = pl.Schema({"a": pl.Int64, "d": pl.String, "f": pl.Float64})
    rows_given = pl.DataFrame(rows, schema=schema, orient="row")
    last = pl.Schema({"f": pl.Float64, "d": pl.String})
    alone = pl.Schema({"d": pl.String})
    csv = [CsvFormat(columns, separator=sign) for columns in (schema, last, alone) for sign in ",;"]
    for format_ in [*csv, NdjsonFormat(schema), NdjsonFormat(alone)]:
        frame = rows_given.select(list(format_.columns))
        decoded = format_.decode(format_.encode(frame), first_line=2)
        assert decoded.rejected is None
        assert decoded.frame.equals(frame)


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["Africa/Monrovia", "Europe/Berlin", "America/St_Johns"])
def test_old_moments_of_a_zone_come_back(tmp_path: Path, kind: str, unit: str, zone: str) -> None:
    """Their offsets had seconds, which text does not."""
    years = [1700 if unit != "ns" else 1800, 1874, 1890, 1919, 1950, 1971, 1972, 1973, 2024]
    moments = pl.Series("at", [datetime(year, 1, 7, 0, 44, 29) for year in years], dtype=pl.Datetime(unit))  # type: ignore[arg-type]
    rows = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).to_frame()
    getattr(us.from_frame(rows), f"sink_{kind}")(tmp_path / "out").run(progress=False)
    again = getattr(us, f"scan_{kind}")(tmp_path / "out", schema=rows.schema).collect()
    assert_frame_equal(again, rows)
