"""Tables of three databases: what comes out is what went in, once, and by key."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import unistream as us
from unistream.expressions.schema import CHANGE, Changes, StreamSchema
from unistream.io import staging, table_rows, table_sink
from unistream.io.base import WriterContext
from unistream.io.table_database import quoted_table
from unistream.io.table_rows import changes_by_key
from unistream.io.table_sink import TableSink
from unistream.testing import ListSource

Rows = list[tuple[Any, ...]]


@dataclass
class Place:
    """One database and a way to ask it, which shares no code with the sink."""

    name: str
    url: str
    ask: Callable[[str], Rows]

    def rows(self, table: str = "t", columns: str = "*") -> Rows:
        return sorted(self.ask(f"SELECT {columns} FROM {quoted_table(table)}"), key=repr)


def sqlite_at(folder: Path) -> Place:
    def ask(sql: str) -> Rows:
        connection = sqlite3.connect(folder / "test.db", isolation_level=None)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    return Place("sqlite", f"sqlite:///{folder}/test.db", ask)


def duckdb_at(folder: Path) -> Place:
    def ask(sql: str) -> Rows:
        with duckdb.connect(str(folder / "test.duckdb")) as connection:
            if not sql.startswith("SELECT"):
                return connection.execute(sql).fetchall()
            # Moments with a zone come as Python values only where pytz is installed.
            return pl.DataFrame(connection.sql(sql).to_arrow_table()).rows()

    return Place("duckdb", f"duckdb:///{folder}/test.duckdb", ask)


def postgres_at(url: str) -> Place:
    import psycopg

    def ask(sql: str) -> Rows:
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    for schema, name in ask(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 's')"
    ):
        ask(f'DROP TABLE {schema}."{str(name).replace(chr(34), chr(34) * 2)}"')
    return Place("postgres", url, ask)


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    match request.param:
        case "sqlite":
            return sqlite_at(tmp_path)
        case "duckdb":
            return duckdb_at(tmp_path)
        case _:
            return postgres_at(request.getfixturevalue("postgres"))


def run(stream: us.Stream, place: Place, table: str = "t", **options: Any) -> us.Progress:
    checkpoint = options.pop("checkpoint", None)
    return stream.sink_table(place.url, table, **options).run(checkpoint=checkpoint, progress=False)


def frame(*rows: tuple[Any, ...]) -> us.Stream:
    return us.from_frame(pl.DataFrame(list(rows), schema=["k", "v"], orient="row"))


# Adding


def test_rows_are_added_and_the_table_is_made(place: Place) -> None:
    assert run(frame((1, "a"), (2, None)), place).rows_out == 2
    assert place.rows() == [(1, "a"), (2, None)]
    run(frame((2, "b")), place)
    assert place.rows() == [(1, "a"), (2, "b"), (2, None)]


def test_no_rows_make_an_empty_table(place: Place) -> None:
    run(frame((1, "a")).filter(pl.col("k") > 1), place)
    assert place.rows() == []


NASTY = [
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "\\.",
    '"',
    "a,b",
    "l1\nl2\r\nl3",
    "ü😀",
    "'; DROP TABLE t; --",
    "%s",
    "?",
    "\t",
]


def test_text_comes_back_as_it_was(place: Place) -> None:
    run(us.from_frame({"s": [*NASTY, None]}), place)
    assert place.rows() == sorted([*((text,) for text in NASTY), (None,)], key=repr)


NAMES = ['a"b', "select", "Ü b", "x'; --", "a%b", "a.b", "?", ""]


def test_any_name_is_quoted(place: Place) -> None:
    names = [name for name in NAMES if name]
    row = us.from_frame(pl.DataFrame([list(range(len(names)))], schema=names, orient="row"))
    table = 'my "t%'
    for _ in range(2):
        run(row, place, table, key=names[:2])
    assert place.rows(table) == [tuple(range(len(names)))]


VALUES: dict[str, tuple[pl.DataType, Any, dict[str, Any]]] = {
    "i8": (pl.Int8(), -128, {}),
    "i64": (pl.Int64(), -(2**63), {}),
    "u32": (pl.UInt32(), 2**32 - 1, {}),
    "f32": (pl.Float32(), 0.5, {}),
    "f64": (pl.Float64(), 0.1 + 0.2, {}),
    "yes": (pl.Boolean(), True, {"sqlite": 1}),
    "text": (pl.String(), "x", {}),
    "enum": (pl.Enum(["p", "q"]), "q", {}),
    "cat": (pl.Categorical(), "c", {}),
    "bytes": (pl.Binary(), b"\x00\xff", {}),
    "date": (pl.Date(), date(2024, 2, 29), {"sqlite": "2024-02-29"}),
    "time": (pl.Time(), time(1, 2, 3, 4), {"sqlite": "01:02:03.000004"}),
    "at": (
        pl.Datetime("us"),
        datetime(1969, 12, 31, 23, 59, 59, 999999),
        {"sqlite": "1969-12-31 23:59:59.999999"},
    ),
    "zoned": (
        pl.Datetime("ms", "Europe/Berlin"),
        datetime(2024, 7, 1, 12, tzinfo=UTC),
        {"sqlite": "2024-07-01 12:00:00.000000+00:00"},
    ),
    "lasts": (pl.Duration("ms"), timedelta(milliseconds=-1500), {"": -1_500_000}),
    "price": (pl.Decimal(10, 2), Decimal("12.30"), {"sqlite": "12.30"}),
    "list": (pl.List(pl.Int64()), [1, None, 3], {"sqlite": "[1,null,3]"}),
    "struct": (
        pl.Struct({"x": pl.Int64(), "y": pl.String()}),
        {"x": 1, "y": 'q"'},
        {"sqlite": '{"x":1,"y":"q\\""}'},
    ),
}


def test_every_type_and_its_null(place: Place) -> None:
    columns = {
        name: pl.Series([value, None], dtype=dtype, strict=False)
        for name, (dtype, value, _) in VALUES.items()
    }
    for _ in range(2):
        run(us.from_frame(pl.DataFrame(columns)), place, mode="overwrite")
    for name, (_, value, stored) in VALUES.items():
        expected = stored.get(place.name, stored.get("", value))
        found = place.rows(columns=f'"{name}"')
        if isinstance(expected, datetime) and expected.tzinfo:
            found = [(at.astimezone(UTC) if at else None,) for (at,) in found]
        assert found == sorted([(expected,), (None,)], key=repr), name


def test_floats_that_are_no_numbers(place: Place) -> None:
    run(us.from_frame({"f": [float("inf"), float("-inf"), float("nan")]}), place)
    nan = "None" if place.name == "sqlite" else "nan"
    assert [str(value) for (value,) in place.rows()] == ["-inf", "inf", nan] or place.name == "sqlite"


def test_what_no_table_holds_is_refused(place: Place) -> None:
    with pytest.raises(us.InvalidQuery, match=r"'big' of type Int128 cannot be stored"):
        run(us.from_frame(pl.DataFrame({"big": [1]}, schema={"big": pl.Int128})), place)


# A table that is there


def test_a_table_in_a_schema(place: Place) -> None:
    if place.name == "sqlite":
        schema = "main"
    else:
        schema = "s"
        place.ask("CREATE SCHEMA IF NOT EXISTS s")
    for _ in range(2):
        run(frame((1, "a")), place, f"{schema}.orders", key="k")
    assert place.rows(f"{schema}.orders") == [(1, "a")]


def test_columns_are_found_by_name(place: Place) -> None:
    place.ask("CREATE TABLE t (v VARCHAR(9), note VARCHAR(9) DEFAULT 'new', k BIGINT)")
    run(frame((1, "a")), place)
    assert place.rows() == [("a", "new", 1)]


def test_other_columns_keep_their_values(place: Place) -> None:
    place.ask("CREATE TABLE t (k BIGINT PRIMARY KEY, v VARCHAR(9), note VARCHAR(9))")
    place.ask("INSERT INTO t VALUES (1, 'old', 'mine'), (2, 'old', 'mine')")
    run(frame((1, "new"), (3, "new")), place, key="k")
    assert place.rows() == [(1, "new", "mine"), (2, "old", "mine"), (3, "new", None)]


def test_missing_columns_are_told_with_the_nearest_name(place: Place) -> None:
    place.ask("CREATE TABLE t (key BIGINT, val VARCHAR(9))")
    with pytest.raises(us.InvalidQuery, match=r"no column 'k'. Columns: \['key', 'val'\]"):
        run(frame((1, "a")), place)
    with pytest.raises(us.InvalidQuery, match="did you mean 'val'"):
        run(us.from_frame({"key": [1], "vall": ["a"]}), place)


def test_types_that_do_not_fit_are_refused_before_the_first_row(place: Place) -> None:
    if place.name == "sqlite":
        pytest.skip("SQLite's columns take values of any type")
    place.ask("CREATE TABLE t (k DATE, v VARCHAR(9))")
    with pytest.raises(us.InvalidQuery, match=r"'k' of table 't' is (DATE|date), which cannot hold Int64"):
        run(frame((1, "a")), place)


def test_a_column_that_needs_a_value(place: Place) -> None:
    place.ask("CREATE TABLE t (k BIGINT, v VARCHAR(9), must VARCHAR(9) NOT NULL)")
    with pytest.raises(us.InvalidQuery, match=r"needs a value for \['must'\]"):
        run(frame((1, "a")), place)


def test_a_constraint_that_is_broken_fails_the_job(place: Place) -> None:
    place.ask("CREATE TABLE t (k BIGINT, v VARCHAR(9) CHECK (v <> 'bad'))")
    with pytest.raises(us.JobFailed, match="committing rows failed"):
        run(frame((1, "good"), (2, "bad")), place)
    assert place.rows() == [], "all or nothing"


# Modes


def test_an_existing_table_is_added_to_refused_or_replaced(place: Place) -> None:
    run(frame((1, "a")), place)
    with pytest.raises(us.ConnectorError, match=r"holds rows already"):
        run(frame((2, "b")), place, mode="error")
    assert place.rows() == [(1, "a")]
    run(frame((2, "b")), place, mode="overwrite")
    assert place.rows() == [(2, "b")]
    run(frame((3, "c")).filter(pl.col("k") > 9), place, mode="overwrite")
    assert place.rows() == [], "also by nothing"
    run(frame((4, "d")), place, mode="error")
    assert place.rows() == [(4, "d")]


def test_a_job_that_fails_replaces_nothing(place: Place) -> None:
    run(frame((1, "a")), place)

    def fail(rows: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("no")

    with pytest.raises(us.JobFailed):
        run(
            frame((2, "b")).map_batches(fail, schema={"k": pl.Int64, "v": pl.String}), place, mode="overwrite"
        )
    assert place.rows() == [(1, "a")]


# By key


def test_a_row_takes_the_place_of_the_one_with_its_key(place: Place) -> None:
    run(frame((1, "a"), (2, "b"), (1, "c")), place, key="k")
    assert place.rows() == [(1, "c"), (2, "b")]
    run(frame((2, "d"), (3, "e")), place, key="k")
    assert place.rows() == [(1, "c"), (2, "d"), (3, "e")]


def test_null_is_a_key_like_any_other(place: Place) -> None:
    for value in (1, 2):
        rows = [(None, "x", value), ("a", None, value), (None, None, value), ("a", "x", value)]
        keyed = us.from_frame(pl.DataFrame(rows, schema=["p", "q", "v"], orient="row"))
        run(keyed, place, key=["p", "q"])
    assert place.rows() == sorted([(p, q, 2) for p, q, _ in rows], key=repr)


NAN = float("nan")


def test_no_number_is_a_key_like_any_other(place: Place) -> None:
    for value in (1, 2):
        for _ in range(2):  # two commits
            run(us.from_frame({"k": [NAN, 1.0], "n": [1.5, NAN], "v": [value, value]}), place, key=["k", "n"])
    assert sorted(v for (v,) in place.rows(columns="v")) == [2, 2]


def test_where_no_number_is_stored_as_null_the_last_of_both_counts(place: Place) -> None:
    run(us.from_frame({"k": [NAN, None, 1.0], "v": [1, 2, 3]}), place, key="k")
    run(us.from_frame({"k": [None, NAN], "v": [4, 5]}), place, key="k")
    expected = [3, 5] if place.name == "sqlite" else [3, 4, 5]
    assert sorted(v for (v,) in place.rows(columns="v")) == expected


def test_an_aggregate_by_no_number_keeps_one_row(place: Place, tmp_path: Path) -> None:
    batches = [pl.DataFrame({"k": [NAN, 1.0]}) for _ in range(4)]
    job = us.scan(ListSource({"k": pl.Float64}, batches)).group_by("k").agg(n=pl.len())
    settings = us.Settings(checkpoint_interval="1ms", tick_rows=1, whole_query=False)
    job.sink_table(place.url, "t").run(checkpoint=tmp_path / "ckpt", settings=settings, progress=False)
    assert place.rows(columns="n") == [(4,), (4,)]


FINE = [pl.Datetime("ns"), pl.Datetime("ns", "UTC"), pl.Time(), pl.Duration("ns")]


def counts_by(kind: pl.DataType, *nanoseconds: int) -> us.Stream:
    keys = pl.DataFrame({"k": pl.Series(nanoseconds, dtype=pl.Int64).cast(kind)})
    return us.from_frame(keys).group_by("k").agg(n=pl.len())


@pytest.mark.parametrize("kind", FINE, ids=str)
def test_keys_finer_than_a_table_keeps_are_told(place: Place, kind: pl.DataType) -> None:
    if place.name == "duckdb" and kind == pl.Datetime("ns"):
        run(counts_by(kind, 1500, 1700), place)
        assert place.rows(columns="n") == [(1,), (1,)]
        return
    with pytest.raises(us.JobFailed, match=r"'k' holds .*0000015.* finer than the microseconds") as failed:
        run(counts_by(kind, 1000, 1500, 1700), place)
    assert isinstance(failed.value.__cause__, us.DataError)
    assert "round it before" in (failed.value.__cause__.hint or "")
    assert place.rows() == []


@pytest.mark.parametrize("kind", FINE, ids=str)
def test_keys_of_whole_microseconds_are_taken(place: Place, kind: pl.DataType) -> None:
    for _ in range(2):
        run(counts_by(kind, 0, 1000, 3000, 1000), place)
    assert place.rows(columns="n") == [(1,), (1,), (2,)]


def test_times_lose_what_is_finer_than_a_microsecond(place: Place) -> None:
    nanoseconds = [1500, 86_399_999_999_999, None]
    times = pl.DataFrame({"t": pl.Series(nanoseconds, dtype=pl.Int64).cast(pl.Time)})
    run(us.from_frame(times), place)
    found = [value if value is None else str(value) for (value,) in place.rows()]
    assert sorted(found, key=repr) == ["00:00:00.000001", "23:59:59.999999", None]


def test_a_table_of_keys_alone(place: Place) -> None:
    for _ in range(2):
        run(us.from_frame({"k": [1, 2, 1]}), place, key="k")
    assert place.rows() == [(1,), (2,)]


def test_an_aggregate_keeps_one_row_for_each_key(place: Place, tmp_path: Path) -> None:
    batches = [pl.DataFrame({"k": [n % 3, n % 2], "v": [n, 1]}) for n in range(12)]
    everything = pl.concat(batches)
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, batches))
    totals = source.group_by("k").agg(n=pl.len(), total=pl.col("v").sum())
    job = totals.sink_table(place.url, "t")
    settings = us.Settings(checkpoint_interval="1ms", tick_rows=1, whole_query=False)
    job.run(checkpoint=tmp_path / "ckpt", settings=settings, progress=False)
    expected = everything.group_by("k").agg(n=pl.len(), total=pl.col("v").sum()).rows()
    assert place.rows() == sorted(expected, key=repr)


def test_what_is_taken_back_is_deleted(place: Place) -> None:
    """An aggregate over a running aggregate: groups of the outer one come and go."""
    source = us.scan(ListSource({"k": pl.Int64}, [(1,), (2,), (1,), (1,), (3,)]))
    counts = source.group_by("k").agg(n=pl.len())
    sizes = counts.group_by("n").agg(keys=pl.len())
    sizes.sink_table(place.url, "t").run(progress=False, settings=us.Settings(tick_rows=1, whole_query=False))
    assert place.rows() == [(1, 2), (3, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_changes_by_key_against_a_dictionary(seed: int) -> None:
    """Random changelogs, folded row by row."""
    from random import Random

    random = Random(seed)
    table: dict[int, int] = {}
    rows: Rows = []
    before = {k: random.randrange(3) for k in range(4)}
    table |= before
    for _ in range(40):
        k, v = random.randrange(6), random.randrange(3)
        if k in table and random.random() < 0.4:
            rows.append((k, table.pop(k), 3))
        elif k in table:
            rows += [(k, table[k], 1), (k, v, 2)]
            table[k] = v
        else:
            rows.append((k, v, 0))
            table[k] = v
    changelog = pl.DataFrame(rows, schema={"k": pl.Int64, "v": pl.Int64, CHANGE: pl.Int8}, orient="row")
    for mode, log in ((Changes.RETRACT, changelog), (Changes.UPSERT, changelog.filter(pl.col(CHANGE) != 1))):
        gone, put = changes_by_key(log, ["k"], mode)
        after = {k: v for k, v in before.items() if k not in set(gone["k"])} | dict(put.rows())
        assert after == table, mode
    shuffled = changelog.sample(fraction=1.0, shuffle=True, seed=seed)
    gone, put = changes_by_key(shuffled, ["k"], Changes.RETRACT)
    after = {k: v for k, v in before.items() if k not in set(gone["k"])} | dict(put.rows())
    assert after == table, "pairs meet in any order"


def test_keys_are_checked_while_planning(place: Place) -> None:
    with pytest.raises(us.InvalidQuery, match="'kk' not found in sink_table"):
        frame((1, "a")).sink_table(place.url, "t", key="kk")
    totals = frame((1, 2)).group_by("k").agg(total=pl.col("v").sum())
    with pytest.raises(us.InvalidQuery, match=r"updates rows by \['k'\], not by \['total'\]"):
        totals.sink_table(place.url, "t", key="total")


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_names_that_differ_in_case_alone_are_refused_where_they_are_one(kind: str, tmp_path: Path) -> None:
    place = {"sqlite": sqlite_at, "duckdb": duckdb_at}[kind](tmp_path)
    with pytest.raises(us.InvalidQuery, match="'a' and 'A' are one name") as refused:
        us.from_frame({"a": [1], "b": [2], "A": [3]}).sink_table(place.url, "t")
    assert ".rename(" in (refused.value.hint or "")
    run(us.from_frame({"\u00e4": [1], "\u00c4": [2]}), place)
    assert place.rows() == [(1, 2)], "only of Latin letters"


def test_names_that_differ_in_case_alone_are_two_for_postgres(postgres: str) -> None:
    place = postgres_at(postgres)
    run(us.from_frame({"a": [1], "A": [2]}), place)
    assert place.rows() == [(1, 2)]


def test_a_table_may_be_named_like_the_key_of_another(place: Place) -> None:
    for table in ("orders_key", "orders"):
        for _ in range(2):
            run(frame((1, "a")), place, table, key="k")
        assert place.rows(table) == [(1, "a")]


# Checkpoints


def context(**options: Any) -> WriterContext:
    schema = StreamSchema(pl.Schema({"k": pl.Int64(), "v": pl.String()}))
    return WriterContext("job", schema, checkpoints=True, **options)


def rows_of(*ks: int) -> pl.DataFrame:
    return pl.DataFrame({"k": list(ks), "v": [str(k) for k in ks]})


def test_a_token_is_applied_once(place: Place) -> None:
    sink = TableSink(place.url, "t")
    sink.prepare_target(False)
    writer = sink.open(context())
    writer.write(rows_of(1, 2))
    first = writer.prepare(4)
    assert writer.prepare(5) is None
    writer.write(rows_of(3))
    second = writer.prepare(6)
    assert place.rows() == [], "nothing shows before its commit"
    for tokens in ([first], [first, second], [second], [first]):
        sink.commit(tokens)
    assert place.rows(columns="k") == [(1,), (2,), (3,)]
    assert place.ask("SELECT * FROM _unistream_commits") == [("job", 0, 6)]
    other = sink.open(context(subtask=1))
    other.write(rows_of(4))
    sink.commit([other.prepare(2)])
    assert len(place.rows()) == 4, "each subtask counts for itself"


def test_tokens_are_json_and_the_sink_pickles(place: Place) -> None:
    import json

    sink = pickle.loads(pickle.dumps(TableSink(place.url, "t", key=["k"])))
    writer = sink.open(context())
    writer.write(rows_of(1))
    token = json.loads(json.dumps(writer.prepare(1)))
    TableSink(place.url, "t", key=["k"]).commit([token])
    assert place.rows(columns="k") == [(1,)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go into files, not into the token, and from memory at once."""
    monkeypatch.setattr("unistream.io.table_rows.INLINE_BYTES", 0)
    monkeypatch.setattr(table_sink, "BUFFER_BYTES", 1)


def test_many_rows_are_staged_in_files(place: Place, tmp_path: Path, large: None) -> None:
    staging = tmp_path / "staging"
    sink = TableSink(place.url, "t", staging=staging)
    writer = sink.open(context())
    for k in range(4):
        writer.write(rows_of(k))
    token = writer.prepare(1)
    assert len(list(staging.rglob("*.arrow"))) == 4
    sink.commit([token])
    sink.commit([token])
    assert place.rows(columns="k") == [(0,), (1,), (2,), (3,)]
    assert not staging.exists(), "what was committed is gone"
    writer.write(rows_of(9))
    assert list(staging.rglob("*.arrow"))
    sink.recover([token], context())
    assert not staging.exists(), "what was never prepared is gone"


def test_the_name_of_every_folder_of_staged_rows_is_durable(
    place: Place, tmp_path: Path, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    for module in (staging, table_rows):
        monkeypatch.setattr(module, "sync_folder", lambda folder: synced.append(Path(folder)))
    writer = TableSink(place.url, "t", staging=tmp_path / "deep" / "staging").open(context())
    writer.write(rows_of(1))
    token = writer.prepare(1)
    assert token is not None
    file = Path(token["rows"][0]["file"])
    assert set(synced) >= {folder for folder in file.parents if folder.is_relative_to(tmp_path)}
    assert file.parent.stat().st_mode & 0o77 == 0, "for nobody else"


def test_staged_rows_that_are_damaged_or_gone_are_an_error(place: Place, tmp_path: Path, large: None) -> None:
    sink = TableSink(place.url, "t", staging=tmp_path / "staging")
    writer = sink.open(context())
    writer.write(rows_of(1))
    token = writer.prepare(1)
    file = next((tmp_path / "staging").rglob("*.arrow"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(us.StateError, match=r"\.arrow are damaged"):
        sink.commit([token])
    file.unlink()
    with pytest.raises(us.StateError, match=r"\.arrow cannot be read"):
        sink.commit([token])
    assert place.rows() == []


def test_replacing_waits_for_the_first_commit_and_happens_once(place: Place, tmp_path: Path) -> None:
    run(frame((0, "old")), place)
    batches = [pl.DataFrame({"k": [n], "v": ["new"]}) for n in range(1, 6)]
    stream = us.scan(ListSource({"k": pl.Int64, "v": pl.String}, batches))
    settings = us.Settings(checkpoint_interval="1ms", tick_rows=1)
    for _ in range(2):
        job = stream.sink_table(place.url, "t", mode="overwrite")
        job.run(checkpoint=tmp_path / "ckpt", settings=settings, progress=False)
        assert place.rows(columns="k") == [(1,), (2,), (3,), (4,), (5,)]


def test_live_rows_show_without_checkpoints(place: Place) -> None:
    job = us.scan_rate(500).select("value").sink_table(place.url, "t", max_age="10ms")
    with job.start() as run_:
        while not (place.rows() if place.name == "postgres" else run_.progress.rows_out > 20):
            assert not run_.wait(0.005)
    assert sorted(value for (value,) in place.rows()) == list(range(run_.progress.rows_in))


# The way to a database


def test_urls() -> None:
    assert table_sink.database_of("sqlite:////var/db.sqlite").place == "/var/db.sqlite"
    assert table_sink.database_of("duckdb:///x.db").place == str(Path("x.db").absolute())
    for url in ("sqlite:///:memory:", "duckdb:///", "sqlite://"):
        with pytest.raises(us.InvalidSettings, match="names no file"):
            table_sink.database_of(url)
    with pytest.raises(us.InvalidSettings, match=r"Unknown database 'sqlit'.*(?s:.)*did you mean 'sqlite'"):
        frame((1, "a")).sink_table("sqlit:///x.db", "t")
    with pytest.raises(us.InvalidSettings, match=r"Unknown database 'orders.db'"):
        frame((1, "a")).sink_table("orders.db", "t")
    with pytest.raises(us.InvalidQuery, match="cannot name a table"):
        frame((1, "a")).sink_table("sqlite:///x.db", "a..b")


def test_a_database_that_is_away_is_told_before_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(us.ConnectorError, match="connecting failed"):
        frame((1, "a")).sink_table(f"sqlite:///{tmp_path}/no/such/x.db", "t").run(progress=False)
    with pytest.raises(us.ConnectorError, match="connecting failed"):
        frame((1, "a")).sink_table(f"duckdb:///{tmp_path}/no/such/x.db", "t").run(progress=False)


def test_a_server_that_is_away_and_its_password(postgres: str) -> None:
    url = "postgresql://someone:s3cret@127.0.0.1:1/nothing"
    job = frame((1, "a")).sink_table(url, "t")
    assert "s3cret" not in job.explain()
    with pytest.raises(us.ConnectorError, match="connecting failed") as caught:
        job.run(progress=False)
    assert "s3cret" not in str(caught.value)
    assert caught.value.retry_after
    assert "s3cret" not in repr(TableSink(url, "t"))
