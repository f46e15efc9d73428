"""A whole query fails with its cause, also when several files are being written."""

import threading

import polars as pl
import pytest

import unistream as us
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Cancelled, WriterContext
from unistream.io.parquet_query import ParquetQuery
from unistream.io.parquet_sink import ParquetSink


def test_the_failure_of_one_file_is_told_although_the_others_were_stopped_by_it(tmp_path):
    frame = pl.DataFrame({"k": ["a", "b"], "v": [1, 2]})
    context = WriterContext("job", StreamSchema(frame.schema))
    sink = ParquetSink(tmp_path, partition_by="k")
    sink.prepare_target(restored=False)
    query = sink.lazy(frame.lazy(), context)
    assert isinstance(query, ParquetQuery)
    opened, failed = query._opened, threading.Event()

    def second_fails(args):
        file = opened(args)
        if len(query._files) == 1:
            file.error = Cancelled()  # what it is told when the other has failed
            return file
        failed.set()
        raise OSError(28, "No space left on device")

    query._opened = second_fails
    with pytest.raises(us.ConnectorError, match="No space left"):
        query.run()
    assert failed.is_set()
    sink.abort(context)


def test_a_value_too_long_for_a_folder_fails_the_job_every_time(tmp_path):
    rows = us.from_frame({"k": ["x" * 300, "y"], "v": [1, 2]})
    for attempt in range(20):
        with pytest.raises(us.JobFailed, match="302 bytes"):
            rows.sink_parquet(tmp_path / str(attempt), partition_by="k").run(progress=False)
        assert list((tmp_path / str(attempt)).iterdir()) == []
