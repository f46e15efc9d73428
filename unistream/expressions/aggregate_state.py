"""The state of one aggregate: what a batch adds to it, how two states merge, and what it finally says.

Each function here takes the slots to put state columns into and the values to aggregate, and answers with an
expression over those columns. Merging keeps arrival order, so first, last and lists come out as in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import polars as pl

How = Literal["sum", "min", "max", "first", "last", "frame"]


_NARROW = (pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
_HALF = 2**32
"""Wider whole numbers are added up in two halves, of which no number of rows that fits anywhere overflows."""

_NAME_LENGTH = 40
"""Letters of an expression in the name of what is kept of it."""


@dataclass(frozen=True, slots=True)
class Values:
    """What an aggregate runs over: a row-wise expression, and which rows count (None: all)."""

    expr: pl.Expr
    where: pl.Expr | None
    dtype: pl.DataType

    @property
    def chosen(self) -> pl.Expr:
        return self.expr if self.where is None else self.expr.filter(self.where)

    def turned(self, expr: pl.Expr) -> Values:
        """The same rows with another value for each."""
        return Values(expr, self.where, self.dtype)

    def wide(self) -> pl.Expr:
        """The values as Float64, in which sums and moments are kept."""
        chosen = self.expr.cast(pl.Float64)
        return chosen if self.where is None else chosen.filter(self.where)


@dataclass
class Slot:
    """One state column while the decomposition is made."""

    name: str
    partial: pl.Expr
    merge: pl.Expr
    how: How
    nullable: bool
    keeps_values: bool
    exact: bool


@dataclass(frozen=True, slots=True)
class Distinct:
    """Values of which each is counted once in its group.

    Rows carry a column `mark`: in some row of a group stands how many values they bring that it has not had.
    """

    mark: str
    values: Values


@dataclass
class Slots:
    """The state columns so far, and the distinct values that some of them count; equal ones are shared."""

    prefix: str
    retracting: bool = False
    """Whether contributions will be taken back: what can be exact is kept so, though in more columns."""
    found: dict[tuple[bytes, bytes], Slot] = field(default_factory=dict)
    marked: dict[str, Distinct] = field(default_factory=dict)

    def add(
        self,
        partial: pl.Expr,
        merge: Callable[[pl.Expr], pl.Expr],
        how: How = "frame",
        *,
        nullable: bool = True,
        keeps_values: bool = False,
        exact: bool = True,
    ) -> pl.Expr:
        """The column that holds `partial`; made when there is none that starts and merges alike.

        Sums of floats are not `exact`: what is subtracted again leaves its rounding behind. The name tells
        what is kept, not where: state that is restored into a changed program must not change its meaning.
        """
        key = (partial.meta.serialize(), merge(pl.col("_")).meta.serialize())
        digest = blake2b(key[0] + b"/" + key[1], digest_size=6).hexdigest()
        name = f"{self.prefix}:{_spelled(partial)}#{digest}"
        if key not in self.found:
            self.found[key] = Slot(name, partial, merge(pl.col(name)), how, nullable, keeps_values, exact)
        return pl.col(self.found[key].name)


def name_of(*exprs: pl.Expr) -> str:
    """What expressions say, as a name: the beginning of the first, and a digest of all."""
    digest = blake2b(b"/".join(expr.meta.serialize() for expr in exprs), digest_size=6).hexdigest()
    return f"{_spelled(exprs[0])}#{digest}"


def _spelled(expr: pl.Expr) -> str:
    return " ".join(str(expr).split())[:_NAME_LENGTH]


def rows(slots: Slots) -> pl.Expr:
    return slots.add(pl.len().cast(pl.Int64), pl.Expr.sum, "sum", nullable=False)


def length(slots: Slots, values: Values) -> pl.Expr:
    if values.where is None:
        return rows(slots)
    return slots.add(values.chosen.len().cast(pl.Int64), pl.Expr.sum, "sum", nullable=False)


def count(slots: Slots, values: Values) -> pl.Expr:
    return slots.add(values.chosen.count().cast(pl.Int64), pl.Expr.sum, "sum", nullable=False)


def null_count(slots: Slots, values: Values) -> pl.Expr:
    return slots.add(values.chosen.null_count().cast(pl.Int64), pl.Expr.sum, "sum", nullable=False)


def has_nulls(slots: Slots, values: Values) -> pl.Expr:
    return null_count(slots, values) > 0


def total(slots: Slots, values: Values) -> pl.Expr | None:
    """Sums of narrow floats are kept wide; integers wrap around as Polars' own sum does."""
    if values.dtype.is_float():
        partial = values.wide().sum()
    elif values.dtype == pl.Boolean:
        partial = values.chosen.sum().cast(pl.Int64)
    elif values.dtype.is_integer() or values.dtype.is_decimal() or isinstance(values.dtype, pl.Duration):
        partial = values.chosen.sum()
    else:
        return None
    return slots.add(partial, pl.Expr.sum, "sum", nullable=False, exact=not values.dtype.is_float())


def product(slots: Slots, values: Values) -> pl.Expr | None:
    if values.dtype.is_float():
        return slots.add(values.wide().product(), pl.Expr.product, nullable=False)
    if values.dtype.is_integer() or values.dtype == pl.Boolean:
        return slots.add(values.chosen.product(), pl.Expr.product, nullable=False)
    return None


def mean(slots: Slots, values: Values) -> pl.Expr | None:
    if values.dtype.is_temporal():
        return _mean_of_times(slots, values)
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return None
    n = count(slots, values)
    whole = _exact_sum(slots, values) if slots.retracting else None
    if whole is None:
        whole = slots.add(values.wide().sum(), pl.Expr.sum, "sum", nullable=False, exact=False)
    return pl.when(n > 0).then(whole / n)


def _exact_sum(slots: Slots, values: Values) -> pl.Expr | None:
    """The sum of whole numbers as wide as it may get, from sums that are added to and taken from in place."""

    def summed(expr: pl.Expr) -> pl.Expr:
        chosen = values.turned(expr.cast(pl.Int64)).chosen
        return slots.add(chosen.sum(), pl.Expr.sum, "sum", nullable=False)

    if values.dtype in _NARROW:
        return summed(values.expr)
    if values.dtype in (pl.Int64, pl.UInt64):
        high, low = summed(values.expr // _HALF), summed(values.expr % _HALF)
        return (high.cast(pl.Int128) * _HALF + low).cast(pl.Float64)
    return None


def _mean_of_times(slots: Slots, values: Values) -> pl.Expr:
    """Times are added up exactly: as floats the microseconds since 1970 would lose their last digits."""
    unit = values.expr.cast(pl.Datetime("us")) if values.dtype == pl.Date else values.expr
    ticks = values.turned(unit.to_physical().cast(pl.Int128)).chosen
    n = count(slots, values)
    whole = slots.add(ticks.sum(), pl.Expr.sum, "sum", nullable=False)
    return pl.when(n > 0).then(whole.truncdiv(n)).cast(pl.Int64)


def variance(slots: Slots, values: Values, ddof: int) -> pl.Expr | None:
    """Count, mean and sum of squared distances from it, merged without losing digits to large means."""
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return None
    n = count(slots, values)
    wide = values.wide()
    middle = slots.add(wide.mean(), lambda own: pl.when(n.sum() > 0).then((own * n).sum() / n.sum()))
    spread = slots.add(
        wide.var(ddof=0) * wide.count(),
        lambda own: own.sum() + (n * (middle - (middle * n).sum() / n.sum()) ** 2).sum(),
    )
    return pl.when(n > ddof).then(spread / (n - ddof))


def deviation(slots: Slots, values: Values, ddof: int) -> pl.Expr | None:
    found = variance(slots, values, ddof)
    return None if found is None else found.sqrt()


def extreme(slots: Slots, values: Values, *, largest: bool, propagate_nans: bool) -> pl.Expr:
    if propagate_nans:
        method = pl.Expr.nan_max if largest else pl.Expr.nan_min
        return slots.add(method(values.chosen), method)
    method = pl.Expr.max if largest else pl.Expr.min
    return slots.add(method(values.chosen), method, "max" if largest else "min")


def edge(slots: Slots, values: Values, *, last: bool) -> pl.Expr:
    """First or last of the rows that count; a batch in which none does has no say."""
    method = pl.Expr.last if last else pl.Expr.first
    if values.where is None:
        return slots.add(method(values.expr), method, "last" if last else "first")
    seen = presence(slots, values)
    return slots.add(method(values.chosen), lambda own: method(own.filter(seen)))


def edge_not_null(slots: Slots, values: Values, *, last: bool) -> pl.Expr:
    def method(expr: pl.Expr) -> pl.Expr:
        return expr.last(ignore_nulls=True) if last else expr.first(ignore_nulls=True)

    return slots.add(method(values.chosen), method)


def presence(slots: Slots, values: Values) -> pl.Expr:
    """Whether any row counted."""
    return slots.add(values.chosen.len() > 0, pl.Expr.any, "max", nullable=False)


def any_true(slots: Slots, values: Values, *, ignore_nulls: bool) -> pl.Expr:
    found = slots.add(values.chosen.any(), pl.Expr.any, "max", nullable=False)
    if ignore_nulls:
        return found
    unknown = has_nulls(slots, values)
    return pl.when(found).then(True).when(unknown).then(None).otherwise(False)


def all_true(slots: Slots, values: Values, *, ignore_nulls: bool) -> pl.Expr:
    found = slots.add(values.chosen.all(), pl.Expr.all, "min", nullable=False)
    if ignore_nulls:
        return found
    unknown = has_nulls(slots, values)
    return pl.when(~found).then(False).when(unknown).then(None).otherwise(True)


def bitwise(slots: Slots, values: Values, operation: str) -> pl.Expr | None:
    methods = {"And": pl.Expr.bitwise_and, "Or": pl.Expr.bitwise_or, "Xor": pl.Expr.bitwise_xor}
    method = methods.get(operation)
    return None if method is None else slots.add(method(values.chosen), method)


def distinct(slots: Slots, values: Values) -> pl.Expr:
    """The exact set of values, in order of arrival."""

    def merge(own: pl.Expr) -> pl.Expr:
        return _unpacked(own).unique(maintain_order=True).implode()

    partial = values.chosen.unique(maintain_order=True).implode()
    return slots.add(partial, merge, nullable=False, keeps_values=True)


def distinct_count(slots: Slots, values: Values) -> pl.Expr:
    """How many values there are, where somebody tells beside the rows how many are new."""
    exprs = [values.expr] if values.where is None else [values.expr, values.where]
    mark = f"{slots.prefix}:new {name_of(*exprs)}"
    slots.marked[mark] = Distinct(mark, values)
    return slots.add(
        pl.col(mark).sum(), pl.Expr.sum, "sum", nullable=False, exact=False
    )  # what is counted is not let go


def kept(slots: Slots, values: Values) -> pl.Expr:
    """Every value, in order of arrival."""

    def merge(own: pl.Expr) -> pl.Expr:
        return _unpacked(own).implode()

    return slots.add(values.chosen.implode(), merge, nullable=False, keeps_values=True)


def by_key(slots: Slots, values: Values, key: Values, *, largest: bool) -> pl.Expr:
    """The first value where the key is least or greatest; rows and keys are those that count.

    Not by `min_by`: which of several equal keys that takes depends on whether Polars knows them to be sorted.
    """
    best = extreme(slots, key, largest=largest, propagate_nans=False)
    partial = values.chosen.filter(_is_extreme(key.chosen, largest)).first()
    return slots.add(partial, lambda own: own.filter(_is_extreme(best, largest)).first())


def _is_extreme(keys: pl.Expr, largest: bool) -> pl.Expr:
    return keys == (keys.max() if largest else keys.min())


def by_order(
    slots: Slots,
    values: Values,
    keys: Sequence[Values],
    descending: Sequence[bool],
    nulls_last: Sequence[bool],
    *,
    last: bool,
) -> pl.Expr:
    """First or last of the values once sorted; among equals the first or last that came."""
    seen = None if values.where is None else presence(slots, values)

    def pick(expr: pl.Expr, by: Sequence[pl.Expr]) -> pl.Expr:
        ordered = expr.sort_by(
            *by, descending=list(descending), nulls_last=list(nulls_last), maintain_order=True
        )
        return ordered.last() if last else ordered.first()

    def present(expr: pl.Expr) -> pl.Expr:
        return expr if seen is None else expr.filter(seen)

    named = [key.expr.alias(str(at)) for at, key in enumerate(keys)]
    whole = values.turned(pl.struct(*named, values.expr.alias("value")))

    def merge(own: pl.Expr) -> pl.Expr:
        order = [present(own.struct.field(str(at))) for at in range(len(keys))]
        return pick(present(own), order)

    packed = slots.add(pick(whole.chosen, [key.chosen for key in keys]), merge)
    return packed.struct.field("value")


def position(slots: Slots, values: Values, *, largest: bool) -> pl.Expr:
    """Where among the rows that count the least or greatest value first is."""
    n = length(slots, values)
    best = extreme(slots, values, largest=largest, propagate_nans=False)
    at = _is_extreme(values.chosen, largest).arg_true().first().cast(pl.Int64)
    before = n.cum_sum() - n
    return slots.add(at, lambda own: (own + before).filter(_is_extreme(best, largest)).first())


def _unpacked(lists: pl.Expr) -> pl.Expr:
    return lists.explode(empty_as_null=False, keep_nulls=False)
