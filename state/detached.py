"""Values with memory of their own: text that was taken out of a frame holds all text of that frame."""

from __future__ import annotations

from io import BytesIO
from typing import cast

import polars as pl

from unistream.of_columns import frame_of
from unistream.state.arrow_buffers import held_bytes

_UNKNOWN_TO_ARROW = (pl.Int128, pl.UInt128)

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
    if values.dtype in (pl.String, pl.Binary):  # adding nothing to them writes them anew
        return (values + pl.Series([b""]).cast(values.dtype)).rechunk()
    # The older Arrow layout holds text end to end, so the way there and back copies just what is used.
    if _holds(values.dtype, _UNKNOWN_TO_ARROW):
        return _written_and_read(values)
    arrow = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    return cast(pl.Series, pl.from_arrow(arrow, schema=None)).cast(values.dtype).alias(values.name)


def _written_and_read(values: pl.Series) -> pl.Series:
    """By the file format of Polars, which knows all of its types; of many rows eight times as slow."""
    stream = BytesIO()
    values.to_frame().write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
    stream.seek(0)
    return pl.read_ipc_stream(stream).to_series()


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


def _is_wasteful(values: pl.Series) -> bool:
    most = LEFT_OVER * int(values.estimated_size())
    return held_bytes(values) > max(most, WORTHWHILE)


def _has_views(dtype: pl.DataType) -> bool:
    return _holds(dtype, (pl.String, pl.Binary))


def _holds(dtype: pl.DataType, kinds: tuple[type[pl.DataType], ...]) -> bool:
    """Whether it is one of these types, or has them inside."""
    if isinstance(dtype, (pl.List, pl.Array)):
        return _holds(cast(pl.DataType, dtype.inner), kinds)
    if isinstance(dtype, pl.Struct):
        return any(_holds(cast(pl.DataType, field.dtype), kinds) for field in dtype.fields)
    return isinstance(dtype, kinds)
