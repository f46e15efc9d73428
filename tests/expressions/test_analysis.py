"""What users pass, what comes out of it, and how a mistake is told."""

import random
import re
import threading

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand, output_schema, predicate, substitute
from unistream.expressions.expression_tree import UnknownExpression

STRUCT = pl.Struct({"x": pl.Int64, "y": pl.String})
SCHEMA = pl.Schema({"a": pl.Int64, "b": pl.Float64, "k": pl.String, "s": STRUCT, "l": pl.List(pl.Int64)})
FRAME = pl.DataFrame(
    {
        "a": [1, 2, None, -4],
        "b": [0.5, None, 2.0, 3.0],
        "k": ["u", "v", "u", None],
        "s": [{"x": 1, "y": "p"}, {"x": 2, "y": None}, None, {"x": 4, "y": "q"}],
        "l": [[1], [2, 3], [], None],
    },
    schema=SCHEMA,
)
LOCK = threading.Lock()


def case_name(value):
    """The name of a case: the same in every process, so without the addresses of objects."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))[:60]


SELECTIONS = [
    (["a", "b"], {}),
    ([["a", "k"]], {}),
    ([(name for name in "ab")], {}),
    ([pl.all()], {}),
    ([cs.numeric() * 2, cs.string()], {}),
    ([cs.numeric() - cs.by_name("a")], {}),
    ([pl.all().exclude("s", "l").name.suffix("_2")], {}),
    ([pl.col("a", "b") + pl.col("b", "a")], {}),
    (["^[ab]$"], {}),
    ([pl.col(pl.Int64, pl.Float64).cast(pl.String).name.prefix("p_")], {}),
    ([pl.sum_horizontal(cs.numeric())], {"whole": pl.struct(pl.all())}),
    ([pl.struct(cs.numeric().name.suffix("_z")).alias("packed")], {}),
    ([pl.concat_str(pl.col("k", "a"), separator="-").alias("t")], {}),
    ([pl.col("s").struct.field("*")], {}),
    ([pl.col("s").struct.unnest().name.to_uppercase()], {}),
    ([pl.col("s").struct.field("x", "y").name.prefix("f_")], {}),
    (
        [pl.when(pl.col("a") > 1).then("k").alias("w"), pl.when(pl.col("a", "b") > 1).then(pl.col("a", "b"))],
        {},
    ),
    ([1, "a"], {"z": "k", "none": None, "lists": [1, 2]}),
    ([pl.col("a").name.map(str.upper), pl.col("s").name.map_fields(str.upper)], {}),
    ([pl.nth(0), cs.last()], {}),
    ([pl.col("a").map_batches(lambda s: (LOCK, s)[1], return_dtype=pl.Int64)], {}),
    ([pl.lit(1)], {}),
    ([], {}),
]


@pytest.mark.parametrize(("exprs", "named"), SELECTIONS, ids=case_name)
def test_expanded_expressions_mean_what_polars_means(exprs, named):
    exprs = [list(expr) if hasattr(expr, "__next__") else expr for expr in exprs]
    expected = FRAME.select(*exprs, **named)
    expanded = expand(exprs, named, SCHEMA, "select")
    assert_frame_equal(FRAME.select(expanded), expected)
    assert [expr.meta.output_name() for expr in expanded] == expected.columns
    assert output_schema("select", expanded, SCHEMA) == expected.schema


GROUPED = [
    [pl.all().first()],
    [cs.string().count()],
    [pl.all().filter(pl.col("k") == "u").len()],
    [pl.col("a").sum(), pl.col("k").first().alias("first_key"), pl.len()],
    [cs.numeric().sum() / cs.numeric().count()],
]


@pytest.mark.parametrize("exprs", GROUPED, ids=case_name)
def test_selectors_leave_keys_out_of_aggregates(exprs):
    expected = FRAME.group_by("k", maintain_order=True).agg(*exprs)
    expanded = expand(exprs, {}, SCHEMA, "agg", keys=["k"])
    assert_frame_equal(FRAME.group_by("k", maintain_order=True).agg(expanded), expected)
    assert output_schema("agg", expanded, SCHEMA, keys=["k"]) == expected.schema


MISTAKES = [
    (["aa"], {}, "Column 'aa' not found in select.*did you mean 'a'"),
    ([pl.col("K") + 1], {}, "Column 'K' not found in select.*did you mean 'k'"),
    (["a", pl.col("b").alias("a")], {}, "Two outputs of select are called 'a'.*alias"),
    ([], {"z": pl.col("a", "b")}, "duplicate output name 'z'"),
    ([{"a": 1}], {}, "dictionary.*unpack"),
    ([len], {}, "cannot use a builtin_function_or_method.*pl.col"),
    ([object()], {}, "cannot use a object: cannot create expression literal"),
    ([pl.col("s").struct.field("xx")], {}, "No struct in select has a field 'xx'.*did you mean 'x'"),
    ([pl.col("k") + 1], {}, "str and dyn int.*cast"),
    ([pl.col("a").pipe_with_dtype(lambda e, _: e)], {}, "pipe_with_dtype"),
    ([cs.numeric().map_batches(lambda s: (LOCK, s)[1])], {}, "cannot be taken apart.*'a', 'b'"),
]


@pytest.mark.parametrize(("exprs", "named", "message"), MISTAKES, ids=case_name)
def test_mistakes_are_told_with_the_place_and_the_way_out(exprs, named, message):
    with pytest.raises(InvalidQuery, match=f"(?s){message}") as caught:
        expand(exprs, named, SCHEMA, "select", "job.py:12")
    assert caught.value.where == "job.py:12"


def test_polars_error_is_chained():
    with pytest.raises(InvalidQuery) as caught:
        expand(["zzz"], {}, SCHEMA, "select")
    assert isinstance(caught.value.__cause__, pl.exceptions.ColumnNotFoundError)


def test_a_key_cannot_be_an_output_too():
    with pytest.raises(InvalidQuery, match="in agg has the name of a key"):
        expand([pl.col("a").sum().alias("k")], {}, SCHEMA, "agg", keys=["k"])


@pytest.mark.parametrize(
    ("given", "constraints"),
    [
        ([pl.col("a") > 1], {}),
        ([pl.col("a") > 0, pl.col("b") < 3], {"k": "u"}),
        ([(pl.col("a") > 0).alias("named")], {}),
        ([[pl.col("a") > 0, pl.col("b") < 1]], {}),
        ([pl.all_horizontal(cs.numeric() > 0)], {}),
        ([True], {}),
        ([], {"k": None}),
    ],
    ids=case_name,
)
def test_predicates_mean_what_polars_means(given, constraints):
    combined = predicate(given, constraints, SCHEMA)
    assert_frame_equal(FRAME.filter(combined), FRAME.filter(*given, **constraints))
    assert output_schema("filter", [combined], SCHEMA) == SCHEMA


@pytest.mark.parametrize(
    ("given", "constraints", "message"),
    [
        ([], {}, "at least one predicate"),
        ([[True, False, True, True]], {}, "mask"),
        ([pl.Series([True] * 4)], {}, "mask"),
        ([cs.numeric() > 1], {}, "stands for 2 columns.*all_horizontal"),
        ([], {"kk": 1}, "Column 'kk' not found in filter.*did you mean 'k'"),
    ],
    ids=case_name,
)
def test_predicates_that_cannot_be(given, constraints, message):
    with pytest.raises(InvalidQuery, match=f"(?s){message}"):
        predicate(given, constraints, SCHEMA)


WRONG_TYPES = [
    ("filter", pl.col("a"), [], "must be of type `Boolean`.*compare it"),
    ("select", pl.col("a").str.len_chars(), [], "expected `String`.*cast the column"),
    ("with_columns", pl.col("k").str.to_date() + 1, [], "date and dyn int"),
    ("agg", pl.col("k").sum(), ["a"], "sum.*not supported for dtype `str`"),
    ("agg", pl.col("a").sum(), ["kk"], "Column 'kk' not found in agg"),
    ("agg", pl.col("a").str.to_uppercase().first(), ["k"], "expected `String`"),
    ("select", pl.col("a").cast(pl.Object), [], ""),
]


@pytest.mark.parametrize(("kind", "expr", "keys", "message"), WRONG_TYPES, ids=case_name)
def test_wrong_types_are_found_before_any_row(kind, expr, keys, message):
    with pytest.raises(InvalidQuery, match=f"(?s){message}") as caught:
        output_schema(kind, [expr], SCHEMA, where="job.py:3", keys=keys)
    assert caught.value.where == "job.py:3"


def test_what_fails_only_for_want_of_rows_is_no_mistake():
    assert output_schema("agg", [pl.col("a").get(0)], SCHEMA) == pl.Schema({"a": pl.Int64})
    assert output_schema("agg", [pl.col("a").item()], SCHEMA, keys=["k"])["a"] == pl.Int64


def test_python_functions_are_not_called_while_planning():
    called = []
    expr = pl.col("a").map_batches(lambda s: called.append(s), return_dtype=pl.Int8)
    assert output_schema("select", [expr], SCHEMA) == pl.Schema({"a": pl.Int8})
    assert called == []


PROJECTION = {
    "a": pl.col("a") * 2,
    "flag": pl.when(pl.col("b") > 1).then(1).otherwise(2),
    "one": pl.lit(1),
    "k": pl.col("k").str.to_uppercase(),
    "small": pl.col("a").cast(pl.Int8),
    "x": pl.col("s").struct.field("x"),
}

PUSHED = [
    pl.col("a") > 2,
    pl.struct("a", "k") == pl.struct(a=pl.lit(2, pl.Int64), k=pl.lit("U")),
    pl.col("flag") + pl.col("small"),
    pl.col("one") + pl.col("small"),
    (pl.col("flag") * 200).cast(pl.Int64) > 300,
    pl.col("k").is_in(["U"]) & pl.col("x").is_not_null(),
    pl.when(pl.col("k") == "U").then(pl.col("a")).otherwise(pl.col("flag")),
    pl.concat_list("a", "x").list.eval(pl.element() + 1),
    pl.col("a").map_elements(lambda v: v + 1, return_dtype=pl.Int64),
    pl.lit(True),
]


@pytest.mark.parametrize("expr", PUSHED, ids=case_name)
def test_substitution_is_exact(expr):
    projected = FRAME.select(value.alias(name) for name, value in PROJECTION.items())
    pushed = substitute(expr, PROJECTION, SCHEMA)
    expected = projected.select(pl.col("a").alias("beside"), expr.alias("out"))
    assert_frame_equal(FRAME.select((pl.col("a") * 2).alias("beside"), pushed.alias("out")), expected)


def test_substitution_keeps_output_names():
    assert substitute(pl.col("x") + 1, PROJECTION, SCHEMA).meta.output_name() == "x"


def test_nothing_to_replace_is_no_reason_to_read_an_expression():
    opaque = pl.col("a").map_batches(lambda s: (LOCK, s)[1], return_dtype=pl.Int64)
    assert substitute(opaque, {"b": pl.col("c")}) is opaque
    with pytest.raises(UnknownExpression):
        substitute(opaque, {"a": pl.col("c")})


def test_a_constant_is_not_put_into_an_aggregate():
    with pytest.raises(UnknownExpression):
        substitute(pl.col("one").sum(), PROJECTION, SCHEMA)


def test_random_filters_survive_the_push_through_a_projection():
    rng = random.Random(3)
    names = ["a", "flag", "one", "small", "x"]
    projected = FRAME.select(value.alias(name) for name, value in PROJECTION.items())
    for _ in range(100):
        left, right = (pl.col(rng.choice(names)) for _ in range(2))
        term = rng.choice(
            [left + right, left - right, pl.coalesce(left, right), pl.max_horizontal(left, right)]
        )
        expr = term > rng.randint(-2, 5)
        pushed = FRAME.filter(substitute(expr, PROJECTION, SCHEMA))
        assert_frame_equal(
            pushed.select(value.alias(name) for name, value in PROJECTION.items()), projected.filter(expr)
        )
