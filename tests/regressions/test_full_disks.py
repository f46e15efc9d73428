"""A writer that cannot write any more gives back every file it has open, and may be tried again."""

from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.clock import SystemClock
from unistream.errors import ConnectorError
from unistream.expressions.schema import StreamSchema
from unistream.io import staging
from unistream.io.base import WriterContext
from unistream.io.line_sinks import CsvSink
from unistream.io.parquet_sink import ParquetSink
from unistream.testing import ListSource


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


class Unwilling:
    """A file for which there is no room."""

    def __init__(self, file, fails):
        self.file, self.fails = file, fails

    def __getattr__(self, name):
        if name in self.fails:
            raise OSError(28, "No space left on device")
        return getattr(self.file, name)


def full(monkeypatch, *fails):
    """From now on `fails` of every staged file that is opened: "open", "write" or "fileno" (which syncs)."""
    opened = Path.open

    def open_there(path, *args, **options):
        if path.suffix != ".tmp":
            return opened(path, *args, **options)
        if "open" in fails:
            raise OSError(28, "No space left on device")
        return Unwilling(opened(path, *args, **options), fails)

    monkeypatch.setattr(Path, "open", open_there)


@pytest.mark.parametrize("kind", [CsvSink, ParquetSink])
@pytest.mark.parametrize("fails", ["open", "write", "fileno"])
def test_a_full_disk_may_have_room_later(tmp_path, monkeypatch, kind, fails):
    sink = kind(tmp_path)
    sink.prepare_target(restored=False)
    frame = pl.DataFrame({"v": range(20)})
    writer = sink.open(WriterContext("job", StreamSchema(frame.schema), checkpoints=True))
    full(monkeypatch, fails)
    with pytest.raises(ConnectorError, match="No space left") as caught:
        writer.write(frame)
        writer.prepare(1)
    writer.close()
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("kind", [CsvSink, ParquetSink])
@pytest.mark.parametrize("step", ["mkdir", "replace", "sync_folder"])
def test_also_when_there_is_no_room_for_names(tmp_path, monkeypatch, kind, step):
    sink = kind(tmp_path, partition_by="k")
    sink.prepare_target(restored=False)
    frame = pl.DataFrame({"k": [1, 2], "v": [1, 2]})
    writer = sink.open(WriterContext("job", StreamSchema(frame.schema), checkpoints=True))

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((staging, step) if step == "sync_folder" else (Path, step)), fail)
        with pytest.raises(ConnectorError, match="No space left") as caught:
            writer.write(frame)
            sink.commit([writer.prepare(1)])
    writer.close()
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_job_goes_on_when_there_is_room_again(tmp_path, monkeypatch, kind):
    rows = [(n,) for n in range(20)]
    stream = us.scan(ListSource({"n": pl.Int64}, rows))
    job = getattr(stream, f"sink_{kind}")(tmp_path / "out")
    with monkeypatch.context() as patch:
        full(patch, "write")
        run = job.start(checkpoint=tmp_path / "ckpt", restart=us.FixedDelay(1000, "1ms"), clock=Patient())
        while run.status != "restarting" and not run.restarts:
            assert not run.wait(0.002)
    assert run.wait(60)
    assert getattr(pl, f"read_{kind}")(tmp_path / "out" / "part-*")["n"].to_list() == list(range(20))


class Patient(SystemClock):
    """Does not wait as long as it is asked to."""

    def wait(self, event, seconds):
        return super().wait(event, min(seconds, 0.002))
