"""A few lines of JSON are read as many are, or left to the reader of many."""

from __future__ import annotations

import random
import struct

import polars as pl
import pytest

from unistream.io import format_ndjson
from unistream.io.format_json_small import SMALL_BYTES, SmallJson
from unistream.io.formats import NdjsonFormat

TYPES = (pl.Int64, pl.UInt64, pl.Float64, pl.Boolean, pl.String)
VALUES = [
    *("1", "-1", "0", "-0", "1.5", "1.0", "-0.0", "1e3", "1E5", "1e400", "01", "+1", ".5", "NaN", "tru"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551615"),
    *(str(2**128 - 1), str(2**128), str(-(2**127) - 1), str(2**128) + ".5", str(2**128) + "e1", "1" * 60),
    *("18446744073709551616", "123456789012345678901234567890", "true", "false", "null", '"x"', '"1"', '""'),
    *(r'"a\u00e9"', r'"\ud83d\ude00"', '"é"', '"unclosed', "[]", "[1,null]", "{}", '{"v":1}', '{"w":1e400}'),
]
LINES = [
    *("", "  ", "null", "[]", "1", '"x"', "{}", '{"v":1}{"v":2}', '{"v":1} {"v":2}', '{"v":1},', '{"v":1}x'),
    *('{"v":1,"v":2}', '{"v" :1,"v":2}', '{"v":1,}', "{v:1}", "{'v':1}", '{"v":1}\r', '\t{"v":1}', '{"V":1}'),
    *('{"v":1', '"v":1}', '[{"v":1}]', '{"v" : 1 , "w" : "a"}', '{"w":1.5}', '{"w":true}', '{"w":{"a":1}}'),
    *('\ufeff{"v":1}', '{"v":1}\x00', '{"w":"\x01"}', r'{"w":"\ud800"}', r'{"w":"\q"}', r'{"\u0076":5}'),
    *(
        '{"z":"\x01"}',
        '{"w":"\x7f"}',
        '{"z":NaN}',
        '{"z":01}',
        '{"z":1.}',
        '{"z":1e}',
        '{"z":-}',
        '{"z":nul}',
    ),
    *('{"z":1e400}', '{"v" :1,"z":1e400}', '{"v"\t:1,"z":1e400}', '{"z":[1,]}', '{"z":{"a"}}', '{"z":[1 2]}'),
    *('{"w":"v"}', '{"w":"v","v":1}', '{"v":1,"z":{"v":2}}', '{"v":1,"z":"v"}', '\x0b{"v":1}', '{"":1}'),
    *(f'{{"v":1,"z":{2**128}}}', f'{{"v":1,"z":[{-(2**129)}]}}', f'{{"z":{2**128}.0}}'),
    *('{"w":"a :b"}', '{"w":": "}', '{"v":1,"z":' + "9" * 250 + "e99}", '{"z":' + "9" * 310 + "}"),
    '{"z":' + "[" * 300 + "]" * 300 + "}",
]
GOOD = '{"v":7,"w":"k"}'


def agree(data: bytes, schema: pl.Schema) -> bool:
    """Whether the lines were taken; if so they must be what the parser of many lines makes of them."""
    known = (None, schema, pl.Schema({"z": pl.Float64, **schema}))
    return max(_agree(data, schema, in_line) for in_line in known)


def _agree(data: bytes, schema: pl.Schema, in_line: pl.Schema | None) -> bool:
    small = SmallJson.of(schema, in_line)
    assert small is not None
    frame = small.frame(data)
    if frame is None:
        return False
    expected = NdjsonFormat(schema).decode(data)
    assert expected.rejected is None, data
    assert frame.schema == expected.frame.schema
    assert frame.equals(expected.frame, null_equal=True), data
    return True


def test_all_that_is_in_a_line_may_be_known() -> None:
    data = b'{"v":1,"w":"a","z":[1,2]}\n{"v":2,"w":"b","z":[]}\n'
    schema = pl.Schema({"w": pl.String, "v": pl.Int64})
    known = NdjsonFormat(pl.Schema({"v": pl.Int64, "x": pl.Int64, "w": pl.String}))
    for reader in (NdjsonFormat(schema), known.project(["w", "v"])):
        frame = reader.decode(data).frame
        assert dict(zip(frame.columns, zip(*frame.rows(), strict=True), strict=True)) == {
            "v": (1, 2),
            "w": ("a", "b"),
        }


@pytest.fixture(autouse=True)
def only_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NdjsonFormat` reads with Polars, whatever the size."""
    monkeypatch.setattr(format_ndjson, "SMALL_BYTES", 0)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values(dtype: type[pl.DataType]) -> None:
    schema = pl.Schema({"v": dtype(), "w": pl.Int64()})
    taken = 0
    for value in VALUES:
        taken += agree(f'{{"v":{value},"w":1}}\n'.encode(), schema)
        taken += agree(f'{{"w":1}}\n{{"v":{value}}}\n'.encode(), schema)
        taken += agree(f'{{"x":{value},"w":1}}\n'.encode(), schema)
    assert taken > len(VALUES) // 2


def test_lines() -> None:
    schema = pl.Schema({"v": pl.Int64, "w": pl.String})
    for line in LINES:
        for lines in (line, f"{GOOD}\n{line}", f"{line}\n{GOOD}"):
            agree(f"{lines}\n".encode(), schema)
    for data in (b"", b"\n", b'{"z":"\xff"}\n', b'{"w":"\xed\xa0\x80"}\n', b'{"v":1}', b'{"v":1}\n\n\n'):
        agree(data, schema)
    assert agree(f"{GOOD}\n{{}}\n{GOOD}\r\n".encode(), schema)


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD, GOOD],
        [GOOD + GOOD, '{"v":1,', '"w":"a"}'],
        [GOOD + " " + GOOD, '{"v":1,"w":', '"a"}'],
        [GOOD + GOOD, '{"v":1,"w":"}', '{"}'],
        [GOOD, '{"w":"k","v":7}', GOOD + "  "],
        [GOOD, "", GOOD],
        [GOOD, '{"v":7}', GOOD],
        [GOOD, '{"v":null,"w":null}', GOOD],
        [GOOD, '{"v":7,"w":"k","z":[1,', "2]}"],
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_objects_are_lines(lines: list[str], end: str) -> None:
    schema = pl.Schema({"v": pl.Int64, "w": pl.String})
    agree(("\n".join(lines) + end).encode(), schema)
    agree(("\r\n".join(lines) + end).encode(), schema)


def test_floats_to_the_last_bit() -> None:
    rng, schema = random.Random(1), pl.Schema({"v": pl.Float64})
    lines = []
    for _ in range(2000):
        (number,) = struct.unpack("d", rng.randbytes(8))
        whole, part, power = rng.randrange(10**30), rng.randrange(10**25), rng.randint(-99, 99)
        if number - number == 0:
            lines.append(f'{{"v":{number!r}}}')
        lines.append(f'{{"v":{whole}.{part}e{power}}}')
    assert agree("\n".join(lines).encode(), schema)


def test_short_and_long_data_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    schema = pl.Schema({"n": pl.Int32, "at": pl.Datetime("us"), "name": pl.String})
    line = b'{"n":%d,"at":"2026-01-01T00:00:%02d","name":"a"}\n'
    many = b"".join(line % (number, number % 60) for number in range(2 * SMALL_BYTES // len(line)))
    lines = many.splitlines(keepends=True)
    reader = NdjsonFormat(schema)
    few = [reader.decode(b"".join(lines[start : start + 100])) for start in range(0, len(lines), 100)]
    assert pl.concat(decoded.frame for decoded in few).equals(reader.decode(many).frame)


def test_nested_columns_and_escaped_names_are_left_to_polars() -> None:
    assert SmallJson.of(pl.Schema({"v": pl.List(pl.Int64)})) is None
    for name in ('a"', "a\\", "a\n", "\x01"):
        assert SmallJson.of(pl.Schema({name: pl.Int64})) is None
    for name in ("", "é", "\x7f", "a b", "class", "__init__", "f1"):
        line = f'{{"{name}":1}}\n'.encode()
        assert agree(line, pl.Schema({"x": pl.Int64, name: pl.Int64})), name
