"""Which of the distinct keys each row has, against Python."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.state import key_codes as module
from unistream.state.key_codes import key_codes
from unistream.state.reference import comparable

VALUES = {
    pl.Int64: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]),
    pl.Int8: st.integers(-2, 2),
    pl.UInt64: st.sampled_from([0, 1, 2**64 - 1]),
    pl.Boolean: st.booleans(),
    pl.Float64: st.sampled_from([0.0, -0.0, 1.5, float("nan")]),
    pl.String: st.sampled_from(["", "a"]),
}


def check(keys: pl.DataFrame) -> None:
    distinct, codes = key_codes(keys, keys.columns)
    expected = [comparable(row) for row in keys.rows()]
    found = [comparable(row) for row in distinct.rows()]
    assert distinct.schema == keys.schema
    assert [found[code] for code in codes] == expected
    assert len(found) == len(set(expected)) and set(found) == set(expected)
    if keys.width > 1:
        assert found == list(dict.fromkeys(expected))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3), st.booleans())
def test_every_row_has_the_code_of_its_key(
    data: st.DataObject, kinds: list[type[pl.DataType]], nulls: bool
) -> None:
    height = data.draw(st.integers(0, 15))
    columns = {}
    for number, kind in enumerate(kinds):
        values = VALUES[kind] | st.none() if nulls else VALUES[kind]
        drawn = data.draw(st.lists(values, min_size=height, max_size=height))
        columns[f"k{number}"] = pl.Series(drawn, dtype=kind)
    check(pl.DataFrame(columns))


def test_keys_that_are_mixed_into_one_number_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mixed", lambda columns: np.zeros(len(columns[0]), dtype=np.uint64))
    check(pl.DataFrame({"a": [1, 1, 2, 1], "b": [1, 2, 1, 1]}))
