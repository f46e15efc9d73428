"""One query of Spark Structured Streaming in a process of its own: two cores, state in RocksDB."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from benchmarks.compare.engines.spark_sql import DELAY, SQL, TYPES, UNABLE
from benchmarks.compare.protocol import Answer, Request, Unable, measured, serve, write_rows
from benchmarks.compare.tables import TABLES, TIME, reads

SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.memory": "4g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
}


@cache
def session() -> Any:
    """The JVM starts here, once."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("compare")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    side_input = made.range(10_000).selectExpr("id AS key", "concat('value ', id) AS value")
    side_input.createOrReplaceTempView("side_input")
    return made


def start(request: Request, folder: str, checkpoint: str, each: Any = None) -> None:
    """Run the query over the files of a folder until all are read, into nothing or into a function."""
    for table in reads(request.query):
        columns = ", ".join(f"{name} {TYPES[kind]}" for name, kind in TABLES[table].items())
        rows = session().readStream.schema(columns).option("timestampFormat", "yyyy-MM-dd HH:mm:ss.SSS")
        frame = rows.csv(str(request.files(table, "lanes", folder)))
        if TIME in TABLES[table].values():
            frame = frame.withWatermark("dateTime", DELAY)
        frame.createOrReplaceTempView(table)
    asked = SQL[request.query]
    writer = session().sql(asked.text).writeStream.outputMode(asked.mode).trigger(availableNow=True)
    writer = writer.option("checkpointLocation", f"{request.scratch}/{checkpoint}")
    run = (writer.foreachBatch(each) if each else writer.format("noop")).start()
    run.awaitTermination()


def collect(request: Request) -> None:
    """Write the rows: of those with equal keys the last one."""
    found: dict[Any, Any] = {}
    names: list[str] = []
    keys = SQL[request.query].keys

    def each(frame: Any, batch: int) -> None:
        names[:] = frame.columns
        for row in frame.collect():
            found[tuple(row[key] for key in keys) if keys else len(found)] = tuple(row)

    start(request, request.folder, f"rows-{request.query}", each)
    write_rows(str(request.rows), names, found.values())


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    if request.query in UNABLE:
        raise Unable(UNABLE[request.query])
    answer.version = session().version
    if request.rows:
        return collect(request)
    if request.warm:
        start(request, request.warm, "warm")
    with measured(answer, client=True):
        start(request, request.folder, "kept")
    return None


if __name__ == "__main__":
    serve(run)
