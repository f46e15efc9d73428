"""Arguments that users naturally write: taken as they are meant, or refused with what to write instead."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import polars.selectors as cs
import pytest

import unistream as us
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.io.frames import as_schema
from unistream.operators.windows import Window

ROWS = us.from_frame({"k": ["a", "b", "a"], "t": [0, 5, 12], "v": [1, 2, 3]})
TIMED = ROWS.with_event_time("t", unit="s")
TEXTS = us.from_frame({"day": ["2024-01-02", "2024-02-03"], "at": ["2024-01-02 03:04:05"] * 2})

# One text where several may be given


def test_one_null_value_of_csv_is_one_word(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\nNA,N\nA,x\n")
    rows = us.scan_csv(tmp_path, null_values="NA").collect().rows()
    assert rows == us.scan_csv(tmp_path, null_values=["NA"]).collect().rows() == [(None, "N"), ("A", "x")]


# Columns given as expressions


@pytest.mark.parametrize(
    ("by_expression", "by_name"),
    [
        (lambda: ROWS.with_event_time(pl.col("t"), unit="s"), lambda: TIMED),
        (
            lambda: TIMED.join(TIMED, on=pl.col("k"), within="5s"),
            lambda: TIMED.join(TIMED, on="k", within="5s"),
        ),
        (
            lambda: ROWS.join(ROWS, left_on=[pl.col("k"), "v"], right_on=["k", pl.col("t")]),
            lambda: ROWS.join(ROWS, left_on=["k", "v"], right_on=["k", "t"]),
        ),
        (lambda: TIMED.join_asof(TIMED, by=pl.col("k")), lambda: TIMED.join_asof(TIMED, by="k")),
        (
            lambda: ROWS.lookup(pl.DataFrame({"k": ["a"], "x": [1]}), on=pl.col("k")),
            lambda: ROWS.lookup(pl.DataFrame({"k": ["a"], "x": [1]}), on="k"),
        ),
        (lambda: ROWS.unique(pl.col("k")), lambda: ROWS.unique("k")),
        (lambda: ROWS.unique(cs.string()), lambda: ROWS.unique("k")),
    ],
)
def test_a_plain_column_is_its_name(
    by_expression: Callable[[], us.Stream], by_name: Callable[[], us.Stream]
) -> None:
    assert by_expression().collect().sort(pl.all()).equals(by_name().collect().sort(pl.all()))


def test_sinks_take_plain_columns(tmp_path: Path) -> None:
    ROWS.sink_csv(tmp_path / "out", partition_by=pl.col("k")).run(progress=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"k=a", "k=b"}
    file = tmp_path / "shop.db"
    ROWS.sink_table(f"sqlite:///{file}", "rows", key=[pl.col("k")]).run(progress=False)
    found = sqlite3.connect(file).execute("SELECT k, v FROM rows ORDER BY k").fetchall()
    assert found == [("a", 3), ("b", 2)]


COMPUTED = pl.col("v") % 2


@pytest.mark.parametrize(
    "computed",
    [
        lambda: ROWS.with_event_time(COMPUTED),
        lambda: TIMED.join(TIMED, on=COMPUTED, within="5s"),
        lambda: TIMED.join(TIMED, on=["k", COMPUTED], within="5s"),
        lambda: TIMED.join_asof(TIMED, by=cs.integer()),
        lambda: ROWS.lookup(pl.DataFrame({"v": [1]}), on=COMPUTED),
        lambda: ROWS.sink_csv("out", partition_by=COMPUTED),
        lambda: ROWS.sink_table("sqlite:///x.db", "x", key=COMPUTED),
        lambda: ROWS.sink_csv("out", partition_by=1),
        lambda: ROWS.unique(COMPUTED),
        lambda: ROWS.unique(["k", pl.col("v").alias("w")]),
        lambda: ROWS.drop(pl.col("v") + 1),
    ],
)
def test_a_computed_column_is_refused_where_a_name_is_wanted(computed: Callable[[], object]) -> None:
    with pytest.raises(InvalidQuery, match=r"takes the name") as caught:
        computed()
    assert "with_columns" in str(caught.value.hint)
    assert caught.value.where


def test_split_wants_names() -> None:
    with pytest.raises(InvalidQuery, match="split takes") as caught:
        ROWS.split([pl.col("v") > 1])  # type: ignore[arg-type]
    assert "{" in str(caught.value.hint)


# Other values


@pytest.mark.parametrize("window", [us.tumbling, lambda size, **more: us.sliding(size, "1h", **more)])
def test_time_zones_may_be_objects(window: Callable[..., Window]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    assert window("1d", time_zone=zone).text == window("1d", time_zone="Europe/Berlin").text
    with pytest.raises(InvalidSettings, match="Unknown time zone"):
        window("1d", time_zone=1)


def test_the_path_of_a_database_is_told_to_be_a_url() -> None:
    with pytest.raises(InvalidSettings) as caught:
        ROWS.sink_table(Path("shop.db"), "t")  # type: ignore[arg-type]
    assert "sqlite:///shop.db" in str(caught.value)


@pytest.mark.parametrize("option", ["max_file_bytes", "max_file_rows"])
def test_limits_of_files_are_numbers(option: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{option} must be a whole number from 1, not '10MB'"):
        ROWS.sink_csv("out", **{option: "10MB"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("shop.db", "sqlite:///shop.db"),
        ("items.csv", "pl.read_csv"),
        ("items.ndjson", "pl.read_ndjson"),
        ("items.parquet", "as frames"),
    ],
)
def test_lookup_tells_what_is_not_parquet(
    name: str, way_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("k,x\n" * 100)
    with pytest.raises(InvalidQuery, match=f"{name}.*Parquet") as caught:
        ROWS.lookup(name, on="k")
    assert way_out in str(caught.value.hint)


def test_lookup_in_a_file_that_is_not_there() -> None:
    with pytest.raises(ConnectorError, match=r"There is no file 'none\.parquet'"):
        ROWS.lookup("none.parquet", on="k")


@pytest.mark.parametrize("source", ["sqlite:///shop.db", pl.DataFrame({"k": ["a"]}), ROWS])
def test_only_functions_take_a_schema(source: object) -> None:
    with pytest.raises(InvalidQuery, match="schema= is for functions"):
        ROWS.lookup(source, on="k", table="t", schema={"k": str})


# Types


def test_types_without_their_parameters_are_those_of_polars() -> None:
    found = as_schema(
        {"t": pl.Datetime, "d": pl.Duration, "c": pl.Categorical, "l": pl.List(pl.Datetime), "n": int}
    )
    assert found == pl.Schema(
        {
            "t": pl.Datetime("us"),
            "d": pl.Duration("us"),
            "c": pl.Categorical(),
            "l": pl.List(pl.Datetime("us")),
            "n": pl.Int64(),
        }
    )
    assert all(isinstance(dtype, pl.DataType) for dtype in found.values())
    assert as_schema([("t", pl.Datetime)]) == pl.Schema({"t": pl.Datetime("us")})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [pl.Decimal, pl.List, pl.Array, pl.Struct, pl.Enum, list])
def test_types_that_nobody_can_guess_are_asked_for(dtype: object) -> None:
    with pytest.raises(InvalidQuery) as caught:
        as_schema({"x": dtype})
    assert "'x'" in str(caught.value)
    assert "pl." in str(caught.value.hint)
    assert "(" in str(caught.value.hint)


class Kept(us.ProcessFunction):
    output = {"at": pl.Datetime}
    last = us.ValueState(pl.Datetime)

    def process(self, key, row, ctx):  # type: ignore[no-untyped-def]
        before, self.last.value = self.last.value, row["at"]
        yield {"at": before or row["at"]}


def test_functions_with_state_take_types_without_parameters() -> None:
    timed = TEXTS.select("day", at=pl.col("at").str.to_datetime("%Y-%m-%d %H:%M:%S"))
    made = timed.group_by("day").process(Kept())
    assert made.schema == pl.Schema({"at": pl.Datetime("us")})
    assert made.collect().height == 2
    with pytest.raises(InvalidQuery, match="Schema"):
        timed.group_by("day").process(Kept(), schema={"at": "datetime"})


def test_functions_over_batches_take_types_without_parameters() -> None:
    def latest(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return frame.select("k", pl.col("last")), frame.select("k", last=pl.from_epoch("t"))

    keyed = ROWS.group_by("k")
    made = keyed.process_batches(
        latest, state_schema={"last": pl.Datetime}, schema={"k": str, "last": pl.Datetime}
    )
    assert made.schema == pl.Schema({"k": pl.String(), "last": pl.Datetime("us")})
    with pytest.raises(InvalidQuery, match="Schema"):
        keyed.process_batches(latest, state_schema={"last": "datetime"})


# Formats of time


@pytest.mark.parametrize(
    "guessed",
    [
        pl.col("at").str.to_datetime(),
        pl.col("at").str.to_datetime(strict=False),
        pl.col("at").str.strptime(pl.Datetime),
        pl.col("day").str.to_date(),
    ],
)
def test_a_guessed_format_is_named_as_such(guessed: pl.Expr) -> None:
    with pytest.raises(InvalidQuery, match="guesses the format from the first values") as caught:
        TEXTS.with_columns(guessed)
    assert '.str.to_datetime("%Y-%m-%d %H:%M:%S")' in str(caught.value.hint)


def test_the_hint_of_text_as_event_time_can_be_followed() -> None:
    with pytest.raises(InvalidQuery) as caught:
        TEXTS.with_event_time("at")
    step = str(caught.value.hint).partition(": ")[2].partition(", with")[0]
    timed = eval(f"TEXTS{step}", {"TEXTS": TEXTS, "pl": pl})  # as a user would who copies it
    assert timed.with_event_time("at").collect().height == 2


# First steps


def test_a_total_over_all_rows_is_told_how() -> None:
    for mistake in (lambda: ROWS.select(pl.col("v").sum()), lambda: ROWS.group_by()):
        with pytest.raises(InvalidQuery) as caught:
            mistake()
        assert "group_by(all=pl.lit(1)).agg(...)" in str(caught.value.hint)
    with pytest.raises(AttributeError, match=r"group_by\(all=pl\.lit\(1\)\)\.agg"):
        ROWS.agg(pl.col("v").sum())
    assert ROWS.group_by(all=pl.lit(1)).agg(pl.col("v").sum()).collect()["v"].to_list() == [6]


def test_a_dictionary_is_unpacked_for_the_right_verb() -> None:
    with pytest.raises(InvalidQuery) as caught:
        ROWS.group_by("k").agg({"v": "count"})
    assert "agg(v=pl.col('v').count())" in str(caught.value.hint)
    with pytest.raises(InvalidQuery) as caught:
        ROWS.group_by("k").agg({"my v": ["nunique", "sum"]})
    assert "agg(result=pl.col('my v').sum())" in str(caught.value.hint)
    with pytest.raises(InvalidQuery) as caught:
        ROWS.with_columns({"w": pl.col("v")})
    assert "with_columns(**mapping)" in str(caught.value.hint)


KEYED = ROWS.group_by("k")
WINDOWED = TIMED.window(us.tumbling("10s"))


@pytest.mark.parametrize(
    ("start", "verb", "way_out"),
    [
        (KEYED, "sum", r"\.agg\(pl\.col\(\.\.\.\)\.sum\(\)\)"),
        (KEYED, "count", r"\.agg\(n=pl\.len\(\)\)"),
        (KEYED, "first", r"\.agg\(pl\.col\(\.\.\.\)\.first\(\)\)"),
        (KEYED, "map_groups", r"\.process_batches\("),
        (KEYED, "collect", r"\.agg\(\.\.\.\)\.collect"),
        (KEYED, "sink_csv", r"\.agg\(\.\.\.\)\.sink_csv"),
        (KEYED, "with_event_time", r"before \.group_by\(\.\.\.\)"),
        (KEYED, "group_by", r"group_by\(.*, .*\)"),
        (KEYED.over(rows=2), "sum", r"\.agg\("),
        (WINDOWED, "sum", r"\.agg\(pl\.col\(\.\.\.\)\.sum\(\)\)"),
        (WINDOWED, "late", r"\.agg\(\.\.\.\)\.late"),
        (WINDOWED, "map_groups", r"\.apply\(fn\)"),
        (WINDOWED, "group_by", r"\.group_by\(\.\.\.\)\.window\("),
        (WINDOWED, "process", r"\.group_by\(\.\.\.\)\.process"),
        (ROWS, "process", r"\.group_by\(\.\.\.\)\.process"),
        (ROWS, "map", r"map_batches"),
        (ROWS, "flat_map", r"map_batches"),
        (ROWS, "keyBy", r"\.group_by"),
        (ROWS, "groupBy", r"\.group_by"),
        (ROWS, "withWatermark", r"\.with_event_time"),
        (ROWS, "writeStream", r"\.sink_"),
        (ROWS, "getSideOutput", r"\.side_output"),
        (ROWS, "where", r"\.filter"),
    ],
)
def test_verbs_of_others_name_the_way_out(start: object, verb: str, way_out: str) -> None:
    with pytest.raises(AttributeError, match=f"has no '{verb}': .*{way_out}"):
        getattr(start, verb)


@pytest.mark.parametrize("start", [KEYED, KEYED.over(rows=2), WINDOWED, ROWS])
def test_what_nobody_has_is_only_refused(start: object) -> None:
    for name in ("unheard_of", "__unheard_of__", "_repr_png_"):
        assert not hasattr(start, name)


def test_every_without_a_place_for_checkpoints_is_refused() -> None:
    seen: list[pl.DataFrame] = []
    job = ROWS.sink_batches(seen.append)
    for begin in (job.run, job.start):
        with pytest.raises(InvalidSettings, match="every= needs checkpoint=") as caught:
            begin(every="1s")
        assert "checkpoint=" in str(caught.value.hint)
    assert not seen
