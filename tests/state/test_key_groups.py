"""Key groups never change: these values are stored in checkpoints."""

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.state.key_groups import group_range, key_groups, stable_hash, subtask_of

GOLDEN: dict[str, tuple[list[Any], pl.DataType, list[int]]] = {
    "int64": (
        [0, 1, -1, 9223372036854775807, None],
        pl.Int64(),
        [0x32FA1F13BCF4E1E5, 0xA589AB6F7197FA4C, 0x543315597F2F2EB8, 0xD66E6894E511F490, 0x61382C30B3F28DC3],
    ),
    "int128": (
        [1, 18446744073709551616, -1267650600228229401496703205376, None],
        pl.Int128(),
        [0xA589AB6F7197FA4C, 0x55E7D25747013430, 0x61E8B1AE9ADF34A7, 0x61382C30B3F28DC3],
    ),
    "uint64": ([0, 18446744073709551615], pl.UInt64(), [0x32FA1F13BCF4E1E5, 0x543315597F2F2EB8]),
    "bool": ([True, False, None], pl.Boolean(), [0xA589AB6F7197FA4C, 0x32FA1F13BCF4E1E5, 0x61382C30B3F28DC3]),
    "float64": (
        [0.0, 1.5, math.nan, -math.inf, None],
        pl.Float64(),
        [0x32FA1F13BCF4E1E5, 0x2BF3C100DBD00B, 0x531A9250C703B7BC, 0x90EA832E97001FAD, 0x61382C30B3F28DC3],
    ),
    "string": (
        ["", "a", "12345678", "123456789", "ä" * 40, None],
        pl.String(),
        [
            0x32FA1F13BCF4E1E5,
            0x53DC40D36D7014D4,
            0x43EA947F7BAC1FBD,
            0x5BCDA95F682181C0,
            0x51B6CAC5581FBF13,
            0x61382C30B3F28DC3,
        ],
    ),
    "binary": (
        [b"", b"\x00", b"\x00\x00", b"a"],
        pl.Binary(),
        [0x32FA1F13BCF4E1E5, 0xE709C4273160AFF6, 0x9A13999FC780DDD9, 0x53DC40D36D7014D4],
    ),
    "date": (
        [date(1970, 1, 1), date(2024, 2, 29), None],
        pl.Date(),
        [0x32FA1F13BCF4E1E5, 0xDCC08842C73A9FCB, 0x61382C30B3F28DC3],
    ),
    "datetime": (
        [datetime(2024, 2, 29, 12, 30)],
        pl.Datetime(time_unit="us", time_zone=None),
        [0x71D74475859BBB9E],
    ),
    "time": ([time(1, 2, 3)], pl.Time(), [0x2CC6373DF389923E]),
    "duration": ([timedelta(days=-1)], pl.Duration(time_unit="us"), [0x8999595887A0EA88]),
    "decimal": (
        [Decimal("1.10"), Decimal("-3.00"), None],
        pl.Decimal(precision=20, scale=2),
        [0x9E9396282DEAB47F, 0x74DAEE76A2871532, 0x61382C30B3F28DC3],
    ),
    "enum": (
        ["a", "b", None],
        pl.Enum(categories=["b", "a"]),
        [0x53DC40D36D7014D4, 0x8EA3F11CB1CA6F79, 0x61382C30B3F28DC3],
    ),
    "categorical": (["a", None], pl.Categorical(), [0x53DC40D36D7014D4, 0x61382C30B3F28DC3]),
    "list": (
        [[], [1], [1, 2], [2, 1], [None], None],
        pl.List(pl.Int64),
        [
            0x32FA1F13BCF4E1E5,
            0x56FE280B09F481B6,
            0x3122E846B6D8A54C,
            0x6DD5DB63FBB95A3F,
            0xFE47FA11BC089F98,
            0x61382C30B3F28DC3,
        ],
    ),
    "array": ([[1, 2]], pl.Array(pl.Int64, 2), [0x3122E846B6D8A54C]),
    "struct": (
        [{"x": 1, "y": "a"}, {"x": None, "y": "a"}],
        pl.Struct({"x": pl.Int64, "y": pl.String}),
        [0x8C6E5CAA7FB61342, 0xB0012DA6313C3E4A],
    ),
    "null": ([None], pl.Null(), [0x61382C30B3F28DC3]),
}

MULTI_HASHES = [0xD4B07E39B5BB7290, 0xB78E1EAD8F7D87C6, 0x1DBADDB598FEECBE, 0xBB81C3CE7FEA079A]


@pytest.mark.parametrize("name", GOLDEN)
def test_hashes_are_what_they_always_were(name: str) -> None:
    values, dtype, hashes = GOLDEN[name]
    assert stable_hash([pl.Series(values, dtype=dtype)]).tolist() == hashes


def test_several_columns_and_groups_are_what_they_always_were() -> None:
    keys = pl.DataFrame({"a": [1, 2, None, 1], "b": ["x", None, "x", "y"]})
    assert stable_hash(keys.get_columns()).tolist() == MULTI_HASHES
    assert key_groups(keys).tolist() == [h * 128 >> 64 for h in MULTI_HASHES]
    assert key_groups(keys, 7).tolist() == [(h >> 32) * 7 >> 32 for h in MULTI_HASHES]


def plain_mix(x: int) -> int:
    for _ in range(2):
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 % 2**64
    return x ^ x >> 32


def plain_text_hash(text: str) -> int:
    """The documented definition, one word at a time."""
    data = text.encode()
    words = [data[at : at + 8].ljust(8, b"\0") for at in range(0, len(data), 8)]
    total = sum(
        plain_mix((int.from_bytes(word, "little") + (position + 1) * 0x9E3779B97F4A7C15) % 2**64)
        for position, word in enumerate(words)
    )
    return plain_mix((total + len(data)) % 2**64)


def plain_row(hashes: list[int]) -> int:
    row = 0x9E3779B97F4A7C15
    for value in hashes:
        row = plain_mix((row * 31 + value) % 2**64)
    return row


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20))
def test_as_defined(rows: list[tuple[str, int]]) -> None:
    texts = pl.Series([text for text, _ in rows])
    numbers = pl.Series([number for _, number in rows], dtype=pl.Int64)
    expected = [plain_row([plain_text_hash(text), plain_mix(number % 2**64)]) for text, number in rows]
    assert stable_hash([texts, numbers]).tolist() == expected
    # Parts of a larger frame hash as they do alone.
    assert stable_hash([texts[1:], numbers[1:]]).tolist() == expected[1:]


def test_equal_keys_share_a_group_whatever_their_type() -> None:
    small = [0, 1, 100, None]
    by_width = {
        tuple(stable_hash([pl.Series(small, dtype=dtype)]))
        for dtype in (pl.Int8, pl.UInt16, pl.Int64, pl.Int128)
    }
    assert len(by_width) == 1
    zeros = stable_hash([pl.Series([0.0, -0.0])])
    nans = stable_hash([pl.Series([math.nan, -math.nan])])
    assert zeros[0] == zeros[1] and nans[0] == nans[1]
    assert stable_hash([pl.Series([1.5], dtype=pl.Float32)])[0] == stable_hash([pl.Series([1.5])])[0]
    text = pl.Series(["a", "b", None])
    assert (stable_hash([text]) == stable_hash([text.cast(pl.Categorical)])).all()


@pytest.mark.parametrize(
    "keys",
    [
        pl.Series(range(50_000)),
        pl.Series(range(0, 50_000 << 20, 1 << 20)),
        pl.Series([f"user_{i}" for i in range(50_000)]),
    ],
)
def test_groups_are_even(keys: pl.Series) -> None:
    counts = np.bincount(key_groups(keys.to_frame("k")), minlength=128)
    assert len(counts) == 128
    assert abs(counts - 50_000 / 128).max() < 6 * (50_000 / 128) ** 0.5


@pytest.mark.parametrize("subtasks", [1, 2, 3, 5, 127, 128])
def test_every_group_has_one_owner(subtasks: int) -> None:
    ranges = [group_range(subtask, subtasks) for subtask in range(subtasks)]
    assert [group for owned in ranges for group in owned] == list(range(128))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    for subtask, owned in enumerate(ranges):
        assert (subtask_of(np.array(owned), subtasks) == subtask).all()


def test_no_rows() -> None:
    empty = pl.DataFrame(schema={"a": pl.Int64, "b": pl.String, "c": pl.List(pl.String)})
    assert key_groups(empty).tolist() == []
