"""Schemas as JSON, and what may become of a column."""

import json
from typing import Any

import polars as pl
import pytest

from unistream.errors import StateError
from unistream.state.schemas import schema_from_json, schema_to_json, widens

TYPES: list[Any] = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Boolean, pl.Float32, pl.Float64, pl.String, pl.Binary, pl.Date, pl.Time, pl.Null, pl.Categorical()),
    *(pl.Datetime("ns"), pl.Datetime("us", "Asia/Tokyo"), pl.Duration("ms"), pl.Decimal(20, 3)),
    *(pl.Enum(["b", "a"]), pl.List(pl.List(pl.String)), pl.Array(pl.Int8, 3)),
    pl.Struct({"x": pl.Datetime("ms"), "y": pl.Struct({"z": pl.List(pl.Date)})}),
]


def test_every_type_survives() -> None:
    schema = pl.Schema({str(number): dtype for number, dtype in enumerate(TYPES)})
    text = json.dumps(schema_to_json(schema))
    assert schema_from_json(json.loads(text)) == schema


def test_the_form_on_disk_is_what_it_always_was() -> None:
    schema = pl.Schema(
        {"a": pl.Int64, "t": pl.Datetime("us", "UTC"), "l": pl.List(pl.String), "d": pl.Decimal(9, 2)}
    )
    assert schema_to_json(schema) == [
        ["a", "Int64"],
        ["t", {"Datetime": ["us", "UTC"]}],
        ["l", {"List": "String"}],
        ["d", {"Decimal": [9, 2]}],
    ]


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(StateError, match="does not know: 'Int4096'"):
        schema_from_json([["a", "Int4096"]])
    with pytest.raises(StateError, match="cannot be kept"):
        schema_to_json(pl.Schema({"a": pl.Object}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pl.Int8(), pl.Int128()),
        (pl.UInt8(), pl.Int16()),
        (pl.UInt32(), pl.UInt64()),
        (pl.Float32(), pl.Float64()),
        (pl.Int32(), pl.Float64()),
        (pl.Null(), pl.List(pl.String)),
        (pl.Decimal(10, 2), pl.Decimal(20, 2)),
        (pl.String(), pl.String()),
    ],
)
def test_a_column_may_become_wider_but_not_narrower(old: pl.DataType, new: pl.DataType) -> None:
    assert widens(old, new)
    assert old == new or not widens(new, old)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pl.Int64(), pl.Float64()),
        (pl.UInt64(), pl.Int64()),
        (pl.Int8(), pl.UInt64()),
        (pl.Decimal(10, 2), pl.Decimal(20, 3)),
        (pl.Datetime("us"), pl.Datetime("ns")),
        (pl.Boolean(), pl.Int8()),
        (pl.Int64(), pl.String()),
        (pl.List(pl.Int8), pl.List(pl.Int64)),
    ],
)
def test_nothing_else_is_let_through(old: pl.DataType, new: pl.DataType) -> None:
    assert not widens(old, new)
