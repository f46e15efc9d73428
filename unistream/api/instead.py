"""What to write in place of a verb that frames have and streams have not."""

from __future__ import annotations

import polars as pl

_INSTEAD = {
    "limit": ".head(n)",
    "slice": ".head(n)",
    "group_by_dynamic": '.group_by(...).window(us.tumbling("1m")).agg(...)',
    "rolling": '.group_by(...).over(range="10m").agg(...)',
    "drop_nulls": ".filter(pl.col(...).is_not_null())",
    "drop_nans": ".filter(pl.col(...).is_not_nan())",
    "fill_null": ".with_columns(pl.col(...).fill_null(...))",
    "fill_nan": ".with_columns(pl.col(...).fill_nan(...))",
    "join_where": '.join(other, on=..., within=("0s", "30s"))',
    "merge_sorted": ".union(other)",
    "vstack": ".union(other)",
    "dtypes": ".schema",
    "collect_schema": ".schema",
    "write_csv": ".sink_csv(folder)",
    "write_ndjson": ".sink_ndjson(folder)",
    "write_parquet": ".sink_parquet(folder)",
    "write_database": ".sink_table(url, table)",
}


def instead_of(verb: str) -> str:
    """The rest of the message that says that a stream has no such verb.

    >>> instead_of("limit"), instead_of("sort"), instead_of("unheard")
    (': write .head(n)', ': it takes all rows, as in .collect().sort(...)', '')
    """
    if verb in _INSTEAD:
        return f": write {_INSTEAD[verb]}"
    if verb.startswith("_") or not (hasattr(pl.DataFrame, verb) or hasattr(pl.LazyFrame, verb)):
        return ""
    called = "(...)" if callable(getattr(pl.DataFrame, verb, None)) else ""
    return f": it takes all rows, as in .collect().{verb}{called}"
