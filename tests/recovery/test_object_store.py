"""A whole job with its checkpoints in an object store: killed, resumed, looked at, moved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from recovery_forks import Forks
from recovery_jobs import RESULTS, check_all, make_rows, to_parquet, write_input, written

import unistream as us
from unistream.cli import main
from unistream.clock import Random
from unistream.state.ownership import sequence
from unistream.state.storage import storage_for
from unistream.testing.ways import folder_in_memory

ROWS = make_rows(2500, seed=21)
SMALL_TICKS = us.Settings(tick_rows=25, queue_chunks=4)
REGION = "us-east-1"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket, in the way a user would have it: credentials in the environment."""
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    import boto3

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
        }.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name=REGION).create_bucket(Bucket="jobs")
        yield "s3://jobs"
    server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        write_input(path / "in", ROWS, files=10)
        yield path


def job(folder: Path) -> us.Job:
    return to_parquet(us.scan_parquet(folder / "in" / "*.parquet"), folder / "out")


def check(folder: Path) -> None:
    check_all(ROWS, {name: written(folder / "out", name) for name in RESULTS})


def test_killed_again_and_again(bucket: str, folder: Path) -> None:
    url, random, killed = f"{bucket}/killed", Random(5), 0
    forks = Forks(folder)
    try:
        while True:
            child = forks.start("recovery_jobs", "with_checkpoints_at", url, folder / "in", folder)
            known = max(sequence(storage_for(url)), default=0)
            aim = known + random.randint(1, 5)
            while killed < 6 and max(sequence(storage_for(url)), default=0) < aim and not child.wait(0.005):
                pass
            if killed >= 6:
                assert child.wait(120)
            if not child.kill():
                break
            killed += 1
        assert "returned" in child.outcome, child.outcome
        assert killed >= 3
    finally:
        forks.close()
    check(folder)


def test_stopped_looked_at_and_moved(bucket: str, folder: Path) -> None:
    url, kept, moved = (f"{bucket}/{name}" for name in ("first", "kept", "second"))
    run = job(folder).start(checkpoint=url, every="20ms", settings=SMALL_TICKS)
    with pytest.raises(us.StateError, match=r"s3://jobs/first is in use by process"):
        job(folder).start(checkpoint=url)
    while (run.progress.checkpoint or 0) < 3:
        assert not run.wait(0.005)
    saved = run.savepoint(kept)
    assert run.stop(timeout=60)
    assert "aggregate-1" in us.read_state(kept, id=saved)["operator"].to_list()
    assert us.read_state(kept, "aggregate-1").height > 0
    for command in (["checkpoints", "ls", url], ["checkpoints", "verify", url], ["state", kept]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    progress = job(folder).run(checkpoint=url, settings=SMALL_TICKS, progress=False)
    assert 0 < progress.rows_in < ROWS.height
    check(folder)
    other = folder / "other"
    again = to_parquet(us.scan_parquet(folder / "in" / "*.parquet"), other)
    progress = again.run(checkpoint=moved, restore=kept, settings=SMALL_TICKS, progress=False)
    assert 0 < progress.rows_in < ROWS.height
    ahead = to_parquet(us.scan_parquet(folder / "in" / "*.parquet"), other)
    assert ahead.run(checkpoint=moved, restore=kept, progress=False).rows_in == 0


def test_a_store_that_is_away_is_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(us.ConnectorError, match="s3://nowhere/job"):
        job(folder).start(checkpoint="s3://nowhere/job")
