"""Values with memory of their own: text that was taken out of a frame holds all text of that frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import polars as pl

from unistream.of_columns import frame_of

LEFT_OVER = 3
WORTHWHILE = 128 << 10
"""Text is copied when its buffers hold `LEFT_OVER` times what is used, and more bytes than these."""


def detached(values: pl.Series) -> pl.Series:
    """The same values without the buffers of a larger frame they were cut from.

    >>> detached(pl.Series("a", ["x", None]).filter([False, True])).to_list()
    [None]
    """
    if not _has_views(values.dtype):
        return values.rechunk()
    # The older Arrow layout holds text end to end, so the way there and back copies just what is used.
    arrow = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    return cast(pl.Series, pl.from_arrow(arrow, schema=None)).cast(values.dtype).alias(values.name)


def without_left_overs(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame to keep, with those columns copied that hold much more than they use.

    >>> frame = pl.DataFrame({"a": [str(number) * 20 for number in range(50_000)]})
    >>> few = frame.filter(pl.col("a").str.starts_with("77"))
    >>> held_bytes(few["a"]) > 50 * held_bytes(without_left_overs(few)["a"])
    True
    """
    columns = frame.get_columns()
    wasteful = [_has_views(column.dtype) and _is_wasteful(column) for column in columns]
    if not any(wasteful):
        return frame
    return frame_of(
        detached(column) if waste else column for column, waste in zip(columns, wasteful, strict=True)
    )


def held_bytes(values: pl.Series) -> int:
    """Bytes of all text that stays in memory because of these values; what is short lies elsewhere."""
    found: dict[int, int] = {}
    for chunk in values.get_chunks():
        found.update(_text_buffers(chunk.to_arrow(compat_level=pl.CompatLevel.newest())))
    return sum(found.values())


def _text_buffers(array: Any) -> Iterator[tuple[int, int]]:
    """Where the buffers of an Arrow array with the characters of its texts lie, and how long they are."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        _nulls, _places, *characters = array.buffers()
        yield from ((buffer.address, buffer.size) for buffer in characters)
    elif pa.types.is_nested(kind):
        for part in array.flatten() if pa.types.is_struct(kind) else [array.flatten()]:
            yield from _text_buffers(part)


def _is_wasteful(values: pl.Series) -> bool:
    most = LEFT_OVER * int(values.estimated_size())
    return held_bytes(values) > max(most, WORTHWHILE)


def _has_views(dtype: pl.DataType) -> bool:
    if isinstance(dtype, (pl.List, pl.Array)):
        return _has_views(cast(pl.DataType, dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_has_views(cast(pl.DataType, field.dtype)) for field in dtype.fields)
    return dtype in (pl.String, pl.Binary)
