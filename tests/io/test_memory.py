"""Rows kept in memory and handed to functions, in both forms."""

from __future__ import annotations

import json
import pickle
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from unistream.errors import ConnectorError, InvalidQuery, StateError
from unistream.expressions.schema import CHANGE, Changes, StreamSchema, spell_changes
from unistream.io import memory
from unistream.io.base import WriterContext
from unistream.io.memory import CallbackSink, MemorySink

SCHEMA = StreamSchema(pl.Schema({"n": pl.Int64}))
CONTEXT = WriterContext("job", SCHEMA, checkpoints=True)


def frame(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"n": values}, schema=SCHEMA.columns)


def test_memory_keeps_rows_in_order_and_shows_them_at_once() -> None:
    sink = MemorySink()
    writer = sink.open(CONTEXT)
    assert_frame_equal(sink.result(), SCHEMA.empty())
    writer.write(frame(1, 2))
    assert sink.result()["n"].to_list() == [1, 2]
    writer.write(frame(3))
    assert writer.prepare(1) is None
    writer.close()
    assert sink.result()["n"].to_list() == [1, 2, 3]
    assert [part.height for part in sink.frames()] == [2, 1]


def test_memory_keeps_a_changelog_unfolded() -> None:
    schema = StreamSchema(SCHEMA.columns, changes=Changes.RETRACT)
    sink = MemorySink()
    assert Changes.RETRACT in sink.accepts
    writer = sink.open(WriterContext("job", schema))
    changes = frame(1, 1).with_columns(pl.Series(CHANGE, [0, 3], pl.Int8))
    writer.write(changes)
    assert_frame_equal(sink.result(), changes)


def test_changes_are_spelled() -> None:
    changes = frame(1, 2, 3, 4).with_columns(pl.Series(CHANGE, [0, 1, 2, 3], pl.Int8))
    assert spell_changes(changes).rows() == [("+I", 1), ("-U", 2), ("+U", 3), ("-D", 4)]
    assert spell_changes(frame(1)).columns == ["n"]


def test_a_function_of_a_frame_gets_every_frame_at_once() -> None:
    seen: list[pl.DataFrame] = []
    sink = CallbackSink(seen.append)
    writer = sink.open(CONTEXT)
    writer.write(frame(1))
    writer.write(frame(2, 3))
    assert [part["n"].to_list() for part in seen] == [[1], [2, 3]]
    assert not writer.due(0)
    assert writer.prepare(1) is None
    assert sink.promise == "at least once"


class Table:
    """A user's table that takes each checkpoint once."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.done: set[int] = set()
        self.calls = 0

    def store(self, rows: pl.DataFrame, checkpoint_id: int) -> None:
        self.calls += 1
        if checkpoint_id not in self.done:
            self.done.add(checkpoint_id)
            self.rows += rows["n"].to_list()


def test_a_function_with_the_checkpoint_stores_exactly_once_across_crashes() -> None:
    table = Table()
    sink = CallbackSink(table.store)
    writer = sink.open(CONTEXT)
    writer.write(frame(1))
    writer.write(frame(2))
    assert table.calls == 0
    token = json.loads(json.dumps(writer.prepare(7)))
    writer.write(frame(3))  # lost with the writer, read again after the restart
    sink.commit([token])
    sink.recover([token], CONTEXT)
    assert (table.rows, table.calls) == ([1, 2], 2)
    writer = sink.open(CONTEXT)
    assert not writer.due(0)
    assert writer.prepare(8) is None
    writer.write(frame(3))
    assert writer.due(0)
    sink.commit([writer.prepare(9)])
    assert table.rows == [1, 2, 3]
    assert "exactly once" in sink.promise


def test_subtasks_of_one_checkpoint_come_as_one_frame() -> None:
    table, tokens = Table(), []
    sink = CallbackSink(table.store)
    for subtask in (0, 1):
        writer = sink.open(WriterContext("job", SCHEMA, subtask=subtask, subtasks=2, checkpoints=True))
        writer.write(frame(subtask))
        tokens.append(writer.prepare(1))
    sink.commit(tokens)
    assert (table.rows, table.calls) == ([0, 1], 1)


def test_without_checkpoints_rows_are_handed_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TOKEN_BYTES", 0)
    table = Table()
    sink = CallbackSink(table.store)
    writer = sink.open(WriterContext("job", SCHEMA, checkpoints=False))
    writer.write(frame(1))
    writer.write(frame(2))
    sink.commit([writer.prepare(1)])
    assert table.rows == [1, 2]


def test_too_many_rows_for_a_token_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TOKEN_BYTES", 100)
    writer = CallbackSink(Table().store).open(CONTEXT)
    writer.write(frame(*range(1000)))
    with pytest.raises(ConnectorError, match="checkpoint more often"):
        writer.prepare(1)


def test_a_damaged_token_is_refused() -> None:
    with pytest.raises(StateError, match="cannot be read"):
        CallbackSink(Table().store).commit([{"checkpoint": 1, "rows": "AAAA"}])


def no_arguments() -> None: ...
def three(a: Any, b: Any, c: Any) -> None: ...
def with_default(frame: pl.DataFrame, note: str = "") -> None: ...
def any_number(*rows: pl.DataFrame) -> None: ...


def test_the_form_follows_the_arguments_of_the_function() -> None:
    for wrong in (no_arguments, three, 5):
        with pytest.raises(InvalidQuery, match=r"def function\(frame\)"):
            CallbackSink(wrong)  # type: ignore[arg-type]
    for one in (print, with_default, any_number, [].append):
        assert CallbackSink(one).promise == "at least once"
    assert CallbackSink(with_default).describe() == {"function": "with_default"}
    assert pickle.loads(pickle.dumps(CallbackSink(print))) == CallbackSink(print)
