"""How rows of a table look to somebody who did not write the operator: expressions kept beside the table."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence

import polars as pl

from unistream.state.backend import StateStore

_SUFFIX = ".shown"

_log = logging.getLogger(__name__)


def shown_name(table: str) -> str:
    """The cell that says how a table is shown."""
    return table + _SUFFIX


def is_shown(name: str) -> bool:
    """Whether a cell says how a table is shown, and is no state itself."""
    return name.endswith(_SUFFIX)


def show_as(state: StateStore, table: str, columns: Sequence[str | pl.Expr]) -> None:
    """Let readers see these columns of the table's rows: names, and expressions over what is kept."""
    exprs = [pl.col(column) if isinstance(column, str) else column for column in columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the form of expressions may change is why `shown` may give up
        state.cell(shown_name(table)).set([expr.meta.serialize(format="json") for expr in exprs])


def shown(rows: pl.DataFrame, texts: Sequence[str]) -> pl.DataFrame:
    """The rows as the operator wants them seen; as they are kept, if another Polars wrote the expressions."""
    try:
        exprs = [pl.Expr.deserialize(io.StringIO(text), format="json") for text in texts]
    except (pl.exceptions.ComputeError, ValueError) as error:
        _log.warning("state is shown as it is kept; this Polars cannot read how it was to be seen: %s", error)
        return rows
    return rows.select(exprs)
