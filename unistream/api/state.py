"""Looking inside: the state of a running job, and of any checkpoint, as frames."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unistream.errors import InvalidQuery, StateError, nearest
from unistream.location import user_location

if TYPE_CHECKING:
    from unistream.runtime.local import LocalRuntime
    from unistream.state.manifest import Manifest
    from unistream.state.reader import TableInfo
    from unistream.state.store import TableStore

_TABLES = pl.Schema({"operator": pl.String, "table": pl.String, "kind": pl.String, "rows": pl.Int64})


class LiveState:
    """The tables of one operator of a running job. Each look sees one moment between two ticks."""

    def __init__(self, runtime: LocalRuntime, operator: str, timeout: float) -> None:
        self._runtime = runtime
        self._operator = operator
        self._timeout = timeout
        if operator not in runtime.stores:
            raise _unknown("operator with state", operator, list(runtime.stores), "the job")

    def tables(self) -> pl.DataFrame:
        """Name, kind and number of rows of each table."""
        from unistream.state.live import live_tables

        return _listed(self._runtime.ask(lambda: live_tables(self._store())).result(self._timeout))

    def scan(
        self, table: str | None = None, where: pl.Expr | None = None, *, raw: bool = False
    ) -> pl.DataFrame:
        """The rows of a table as they are now, or those for which `where` holds.

        `table` may be left out when only one has rows. A running aggregate shows its results under your
        names; `raw` shows what it keeps to compute them. The whole table is copied between two ticks: of
        very large state, look at a checkpoint instead (`us.read_state`).
        """
        from unistream.state.live import live_tables, read_live

        def look() -> pl.DataFrame:
            store = self._store()
            return read_live(store, _only(live_tables(store), table, self._operator), raw)

        rows = self._runtime.ask(look).result(self._timeout)
        return rows if where is None else rows.filter(where)

    def _store(self) -> TableStore:
        from unistream.state.store import TableStore

        store = self._runtime.stores[self._operator]
        assert isinstance(store, TableStore)
        return store

    def __repr__(self) -> str:
        return f"<LiveState of {self._operator}>"


def read_state(
    checkpoint: str | Path,
    operator: str | None = None,
    table: str | None = None,
    *,
    id: int | None = None,
    raw: bool = False,
) -> pl.DataFrame:
    """State out of a checkpoint directory or savepoint, whether its job runs or not.

    The rows of `table` of `operator`; `table` may be left out where only one has rows. Without `operator` the
    list of all tables. `id` is that of a checkpoint, the newest by default. A running aggregate shows its
    results under your names; `raw` shows what it keeps to compute them. Every byte read is verified.

    >>> import tempfile, polars as pl, unistream as us
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     counts = us.from_frame({"k": ["a", "b", "a"]}).group_by("k").agg(n=pl.len()).changes()
    ...     _ = counts.sink_batches(lambda frame: None).run(checkpoint=folder, progress=False)
    ...     us.read_state(folder, "aggregate-1").sort("k").rows()
    [('a', 2), ('b', 1)]
    """
    from unistream.state.checkpoint_store import CheckpointStore
    from unistream.state.reader import list_tables, read_table
    from unistream.state.storage import storage_for

    store = CheckpointStore(storage_for(checkpoint))
    manifest = store.newest() if id is None else store.load(id)
    if manifest is None:
        hint = "a job keeps them in the folder that it is given as checkpoint="
        raise StateError(f"There is no checkpoint in {checkpoint}", user_location(), hint)
    known = [info for state in manifest.states for info in list_tables(state.tables)]
    if operator is None:
        return _listed(known)
    name = _table_of(known, operator, table, manifest)
    with tempfile.TemporaryDirectory(prefix="unistream-state-") as folder:
        parts = [
            read_table(part.tables, part.files, operator, name, raw)
            for part in store.fetch(manifest, Path(folder))
            if name in part.tables["operators"].get(operator, {}).get("tables", {})
        ]
    return pl.concat(parts)


def _table_of(known: list[TableInfo], operator: str, table: str | None, manifest: Manifest) -> str:
    operators = sorted({info.operator_id for info in known})
    if operator not in operators:
        raise _unknown("operator with state", operator, operators, f"checkpoint {manifest.id}")
    return _only([info for info in known if info.operator_id == operator], table, operator)


def _only(tables: list[TableInfo], table: str | None, operator: str) -> str:
    """The table that is meant; single values such as a watermark are meant only when named."""
    names = sorted({info.name for info in tables})
    if table is None:
        large = sorted({info.name for info in tables if info.kind != "cell"}) or names
        if len(large) == 1:
            return large[0]
        raise InvalidQuery(
            f"Operator {operator!r} has {len(names)} tables: {names}", user_location(), "name one: table=..."
        )
    if table not in names:
        raise _unknown("table", table, names, f"operator {operator!r}")
    return table


def _unknown(what: str, name: str, known: list[str], where: str) -> InvalidQuery:
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
    return InvalidQuery(f"There is no {what} {name!r} in {where}", user_location(), hint)


def _listed(tables: list[TableInfo]) -> pl.DataFrame:
    rows = [(info.operator_id, info.name, info.kind, info.rows) for info in tables]
    return pl.DataFrame(rows, schema=_TABLES, orient="row")
