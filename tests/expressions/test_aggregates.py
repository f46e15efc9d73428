"""Aggregates kept incrementally say what one `group_by().agg()` over all rows says."""

# ruff: noqa: E501 - tables

import functools
import pickle
import random
from datetime import datetime, time, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from unistream.expressions.aggregates import Decomposition, Holistic, decompose

c = pl.col
NAN, INF = float("nan"), float("inf")


def make_frame(rng: random.Random, rows: int, keys: int = 5) -> pl.DataFrame:
    def some(make, nulls=0.3):
        return [None if rng.random() < nulls else make() for _ in range(rows)]

    word = lambda: "".join(rng.choice("abAB 1") for _ in range(rng.randint(0, 3)))  # noqa: E731
    moment = lambda: datetime(2024, 1, 31) + timedelta(minutes=rng.randint(-(10**8), 10**7))  # noqa: E731
    floats = lambda: rng.choice([0.5, -1.25, 3.75, -0.0, 0.0, NAN, rng.uniform(-9, 9), rng.uniform(-9, 9)])  # noqa: E731
    columns = {
        "k": (some(lambda: rng.randrange(keys), 0.05), pl.Int64),
        "i": (some(lambda: rng.randint(-50, 50)), pl.Int64),
        "big": (some(lambda: rng.choice([2**62, -(2**62), 2**63 - 1, 5])), pl.Int64),
        "i8": (some(lambda: rng.randint(-128, 127)), pl.Int8),
        "i32": (some(lambda: rng.choice([2**31 - 1, -7, 3])), pl.Int32),
        "u8": (some(lambda: rng.randint(0, 255)), pl.UInt8),
        "u32": (some(lambda: rng.choice([2**32 - 1, 7])), pl.UInt32),
        "u64": (some(lambda: rng.randint(0, 2**60)), pl.UInt64),
        "f": (some(floats), pl.Float64),
        "w": (some(lambda: rng.uniform(-9, 9)), pl.Float64),
        "inf": (some(lambda: rng.choice([INF, -INF, 1.0, 2.0]), 0.5), pl.Float64),
        "f32": (some(lambda: rng.uniform(-9, 9)), pl.Float32),
        "b": (some(lambda: rng.random() < 0.6), pl.Boolean),
        "q": (some(lambda: rng.random() < 0.3), pl.Boolean),
        "s": (some(word), pl.String),
        "d": (some(lambda: moment().date()), pl.Date),
        "t": (some(moment), pl.Datetime("us")),
        "z": (some(moment), pl.Datetime("ns", "UTC")),
        "dur": (some(lambda: timedelta(seconds=rng.randint(-9999, 9999))), pl.Duration("ms")),
        "tm": (some(lambda: time(rng.randint(0, 23), rng.randint(0, 59))), pl.Time),
        "dec": (some(lambda: Decimal(rng.randint(-999, 999)) / 100), pl.Decimal(10, 2)),
        "en": (some(lambda: rng.choice("xyz")), pl.Enum(["z", "y", "x"])),
        "cat": (some(lambda: rng.choice("xyz")), pl.Categorical),
        "bin": (some(lambda: word().encode()), pl.Binary),
        "l": (some(lambda: [rng.randint(0, 3) for _ in range(rng.randint(0, 3))]), pl.List(pl.Int64)),
        "st": (
            some(lambda: {"x": rng.randint(0, 3), "y": word()}),
            pl.Struct({"x": pl.Int64, "y": pl.String}),
        ),
        "nil": ([None] * rows, pl.Null),
        "n": (list(range(rows)), pl.Int64),
    }
    return pl.DataFrame(
        {name: pl.Series(name, values, dtype, strict=False) for name, (values, dtype) in columns.items()}
    )


FRAMES = [make_frame(random.Random(seed), rows) for seed, rows in ((1, 80), (2, 23), (3, 160))]
SCHEMA = FRAMES[0].schema
NUMBERS = ["i", "big", "i8", "i32", "u8", "u32", "u64", "f", "w", "inf", "f32", "b"]
TIMES = ["d", "t", "z", "dur", "tm"]
OTHERS = ["s", "en", "cat", "bin", "dec"]
NESTED = ["l", "st", "nil"]
EVERY = NUMBERS + TIMES + OTHERS + NESTED


def one_shot(frame: pl.DataFrame, exprs: list[pl.Expr], keys: list[str]) -> pl.DataFrame:
    """Without keys all rows are one group."""
    key = keys or [pl.lit(0).alias("one")]
    return frame.group_by(key, maintain_order=True).agg(exprs).drop([] if keys else "one")


def merged(parts: list[pl.DataFrame], merge, keys: list[str]) -> pl.DataFrame:
    return one_shot(pl.concat(parts), list(merge), keys)


def in_pieces(
    frame: pl.DataFrame, found: Decomposition, keys: list[str], rng: random.Random, pieces: int
) -> pl.DataFrame:
    """Cut anywhere, aggregate each piece, merge neighbours in any order until one is left, finish."""
    ends = sorted({frame.height, *(rng.randrange(1, frame.height) for _ in range(pieces))})
    parts = [
        one_shot(frame[start:end], list(found.partial), keys)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    for part in parts:
        assert part.drop(keys).schema == found.state_schema
    while len(parts) > 1:
        at = rng.randrange(len(parts) - 1)
        until = min(len(parts), at + rng.randint(2, 4))
        parts[at:until] = [merged(parts[at:until], found.merge, keys)]
    assert parts[0].drop(keys).schema == found.state_schema
    return parts[0].select(*keys, *found.finish)


def nearly(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Exact but for floats, which are added up in another order, and times that Polars averages as floats."""
    assert left.schema == right.schema
    narrow = [name for name, dtype in left.schema.items() if dtype == pl.Float32]
    averaged = [
        name for name, dtype in left.schema.items() if name.startswith("mean") and dtype.is_temporal()
    ]
    assert_frame_equal(left.select(narrow), right.select(narrow), rel_tol=1e-4, abs_tol=1e-4)
    for name in averaged:
        one, other = (frame[name].to_physical().cast(pl.Float64) for frame in (left, right))
        assert one.is_null().equals(other.is_null())
        assert ((one - other).abs() <= 1 + one.abs() * 2**-50).all()
    rest = left.columns
    rest = [name for name in rest if name not in narrow + averaged]
    assert_frame_equal(left.select(rest), right.select(rest), rel_tol=1e-9, abs_tol=1e-9)


def check(
    exprs: list[pl.Expr], frame: pl.DataFrame, rng: random.Random, keys=("k",), sizes=(5,)
) -> Decomposition:
    """What `exprs` were taken apart into; it must come out as in one pass."""
    keys = list(keys)
    found = decompose(exprs, frame.schema, keys)
    assert isinstance(found, Decomposition), str(found)
    expected = one_shot(frame, exprs, keys)
    for pieces in sizes:
        nearly(in_pieces(frame, found, keys, rng, pieces), expected)
    return found


AGGREGATES = {
    "sum": (lambda e: e.sum(), [*NUMBERS, "dur", "dec"]),
    "mean": (lambda e: e.mean(), [*NUMBERS, *TIMES, "dec"]),
    "var": (lambda e: e.var(), [*NUMBERS, "dec"]),
    "std0": (lambda e: e.std(ddof=0), NUMBERS),
    "var2": (lambda e: e.var(ddof=2), NUMBERS),
    "product": (lambda e: e.product(), ["i8", "f", "w", "b", "u8"]),
    "min": (lambda e: e.min(), [*NUMBERS, *TIMES, *OTHERS]),
    "max": (lambda e: e.max(), [*NUMBERS, *TIMES, *OTHERS]),
    "nan_min": (lambda e: e.nan_min(), ["f", "inf", "i"]),
    "nan_max": (lambda e: e.nan_max(), ["f", "inf", "i"]),
    "len": (lambda e: e.len(), EVERY),
    "count": (lambda e: e.count(), EVERY),
    "null_count": (lambda e: e.null_count(), EVERY),
    "has_nulls": (lambda e: e.has_nulls(), EVERY),
    "first": (lambda e: e.first(), EVERY),
    "last": (lambda e: e.last(), EVERY),
    "first_valid": (lambda e: e.first(ignore_nulls=True), EVERY),
    "last_valid": (lambda e: e.last(ignore_nulls=True), EVERY),
    "drop_first": (lambda e: e.drop_nulls().first(), EVERY),
    "any": (lambda e: e.any(), ["b", "q"]),
    "all": (lambda e: e.all(), ["b", "q"]),
    "any_kleene": (lambda e: e.any(ignore_nulls=False), ["b", "q"]),
    "all_kleene": (lambda e: e.all(ignore_nulls=False), ["b", "q"]),
    "arg_min": (lambda e: e.arg_min(), ["i", "f", "s", "t", "b"]),
    "arg_max": (lambda e: e.arg_max(), ["i", "f", "s", "t", "b"]),
    "min_by": (lambda e: e.min_by("i8"), EVERY),
    "max_by": (lambda e: e.max_by("w"), EVERY),
    "n_unique": (lambda e: e.n_unique(), [*NUMBERS, *TIMES, *OTHERS, "st"]),
    "distinct": (lambda e: e.drop_nulls().n_unique(), [*NUMBERS, *TIMES, *OTHERS]),
    "implode": (lambda e: e.implode(), EVERY),
    "bare": (lambda e: e, EVERY),
    "unique": (lambda e: e.unique(maintain_order=True), [*NUMBERS, *TIMES, *OTHERS]),
    "bitwise_and": (lambda e: e.bitwise_and(), ["i", "u8", "i32"]),
    "bitwise_xor": (lambda e: e.bitwise_xor(), ["i", "u8", "i32"]),
    "median": (lambda e: e.median(), [*NUMBERS, *TIMES, "dec"]),
    "quantile": (lambda e: e.quantile(0.9, "linear"), ["i", "f", "w", "i8", "dur"]),
    "quantile_near": (lambda e: e.quantile(0.3), ["i", "f", "w", "t"]),
    "skew": (lambda e: e.skew(), ["i", "w"]),
    "kurtosis": (lambda e: e.kurtosis(), ["i", "w"]),
    "largest": (lambda e: e.sort(descending=True).head(3), ["i", "w", "s", "t"]),
    "top_k": (lambda e: e.top_k(2), ["i", "w"]),
    "head": (lambda e: e.head(2), EVERY),
    "tail": (lambda e: e.tail(2), EVERY),
    "latest": (lambda e: e.sort_by("n").last(), EVERY),
    "earliest": (lambda e: e.sort_by("i8", "n", descending=[True, False], nulls_last=True).first(), EVERY),
    "stable_last": (lambda e: e.sort_by("q", maintain_order=True).last(), EVERY),
    "steps": (lambda e: e.diff().abs().max(), ["i", "w"]),
}  # fmt: skip

CASES = sum(len(columns) for _, columns in AGGREGATES.values())
MISALIGNED = ("bare", "min_by", "max_by", "latest", "earliest", "stable_last")
"""Filtering the values alone would leave the keys beside them longer."""


@pytest.mark.parametrize("name", AGGREGATES)
def test_each_aggregate_over_each_type(name):
    aggregate, columns = AGGREGATES[name]
    exprs = [aggregate(c(column)).alias(f"{name}_{column}") for column in columns]
    rng = random.Random(name)
    for frame, pieces in zip(FRAMES, (1, 15, 6), strict=True):
        check(exprs, frame, rng, sizes=(pieces,))
    check(exprs, FRAMES[1], rng, keys=("k", "b"))
    check(exprs, FRAMES[1], rng, keys=())
    if name not in MISALIGNED:
        filtered = [aggregate(c(column).filter(c.q)).alias(f"{name}_{column}") for column in columns]
        check(filtered, FRAMES[0], rng, sizes=(15,))


def test_the_table_is_large():
    assert CASES > 400


COMPOSED = [
    c.i.sum() / pl.len(),
    (c.i * c.w).sum() / c.w.sum(),
    c.i.max() - c.i.min(),
    (c.i.filter(c.q) * c.w.filter(c.q) + 1).sum(),
    c.i.filter(c.b).sum() - c.i.filter(~c.b).sum(),
    c.i.filter(c.b & (c.w > 0)).mean().fill_null(-1),
    c.i8.min() + c.i8.max(),
    c.i32.sum() * 2,
    c.i.cast(pl.Float32).mean(),
    c.f32.sum() * 2,
    c.b.sum() / c.b.count(),
    pl.coalesce(c.i.filter(c.q).first(), c.i8.max(), 0),
    pl.when(c.b.any()).then(c.i.sum()).otherwise(c.w.mean()),
    pl.when(c.i.sum() > 0).then(1).otherwise(2),
    pl.struct(c.i.sum(), c.w.max().alias("top"), pl.len()),
    pl.concat_str(c.s.first(), c.s.last(), separator="-", ignore_nulls=True),
    pl.max_horizontal(c.i.max(), c.i8.max()),
    c.t.max() - c.t.min(),
    c.t.max().dt.truncate("1d"),
    c.s.str.len_chars().max(),
    c.s.str.to_uppercase().n_unique(),
    pl.struct("i8", "s").n_unique(),
    c.l.list.sum().sum(),
    c.st.struct.field("x").max(),
    c.i.abs().sqrt().sum().round(6),
    c.w.quantile(0.75) - c.w.quantile(0.25),
    c.i.unique().len(),
    c.i.drop_nulls().unique().sort().head(2),
    c.i.sort(descending=True).head(3).sum(),
    c.i.implode().list.len(),
    c.s.drop_nulls().str.join("-"),
    c.s.str.join(","),
    c.i.drop_nulls().last(),
    c.f.drop_nans().mean(),
    c.f.drop_nans().max(),
    c.f.drop_nans().drop_nulls().first(),
    (c.i > 3).any() & c.w.is_not_null().all(),
    c.i.is_in([1, 2, 3]).sum(),
    (c.i.sum() > 3) & (c.s.count() < 9),
    -c.i.sum(),
    ~c.b.any(),
    c.i.var().sqrt() / c.i.mean(),
    c.w.filter(c.w > 0).std(),
    c.i.sum().alias("renamed").name.suffix("_x"),
    pl.lit(7),
    pl.lit(7) + c.i.sum(),
    c.dec.sum() * 2,
    c.dur.sum() / 2,
    c.i.filter(c.q).min_by(c.w.filter(c.q)),
    c.s.filter(c.q).sort_by(c.n.filter(c.q), descending=True).first(),
    c.s.filter(c.q).sort_by(c.i8.filter(c.q), c.n.filter(c.q), nulls_last=True).last(),
    c.n.filter(c.q).arg_max(),
    c.k.first(),
    c.k.sum() + c.i.count(),
    pl.sql_expr("SUM(i)"),
    pl.sql_expr("COUNT(*)"),
    pl.sql_expr("COUNT(i)"),
    pl.sql_expr("COUNT(DISTINCT i8)"),
    pl.sql_expr("AVG(w)"),
    pl.sql_expr("STDDEV(w)"),
    pl.sql_expr("MIN(t)"),
    pl.sql_expr("SUM(i) FILTER (WHERE w > 1)"),
    pl.sql_expr("SUM(CASE WHEN b THEN i ELSE 0 END) * 1.0 / COUNT(*)"),
]


@pytest.mark.parametrize("expr", COMPOSED, ids=lambda expr: str(expr)[:70])
def test_arithmetic_filters_and_casts_around_and_inside(expr):
    rng = random.Random(str(expr))
    check([expr.alias("out")], FRAMES[0], rng, sizes=(2, 15))
    check([expr.alias("out")], FRAMES[1], rng, keys=("s", "b"))


NOT_TAKEN_APART = [
    (c.i - c.i.mean(), 'col("i")'),
    ((c.i - c.i.mean()).abs().sum(), '[(col("i")) - (col("i").mean())].abs().sum()'),
    (c.i.sum() + c.w, 'col("w")'),
    (c.i.rank().max(), 'col("i").rank().max()'),
    (c.i.shuffle().first(), 'col("i").shuffle().first()'),
    (c.i.sample(1).first(), None),
    (pl.corr("i", "w"), 'col("i").pearson_correlation([col("w")])'),
    (c.i.map_batches(lambda s: s.sum(), returns_scalar=True, return_dtype=pl.Int64), None),
    (c.i.map_batches(lambda s: s, return_dtype=pl.Int64).sum(), None),
    (c.i.filter(c.w > c.w.mean()).sum(), None),
    (c.i.filter(c.q).filter(c.q).sum(), None),
    (c.i.sort_by("w").head(2).sum(), None),
    (c.i.top_k_by("w", 2), None),
    (c.i.quantile(c.i8.max() / 1000), None),
    (c.i.cum_sum().over("b").last(), None),
    (c.i.get(0), None),
    (c.i.item(), None),
    (c.i.sum().rolling("t", period="1h").last(), None),
    (c.i.head(c.i8.max()).sum(), None),
    (c.d.sum(), None),
    (pl.lit(1).sum(), None),
    (pl.fold(pl.lit(0), lambda a, b: a + b, [c.i, c.i8]).sum(), None),
    (c.i.first() + c.i.filter(c.q), None),
    (c.i.is_in(c.i8.implode()).any(), None),
    (pl.when(c.i.sum() > 0).then(c.w).otherwise(0), None),
]


@pytest.mark.parametrize(("expr", "blamed"), NOT_TAKEN_APART, ids=lambda value: str(value)[:60])
def test_what_needs_all_rows_is_named(expr, blamed):
    found = decompose([c.i.sum(), expr.alias("out")], SCHEMA, ["k"])
    assert isinstance(found, Holistic)
    assert found.reason
    assert blamed is None or found.expression == blamed


class TestMistakesOfANaiveVersion:
    FRAME = pl.DataFrame(
        {"k": [1, 1, 1], "v": [5, 6, 7], "f": [1.5, 2.5, 3.5], "t": [datetime(2024, 1, 1)] * 3, "p": [True, False, False]},
        schema_overrides={"f": pl.Float32},
    )  # fmt: skip

    def through_slices(self, expr: pl.Expr) -> pl.Series:
        found = decompose([expr.alias("out")], self.FRAME.schema, ["k"])
        assert isinstance(found, Decomposition)
        parts = [one_shot(self.FRAME[at : at + 1], list(found.partial), ["k"]) for at in range(3)]
        return merged(parts, found.merge, ["k"]).select(found.finish)["out"]

    def test_filtered_first_and_last_ignore_batches_where_nothing_passed(self):
        assert self.through_slices(c.v.filter(c.p).last()).to_list() == [5]
        assert self.through_slices(c.v.filter(c.v > 5).first()).to_list() == [6]

    def test_mean_of_nothing_is_null(self):
        assert self.through_slices(c.v.filter(c.v > 99).mean()).to_list() == [None]

    @pytest.mark.parametrize("column", ["f", "t"])
    def test_mean_keeps_its_type(self, column):
        assert (
            self.through_slices(c(column).mean()).dtype
            == self.FRAME.group_by("k").agg(c(column).mean())[column].dtype
        )

    def test_a_filtered_null_is_a_value_like_any(self):
        assert self.through_slices(pl.when(c.v > 5).then(c.v).filter(c.v < 7).first()).to_list() == [None]


def test_variance_does_not_drown_in_a_large_mean():
    frame = FRAMES[2].select("k", v=c.w + 1e9)
    found = decompose([c.v.var()], frame.schema, ["k"])
    assert isinstance(found, Decomposition)
    got = in_pieces(frame, found, ["k"], random.Random(5), 40)
    exact = frame.group_by("k", maintain_order=True).agg((c.v - 1e9).var())
    assert_frame_equal(got, exact, rel_tol=1e-6)


def test_among_equal_keys_the_first_counts_even_when_they_are_known_to_be_sorted():
    frame = pl.DataFrame({"k": [0] * 6, "v": [1, 0, 0, 0, 0, 0], "n": range(6)})
    found = decompose([c.n.min_by("v"), c.v.arg_min()], frame.schema, ["k"])
    assert isinstance(found, Decomposition)
    parts = [one_shot(frame[at : at + 1], list(found.partial), ["k"]) for at in range(6)]
    done = merged([part.set_sorted("k") for part in parts], found.merge, ["k"]).select(found.finish)
    assert done.to_dicts() == [{"n": 1, "v": 1}]


def test_a_decomposition_travels_to_other_processes():
    found = decompose([c.w.var(), c.s.filter(c.q).last()], SCHEMA, ["k"])
    travelled = pickle.loads(pickle.dumps(found))
    assert isinstance(travelled, Decomposition)
    assert travelled.columns == found.columns
    expected = one_shot(FRAMES[0], [c.w.var(), c.s.filter(c.q).last()], ["k"])
    nearly(in_pieces(FRAMES[0], travelled, ["k"], random.Random(1), 5), expected)


def test_equal_parts_are_shared():
    found = decompose(
        [c.w.mean(), c.w.sum().alias("x"), c.w.count().alias("n"), c.w.var().alias("v")], SCHEMA, ["k"]
    )
    assert isinstance(found, Decomposition)
    assert len(found.columns) == 4
    assert found.kept_values == ()
    assert not found.invertible


def test_what_can_be_taken_back():
    exprs = [c.i.sum(), pl.len(), c.i.mean().alias("m"), c.i.filter(c.q).count().alias("n")]
    found = decompose(exprs, SCHEMA, ["k"], retracting=True)
    assert isinstance(found, Decomposition)
    assert found.invertible
    # Else a mean is kept as a sum of floats, which is one column and rounds.
    found = decompose(exprs, SCHEMA, ["k"])
    assert isinstance(found, Decomposition)
    assert not found.invertible


def test_kept_values_are_told():
    found = decompose([c.i.sum(), c.w.quantile(0.5)], SCHEMA, ["k"])
    assert isinstance(found, Decomposition)
    assert len(found.kept_values) == 1


def test_state_columns_never_collide_with_the_users():
    frame = FRAMES[0].rename({"i": "__s0", "k": "__s1"})
    check([c("__s0").sum().alias("out")], frame, random.Random(0), keys=("__s1",))


def fold_in_place(how: str, kept: pl.Series, new: pl.Series) -> pl.Series:
    """What a table of NumPy columns does, one value at a time."""
    choose = {
        "min": lambda a, b: b if b < a or a != a else a,
        "max": lambda a, b: b if b > a or a != a else a,
    }
    match how:
        case "sum" if kept.dtype.is_integer():
            with np.errstate(over="ignore"):
                return pl.Series(kept.to_numpy() + new.to_numpy(), dtype=kept.dtype)
        case "sum":
            return kept + new
        case "first":
            return kept
        case "last":
            return new
    pairs = zip(kept.to_list(), new.to_list(), strict=True)
    picked = [b if a is None else a if b is None else choose[how](a, b) for a, b in pairs]
    return pl.Series(picked, dtype=kept.dtype)


def test_folding_in_place_is_merging():
    names = ["i", "big", "i32", "u8", "u32", "f", "w", "inf", "b", "s", "d", "t", "dur", "dec"]
    exprs = [pl.len().alias("len"), c.b.any().alias("any"), c.b.all().alias("all")]
    for how in ("sum", "min", "max", "first", "last"):
        for name in names:
            if how == "sum" and name in ("s", "d", "t"):
                continue
            exprs.append(getattr(c(name), how)().alias(f"{how}_{name}"))
    found = decompose(exprs, SCHEMA, ["k"])
    assert isinstance(found, Decomposition)
    assert all(column.how != "frame" for column in found.columns)
    frame = FRAMES[2].with_columns(k=pl.lit(0))
    parts = [one_shot(frame[at : at + 4], list(found.partial), ["k"]) for at in range(0, 160, 4)]
    expected = merged(parts, found.merge, ["k"])
    for column in found.columns:
        series = [part[column.name] for part in parts]
        folded = functools.reduce(functools.partial(fold_in_place, column.how), series)
        assert column.nullable or all(part.null_count() == 0 for part in series)
        assert_frame_equal(folded.to_frame(column.name), expected.select(column.name), rel_tol=1e-9)


class Trees:
    """Random aggregations that can be taken apart."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def row_number(self, depth: int) -> pl.Expr:
        if depth == 0:
            return self.rng.choice(
                [
                    c.i,
                    c.i8,
                    c.w,
                    c.u8,
                    c.i.cast(pl.Float64),
                    c.l.list.len(),
                    c.s.str.len_chars(),
                    c.b.cast(pl.Int8),
                ]
            )
        number = lambda: self.row_number(depth - 1)  # noqa: E731
        return self.rng.choice(
            [
                lambda: number().cast(pl.Float64) + number(), lambda: number().cast(pl.Int64, strict=False) - 3,
                lambda: pl.when(self.row_truth(depth - 1)).then(number()), lambda: number().fill_null(1),
                lambda: pl.coalesce(number(), c.w), lambda: number().cast(pl.Int64, strict=False) % 7,
            ]
        )()  # fmt: skip

    def row_truth(self, depth: int) -> pl.Expr:
        return self.rng.choice(
            [c.b, c.q, c.s.str.contains("a"), self.row_number(max(depth - 1, 0)) > 2, c.i.is_in([1, 2])]
        )

    def values(self) -> pl.Expr:
        expr = self.row_number(self.rng.randint(0, 2))
        return self.rng.choice(
            [lambda: expr, lambda: expr.filter(self.row_truth(1)), lambda: expr.drop_nulls()]
        )()

    def aggregate(self) -> pl.Expr:
        plain = [
            "sum", "mean", "min", "max", "count", "len", "first", "last", "n_unique", "median", "var", "std", "null_count",
            "nan_max", "arg_min", "product",
        ]  # fmt: skip
        name = self.rng.choice([*plain, "quantile", "min_by", "truth"])
        if name == "product":
            return (self.values() % 3).cast(pl.Float64, strict=False).product()
        if name == "quantile":
            return self.values().quantile(self.rng.choice([0.1, 0.9]), "linear")
        if name == "min_by":
            return self.row_number(1).max_by("n")
        if name == "truth":
            return getattr(self.row_truth(1), self.rng.choice(["any", "all"]))().cast(pl.Int32)
        return getattr(self.values(), name)()

    def number(self, depth: int) -> pl.Expr:
        if depth == 0:
            return self.rng.choice(
                [self.aggregate(), self.aggregate(), self.aggregate(), pl.len(), pl.lit(2)]
            )
        number = lambda: self.number(depth - 1).cast(pl.Float64)  # noqa: E731
        return self.rng.choice(
            [
                lambda: number() + number(), lambda: number() * 2, lambda: number() - number(), lambda: number().fill_null(0),
                lambda: pl.when(number().is_not_null()).then(number()).otherwise(1), lambda: pl.coalesce(number(), number()),
                lambda: number().abs(), lambda: pl.struct(v=number()).struct.field("v"),
                lambda: self.number(depth - 1), lambda: pl.max_horizontal(number(), number()),
            ]
        )()  # fmt: skip


def check_random_aggregation(seed: int) -> None:
    trees = Trees(seed)
    rng = random.Random(seed)
    exprs = [trees.number(rng.randint(0, 2)).alias(f"out{at}") for at in range(3)]
    check(
        exprs,
        rng.choice(FRAMES),
        rng,
        keys=rng.choice([("k",), ("k", "q"), ()]),
        sizes=(rng.choice([1, 5, 25]),),
    )


@pytest.mark.parametrize("start", range(0, 150, 10))
def test_random_aggregations(start):
    for seed in range(start, start + 10):
        check_random_aggregation(seed)


@pytest.mark.slow
def test_many_random_aggregations():
    for seed in range(10_000, 12_000):
        check_random_aggregation(seed)
