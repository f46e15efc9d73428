"""Which part of the keyed state a key belongs to: a hash of our own that never changes.

Key groups are stored in checkpoints, so the hash is versioned and pinned by tests. It is defined on
values: integers of every width, dates, times, durations and Booleans hash as their 64-bit integer, so a
key column may be widened; floats as the bits of the Float64 with one NaN and one zero; text and binary by
their bytes in little-endian words, each mixed with its position, plus the length; categories as text;
decimals by their unscaled integer; lists and structs by their parts; null as a constant.

    mix(x) = x ^= x>>32; x *= 0xD6E8FEB86659FD93; x ^= x>>32; x *= 0xD6E8FEB86659FD93; x ^= x>>32
    row    = fold of h = mix(h * 31 + column), starting at 0x9E3779B97F4A7C15
    group  = (row >> 32) * groups >> 32
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

KEY_HASH_VERSION = 1
DEFAULT_KEY_GROUPS = 128

Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
_POSITION = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x2545F4914F6CDD1D)
_FOLD = np.uint64(31)
_S32 = np.uint64(32)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


def key_groups(keys: pl.DataFrame, groups: int = DEFAULT_KEY_GROUPS) -> npt.NDArray[np.int64]:
    """The key group of each row, from all columns in order.

    >>> key_groups(pl.DataFrame({"user": ["ada", "bob", None]})).tolist()
    [76, 115, 48]
    """
    top = stable_hash(keys.get_columns()) >> _S32
    top *= np.uint64(groups)
    top >>= _S32
    return top.view(np.int64)


def group_range(subtask: int, subtasks: int, groups: int = DEFAULT_KEY_GROUPS) -> range:
    """The key groups of one of several subtasks: contiguous, and as even as can be.

    >>> [group_range(i, 3) for i in range(3)]
    [range(0, 43), range(43, 86), range(86, 128)]
    """
    return range(-(-subtask * groups // subtasks), -(-(subtask + 1) * groups // subtasks))


def subtask_of(
    groups: npt.NDArray[np.int64], subtasks: int, total: int = DEFAULT_KEY_GROUPS
) -> npt.NDArray[np.int64]:
    """The subtask that owns each key group; the inverse of `group_range`."""
    return groups * subtasks // total


def stable_hash(columns: Sequence[pl.Series]) -> Hashes:
    """A 64-bit hash of each row, the same in every version and on every machine."""
    result = np.full(len(columns[0]), _POSITION)
    for column in columns:
        result *= _FOLD
        result += _hash_column(column)
        _mix(result)
    return result


def _mix(x: Hashes) -> Hashes:
    """Spread the bits, in place."""
    x ^= x >> _S32
    x *= _MULTIPLIER
    x ^= x >> _S32
    x *= _MULTIPLIER
    x ^= x >> _S32
    return x


def _hash_column(column: pl.Series) -> Hashes:
    hashes = _hash_values(column)
    if column.null_count():
        hashes[column.is_null().to_numpy()] = _NULL
    return hashes


def _hash_values(column: pl.Series) -> Hashes:
    """Hashes of the values; whatever stands at nulls is replaced by the caller."""
    dtype = column.dtype
    if dtype == pl.String or dtype == pl.Binary:
        return _hash_bytes(column)
    if dtype.is_float():
        return _mix(_float_bits(column))
    if isinstance(dtype, pl.Decimal) or dtype in (pl.Int128, pl.UInt128):
        return _hash_wide(column)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return _hash_bytes(column.cast(pl.String))
    if isinstance(dtype, pl.Struct):
        parts = [column.struct.field(field.name) for field in dtype.fields]
        return stable_hash(parts) if parts else _zeros(column)
    if isinstance(dtype, pl.Array):
        return _hash_lists(column.cast(pl.List(cast(Any, dtype.inner))))
    if isinstance(dtype, pl.List):
        return _hash_lists(column)
    if dtype == pl.Null:
        return _zeros(column)
    return _mix(_integer_bits(column))


def _zeros(column: pl.Series) -> Hashes:
    return np.zeros(len(column), dtype=np.uint64)


def _integer_bits(column: pl.Series) -> Hashes:
    if column.dtype == pl.UInt64:
        return column.fill_null(0).to_numpy().copy()
    physical = column if column.dtype == pl.Boolean else column.to_physical()
    return physical.cast(pl.Int64).fill_null(0).to_numpy().astype(np.int64, copy=True).view(np.uint64)


def _float_bits(column: pl.Series) -> Hashes:
    values = column.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0  # makes one zero of two
    values[np.isnan(values)] = np.nan
    return values.view(np.uint64)


def _hash_wide(column: pl.Series) -> Hashes:
    """128-bit integers: as a 64-bit one where the value fits, else both halves."""
    wide = column.to_physical().cast(pl.Int128).fill_null(0)
    lower = wide & 0xFFFFFFFFFFFFFFFF
    low = lower.cast(pl.UInt64).to_numpy().copy()
    high = ((wide - lower) // (1 << 64)).cast(pl.Int64).to_numpy()
    fits = high == (low.view(np.int64) >> np.int64(63))
    result = _mix(low)
    both = _mix(result * _FOLD + high.view(np.uint64) + _POSITION)
    return np.where(fits, result, both)


def _hash_bytes(column: pl.Series) -> Hashes:
    """Sum over the words of each value of mix(word + position), then length."""
    arrow = column.cast(pl.Binary).to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data_buffer = arrow.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    if not len(arrow) or not lengths.any():
        return _mix(lengths.astype(np.uint64))
    data = np.zeros(int(offsets[-1]) + 8, dtype=np.uint8)
    data[:-8] = np.frombuffer(data_buffer, dtype=np.uint8)[: int(offsets[-1])]
    unaligned = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    counts = (lengths + 7) >> 3
    position = _positions(counts)
    words = unaligned.take(np.repeat(starts, counts) + 8 * position)
    unused = np.repeat(8 * counts - lengths, counts)
    last = position == np.repeat(counts - 1, counts)
    words &= _ONES >> (np.where(last, unused, 0) * 8).astype(np.uint64)
    return _folded_sums(words, position, counts, lengths)


def _hash_lists(column: pl.Series) -> Hashes:
    """As for bytes, with the hashes of the elements as words."""
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    full = column.filter(pl.Series(lengths > 0))
    words = _hash_column(full.explode()) if len(full) else np.empty(0, dtype=np.uint64)
    return _folded_sums(words, _positions(lengths), lengths, lengths)


def _positions(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, 2... within each of runs of these lengths."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)


def _folded_sums(
    words: Hashes,
    position: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> Hashes:
    words = words + (position.astype(np.uint64) + np.uint64(1)) * _POSITION
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(_mix(words), dtype=np.uint64)])
    ends = np.cumsum(counts)
    return _mix(sums[ends] - sums[ends - counts] + lengths.astype(np.uint64))
