"""Rows on a text stream: limited, escaped, as a table or as lines."""

from __future__ import annotations

import io

import polars as pl
import pytest

from unistream.errors import InvalidSettings
from unistream.expressions.schema import CHANGE, StreamSchema
from unistream.io.base import WriterContext
from unistream.io.console import ConsoleSink

FRAME = pl.DataFrame({"item": ["a", "b", None], "n": [1, 2, 3]})


def shown(frame: pl.DataFrame, **options: object) -> str:
    text = io.StringIO()
    writer = ConsoleSink(to=text, **options).open(
        WriterContext("job", StreamSchema(frame.drop(CHANGE, strict=False).schema))
    )  # type: ignore[arg-type]
    writer.write(frame)
    writer.close()
    return text.getvalue()


def test_lines() -> None:
    assert shown(FRAME, style="lines") == "item=a  n=1\nitem=b  n=2\nitem=null  n=3\n"
    assert shown(FRAME, style="lines", title="x", rows=1) == "x: item=a  n=1\n… and 2 more rows\n"


def test_a_table_has_names_values_and_the_rest() -> None:
    text = shown(FRAME, rows=2, title="orders")
    for part in ("orders", "item", "n", "a", "b", "1", "2", "… and 1 more rows"):
        assert part in text
    assert "null" not in text


def test_updates_show_their_operation() -> None:
    changes = FRAME.head(2).with_columns(pl.Series(CHANGE, [1, 2], pl.Int8))
    assert shown(changes, style="lines") == "op=-U  item=a  n=1\nop=+U  item=b  n=2\n"


@pytest.mark.parametrize("style", ["table", "lines"])
def test_values_cannot_steer_the_terminal_or_the_markup(style: str) -> None:
    text = shown(
        pl.DataFrame({"\x1b[2Jx": ["\x1b]0;owned\x07", "[red]bold[/red]", "two\nlines"]}), style=style
    )
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]bold[/red]" in text
    assert "two\\nlines" in text


def test_refusals() -> None:
    with pytest.raises(InvalidSettings, match="did you mean 'table'"):
        ConsoleSink(style="tabel")
    with pytest.raises(InvalidSettings, match="negative"):
        ConsoleSink(rows=-1)


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    writer = ConsoleSink(style="lines").open(WriterContext("job", StreamSchema(FRAME.schema)))
    writer.write(FRAME.head(1))
    assert capsys.readouterr().out == "item=a  n=1\n"
