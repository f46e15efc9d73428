"""The hot table against the reference, for every type of key and value."""

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.errors import StateError
from unistream.state import columns
from unistream.state.array_space import IN_MEMORY
from unistream.state.hot_table import HotTable
from unistream.state.key_index import HashedIndex
from unistream.state.reference import DictTable, comparable


@pytest.fixture(autouse=True)
def heaps_are_compacted_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_SMALL_HEAP", 3)


CHOICES: dict[str, tuple[pl.DataType, list[Any]]] = {
    "int": (pl.Int64(), [0, 1, -1, 2**63 - 1, -(2**63), 7, None]),
    "small int": (pl.Int8(), [0, 1, -1, 127, -128, None]),
    "unsigned": (pl.UInt64(), [0, 1, 2**64 - 1, 2**63, None]),
    "wide int": (pl.Int128(), [0, 2**100, -(2**100), None]),
    "bool": (pl.Boolean(), [True, False, None]),
    "float": (pl.Float64(), [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, None]),
    "small float": (pl.Float32(), [0.0, -0.0, 1.5, math.nan, math.inf, None]),
    "string": (pl.String(), ["", "a", "a\0", "ä" * 20, "b" * 13, "b" * 12, None]),
    "binary": (pl.Binary(), [b"", b"\0", b"\0\0", b"x" * 40, None]),
    "date": (pl.Date(), [date(1970, 1, 1), date(1, 1, 1), date(2024, 2, 29), None]),
    "datetime": (pl.Datetime("us", "Europe/Paris"), [datetime(2024, 3, 31, 1), datetime(1900, 1, 1), None]),
    "time": (pl.Time(), [time(0), time(23, 59, 59), None]),
    "duration": (pl.Duration("ms"), [timedelta(0), timedelta(days=-3), None]),
    "decimal": (pl.Decimal(20, 2), [Decimal("0.00"), Decimal("1.10"), Decimal("-99999999999.99"), None]),
    "enum": (pl.Enum(["red", "blue"]), ["red", "blue", None]),
    "categorical": (pl.Categorical(), ["red", "blue", "green", None]),
    "list": (pl.List(pl.Int64), [[], [1], [1, None], [None], None]),
    "list of text": (pl.List(pl.String), [[], ["a"], ["a", None], ["b" * 30], None]),
    "array": (pl.Array(pl.Int32, 2), [[1, 2], [2, 1], [None, 1], None]),
    "struct": (pl.Struct({"x": pl.Int64, "y": pl.String}), [{"x": 1, "y": "a"}, {"x": None, "y": "b" * 20}]),
}


def frame_of(names: list[str], rows: list[tuple[Any, ...]], prefix: str) -> pl.DataFrame:
    columns = []
    for number, name in enumerate(names):
        dtype = CHOICES[name][0]
        values = [row[number] for row in rows]
        if isinstance(dtype, pl.Datetime):
            series = pl.Series(values, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC").cast(dtype)
        else:
            series = pl.Series(values, dtype=dtype)
        columns.append(series.alias(f"{prefix}{number}"))
    return pl.DataFrame(columns)


def as_dict(frame: pl.DataFrame, keys: int) -> dict[Any, Any]:
    rows = [comparable(row) for row in frame.rows()]
    result = {row[:keys]: row[keys:] for row in rows}
    assert len(result) == len(rows)
    return result


@st.composite
def programs(draw: st.DrawFn) -> Any:
    keys = draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=1, max_size=3))
    values = draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=0, max_size=3))
    key = st.tuples(*(st.sampled_from(CHOICES[name][1]) for name in keys))
    value = st.tuples(*(st.sampled_from(CHOICES[name][1]) for name in values))
    batch = st.lists(st.tuples(key, value), max_size=12, unique_by=lambda pair: repr(comparable_key(pair[0])))
    steps = draw(
        st.lists(st.tuples(st.sampled_from(["write", "upsert", "delete", "find"]), batch), max_size=12)
    )
    return keys, values, steps


def comparable_key(key: Any) -> Any:
    return comparable(tuple(0.0 if value == 0 and isinstance(value, float) else value for value in key))


@settings(max_examples=250, deadline=None)
@given(programs())
def test_same_as_the_reference(program: Any) -> None:
    keys, values, steps = program
    key_schema, value_schema = frame_of(keys, [], "k").schema, frame_of(values, [], "v").schema
    fast, plain = HotTable(key_schema, value_schema), DictTable(key_schema, value_schema)
    for what, pairs in steps:
        key_frame = frame_of(keys, [key for key, _ in pairs], "k")
        if what == "find":
            assert (fast.find(key_frame) >= 0).tolist() == (plain.find(key_frame) >= 0).tolist()
        elif what == "delete":
            for table in (fast, plain):
                rows = table.find(key_frame)
                table.delete(rows[rows >= 0])
        else:
            (rows, new), (plain_rows, plain_new) = fast.upsert(key_frame), plain.upsert(key_frame)
            assert new.tolist() == plain_new.tolist()
            assert len(np.unique(rows)) == len(rows)
            if what == "write" and values:
                value_frame = frame_of(values, [value for _, value in pairs], "v")
                fast.write(rows, value_frame)
                plain.write(plain_rows, value_frame)
            assert as_dict(fast.keys(rows), len(keys)) == as_dict(plain.keys(plain_rows), len(keys))
        assert len(fast) == len(plain) == len(fast.rows())
        scanned = fast.scan()
        assert scanned.schema == pl.Schema({**key_schema, **value_schema})
        assert as_dict(scanned, len(keys)) == as_dict(plain.scan(), len(keys))


def test_keys_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashedIndex, "_hash", lambda self, keys: np.zeros(keys.height, dtype=np.uint64))
    table = HotTable(pl.Schema({"k": pl.String}), pl.Schema({"v": pl.Int64}))
    keys = pl.DataFrame({"k": [f"key {i}" for i in range(60)]})
    rows, new = table.upsert(keys)
    table.write(rows, pl.DataFrame({"v": range(60)}))
    assert new.all() and table.find(keys).tolist() == rows.tolist()
    table.delete(rows[::2])
    found = table.find(keys)
    assert (found[::2] == -1).all() and found[1::2].tolist() == rows[1::2].tolist()
    _, new = table.upsert(keys[::-1])
    assert new.tolist() == [False, True] * 30
    assert table.read(table.find(keys))["v"].to_list() == [None if i % 2 == 0 else i for i in range(60)]


def test_arrays_are_live_until_the_table_grows() -> None:
    table = HotTable(
        pl.Schema({"k": pl.Int64}), pl.Schema({"n": pl.Int64, "b": pl.Boolean, "t": pl.Datetime("us")})
    )
    rows, _ = table.upsert(pl.DataFrame({"k": [5, 6]}))
    assert table.read(rows).rows() == [(None, None, None)] * 2
    counts = table.column("n")
    counts[rows] += 3
    table.touch(rows)
    assert table.read(rows)["n"].to_list() == [3, 3]
    more, new = table.upsert(pl.DataFrame({"k": range(1000)}))
    assert new.sum() == 998 and (table.column("n")[more] == np.where(new, 0, 3)).all()
    table.column("t")[rows] = 1_000_000
    assert table.read(rows)["t"].to_list() == [datetime(1970, 1, 1, 0, 0, 1)] * 2
    assert table.column("b").dtype == np.bool_
    table.delete(rows)
    again, _ = table.upsert(pl.DataFrame({"k": [-1, -2]}))
    assert sorted(again.tolist()) == sorted(rows.tolist())
    assert (table.column("n")[again] == 0).all()


def test_keys_are_cast_and_misfits_refused() -> None:
    table = HotTable(pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.String}))
    rows, _ = table.upsert(pl.DataFrame({"other": [0], "k": [3]}, schema={"other": pl.Int8, "k": pl.Int32}))
    assert table.find(pl.DataFrame({"k": [3]})).tolist() == rows.tolist()
    with pytest.raises(StateError, match="do not fit"):
        table.find(pl.DataFrame({"x": [3]}))
    with pytest.raises(StateError, match="has no array"):
        table.column("v")
    with pytest.raises(StateError, match="key and value"):
        HotTable(pl.Schema({"k": pl.Int64}), pl.Schema({"k": pl.Int64}))
    with pytest.raises(StateError, match="Object"):
        HotTable(pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Object}))


def test_a_batch_that_breaks_the_contract_is_an_error() -> None:
    for keys in (
        pl.DataFrame({"k": [1, 2, 1]}),
        pl.DataFrame({"k": ["a", "a"]}),
        pl.DataFrame({"k": [None, 1.5, None]}),
    ):
        table = HotTable(keys.schema, pl.Schema({}))
        with pytest.raises(StateError, match="occurs twice"):
            table.upsert(keys)
        table = HotTable(keys.schema, pl.Schema({}))
        rows, _ = table.upsert(keys[:1])
        for twice in (np.concatenate([rows, rows]), rows + 1):
            with pytest.raises(StateError, match="deleted twice"):
                table.delete(twice)
        assert table.find(keys[:1]).tolist() == rows.tolist() and len(table) == 1


def test_text_that_is_overwritten_does_not_pile_up() -> None:
    table = HotTable(pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.String}))
    keys = pl.DataFrame({"k": range(5000)})
    for turn in range(60):
        rows, _ = table.upsert(keys)
        table.write(
            rows, pl.DataFrame({"v": [f"a rather long value number {turn} {i}" for i in range(5000)]})
        )
    assert table.read(table.find(keys))["v"][7] == "a rather long value number 59 7"
    assert table.nbytes < 4_000_000


def test_what_replaces_all_values_is_kept_as_it_came() -> None:
    """Neither the old values nor the new ones are copied."""
    column = columns.HeapColumn(pl.List(pl.Int64()), 6, IN_MEMORY)
    rows = np.arange(6)
    for turn in range(4):
        values = pl.Series([[turn, i] for i in range(6)])
        column.put(rows, values)
        assert column.get("v", rows[::-1]).to_list() == [[turn, i] for i in reversed(range(6))]
        assert column.nbytes < 6 * 4 + 2 * values.estimated_size()
    assert column.get("v", rows[:0]).to_list() == []


def test_a_slice_does_not_keep_its_batch_alive() -> None:
    table = HotTable(pl.Schema({"k": pl.String}), pl.Schema({"v": pl.List(pl.String)}))
    for turn in range(20):
        words = [f"{turn}-{i} {'x' * 200}" for i in range(2000)]
        batch = pl.DataFrame({"k": words, "v": [[word] for word in words]})
        rows, _ = table.upsert(batch[:2].select("k"))
        table.write(rows, batch[:2].select("v"))
    assert table.nbytes < 200_000
