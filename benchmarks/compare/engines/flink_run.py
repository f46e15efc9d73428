"""One query of Flink's SQL in a process of its own: parallelism 2, checkpoints every ten seconds."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.compare.engines.flink_sql import KEYS, SQL, UNABLE, source
from benchmarks.compare.protocol import Answer, Request, Unable, measured, serve, write_rows
from benchmarks.compare.tables import reads

HEAP = {"heap": "4g"}
"""Most memory of objects; state in RocksDB lies beside it."""

SETTINGS = {
    "parallelism.default": "2",
    "taskmanager.numberOfTaskSlots": "2",
    "execution.checkpointing.interval": "10 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.incremental": "true",
    # A bounded job would otherwise wait for one more interval when its last row is through.
    "execution.checkpointing.checkpoints-after-tasks-finish": "false",
    "taskmanager.memory.managed.size": "1g",
    "table.local-time-zone": "UTC",
}
VARIANTS = {
    "rocksdb": {"state.backend.type": "rocksdb"},
    "heap": {"state.backend.type": "hashmap"},
    "minibatch": {
        "state.backend.type": "rocksdb",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "2 s",
        "table.exec.mini-batch.size": "50000",
        "table.optimizer.distinct-agg.split.enabled": "true",
    },
}
"""The third has the settings that Nexmark's own set-up for Flink makes: aggregates by small batches."""


COLLECTING = {
    "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.checkpoints-after-tasks-finish": "true",
}
"""Files of rows are whole when a checkpoint has seen the end."""


@cache
def environment(variant: str, scratch: str) -> Any:
    """The JVM starts here, once."""
    os.environ["JVM_ARGS"] = f"-Xmx{HEAP.get(variant, '2g')}"
    os.environ["FLINK_LOG_DIR"] = scratch
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment

    settings = Configuration()
    kept = {"execution.checkpointing.dir": f"file://{scratch}/checkpoints"}
    for name, value in {**SETTINGS, **kept, **VARIANTS[variant]}.items():
        settings.set_string(name, value)
    mode = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings)
    return TableEnvironment.create(mode.build())


def declare(table_environment: Any, request: Request, folder: str) -> None:
    """The sources of a query, read from this folder."""
    for name in reads(request.query):
        table_environment.execute_sql(f"DROP TEMPORARY TABLE IF EXISTS `{name}`")
        table_environment.execute_sql(source(name, str(request.files(name, "lanes", folder).resolve())))
    table_environment.execute_sql("DROP TEMPORARY VIEW IF EXISTS clocked")
    if request.query == "q12":
        table_environment.execute_sql(
            "CREATE TEMPORARY VIEW clocked AS SELECT *, PROCTIME() AS came FROM bid"
        )


def insert(table_environment: Any, request: Request, folder: str, into: Any) -> float:
    """Run the query into a table; gives the seconds of the job itself, without planning and submission."""
    declare(table_environment, request, folder)
    result = table_environment.sql_query(SQL[request.query]).execute_insert(into.build())
    result.wait()
    job = result.get_job_client().get_job_execution_result().result()
    return float(job.get_net_runtime()) / 1000


def discard(table_environment: Any, request: Request, folder: str) -> float:
    """Run the query into nothing."""
    from pyflink.table import TableDescriptor

    return insert(table_environment, request, folder, TableDescriptor.for_connector("blackhole"))


def collect(table_environment: Any, request: Request) -> None:
    """Write the rows that were given and not taken back."""
    from pyflink.table import TableDescriptor

    for name, value in COLLECTING.items():
        table_environment.get_config().set(name, value)
    out = Path(request.scratch, f"rows-{request.query}")
    files = TableDescriptor.for_connector("filesystem").option("path", f"file://{out}")
    files = files.format("debezium-json").option("debezium-json.timestamp-format.standard", "ISO-8601")
    insert(table_environment, request, request.folder, files)
    changes = [json.loads(line) for file in sorted(parts(out), key=_order) for line in file.open()]
    rows = [(change["op"] == "c", change["after"] or change["before"]) for change in changes]
    names = list(rows[0][1]) if rows else []
    if key := KEYS.get(request.query):
        found: Iterable[Any] = {row[key]: list(row.values()) for _, row in rows}.values()
    else:
        found = folded(rows)
    write_rows(str(request.rows), names, found)


def parts(folder: Path) -> list[Path]:
    """The files of a result."""
    return [file for file in folder.rglob("part-*") if file.is_file()]


def _order(file: Path) -> tuple[int, int]:
    """Files are numbered by the subtask that writes them and by when they were begun."""
    subtask, number = file.name.rsplit("-", 2)[1:]
    return int(subtask), int(number)


def folded(changes: Iterable[tuple[bool, dict[str, Any]]]) -> Iterable[Any]:
    """The rows that were given and not taken back."""
    left: Counter[str] = Counter()
    for adds, row in changes:
        left[json.dumps(list(row.values()))] += 1 if adds else -1
    if any(count < 0 for count in left.values()):
        raise RuntimeError("a row was taken back that was never given")
    return map(json.loads, left.elements())


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    answer.version = version("apache-flink")
    if request.query in UNABLE:
        raise Unable(UNABLE[request.query])
    table_environment = environment(request.variant, request.scratch)
    if request.rows:
        return collect(table_environment, request)
    if request.warm:
        discard(table_environment, request, request.warm)
    with measured(answer, client=True):
        seconds = discard(table_environment, request, request.folder)
    answer.seconds = seconds
    return None


if __name__ == "__main__":
    serve(run)
