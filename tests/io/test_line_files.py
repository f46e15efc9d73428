"""Line files from beginning to end: cuts, restarts, damage, compression, watching."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pickle
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unistream as us
from unistream.errors import ConnectorError, DataError, InvalidQuery, InvalidSettings
from unistream.io.base import REJECTED_SCHEMA, Chunk, Exhausted, Reader, Request, Wait
from unistream.io.formats import CsvFormat, Format, NdjsonFormat, TextFormat
from unistream.io.line_cutter import LineCutter
from unistream.io.line_files import MAX_LINE_BYTES, CsvSource, LineFileSource, NdjsonSource, TextSource
from unistream.io.line_split import LineOptions, LineSplit
from unistream.testing.clock import VirtualClock

SCHEMA = {"a": pl.Int64, "d": pl.String}


def chunks_of(reader: Reader, max_rows: int = 100) -> list[Chunk]:
    """Everything until the reader has nothing now."""
    found = []
    while isinstance(chunk := reader.poll(max_rows), Chunk):
        found.append(chunk)
    return found


def rows_of(chunks: list[Chunk]) -> list[tuple]:
    return [row for chunk in chunks for row in chunk.frame.rows()]


def read(source: LineFileSource, positions: dict | None = None, **request: object) -> list[Chunk]:
    reader = source.open(positions or {}, Request(**request))  # type: ignore[arg-type]
    chunks = chunks_of(reader)
    assert isinstance(reader.poll(10), Exhausted)
    reader.close()
    return chunks


def write_json(path: Path, numbers: range, end: str = "\n") -> None:
    path.write_text("\n".join(json.dumps({"a": i, "d": f"d{i}"}) for i in numbers) + end)


def test_files_come_in_the_order_of_names_each_ended_once(tmp_path: Path) -> None:
    write_json(tmp_path / "b.ndjson", range(3, 5), end="")
    write_json(tmp_path / "a.jsonl", range(3))
    (tmp_path / "c.ndjson").write_text("")
    (tmp_path / "x.txt").write_text("no")
    source = NdjsonSource(tmp_path, schema=SCHEMA)
    chunks = read(source)
    assert rows_of(chunks) == [(i, f"d{i}") for i in range(5)]
    assert [chunk.split for chunk in chunks if chunk.ended] == ["a.jsonl", "b.ndjson", "c.ndjson"]
    assert source.bounded
    assert source.schema() == pl.Schema(SCHEMA)


def test_pending_and_backlog_count_down(tmp_path: Path) -> None:
    for name in "abc":
        write_json(tmp_path / f"{name}.ndjson", range(10))
    reader = NdjsonSource(tmp_path, schema=SCHEMA).open({}, Request())
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert reader.pending() == {"a.ndjson": None, "b.ndjson": None, "c.ndjson": None}
    assert (reader.backlog().nbytes, reader.backlog().total_bytes) == (total, total)
    reader.poll(100)
    assert reader.pending() == {"b.ndjson": None, "c.ndjson": None}
    assert reader.backlog().nbytes == total * 2 // 3
    chunks_of(reader)
    assert reader.backlog().nbytes == 0


@pytest.mark.parametrize("kind", ["csv", "ndjson", "text", "csv.gz", "ndjson.zst"])
def test_resuming_at_every_chunk_gives_exactly_the_rest(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unistream.io.line_reader.FIRST_BYTES", 97)
    monkeypatch.setattr("unistream.io.line_reader.UNIT_BYTES", 113)
    source = _source(tmp_path, kind)
    whole = read(source)
    expected = rows_of(whole)
    assert len(expected) == 120
    assert len(whole) > 20
    positions: dict = {}
    for number, chunk in enumerate(whole):
        positions[chunk.split] = json.loads(json.dumps(chunk.position))
        rest = read(source, dict(positions))
        assert rows_of(rest) == rows_of(whole[number + 1 :])
        assert sum(c.ended for c in rest) == sum(c.ended for c in whole[number + 1 :])


def _source(folder: Path, kind: str) -> LineFileSource:
    """Two files of sixty rows each, CSV with newlines within quotes."""
    for name, start in (("x", 0), ("y", 60)):
        numbers = range(start, start + 60)
        if kind.startswith("csv"):
            text = "d,a\n" + "".join(f'"x, ""{i}""\n{"z" * (i % 7)}",{i}\n' for i in numbers)
        else:
            text = "".join(json.dumps({"a": i, "d": "z" * (i % 7)}) + "\n" for i in numbers)
        data = text.encode()
        if kind.endswith("gz"):
            data = gzip.compress(data[:500]) + gzip.compress(data[500:])
        if kind.endswith("zst"):
            data = pa.compress(data, codec="zstd", asbytes=True)
        (folder / f"{name}.{kind}").write_bytes(data)
    if kind.startswith("csv"):
        return CsvSource(folder, schema=SCHEMA)
    return TextSource(folder) if kind == "text" else NdjsonSource(folder, schema=SCHEMA)


def test_csv_columns_are_found_by_the_header_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,d\n1,x\n")
    (tmp_path / "2.csv").write_text("\ufeffd,extra,a\r\ny,?,2\r\n")
    source = CsvSource(str(tmp_path / "*.csv"), schema=SCHEMA)
    assert rows_of(read(source)) == [(1, "x"), (2, "y")]
    assert rows_of(read(source, columns=("a",))) == [(1,), (2,)]
    assert rows_of(read(source, columns=("d", "a"))) == [("x", 1), ("y", 2)]
    (tmp_path / "3.csv").write_text("a,dd\n1,x\n")
    with pytest.raises(DataError, match=r"3\.csv, line 1: the header has no column 'd'"):
        read(source)


def test_policies(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    file.write_text('{"a": 1}\n{"a": "x"}\n\n{"a": 3\n{"a": 4}\n')
    with pytest.raises(DataError, match=r"x\.ndjson, line 2: column 'a'"):
        read(NdjsonSource(file, schema=SCHEMA))
    skipped = read(NdjsonSource(file, schema=SCHEMA, on_error="skip"))
    assert rows_of(skipped) == [(1, None), (4, None)]
    assert sum(chunk.scanned_rows or 0 for chunk in skipped) == 4
    collected = read(NdjsonSource(file, schema=SCHEMA, on_error="collect"))
    rejected = pl.concat([chunk.rejected for chunk in collected if chunk.rejected is not None])
    assert rejected.schema == REJECTED_SCHEMA
    assert rejected.select("source", "split", "position").rows() == [
        ("ndjson", "x.ndjson", 2),
        ("ndjson", "x.ndjson", 4),
    ]
    with pytest.raises(InvalidSettings, match="did you mean 'collect'"):
        NdjsonSource(file, schema=SCHEMA, on_error="colect")


def test_inference(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        'n,f,b,d,t,zip,"s,1",none\n1,1,true,2024-01-01,2024-01-01T10:00:00Z,01234,x,\n-2,1e3,FALSE,,,9,"y\ny",\n'
    )
    source = CsvSource(file)
    assert dict(source.schema()) == {
        "n": pl.Int64, "f": pl.Float64, "b": pl.Boolean, "d": pl.Date, "t": pl.Datetime("us"),
        "zip": pl.String, "s,1": pl.String, "none": pl.String,
    }  # fmt: skip
    assert len(rows_of(read(source))) == 2
    assert dict(CsvSource(file, has_header=False, on_error="skip").schema()) == {
        f"column_{i}": pl.String() for i in range(1, 9)
    }
    nested = tmp_path / "x.ndjson"
    nested.write_text('{"a": null, "l": [1]}\n{"a": null, "l": [2.5], "s": {"x": null}}\n')
    assert dict(NdjsonSource(nested).schema()) == {
        "a": pl.String, "l": pl.List(pl.Float64), "s": pl.Struct({"x": pl.String}),
    }  # fmt: skip
    (tmp_path / "empty.ndjson").write_text("\n\n")
    with pytest.raises(InvalidQuery, match="no rows yet to infer"):
        NdjsonSource(tmp_path / "empty.ndjson")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_is_named(tmp_path: Path, suffix: str) -> None:
    data = b"".join(b'{"a": %d, "d": "%d"}\n' % (i, i * 7919) for i in range(20_000))
    packed = gzip.compress(data) if suffix == ".gz" else pa.compress(data, codec="zstd", asbytes=True)
    file = tmp_path / f"x.ndjson{suffix}"
    file.write_bytes(packed)
    assert len(rows_of(read(NdjsonSource(file, schema=SCHEMA)))) == 20_000
    file.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"x\.ndjson{suffix} cannot be decompressed"):
        read(NdjsonSource(file, schema=SCHEMA))
    file.write_bytes(b"no such thing")
    with pytest.raises(DataError, match="cannot be decompressed"):
        read(NdjsonSource(file, schema=SCHEMA))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.log.gz"
    with gzip.open(file, "wb", compresslevel=9) as packed:
        for _ in range(90):
            packed.write(b"x" * ((1 << 20) - 1) + b"\n")
    with pytest.raises(DataError, match="grows to more than 1000 times"):
        read(TextSource(file))
    assert 64 <= len(rows_of(read(TextSource(file, on_error="skip")))) < 90


def test_lines_that_are_too_long_are_rejected_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.log"
    file.write_bytes(b"one\n" + b"x" * 5000 + b"\ntwo\n" + b"y" * 700 + b"\nthree\n" + b"z" * 3000)
    for unit in (64, 1000, 1 << 20):
        monkeypatch.setattr("unistream.io.line_reader.FIRST_BYTES", unit)
        monkeypatch.setattr("unistream.io.line_reader.UNIT_BYTES", unit)
        source = TextSource(file, max_line_bytes=500, on_error="collect")
        chunks = read(source)
        assert rows_of(chunks) == [("one",), ("two",), ("three",)]
        rejected = pl.concat([chunk.rejected for chunk in chunks if chunk.rejected is not None])
        assert rejected["position"].to_list() == [2, 4, 6]
        assert rejected["reason"].unique().to_list() == ["line longer than 500 bytes"]
        assert [raw[:1] for raw in rejected["raw"]] == ["x", "y", "z"]
        positions: dict = {}
        for number, chunk in enumerate(chunks):
            positions[chunk.split] = chunk.position
            again = read(source, dict(positions))
            assert rows_of(again) == rows_of(chunks[number + 1 :])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=12), st.data())
def test_the_cutter_gives_the_same_lines_however_it_is_fed(lines: list[bytes], draws: st.DataObject) -> None:
    limit = 8
    data = b"\n".join(lines) + draws.draw(st.sampled_from([b"", b"\n"]))
    cutter = LineCutter(lambda held: held.rfind(b"\n") + 1, limit)
    good, long, nbytes, newlines = b"", 0, 0, 0

    def take() -> None:
        nonlocal good, long, nbytes, newlines
        while (cut := cutter.next()) is not None:
            good += cut.data
            long += cut.too_long is not None
            nbytes += cut.nbytes
            newlines += cut.lines + cut.data.count(b"\n")

    rest = data
    while rest:
        size = draws.draw(st.integers(1, len(rest)))
        cutter.feed(rest[:size])
        rest = rest[size:]
        take()
    cutter.finish()
    take()
    assert good == b"".join(line for line in _split(data) if len(line.rstrip(b"\n")) <= limit)
    assert long == sum(len(line.rstrip(b"\n")) > limit for line in _split(data))
    assert nbytes == len(data)
    assert newlines == data.count(b"\n")


PIECES = [
    b'"',
    b",",
    b"\n",
    b"1",
    b"ab",
    b"\r\n",
    b"\xff",
    b'""',
    b"1,x\n",
    b'"x"',
    b',"',
    b'",',
    b"\xef\xbb\xbf",
    b"\x00",
]
PIECES += [b'{"a":1}\n', b'{"d":"x"}\n', b" ", b'2,"y\n"\n']
TYPED = pl.Schema(SCHEMA)
FORMATS = [CsvFormat(TYPED, has_header=False), CsvFormat(TYPED), NdjsonFormat(TYPED), TextFormat()]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join), st.sampled_from(FORMATS), st.data())
def test_rows_and_rejects_do_not_depend_on_how_bytes_come(
    data: bytes, format_: Format, draws: st.DataObject
) -> None:
    if isinstance(format_, CsvFormat) and format_.has_header:
        data = b"d,a\n" + data
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    whole, cut = _through(format_, data, []), _through(format_, data, cuts)
    assert cut == whole


def _through(format_: Format, data: bytes, cuts: list[int]) -> tuple[list, list, int, int]:
    split = LineSplit(LineOptions("s", format_, "collect", MAX_LINE_BYTES), "x")
    rows, rejected = [], []

    def take() -> None:
        if (found := split.take()) is not None:
            rows.extend(found.frame.rows())
            lost = found.rejected
            rejected.extend([] if lost is None else lost.select("position", "raw").rows())
            assert found.rows == found.frame.height + (0 if lost is None else lost.height)

    for start, end in itertools.pairwise([0, *cuts, len(data)]):
        split.feed(data[start:end])
        take()
    split.finish()
    take()
    return rows, rejected, split.offset, split.line


def _split(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


def test_files_that_shrink_vanish_or_change_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unistream.io.line_reader.FIRST_BYTES", 50)
    monkeypatch.setattr("unistream.io.line_reader.UNIT_BYTES", 50)
    file = tmp_path / "x.ndjson"
    source = NdjsonSource(file, schema=SCHEMA)
    write_json(file, range(20))
    reader = source.open({}, Request())
    chunk = reader.poll(10)
    assert isinstance(chunk, Chunk)
    os.truncate(file, 60)
    with pytest.raises(DataError, match=r"x\.ndjson was cut while it was read"):
        chunks_of(reader)
    reader.close()
    write_json(file, range(100, 120))
    with pytest.raises(DataError, match="is not the file that was read"):
        read(source, {chunk.split: chunk.position})
    file.unlink()
    write_json(tmp_path / "other.ndjson", range(3))
    with pytest.raises(ConnectorError, match="was read in part and is gone"):
        read(NdjsonSource(tmp_path, schema=SCHEMA), {chunk.split: chunk.position})


def test_a_file_that_was_changed_after_it_was_read_is_not_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "x.ndjson"
    write_json(file, range(3))
    source = NdjsonSource(file, schema=SCHEMA)
    positions = {chunk.split: chunk.position for chunk in read(source)}
    assert read(source, positions) == []
    assert caplog.text == ""
    write_json(file, range(5))
    assert read(source, positions) == []
    assert "was changed after it was read" in caplog.text


def test_watch_reads_each_new_file_once_when_it_is_whole(tmp_path: Path) -> None:
    clock = VirtualClock()
    source = NdjsonSource(tmp_path, schema=SCHEMA, watch=True, poll="1s")
    assert not source.bounded
    reader = source.open({}, Request(clock=clock))

    def after_a_second() -> list[Chunk]:
        found = chunks_of(reader)
        clock.advance(1.0)
        return found + chunks_of(reader)

    write_json(tmp_path / "a.ndjson", range(2))
    assert rows_of(after_a_second()) == [(0, "d0"), (1, "d1")]
    with (tmp_path / "b.ndjson").open("w") as growing:
        for number in range(3):
            growing.write(json.dumps({"a": number}) + "\n")
            growing.flush()
            assert rows_of(after_a_second()) == []
    write_json(tmp_path / ".hidden.ndjson", range(2))
    write_json(tmp_path / "c.ndjson.tmp", range(2))
    found = list(itertools.chain.from_iterable(after_a_second() for _ in range(3)))
    assert [row[0] for row in rows_of(found)] == [0, 1, 2]
    assert isinstance(reader.poll(10), Wait)
    reader.close()


def test_watch_goes_on_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistream.io.line_reader.FIRST_BYTES", 60)
    monkeypatch.setattr("unistream.io.line_reader.UNIT_BYTES", 60)
    for name, start in (("a", 0), ("b", 10)):
        write_json(tmp_path / f"{name}.ndjson", range(start, start + 10))
    source = NdjsonSource(tmp_path, schema=SCHEMA, watch=True)

    def run(positions: dict, most: int | None) -> list[Chunk]:
        clock = VirtualClock()
        reader = source.open(positions, Request(clock=clock))
        found: list[Chunk] = []
        for _ in range(4):
            while (most is None or len(found) < most) and isinstance(chunk := reader.poll(1), Chunk):
                found.append(chunk)
            clock.advance(1.0)
        reader.close()
        return found

    whole = run({}, None)
    for most in range(1, len(whole)):
        first = run({}, most)
        positions = {chunk.split: chunk.position for chunk in first}
        assert sorted(rows_of(first) + rows_of(run(positions, None))) == sorted(rows_of(whole))


def test_sources_pickle_compare_and_refuse(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,d\n1,x\n")
    for source in (
        CsvSource(tmp_path),
        TextSource(tmp_path),
        CsvSource(tmp_path, on_error="skip", watch=True),
    ):
        twin = pickle.loads(pickle.dumps(source))
        assert twin.identity() == source.identity()
        assert hash(twin) == hash(source)
    assert CsvSource(tmp_path).identity() != CsvSource(tmp_path, separator=";").identity()
    with pytest.raises(InvalidSettings, match="needs a folder or a glob"):
        CsvSource(tmp_path / "x.csv", watch=True)
    with pytest.raises(ConnectorError, match=r"did you mean.*x\.csv"):
        CsvSource(tmp_path / "y.csv")


def test_hostile_files_end_in_rows_or_rejects(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    good = b'{"a": 1}\n'
    for junk in (b"\xff" * 100, b"[" * 100_000, b"\x00" * 1000, b'{"a":' * 5000, b'"' * 999):
        file.write_bytes(good + junk + b"\n" + good)
        chunks = read(NdjsonSource(file, schema=SCHEMA, on_error="collect"))
        assert rows_of(chunks) == [(1, None)] * 2
        assert sum(chunk.rejected.height for chunk in chunks if chunk.rejected is not None) == 1


def test_a_file_that_ends_is_read_within_one_query(tmp_path: Path) -> None:
    rows = pl.DataFrame({"a": range(50_000), "d": [f"text {n}" for n in range(50_000)], "e": [1.5] * 50_000})
    for number in range(2):
        (tmp_path / f"day={number}").mkdir()
        rows.write_csv(tmp_path / f"day={number}" / "x.csv")
    scan = us.scan_csv(tmp_path, schema={**SCHEMA, "e": pl.Float64})
    for query in (
        scan.filter(pl.col("a") % 7 == 0).select("d", twice=pl.col("a") * 2),
        scan.select("day", "a").filter(pl.col("day") == 1),
        scan.group_by("day").agg(pl.col("a").sum(), pl.len()),
    ):
        assert "one Polars streaming query" in query.explain()
        one, ticks = (query.collect(settings=us.Settings(whole_query=whole)) for whole in (True, False))
        assert one.height
        assert one.sort(one.columns).equals(ticks.sort(ticks.columns))


@pytest.mark.parametrize("whole", [True, False])
def test_a_row_that_cannot_be_read_is_named_by_one_query_as_by_ticks(tmp_path: Path, whole: bool) -> None:
    (tmp_path / "x.csv").write_text("a,d\n1,x\n2\n3,y\n")
    with pytest.raises(us.JobFailed, match=r"x.csv, line 3: 1 field instead of 2"):
        us.scan_csv(tmp_path, schema=SCHEMA).collect(settings=us.Settings(whole_query=whole))
    skipping = us.scan_csv(tmp_path, schema=SCHEMA, on_error="skip")
    assert skipping.collect(settings=us.Settings(whole_query=whole)).rows() == [(1, "x"), (3, "y")]
    assert skipping.collect().rows() == [(1, "x"), (3, "y")]
