"""A sink of unistream that takes every kind of stream and keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from unistream.expressions.schema import Changes
from unistream.io.base import Sink, Writer, WriterContext


@dataclass(frozen=True)
class Nothing(Sink):
    """Where the other engines have a `blackhole` or a `noop`."""

    name = "nothing"

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    def open(self, context: WriterContext) -> Writer:
        return _Forgetful()


class _Forgetful(Writer):
    def write(self, frame: pl.DataFrame) -> None:
        pass
