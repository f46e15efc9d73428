"""Row-wise or not: a table over all namespaces, and what the word promises, tried on random cuts."""

# ruff: noqa: E501 - tables

import random
import warnings
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from unistream.expressions.analysis import columns_read, is_constant, is_row_wise, why_not_row_wise

warnings.filterwarnings("ignore", category=pl.exceptions.PolarsInefficientMapWarning)
c, lit = pl.col, pl.lit
element = pl.element


def make_frame(rng: random.Random, rows: int) -> pl.DataFrame:
    def some(make, nulls=0.2):
        return [None if rng.random() < nulls else make() for _ in range(rows)]

    word = lambda: "".join(rng.choice("abAB 1,") for _ in range(rng.randint(0, 5)))  # noqa: E731
    small = lambda: rng.randint(-4, 9)  # noqa: E731
    moment = lambda: datetime(2024, 1, 31) + timedelta(minutes=rng.randint(0, 10**6))  # noqa: E731
    columns = {
        "i": (some(small), pl.Int64),
        "j": (some(small), pl.Int64),
        "n": (some(lambda: rng.randint(0, 3), 0), pl.Int64),
        "u": (some(lambda: rng.randint(0, 255)), pl.UInt8),
        "f": (
            some(lambda: rng.choice([0.5, -1.25, 3.75, float("nan"), float("inf"), rng.random()])),
            pl.Float64,
        ),
        "b": (some(lambda: rng.random() < 0.5), pl.Boolean),
        "q": (some(lambda: rng.random() < 0.5), pl.Boolean),
        "s": (some(word), pl.String),
        "p": (some(word, 0), pl.String),
        "day": (some(lambda: moment().strftime("%Y-%m-%d"), 0), pl.String),
        "js": (some(lambda: f'{{"x": {small()}}}'), pl.String),
        "d": (some(lambda: moment().date()), pl.Date),
        "t": (some(moment), pl.Datetime("us")),
        "z": (some(moment), pl.Datetime("us", "UTC")),
        "dur": (some(lambda: timedelta(seconds=rng.randint(-9999, 9999))), pl.Duration("us")),
        "tm": (some(lambda: time(rng.randint(0, 23), rng.randint(0, 59))), pl.Time),
        "l": (some(lambda: [small() for _ in range(rng.randint(1, 4))]), pl.List(pl.Int64)),
        "m": (some(lambda: [small() for _ in range(rng.randint(0, 4))], 0), pl.List(pl.Int64)),
        "ls": (some(lambda: [word() for _ in range(rng.randint(0, 3))]), pl.List(pl.String)),
        "a": (some(lambda: [small() for _ in range(3)]), pl.Array(pl.Int64, 3)),
        "st": (some(lambda: {"x": small(), "y": word()}), pl.Struct({"x": pl.Int64, "y": pl.String})),
        "cat": (some(lambda: rng.choice("xyz")), pl.Categorical),
        "en": (some(lambda: rng.choice("xyz")), pl.Enum(["x", "y", "z"])),
        "bin": (some(lambda: word().encode()), pl.Binary),
        "dec": (some(lambda: Decimal(rng.randint(-999, 999)) / 100), pl.Decimal(10, 2)),
    }
    return pl.DataFrame({name: pl.Series(name, values, dtype) for name, (values, dtype) in columns.items()})


FRAME = make_frame(random.Random(7), 61)

ROW_WISE = [
    # arithmetic, comparison, logic
    c.i, c.i + c.j, c.i - 1, c.i * c.f, c.i / c.j, c.i // 3, c.f / 3, c.i % 3, -c.i, abs(c.i), c.i**2, c.i.pow(c.n), +c.i,
    c.i == c.j, c.i != 3, c.i < c.j, c.i >= 0, c.i.eq_missing(c.j), c.i.ne_missing(None), c.b & c.q, c.b | c.q,
    c.b ^ c.q, ~c.b, c.b.not_(), c.i.and_(3), c.i.xor(c.j), c.i.is_between(0, 5), c.i.is_between(c.j, 5),
    c.i.truncdiv(2), c.f.is_close(0.5), c.dec + 1, c.dec * c.dec, c.t - c.t.dt.truncate("1h"), c.t + c.dur,
    # mathematics
    c.f.sqrt(), c.f.cbrt(), c.f.exp(), c.f.log(), c.f.log(2), c.f.log10(), c.f.log1p(), c.f.sin(), c.f.arctan(),
    c.f.tanh(), c.f.degrees(), c.f.floor(), c.f.ceil(), c.f.round(1), c.f.round_sig_figs(2), c.f.sign(),
    c.f.truncate(), pl.arctan2("f", "i"), c.i.clip(0, 5), c.i.clip(c.j, 9), c.u.bitwise_count_ones(),
    c.u.bitwise_leading_zeros(), c.i.hash(3), c.i.reinterpret(signed=False),
    # nulls, membership, replacement, conditions
    c.i.fill_null(0), c.i.fill_null(c.j), c.f.fill_nan(None), c.i.is_null(), c.i.is_not_null(), c.f.is_nan(),
    c.f.is_finite(), c.f.is_infinite(), c.i.is_in([1, 2, 3]), c.i.is_in({1, 2}), c.i.is_in(pl.Series([1, 2])),
    c.i.is_in(lit(pl.Series([1, 2])).implode()), c.i.is_in([1, None], nulls_equal=True), c.s.is_in(["a", "b"]),
    c.i.replace({1: 2}), c.i.replace([1, 2], [3, 4]), c.i.replace_strict([1], [2], default=0),
    c.i.replace_strict({1: "a"}, default=None), c.i.replace_strict([1], [2], default=c.j),
    pl.when(c.i > 1).then(c.j).otherwise(0), pl.when(c.b).then(1).when(c.q).then(c.i), pl.coalesce("i", "j", 0),
    c.i.cut([0, 3]), c.i.repeat_by("n"),
    # casts
    c.i.cast(pl.Float32), c.i.cast(pl.dtype_of("u"), strict=False), c.i.cast(pl.String), c.i.cast(pl.Int8, strict=False), c.f.cast(pl.Int64, strict=False),
    c.s.cast(pl.Int64, strict=False), c.d.cast(pl.Datetime("ms")),
    c.s.cast(pl.Categorical), c.cat.cast(pl.String), c.b.cast(pl.Int8), c.t.cast(pl.Int64), c.i.cast(pl.Decimal(9, 1)),
    c.l.cast(pl.List(pl.Float64)), c.t.to_physical(), c.i.alias("z"), c.i.name.suffix("_x"), c.i.name.keep(),
    (c.i + 1).name.prefix("p_"), c.s.name.to_uppercase(), c.st.name.prefix_fields("f_"),
    # horizontal
    pl.sum_horizontal("i", "j"), pl.mean_horizontal("i", "f"), pl.min_horizontal("i", 3), pl.max_horizontal("i", "j"),
    pl.all_horizontal("b", "q"), pl.any_horizontal("b", "q"), pl.sum_horizontal(cs.integer()), pl.struct("i", "s"),
    pl.struct(x=c.i + 1), pl.concat_str("s", "p", separator="-"), pl.concat_list("i", "j"), pl.concat_arr("i", "j"),
    pl.format("{}:{}", "s", "i"), pl.datetime("n", 1, 1), pl.date(2020, c.n + 1, 1), pl.duration(hours="i"),
    pl.from_epoch("i"), pl.int_ranges(0, "n"),
    # strings
    c.s.str.len_chars(), c.s.str.len_bytes(), c.s.str.to_uppercase(), c.s.str.to_lowercase(), c.s.str.contains("a"),
    c.s.str.contains(c.p, literal=True), c.s.str.contains_any(["a", "b"]), c.s.str.starts_with("a"),
    c.s.str.ends_with(c.p), c.s.str.strip_chars(), c.s.str.strip_chars_start("a"), c.s.str.strip_prefix("a"),
    c.s.str.replace("a", "x"), c.s.str.replace_all("a", c.p), c.s.str.replace_many(["a", "b"], ["x", "y"]),
    c.s.str.replace_many({"a": "x"}), c.s.str.slice(1, 2), c.s.str.head(2), c.s.str.tail(c.n), c.s.str.split(","),
    c.s.str.split_exact(",", 1), c.s.str.splitn(",", 2), c.s.str.extract(r"(\d)"), c.s.str.extract_all("[ab]"),
    c.s.str.extract_groups("(?<x>a)"), c.s.str.extract_many(["a", "b"]), c.s.str.find("a"), c.s.str.find_many(["a"]),
    c.s.str.count_matches("a"), c.s.str.pad_start(4, "_"), c.s.str.pad_end(4), c.s.str.zfill(4), c.s.str.reverse(),
    c.s.str.encode("hex"), c.day.str.to_date("%Y-%m-%d"), c.day.str.to_datetime("%Y-%m-%d"),
    c.day.str.strptime(pl.Date, "%F"), c.s.str.to_integer(strict=False), c.js.str.json_path_match("$.x"),
    c.js.str.json_decode(pl.Struct({"x": pl.Int64})), c.s.str.escape_regex(), c.s.str.normalize(), c.s.str.to_titlecase(),
    c.s.str.to_decimal(scale=2),
    # binary and categories
    c.bin.bin.size(), c.bin.bin.contains(b"a"), c.bin.bin.starts_with(b"a"), c.bin.bin.encode("hex"), c.bin.bin.slice(0, 2),
    c.cat.cat.len_chars(), c.cat.cat.starts_with("x"), c.cat == "x", c.en.cast(pl.String), c.en > "x",
    # time
    c.t.dt.year(), c.t.dt.month(), c.t.dt.hour(), c.t.dt.weekday(), c.t.dt.date(), c.t.dt.time(), c.t.dt.truncate("1h"),
    c.t.dt.round("1d"), c.t.dt.offset_by("1mo"), c.t.dt.epoch("s"), c.t.dt.timestamp("ms"), c.t.dt.strftime("%H"),
    c.t.dt.to_string("iso"), c.t.dt.month_start(), c.t.dt.month_end(), c.t.dt.replace_time_zone("UTC"),
    c.z.dt.convert_time_zone("Europe/Zurich"), c.z.dt.base_utc_offset(), c.t.dt.cast_time_unit("ms"), c.t.dt.replace(day=1),
    c.dur.dt.total_seconds(), c.dur.dt.total_minutes(), c.tm.dt.hour(), c.d.dt.combine(time(1)), c.d.dt.is_leap_year(),
    c.d.dt.is_business_day(), c.d.dt.is_business_day(holidays=[date(2024, 2, 5)]), pl.business_day_count("d", date(2025, 1, 1)),
    c.d.dt.quarter(), c.d.dt.ordinal_day(), c.d > date(2024, 6, 1), c.t.dt.truncate(c.p.replace_strict({}, default="1h")),
    # lists and arrays
    c.l.list.len(), c.l.list.sum(), c.l.list.min(), c.l.list.max(), c.l.list.mean(), c.l.list.median(), c.l.list.std(),
    c.l.list.first(), c.l.list.last(), c.l.list.get(0), c.l.list.get(c.n, null_on_oob=True), c.l.list.sort(),
    c.l.list.reverse(), c.l.list.unique(maintain_order=True), c.l.list.n_unique(), c.l.list.contains(1),
    c.l.list.contains(c.i), c.l.list.slice(0, 2), c.l.list.head(c.n), c.l.list.shift(1), c.l.list.diff(),
    c.l.list.eval(element() + 1), c.l.list.eval(element().sum()), c.l.list.eval(element().cum_sum()),
    c.l.list.eval(element().sort().head(1)), c.l.list.agg(element().max()), c.l.list.filter(element() > 1),
    c.l.list.eval(element() - element().mean()), c.ls.list.join("-"), c.ls.list.eval(element().str.len_chars()),
    c.l.list.set_union("m"), c.l.list.set_intersection("m"), c.l.list.concat("m"), c.l.list.count_matches(1),
    c.l.list.drop_nulls(), c.l.list.arg_max(), c.l.list.to_struct(fields=["x", "y"]), c.l.list.gather([0]),
    c.l.list.gather_every(2), c.a.arr.sum(), c.a.arr.get(1), c.a.arr.max(), c.a.arr.to_list(), c.a.arr.contains(1),
    c.a.arr.sort(), c.a.arr.eval(element() * 2), c.a.arr.to_struct(), c.a.arr.n_unique(), c.l.list.any(),
    # structs
    c.st.struct.field("x"), c.st.struct.rename_fields(["v", "w"]), c.st.struct.json_encode(),
    c.st.struct.with_fields(pl.field("x") + 1), c.st.struct.with_fields(z=pl.field("x") + c.i), c.st == c.st,
    c.st.struct.field("x", "y"), c.st.struct.drop(["x"]),
    # Python that promises, constants, SQL
    c.i.map_elements(lambda x: x + 1, return_dtype=pl.Int64), lit(3), lit("x") + "y", lit(date(2020, 1, 1)), c.i + lit(1),
    c.i.map_batches(lambda s: s + 1, return_dtype=pl.Int64, is_elementwise=True),
    pl.sql_expr("i + 1"), pl.sql_expr("CASE WHEN i > 1 THEN 'a' ELSE 'b' END"), pl.sql_expr("UPPER(s)"), pl.sql_expr("i * 2 % 3"), pl.sql_expr("i / 3"), pl.sql_expr("i IN (1, 2)"), pl.sql_expr("ROUND(f, 1)"), pl.sql_expr("POWER(i, 2)"),
]  # fmt: skip

NOT_ROW_WISE = {
    "aggregates": [
        c.i.sum(), c.i.mean(), c.i.min(), c.i.max(), c.i.count(), c.i.len(), pl.len(), c.i.std(), c.i.var(), c.i.median(),
        c.i.quantile(0.5), c.i.first(), c.i.last(), c.i.n_unique(), c.i.approx_n_unique(), c.b.any(), c.b.all(),
        c.i.product(), c.i.null_count(), c.i.arg_min(), c.i.arg_max(), c.i.implode(), c.i.skew(), c.i.kurtosis(), c.f.entropy(),
        c.i.min_by("j"), c.i.has_nulls(), c.i.is_sorted(), c.f.nan_max(), c.i.sum() / pl.len(), c.i - c.i.mean(),
        c.i.fill_null(c.i.mean()), pl.when(c.i > c.i.mean()).then(1), (c.i * c.j).sum().fill_null(0), c.i.get(0), c.i.item(),
        c.i.is_in(c.j.implode()), c.i.clip(c.j.min(), 5), pl.corr("i", "j"), c.i.dot("j"), c.s.str.join(","), c.i.bitwise_and(),
        pl.struct(c.i, c.j.max()), c.i.replace_strict([1], [2], default=c.j.max()), pl.sql_expr("SUM(i)"),
        c.l.list.contains(c.i.max()), c.i.index_of(1), c.i.sort_by("j").first(), c.i.filter(c.b).sum(),
    ],
    "looks at other rows": [
        c.i.shift(1), c.i.diff(), c.i.pct_change(), c.i.cum_sum(), c.i.cum_max(), c.i.cum_count(), c.i.cum_prod(), c.i.rank(),
        c.i.rolling_mean(3), c.i.rolling_sum_by("t", "1h"), c.f.ewm_mean(alpha=0.5), c.f.interpolate(), c.i.forward_fill(),
        c.i.backward_fill(), c.i.fill_null(strategy="forward"), c.i.fill_null(strategy="mean"), c.i.reverse(), c.i.sort(),
        c.i.sort_by("j"), c.i.is_duplicated(), c.i.is_unique(), c.i.is_first_distinct(), c.i.is_last_distinct(), c.i.sum().over("s"),
        c.i.over("s"), c.i.first().over("s", order_by="t"), c.i.rle_id(), c.i.qcut(3), c.i.peak_max(), c.i.arg_sort(),
        c.i.cumulative_eval(element().sum()), c.i.sum().rolling("t", period="1h"), c.i - c.i.shift(1), c.i.cum_sum() * 2,
        c.i.is_in(c.j), c.i.shift(-1),
        (c.i + c.j.diff()).abs(), pl.struct(c.i, c.j.shift(1)), c.l.list.get(c.n.rank()), c.i.ewm_mean_by("t", half_life="1h"),
    ],
    "guesses the format from the first values": [
        c.day.str.to_date(), c.day.str.to_datetime(), c.day.str.to_datetime(strict=False), c.day.str.strptime(pl.Datetime),
    ],
    "changes the number of rows": [
        c.i.filter(c.b), c.i.head(2), c.i.tail(2), c.i.slice(1, 2), c.i.unique(), c.i.drop_nulls(), c.f.drop_nans(), c.l.explode(),
        c.i.mode(), c.i.value_counts(), c.i.gather([0, 1]), c.i.gather_every(2), c.i.arg_unique(), c.b.arg_true(),
        c.i.top_k(2), c.i.bottom_k(2), c.i.extend_constant(1, 2), c.i.rle(), c.i.limit(2),
        c.i.unique_counts(), c.i.hist(bin_count=2), pl.int_range(0, 5), pl.int_range(3),
        c.i.top_k_by("j", 2), c.i + c.j.drop_nulls(), c.l.list.explode(), c.s.str.split(",").explode(), c.i.repeat_by("n").explode(),
    ],
    "is random": [
        c.i.shuffle(), c.i.sample(3), c.i.shuffle(seed=1), c.l.list.sample(1), c.l.list.eval(element().shuffle()), c.i + c.j.shuffle(),
        c.l.list.eval(element().sample(1)), c.i.sample(fraction=1.0),
    ],
    "not known to be row-wise": [
        c.i.map_batches(lambda s: s, return_dtype=pl.Int64), lit(pl.Series([1, 2])), c.i + lit(pl.Series(range(61))),
        pl.fold(lit(0), lambda a, b: a + b, [c.i, c.j]), pl.reduce(lambda a, b: a + b, [c.i, c.j]),
        c.i.pipe_with_dtype(lambda e, _: e + 1), pl.cum_sum_horizontal("i", "j"), c.i.append(c.j), c.l.list.eval(element().map_batches(lambda s: s)),
        pl.map_batches(["i", "j"], lambda s: s[0], return_dtype=pl.Int64), c.i.inspect(),
    ],
}  # fmt: skip

CASES_NOT = [(kind, expr) for kind, exprs in NOT_ROW_WISE.items() for expr in exprs]


def evaluate(frame: pl.DataFrame, expr: pl.Expr) -> pl.DataFrame:
    """Beside a column, so that constants are repeated."""
    return frame.select(pl.col("n").alias("__anchor"), expr)


def cuts(rng: random.Random, rows: int) -> list[tuple[int, int]]:
    ends = sorted({rows, *(rng.randrange(1, rows) for _ in range(rng.randint(1, 6)))})
    return [(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def check_cut_invariant(frame: pl.DataFrame, expr: pl.Expr, rng: random.Random) -> None:
    """To the last bit of floats: Polars divides many rows by a number through its reciprocal, one row not."""
    whole = evaluate(frame, expr)
    assert whole.height == frame.height
    for pieces in (cuts(rng, frame.height), [(at, 1) for at in range(frame.height)]):
        parts = [evaluate(frame.slice(start, length), expr) for start, length in pieces]
        assert_frame_equal(pl.concat(parts), whole, rel_tol=1e-13, abs_tol=0)


def test_the_table_is_large():
    assert len(ROW_WISE) > 200
    assert len(CASES_NOT) > 120


@pytest.mark.parametrize("expr", ROW_WISE, ids=lambda expr: str(expr)[:70])
def test_row_wise_and_equal_under_any_cut(expr):
    assert why_not_row_wise(expr) is None
    assert is_row_wise(expr)
    check_cut_invariant(FRAME, expr, random.Random(str(expr)))


@pytest.mark.parametrize(("kind", "expr"), CASES_NOT, ids=lambda value: str(value)[:70])
def test_not_row_wise_with_the_reason(kind, expr):
    reason = why_not_row_wise(expr)
    assert reason is not None
    assert (reason.kind, bool(reason.hint)) == (kind, True)
    assert not is_row_wise(expr)


class Trees:
    """Random expressions that know whether something in them is not row-wise."""

    def __init__(self, seed: int, spoil: float) -> None:
        self.rng, self.spoil, self.spoiled = random.Random(seed), spoil, False

    def number(self, depth: int) -> pl.Expr:
        if depth == 0:
            return self.rng.choice(
                [c.i, c.j, c.n, c.f, c.l.list.sum(), c.st.struct.field("x"), lit(2), lit(None, pl.Int64)]
            )
        if self.rng.random() < self.spoil:
            self.spoiled = True
            return self.rng.choice(
                [
                    lambda e: e.sum(), lambda e: e.shift(1), lambda e: e.cum_sum(), lambda e: e.max().over("s"), lambda e: e.rank(),
                    lambda e: e.forward_fill(), lambda e: e.filter(c.b).mean(), lambda e: e.sort_by("t").last(), lambda e: e.diff(),
                ]
            )(self.column(depth - 1))  # fmt: skip
        number = lambda: self.number(depth - 1)  # noqa: E731
        return self.rng.choice(
            [
                lambda: number() + number(), lambda: number() - number(), lambda: number() * number(), lambda: number() / number(),
                lambda: number().fill_null(number()), lambda: pl.when(self.truth(depth - 1)).then(number()).otherwise(number()),
                lambda: pl.coalesce(number(), number()), lambda: pl.max_horizontal(number(), number()), lambda: number().abs(),
                lambda: number().cast(pl.Float64).round(1), lambda: self.word(depth - 1).str.len_chars().cast(pl.Int64),
                lambda: pl.struct(v=number(), w=self.word(depth - 1)).struct.field("v"), lambda: c.l.list.eval(element() * 2).list.max(),
                lambda: pl.concat_list(number().cast(pl.Float64), c.f).list.max(), lambda: number().clip(-5, 5),
            ]
        )()  # fmt: skip

    def column(self, depth: int) -> pl.Expr:
        """A number that is never a bare constant, of which some aggregates are constants too."""
        return self.number(depth) + c.n

    def truth(self, depth: int) -> pl.Expr:
        if depth == 0:
            return self.rng.choice([c.b, c.q, c.i.is_null(), c.s.str.contains("a"), c.t.dt.hour() > 11])
        return self.rng.choice(
            [
                lambda: self.number(depth - 1) > self.number(depth - 1), lambda: self.truth(depth - 1) & self.truth(depth - 1),
                lambda: ~self.truth(depth - 1), lambda: self.number(depth - 1).cast(pl.Float64).is_in([1.0, 2.0]),
                lambda: self.word(depth - 1).is_in(["a", "b"]), lambda: self.truth(depth - 1) | c.b,
            ]
        )()  # fmt: skip

    def word(self, depth: int) -> pl.Expr:
        if depth == 0:
            return self.rng.choice([c.s, c.p, c.t.dt.strftime("%H"), lit("a")])
        return self.rng.choice(
            [
                lambda: self.word(depth - 1).str.to_uppercase(), lambda: pl.concat_str(self.word(depth - 1), c.p),
                lambda: self.number(depth - 1).cast(pl.String), lambda: self.word(depth - 1).str.slice(0, 2),
                lambda: pl.when(self.truth(depth - 1)).then(self.word(depth - 1)).otherwise(c.s),
            ]
        )()  # fmt: skip


def check_random_tree(seed: int) -> bool:
    trees = Trees(seed, spoil=0.08)
    expr = trees.number(4).alias("out")
    assert is_row_wise(expr) is not trees.spoiled, str(expr)
    if not trees.spoiled:
        check_cut_invariant(FRAME, expr, random.Random(seed))
    return trees.spoiled


def test_random_trees():
    spoiled = [check_random_tree(seed) for seed in range(300)]
    assert 60 < sum(spoiled) < 240


@pytest.mark.slow
def test_many_random_trees():
    for seed in range(1000, 4000):
        check_random_tree(seed)


@pytest.mark.parametrize(
    "expr", [*ROW_WISE, *(expr for _, expr in CASES_NOT)], ids=lambda expr: str(expr)[:70]
)
def test_columns_read_are_enough_and_no_more(expr):
    if "python" in str(expr) or expr.meta.has_multiple_outputs():
        return
    schema = pl.Schema(FRAME.schema)
    try:
        expected = pl.LazyFrame(schema=schema).select(expr.alias("out")).collect_schema()
    except pl.exceptions.PolarsError:
        return
    read = columns_read(expr)
    only = pl.LazyFrame(schema={name: dtype for name, dtype in schema.items() if name in read})
    assert only.select(expr.alias("out")).collect_schema() == expected
    for name in read:
        with pytest.raises(pl.exceptions.PolarsError):
            only.drop(name).select(expr.alias("out")).collect_schema()


def test_membership_in_a_list_column_needs_the_schema():
    inside = c.i.is_in(c.m)
    assert not is_row_wise(inside)
    assert is_row_wise(inside, FRAME.schema)
    assert not is_row_wise(c.i.is_in(c.j), FRAME.schema)
    check_cut_invariant(FRAME, inside, random.Random(1))


@pytest.mark.parametrize(
    "expr",
    [c.i.replace(c.j, c.n), c.i.replace_strict(c.j, c.n, default=0), c.i.replace(1, c.n), c.i.is_in(c.j)],
    ids=str,
)
def test_a_column_in_place_of_a_set_means_the_whole_column(expr):
    for schema in (None, FRAME.schema):
        reason = why_not_row_wise(expr, schema)
        assert reason is not None
        assert reason.kind == "looks at other rows"


def test_several_lists_of_constants_belong_to_rows():
    assert not is_row_wise(c.i.is_in(pl.Series([[1], [2]])))


def test_the_outermost_offender_is_named():
    assert (
        str(why_not_row_wise((c.i.drop_nulls().sum() + 1).abs()))
        == '`col("i").drop_nulls().sum()` aggregates'
    )


def test_a_function_that_does_not_pickle_is_not_known():
    frame = iter([])  # iterators of generators do not pickle, and neither do functions that hold them
    generator = (item for item in frame)
    reason = why_not_row_wise(c.i.map_batches(lambda s: (generator, s)[1], is_elementwise=True))
    assert reason is not None
    assert reason.kind == "not known to be row-wise"


def test_constants():
    assert is_constant(lit(1) + 2)
    assert is_constant(pl.duration(days=1))
    assert not is_constant(c.i)
    assert not is_constant(pl.len())
    assert not is_constant(pl.int_range(0, 5))
