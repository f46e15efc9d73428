"""That a table is still the one that rows were given with, over restarts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from unistream.errors import StateError
from unistream.state.backend import Cell


def check_steady(cell: Cell, table: pl.DataFrame, columns: Sequence[str], text: str) -> None:
    """Refuse a table that is not the one in `cell`, as far as it was used; then `cell` says what it is now.

    A row that is taken back must find what it found when it was given. Where nothing was noted, by the first
    run or an older one, the table is taken as it is; so it is where another Polars counted.
    """
    noted = cell.get()
    if noted is not None and noted["polars"] == pl.__version__:
        used = noted["columns"]
        if not set(used) <= set(table.columns) or _digest(table.select(used)) != noted["digest"]:
            hint = "use join(), which follows changes of both sides, or begin with a new checkpoint folder"
            raise StateError(
                f"lookup over a stream that updates needs a table that stays, and {text} has changed since "
                "the checkpoint: rows could not be taken back as they were given",
                None,
                hint,
            )
    digest = _digest(table.select(columns))
    cell.set({"columns": list(columns), "digest": digest, "polars": pl.__version__})


def _digest(rows: pl.DataFrame) -> str:
    """The same for the same rows in any order; hashes are equal for one version of Polars."""
    total = int(rows.hash_rows(seed=0).to_numpy().sum(dtype=np.uint64))
    return f"{rows.height}:{total:016x}"
