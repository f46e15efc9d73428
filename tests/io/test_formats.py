"""Line formats against a slow reference that reads one line at a time with the standard library."""

from __future__ import annotations

import csv
import io as stdio
import itertools
import json
import math
import pickle
import random
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unistream.errors import DataError, InvalidQuery, InvalidSettings
from unistream.io.base import REJECTED_SCHEMA
from unistream.io.format_base import count_lines
from unistream.io.formats import CsvFormat, NdjsonFormat, TextFormat, format_named, rejected_rows

FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLAT = pl.Schema(
    {"a": pl.Int64, "b": pl.Float64, "c": pl.Boolean, "d": pl.String, "e": pl.Int8, "t": pl.Datetime("us")}
)
DEEP = pl.Schema({"a": pl.Int64, "l": pl.List(pl.Int16), "s": pl.Struct({"x": pl.Float64, "y": pl.String})})


# ---- NDJSON: the reference


class _Bad(Exception):
    pass


def _json_value(line: bytes) -> dict:
    def refuse(text: str) -> float:
        raise _Bad(text)

    def finite(text: str) -> float:
        return float(text) if not math.isinf(float(text)) else refuse(text)

    def whole(text: str) -> int:
        return int(text) if -(2**127) <= int(text) < 2**128 else refuse(text)

    try:
        value = json.loads(
            line.decode(),
            parse_constant=refuse,
            parse_float=finite,
            parse_int=whole,
            object_pairs_hook=lambda pairs: dict(reversed(pairs)),
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _Bad from error
    if not isinstance(value, dict):
        raise _Bad
    return value


def _fits(value: object, dtype: pl.DataType) -> object:
    """The value as this type holds it; raises when it does not fit. Text columns are compared elsewhere."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        if not isinstance(value, list):
            raise _Bad
        return [_fits(item, dtype.inner) for item in value]
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            raise _Bad
        return {field.name: _fits(value.get(field.name), field.dtype) for field in dtype.fields}
    if dtype.is_integer():
        bits = int(str(dtype)[3:])
        if type(value) is not int or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise _Bad
        return value
    if dtype == pl.Float64:
        if type(value) not in (int, float):
            raise _Bad
        return float(value)
    wanted = bool if dtype == pl.Boolean else str
    if type(value) is not wanted:
        raise _Bad
    return value


_CLOCK = r"[0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
_MOMENT = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK})?")
"""What is read as a moment; Python takes more, as any character between date and time."""


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch("[+-]?[0-9]+", value):
        value = int(value)
    if isinstance(value, str) and not _MOMENT.fullmatch(value):
        raise _Bad
    if type(value) is int and abs(value) < 2**63:
        try:
            return datetime(1970, 1, 1) + timedelta(microseconds=value)
        except OverflowError:
            raise _Bad from None
    try:
        found = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise _Bad from None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def json_reference(data: bytes, schema: pl.Schema) -> tuple[list[dict], list[int]]:
    """Rows and the numbers of the lines that are none; text columns only where the value is text."""
    rows, bad = [], []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip(b" \t\r"):
            continue
        try:
            value = _json_value(line)
            row = {}
            for name, dtype in schema.items():
                if dtype == pl.String:
                    row[name] = value.get(name)
                elif isinstance(dtype, pl.Datetime):
                    row[name] = _moment(value.get(name))
                else:
                    row[name] = _fits(value.get(name), dtype)
            rows.append(row)
        except _Bad:
            bad.append(number)
    return rows, bad


def check_json(data: bytes, schema: pl.Schema) -> None:
    decoded = NdjsonFormat(schema).decode(data)
    rows, bad = json_reference(data, schema)
    rejected = decoded.rejected
    assert ([] if rejected is None else rejected["line"].to_list()) == bad
    assert decoded.rows == len(rows) + len(bad)
    assert decoded.frame.schema == schema
    got = decoded.frame.to_dicts()
    assert len(got) == len(rows)
    for mine, theirs in zip(got, rows, strict=True):
        for name, dtype in schema.items():
            if dtype == pl.String and not isinstance(theirs[name], str | None):
                assert isinstance(mine[name], str)
            else:
                assert mine[name] == theirs[name], (name, mine, theirs)


moments = st.one_of(
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)).map(lambda d: d.isoformat()),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)).map(
        str
    ),
    st.sampled_from(["2024-01-01", "2024-02-30", "x", "", "2024-01-01T24:30:00", "2024-01-01T10:00:60"]),
    st.integers(-(10**15), 10**15),
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abxyz"), inner, max_size=3),
    max_leaves=5,
)
values = {
    "a": st.integers(-(2**65), 2**65) | st.integers(-9, 9) | anything,
    "b": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5) | anything,
    "c": st.booleans() | anything,
    "d": st.text(max_size=8) | anything,
    "e": st.integers(-200, 200),
    "t": moments,
    "l": st.lists(st.integers(-40_000, 40_000) | st.none(), max_size=3) | anything,
    "s": st.fixed_dictionaries(
        {}, optional={"x": st.integers(0, 9) | anything, "y": st.text(max_size=3) | anything}
    ),
    "zz": anything,
}


def objects(schema: pl.Schema) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional={name: values[name] for name in [*schema, "zz"]})


lines_of_json = st.builds(
    lambda row, ascii_only, ending: (json.dumps(row, ensure_ascii=ascii_only) + ending).encode(
        "utf-8", "replace"
    ),
    objects(FLAT),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
)


def spoiled(draw: st.DrawFn, data: bytes, signs: bytes) -> bytes:
    """The data with a few bytes changed, put in or taken out."""
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        sign = bytes([draw(st.sampled_from(signs) | st.integers(0, 255))])
        kind = draw(st.integers(0, 2))
        data = data[:place] + (sign if kind else b"") + data[place + (kind != 1) :]
    return data


@st.composite
def spoiled_json(draw: st.DrawFn) -> bytes:
    data = b"".join(draw(st.lists(lines_of_json, max_size=8)))
    return spoiled(draw, data, b'{}[]",:\\0123456789.eE-+truefalsn \r\n\x00\xff')


@FEW
@given(spoiled_json())
@example(b'{"a":1}\n{"a":[1\n2]}\n{"a":1},{"a":2}\n')
@example(b'{"d":"\\ud800"}\n{"d":"\\\\ud800"}\n{"d":"\\ud83d\\ude00"}\n{"d":"\\\\\\ud83d"}\n')
@example(b'{"a":1.0}\n{"a":1e2}\n{"b":1e400}\n{"zz":1e400}\n{"e":128}\n{"e":-128}\n')
@example(b'\x00\n{"a":1}\x00\n{"a":1}\n\xef\xbb\xbf{"a":1}\n{"a":1,"a":2}\n{"a":1,"a":"x"}\n')
@example(
    b'{"t":"2000-01-01{00:00:00"}\n{"t":"2000-01-01T0000"}\n{"t":"20000101"}\n{"t":"2000-01-01T00:00+01"}\n'
)
def test_ndjson_equals_the_reference_on_mutated_lines(data: bytes) -> None:
    check_json(data.removeprefix(b"\xef\xbb\xbf"), FLAT)


@FEW
@given(st.lists(objects(DEEP), max_size=6), st.data())
@example([{"l": [1.5]}, {"l": [True]}, {"l": 5}, {"s": {"y": 5}}, {"s": []}, {"l": [40_000]}], None)
def test_nested_values_are_checked_to_the_last(rows: list[dict], data: st.DataObject | None) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    check_json(text if data is None else spoiled(data.draw, text, b'{}[]",:01.-tf'), DEEP)


@FEW
@given(st.binary(max_size=300))
def test_random_bytes_are_rejected_line_by_line(data: bytes) -> None:
    if not data.startswith(b"\xef\xbb\xbf"):
        check_json(data, FLAT)


@FEW
@given(spoiled_json(), st.data())
def test_ndjson_does_not_depend_on_the_cuts(data: bytes, draws: st.DataObject) -> None:
    format_ = NdjsonFormat(FLAT)
    whole = format_.decode(data)
    ends = [i + 1 for i, sign in enumerate(data) if sign == 10]
    cuts = sorted(
        {0, len(data), *draws.draw(st.lists(st.sampled_from(ends), max_size=4) if ends else st.just([]))}
    )
    line, frames, rejected = 1, [whole.frame.clear()], []
    for start, end in itertools.pairwise(cuts):
        part = format_.decode(data[start:end], first_line=line)
        line += count_lines(data[start:end])
        frames.append(part.frame)
        rejected += [] if part.rejected is None else part.rejected.rows()
    assert pl.concat(frames).equals(whole.frame)
    assert rejected == ([] if whole.rejected is None else whole.rejected.rows())


# ---- NDJSON: decisions


def reasons(schema: dict, *lines: str) -> list[str | None]:
    """Why each line is refused, None for a good one; each alone and all together give the same."""
    format_ = NdjsonFormat(pl.Schema(schema))
    alone = [format_.decode(line.encode(), first_line=9).rejected for line in lines]
    together = format_.decode("\n".join(lines).encode()).rejected
    found = [None if one is None else one["reason"][0] for one in alone]
    assert [reason for reason in found if reason] == (
        [] if together is None else together["reason"].to_list()
    )
    return found


def test_messages_name_column_value_and_type() -> None:
    assert reasons(
        {"a": pl.Int64}, '{"a": "5"}', '{"a": 1.5}', '{"a": true}', '{"a": 9223372036854775808}'
    ) == [
        "column 'a': '5' is text, not a whole number",
        "column 'a': 1.5 is a number, not a whole number",
        "column 'a': true is a boolean, not a whole number",
        "column 'a': 9223372036854775808 is out of the range of Int64",
    ]
    assert reasons({"t": pl.Date}, '{"t": "2024-13-01"}', '{"t": 5}', '{"t": "2024-01-31"}') == [
        "column 't': '2024-13-01' is not Date",
        "column 't': '5' is not Date",
        None,
    ]


def test_nesting_is_limited_to_256() -> None:
    good = '{"zz":' * 256 + "1" + "}" * 256
    deep = '{"zz":' * 257 + "1" + "}" * 257
    lists = '{"zz":' + "[" * 100_000
    quoted = '{"d": "' + "[" * 1000 + '"}'
    found = reasons({"d": pl.String, "a": pl.Int64}, good, deep, lists, quoted)
    assert found == [None, "nested deeper than 256", "nested deeper than 256", None]


def test_text_columns_take_other_values_as_text() -> None:
    data = b'{"d": 5}\n{"d": true}\n{"d": {"x": [1, null]}}\n{"d": null}\n{}\n'
    texts = NdjsonFormat(pl.Schema({"d": pl.String})).decode(data).frame["d"].to_list()
    assert texts == ["5", "true", '{"x": [1, null]}', None, None]


def test_times_in_all_spellings() -> None:
    schema = {
        "t": pl.Datetime("ms"),
        "z": pl.Datetime("us", "Europe/Berlin"),
        "d": pl.Date,
        "u": pl.Duration("ms"),
    }
    schema |= {"k": pl.Time, "m": pl.Decimal(10, 2)}
    rows = [
        {
            "t": "2024-01-01T10:00:00.1239Z",
            "z": "2024-07-01T10:00:00+02:00",
            "d": "2024-02-29",
            "u": 5,
            "k": "01:02",
        },
        {"t": 1704103200123, "z": "2024-07-01 08:00", "d": None, "u": "7", "k": "01:02:03.5", "m": "1.250"},
        {"t": "2024-01-01", "z": 1719820800000000, "m": 3},
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    decoded = NdjsonFormat(pl.Schema(schema)).decode(data)
    assert decoded.rejected is None
    frame = decoded.frame
    ten = datetime(2024, 1, 1, 10, 0, 0, 123_000)
    assert frame["t"].to_list() == [ten, ten, datetime(2024, 1, 1)]
    assert [z.astimezone(UTC) for z in frame["z"]] == [datetime(2024, 7, 1, 8, tzinfo=UTC)] * 3
    assert frame["d"].to_list() == [date(2024, 2, 29), None, None]
    assert frame["u"].to_list() == [timedelta(milliseconds=5), timedelta(milliseconds=7), None]
    assert frame["k"].to_list() == [time(1, 2), time(1, 2, 3, 500_000), None]
    assert frame["m"].to_list() == [None, Decimal("1.25"), Decimal("3.00")]
    assert (
        reasons({"m": pl.Decimal(10, 2)}, '{"m": "1.257"}', '{"m": 1.257}', '{"m": "99999999999"}').count(
            None
        )
        == 0
    )


def test_a_row_is_cut_at_a_kibibyte_and_invalid_utf8_replaced() -> None:
    rejected = NdjsonFormat(pl.Schema({"a": pl.Int64})).decode(b"\xff" * 5000).rejected
    assert rejected is not None
    assert rejected.rows() == [(1, "not valid UTF-8 at byte 1", "�" * 1024)]


def test_one_bad_line_in_many_pieces_keeps_its_number() -> None:
    lines = [b'{"a": %d}' % i for i in range(60_000)]
    lines[41_234] = b'{"a": "x"}'
    lines[59_999] = b'{"a": 1'
    decoded = NdjsonFormat(pl.Schema({"a": pl.Int64})).decode(b"\n".join(lines), first_line=11)
    assert decoded.rejected is not None
    assert decoded.rejected["line"].to_list() == [41_245, 60_010]
    assert decoded.frame["a"].to_list() == [i for i in range(60_000) if i not in (41_234, 59_999)]


# ---- CSV

CSV = pl.Schema({"a": pl.Int64, "d": pl.String, "b": pl.Float64, "c": pl.Boolean})


def csv_reference(data: bytes) -> tuple[list[tuple], list[int]] | None:
    """Rows and bad lines by the standard csv module; None where quotes are misplaced (another test)."""
    rows, bad, number = [], [], 1
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        try:
            text = line.decode()
            fields = next(csv.reader(stdio.StringIO(text), strict=True), [])
            if text.removesuffix("\r"):
                if len(fields) != 4:
                    raise _Bad
                rows.append(_csv_row(fields, text))
        except (_Bad, ValueError, csv.Error):
            bad.append(number)
        number += 1
    return rows, bad


def _csv_row(fields: list[str], text: str) -> tuple:
    a, d, b, c = fields
    if a.strip(" \t") and not a.lstrip(" \t").lstrip("+-").isascii():
        raise _Bad
    whole = int(a) if a.strip(" \t") else None
    if whole is not None and (a != a.rstrip() or "_" in a or not -(2**63) <= whole < 2**63):
        raise _Bad
    if b != b.rstrip() and b.strip(" \t"):
        raise _Bad
    number = float(b) if b.strip(" \t") else None
    if number is not None and ("_" in b or (math.isinf(number) and "inf" not in b.lower())):
        raise _Bad
    if c and c.lower() not in ("true", "false"):
        raise _Bad
    return (whole, d or None, number, c.lower() == "true" if c else None)


fields_of_csv = st.sampled_from(
    [
        "1",
        " 1",
        "-5",
        "+7",
        "01",
        "1.0",
        "x",
        "",
        " ",
        "nan",
        "inf",
        "1e3",
        ".5",
        "1e400",
        "true",
        "TRUE",
        "no",
        "ä",
        "9" * 20,
    ]
)
lines_of_csv = st.one_of(
    st.builds(
        "{},{},{},{}".format,
        st.integers(-(2**63), 2**63 - 1) | fields_of_csv,
        st.sampled_from(["", "x", "ä ö", "a b"]),
        st.floats(allow_nan=False) | fields_of_csv,
        st.sampled_from(["true", "false", "", "maybe"]),
    ),
    st.lists(fields_of_csv, max_size=6).map(",".join),
)


@FEW
@given(st.lists(lines_of_csv, max_size=8), st.booleans(), st.data())
@example(["", "1,x,2,true", "", "1,x,2", "1,x,2,true,y", "1"], False, None)
def test_csv_equals_the_reference_on_mutated_lines(
    lines: list[str], crlf: bool, draws: st.DataObject | None
) -> None:
    data = "".join(line + ("\r\n" if crlf else "\n") for line in lines).encode()
    if draws is not None:
        data = (
            spoiled(draws.draw, data, b",,\n019.-tfeE \xff\x00")
            .replace(b'"', b"")
            .removeprefix(b"\xef\xbb\xbf")
        )
        data = data.replace(b"\r", b"") if not crlf else data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    reference = csv_reference(data)
    assert reference is not None
    rows, bad = reference
    decoded = CsvFormat(CSV).decode(data)
    assert ([] if decoded.rejected is None else decoded.rejected["line"].to_list()) == bad
    assert [repr(row) for row in decoded.frame.rows()] == [repr(row) for row in rows]
    assert decoded.rows == len(rows) + len(bad)


texts_with_quotes = st.text(st.sampled_from('ab",\n\r ä'), max_size=6)


@FEW
@given(st.lists(st.tuples(st.integers(-9, 9), texts_with_quotes, st.booleans()), max_size=12), st.data())
def test_csv_with_quotes_does_not_depend_on_the_cuts(rows: list[tuple], draws: st.DataObject) -> None:
    schema = pl.Schema({"a": pl.Int64, "d": pl.String, "c": pl.Boolean})
    format_ = CsvFormat(schema)
    data = "".join(
        '{},"{}",{}\n'.format(a, d.replace('"', '""'), str(c).lower()) for a, d, c in rows
    ).encode()
    whole = format_.decode(data)
    assert whole.rejected is None
    assert whole.frame.rows() == rows
    rest, line, frames = data, 1, [whole.frame.clear()]
    while rest:
        size = draws.draw(st.integers(1, len(rest)))
        end = format_.records_end(rest[:size])
        if end == 0:
            end = format_.records_end(rest)
        part = format_.decode(rest[:end], first_line=line)
        assert part.rejected is None
        frames.append(part.frame)
        line, rest = line + count_lines(rest[:end]), rest[end:]
    assert pl.concat(frames).equals(whole.frame)


@FEW
@given(
    st.lists(
        st.sampled_from(["1,x", '2,"y,y"', '3,"z\nz"', '4,"', '5,a"b', '6,"c"d', '7,""', '"8","q""q"']),
        max_size=10,
    )
)
def test_a_misplaced_quote_costs_its_line_alone(records: list[str]) -> None:
    """A line that begins no record is rejected and reading goes on behind it."""
    data = "".join(record + "\n" for record in records).encode()
    format_ = CsvFormat(pl.Schema({"a": pl.Int64, "d": pl.String}))
    decoded = format_.decode(data)
    one_by_one = _scanned(data)
    assert decoded.frame.rows() == one_by_one[0]
    assert ([] if decoded.rejected is None else decoded.rejected["line"].to_list()) == one_by_one[1]


def _scanned(data: bytes) -> tuple[list[tuple], list[int]]:
    """A character at a time: at each line the shortest well-formed record, else the line is bad."""
    text, place, line, rows, bad = data.decode(), 0, 1, [], []
    while place < len(text):
        end, fields = _one_record(text, place)
        if end < 0 or len(fields) != 2:
            end = text.index("\n", place) + 1 if end < 0 else end
            bad.append(line)
        else:
            rows.append((int(fields[0]), fields[1] if fields[1] is not None else None))
        line += text.count("\n", place, end)
        place = end
    return rows, bad


def _one_record(text: str, place: int) -> tuple[int, list]:
    fields = []
    while True:
        if text[place : place + 1] == '"':
            value, place = "", place + 1
            while True:
                close = text.find('"', place)
                if close < 0:
                    return -1, []
                value += text[place:close]
                place = close + 1
                if text[place : place + 1] != '"':
                    break
                value, place = value + '"', place + 1
        else:
            end = place
            while text[end] not in '",\n':
                end += 1
            value, place = text[place:end] or None, end
        fields.append(value)
        if text[place] == "\n":
            return place + 1, fields
        if text[place] != ",":
            return -1, []
        place += 1


@pytest.mark.parametrize(
    "data", [b'"', b'1,"', b'"""', b'","', b'1,"\n2,"\n', b'""",\n"', b"\x00", b'"\n' * 99]
)
def test_hostile_quotes_end_in_rows_or_rejects(data: bytes) -> None:
    """Some of these make the parser panic, so that they must not reach it."""
    decoded = CsvFormat(pl.Schema({"a": pl.Int64, "d": pl.String})).decode(data)
    rejected = 0 if decoded.rejected is None else decoded.rejected.height
    assert decoded.rows == decoded.frame.height + rejected
    assert decoded.rows > 0


def test_csv_header_gives_the_order_and_names_what_is_missing() -> None:
    format_ = CsvFormat(pl.Schema({"user": pl.String, "amount": pl.Int64}))
    by_header = format_.for_header(b'\xef\xbb\xbfamount,note,"user"\r\n', "a.csv")
    assert by_header.decode(b'5,"x,y",ada\n').frame.rows() == [("ada", 5)]
    with pytest.raises(DataError, match=r"a\.csv, line 1.*'user'[\s\S]*did you mean 'usr'"):
        format_.for_header(b"usr,amount\n", "a.csv")


def test_csv_options() -> None:
    format_ = format_named(
        "csv",
        {"a": pl.Int64, "d": pl.String},
        separator=";",
        quote_char="'",
        null_values=["NA"],
        has_header=False,
    )
    assert format_.decode(b"1;'x;y'\nNA;NA\n").frame.rows() == [(1, "x;y"), (None, None)]
    assert format_.header() == b""
    assert CsvFormat(pl.Schema({"a": pl.Int64, "b c": pl.String})).header() == b"a,b c\n"
    with pytest.raises(InvalidSettings, match="one ASCII character"):
        CsvFormat(pl.Schema({"a": pl.Int64}), separator=";;")


@pytest.mark.parametrize("first", [1, 5])
def test_a_byte_order_mark_counts_at_the_first_line_only(first: int) -> None:
    mark = b"\xef\xbb\xbf"
    for format_, line in (
        (NdjsonFormat(pl.Schema({"a": pl.Int64})), b'{"a": 1}\n'),
        (CsvFormat(pl.Schema({"a": pl.Int64})), b"1\n"),
    ):
        decoded = format_.decode(mark + line, first_line=first)
        assert (decoded.frame.height, decoded.rejected is None) == ((1, True) if first == 1 else (0, False))
    assert TextFormat().decode(mark + b"x", first_line=first).frame["line"][0] == (
        "x" if first == 1 else "\ufeffx"
    )


def test_projection_checks_only_what_it_reads() -> None:
    data = b'{"a": "x", "d": "y"}\n{"d": 1'
    narrow = NdjsonFormat(pl.Schema({"a": pl.Int64, "d": pl.String})).project(["d"])
    decoded = narrow.decode(data)
    assert decoded.frame.rows() == [("y",)]
    assert decoded.rejected is not None
    wide = CsvFormat(pl.Schema({"a": pl.Int64, "d": pl.String, "b": pl.Float64}))
    decoded = wide.project(["b"]).decode(b"x,y,1.5\n1,2\n1,y,z\n")
    assert decoded.frame.rows() == [(1.5,)]
    assert decoded.rejected is not None
    assert decoded.rejected["line"].to_list() == [2, 3]


@pytest.mark.parametrize("quoted", [b"", b'"q",y,z\n'])
@pytest.mark.parametrize("names", [["a"], ["d"], ["a", "b"], ["a", "d", "b"]])
def test_fields_that_are_missing_in_one_row_and_too_many_in_another_do_not_make_up(
    names: list[str], quoted: bytes
) -> None:
    text = CsvFormat(pl.Schema({"a": pl.String, "d": pl.String, "b": pl.String})).project(names)
    for bad in ([b"1,2\n", b"3,4,5,6\n"], [b"3,4,5,6\n", b"7,8,9\n"], [b"3,4,5,\n", b"1,2\n"]):
        decoded = text.decode(b"1,x,y\n" + quoted + b"".join(bad) + b"2,x,\n", first_line=5)
        good = [line for line in (b"1,x,y", b"q,y,z", *bad, b"2,x,") if line.count(b",") == 2]
        assert decoded.frame.height == len(good) - (not quoted)
        assert decoded.rejected is not None
        assert decoded.rows == decoded.frame.height + decoded.rejected.height


# ---- both ways

FRAME = pl.DataFrame(
    {
        "i": [1, None, -(2**63)],
        "f": [0.1, -1e300, None],
        "b": [True, None, False],
        "s": ['a"b\n,', "", None],
        "t": [datetime(2024, 1, 1, 1, 2, 3, 456), None, datetime(1969, 12, 31)],
        "z": pl.Series([datetime(2024, 7, 1, tzinfo=UTC), None, None]).dt.convert_time_zone("Europe/Berlin"),
        "d": [date(2024, 1, 1), None, date(1, 1, 1)],
        "k": [time(1, 2, 3), None, time(23, 59, 59, 999_999)],
        "u": [timedelta(days=1, microseconds=1), None, timedelta(0)],
        "m": pl.Series([Decimal("1.20"), None, Decimal("-5.00")], dtype=pl.Decimal(10, 2)),
        "c": pl.Series(["x", None, "y"], dtype=pl.Enum(["x", "y"])),
        "n": pl.Series([300, None, -1], dtype=pl.Int16),
    }
)


def test_what_is_written_is_read_back() -> None:
    decoded = CsvFormat(FRAME.schema).decode(CsvFormat(FRAME.schema).encode(FRAME))
    assert decoded.rejected is None
    assert decoded.frame.equals(FRAME)
    nested = FRAME.with_columns(l=pl.Series([[1, None], [], None]), r=pl.struct(x="i", y=pl.lit("q")))
    format_ = NdjsonFormat(nested.schema)
    decoded = format_.decode(format_.encode(nested))
    assert decoded.rejected is None
    assert decoded.frame.equals(nested)


def test_text_lines() -> None:
    format_ = TextFormat("line")
    decoded = format_.decode(b"a\r\n\n\xff\nlast", first_line=3)
    assert decoded.frame["line"].to_list() == ["a", "", "last"]
    assert decoded.rejected is not None
    assert decoded.rejected["line"].to_list() == [5]
    assert decoded.rows == 4
    assert format_.encode(pl.DataFrame({"line": ["a", ""]})) == b"a\n\n"
    with pytest.raises(InvalidQuery, match="newlines"):
        format_.encode(pl.DataFrame({"line": ["a\nb"]}))


# ---- names, policies, refusals


def test_names_and_options_are_checked() -> None:
    with pytest.raises(InvalidSettings, match="did you mean 'ndjson'"):
        format_named("ndjsn", {"a": pl.Int64})
    with pytest.raises(InvalidSettings, match="did you mean 'separator'"):
        format_named("csv", {"a": pl.Int64}, seperator=";")
    with pytest.raises(InvalidQuery, match="needs a schema"):
        format_named("csv")
    with pytest.raises(InvalidQuery, match="cannot be read from lines"):
        NdjsonFormat(pl.Schema({"a": pl.Object()}))
    assert format_named("text").columns == {"line": pl.String}


def test_formats_pickle_hash_and_compare() -> None:
    for format_ in (NdjsonFormat(FLAT), CsvFormat(CSV, null_values=("NA",)), TextFormat("x")):
        format_.decode(b"")
        twin = pickle.loads(pickle.dumps(format_))
        assert twin == format_
        assert hash(twin) == hash(format_)


def test_policies() -> None:
    decoded = NdjsonFormat(pl.Schema({"a": pl.Int64})).decode(b'{"a": 1}\nx\n')
    with pytest.raises(DataError, match=r"f\.ndjson, line 2: not valid JSON[\s\S]*Hint: .*collect"):
        rejected_rows(decoded, "fail", "orders", "f.ndjson")
    assert rejected_rows(decoded, "skip", "orders", "f.ndjson") is None
    collected = rejected_rows(decoded, "collect", "orders", "f.ndjson")
    assert collected is not None
    assert collected.schema == REJECTED_SCHEMA
    assert collected.rows()[0][:3] == ("orders", "f.ndjson", 2)


@pytest.mark.parametrize("columns", ["a", "ab"])
def test_rows_of_csv_without_quotes_tell_how_many_lines_they_are(columns: str) -> None:
    rng, reader = random.Random(1), CsvFormat(dict.fromkeys(columns, pl.String), has_header=False)
    told = 0
    for _ in range(500):
        lines = rng.choices(
            [",".join(columns), "", "\r", " ", "x", ","], [5, 1, 1, 1, 1, 1], k=rng.randrange(1, 8)
        )
        data = ("\n".join(lines) + rng.choice(["", "\n"])).encode()
        found = reader.decode(data, unquoted=True).lines
        told += found is not None
        assert found in (None, count_lines(data)), data
    assert told > 50
