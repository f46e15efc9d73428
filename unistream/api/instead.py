"""What to write in place of a verb that others have (frames, Spark, Flink) and streams have not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

_INSTEAD = {
    "limit": ".head(n)",
    "slice": ".head(n)",
    "agg": ".group_by(all=pl.lit(1)).agg(...) for all rows, or .group_by(...) or .window(...) before it",
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
    "map": ".with_columns(...), or .map_batches(fn) for Python over frames",
    "where": ".filter(...)",
    "connect": ".join(other, ...), .union(other) or .broadcast(rules, fn)",
    "print": ".show() or .sink_console()",
}

_KEYED_VERBS = ("process", "process_batches", "over")

_SPELLINGS: Mapping[str, Iterable[str]] = {
    ".group_by(...)": ("groupBy", "groupby", "key_by", "keyBy"),
    ".map_batches(fn), or .explode(...) for lists": ("flat_map", "flatMap"),
    ".with_columns(...)": ("withColumn", "withColumns", "assign"),
    ".rename({...})": ("withColumnRenamed",),
    ".unique(...)": ("distinct", "dropDuplicates", "drop_duplicates", "dropDuplicatesWithinWatermark"),
    ".union(other)": ("unionAll", "unionByName", "union_all", "concat"),
    '.with_event_time("ts", delay="5s")': (
        "withWatermark",
        "with_watermark",
        "assign_timestamps_and_watermarks",
        "assignTimestampsAndWatermarks",
    ),
    ".side_output(tag)": ("get_side_output", "getSideOutput"),
    ".sink_parquet(folder).start(checkpoint=folder), or another .sink_...": ("write", "writeStream"),
    ".sink(...), or .sink_parquet(...) and others": ("sink_to", "sinkTo", "add_sink", "addSink"),
    ".sink_batches(fn)": ("foreachBatch", "foreach_batch", "foreach"),
    ".sink_parquet(folder).start(), or another .sink_...": ("start", "run", "execute", "awaitTermination"),
    '.window(us.tumbling("1m")).agg(...)': ("window_all", "windowAll", "time_window", "timeWindow"),
}

_INSTEAD |= {other: ours for ours, others in _SPELLINGS.items() for other in others}
_INSTEAD |= {verb: f".group_by(...).{verb}(...)" for verb in _KEYED_VERBS}


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


_OF_GROUPS = {
    "count": ".agg(n=pl.len())",
    "len": ".agg(n=pl.len())",
    "size": ".agg(n=pl.len())",
    "all": ".agg(pl.all())",
    "head": ".top_k(n, by=...), or .agg(pl.col(...).head(n))",
    "tail": ".top_k(n, by=...), or .agg(pl.col(...).tail(n))",
    "reduce": ".agg(...)",
    "aggregate": ".agg(...)",
    "having": ".agg(...).filter(...)",
    "with_event_time": "it before .group_by(...)",
    "with_ingestion_time": "it before .group_by(...)",
}
_AGGREGATES = frozenset(
    ["sum", "mean", "min", "max", "median", "n_unique", "first", "last", "quantile", "std", "var", "product"]
)


class Unfinished:
    """Rows put together, of which it is not said yet what becomes: verbs they lack name a way out."""

    __slots__ = ()
    _called: ClassVar[str]
    _instead: ClassVar[Mapping[str, str]] = {}
    """Beside what all groups say."""

    if not TYPE_CHECKING:  # or every verb would be there for type checkers

        def __getattr__(self, name: str) -> Any:
            message = f"{self._called} has no {name!r}{_instead_in_groups(name, self._instead)}"
            raise AttributeError(message, name=name, obj=self)


def _instead_in_groups(verb: str, own: Mapping[str, str]) -> str:
    from unistream.api.results import Results
    from unistream.api.side_outputs import SideOutputs
    from unistream.api.sinks import Sinks
    from unistream.api.stream import Stream

    if verb.startswith("_"):
        return ""
    for known in (own, _OF_GROUPS):
        if verb in known:
            return f": write {known[verb]}"
    if verb in _AGGREGATES:
        return f": write .agg(pl.col(...).{verb}({'...' if verb == 'quantile' else ''}))"
    if any(hasattr(kind, verb) for kind in (Results, SideOutputs, Sinks)) or verb == "changes":
        return f": say first what becomes of the rows, as in .agg(...).{verb}(...)"
    if hasattr(Stream, verb) or verb in _INSTEAD:
        called = "(...)" if callable(getattr(Stream, verb, None)) else ""
        ours = _INSTEAD.get(verb, f".{verb}{called}")
        return f": write {ours} before the rows are put together, or behind .agg(...)"
    return ""
