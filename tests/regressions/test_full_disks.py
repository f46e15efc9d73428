"""A writer that cannot write any more gives back every file it has open."""

from pathlib import Path

import polars as pl
import pytest

from unistream.expressions.schema import StreamSchema
from unistream.io.base import WriterContext
from unistream.io.line_sinks import CsvSink
from unistream.io.parquet_sink import ParquetSink


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Full:
    """A file whose disk is full: what is left in it cannot be written when it is closed."""

    def __init__(self, file):
        self.file = file

    def close(self):
        self.file.close()
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("kind", [CsvSink, ParquetSink])
def test_close_closes_all_files_although_each_close_fails(tmp_path, kind):
    frame = pl.DataFrame({"k": range(20), "v": range(20)})
    sink = kind(tmp_path, partition_by="k")
    sink.prepare_target(restored=False)
    before = open_files()
    writer = sink.open(WriterContext("job", StreamSchema(frame.schema)))
    writer.write(frame)
    if kind is ParquetSink:
        for part in list(writer._parts.values()):
            writer._write_out(part)
        for lane in writer._lanes:
            lane.settle()
    handle = "handle" if kind is CsvSink else "_file"
    for file in writer._files:
        setattr(file, handle, Full(getattr(file, handle)))
    assert open_files() > before
    writer.close()
    assert open_files() == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
