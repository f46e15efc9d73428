"""Ending a job on purpose: by a signal, by `stop`, by a drain; what follows goes on exactly where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from recovery_forks import Forks
from recovery_jobs import RESULTS, check_all, make_rows, to_parquet, write_input, written

import unistream as us
from unistream.api.termination import terminable
from unistream.cli_checkpoints import load_checkpoint
from unistream.errors import StateError
from unistream.testing.ways import folder_in_memory

ROWS = make_rows(3000, seed=11)
SMALL_TICKS = us.Settings(tick_rows=25, queue_chunks=4)
LONG = 60.0
"""Seconds after which something counts as hanging."""


def rows_in_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint covers rows; the first of a job may be from before its first row."""
    try:
        manifest = load_checkpoint(str(folder), None)
    except StateError:  # none yet, or the one looked at has been replaced
        return False
    return any(manifest.positions.values())


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with folder_in_memory() as folder:
        made = Forks(folder)
        yield made
        made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        write_input(path / "in", ROWS, files=12)
        yield path


def until(condition: object, child: object) -> None:
    """Poll until a condition holds; the child may not end before."""
    for _ in range(int(LONG / 0.002)):
        if condition():  # type: ignore[operator]
            return
        assert not child.wait(0.002), child.outcome  # type: ignore[attr-defined]
    raise AssertionError("it never came to that")


def files_in(folder: Path) -> int:
    """How many files of results there are; `rglob` does not bear folders that go while it looks."""
    return sum(name.endswith(".parquet") for _, _, names in os.walk(folder) for name in names)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, "SystemExit: 143"), (signal.SIGINT, "KeyboardInterrupt: ")]
)
@pytest.mark.parametrize("commits", [0, 4])
def test_a_signal_ends_it_and_the_next_run_goes_on(
    number: int, raised: str, commits: int, forks: Forks, folder: Path
) -> None:
    child = forks.start("recovery_jobs", "run_to_the_end", folder / "in", folder, "20ms", 25)
    running = folder / "ckpt/.unistream-running"
    until(lambda: files_in(folder / "out") >= 3 * commits and running.exists(), child)
    until(lambda: rows_in_checkpoint(folder / "ckpt"), child)
    child.signal(number)
    assert child.wait(LONG)
    assert child.outcome == {"raised": raised}
    assert not running.exists(), "it did not end in order"
    again = forks.start("recovery_jobs", "run_to_the_end", folder / "in", folder, "20ms", 25)
    assert again.wait(LONG)
    assert again.outcome["returned"] < ROWS.height, "it began anew"
    check_all(ROWS, {name: written(folder / "out", name) for name in RESULTS})


def test_stop_and_start_over_and_over(folder: Path) -> None:
    rows, starts = 0, 0
    while True:
        job = to_parquet(us.scan_parquet(folder / "in" / "*.parquet"), folder / "out")
        run = job.start(checkpoint=folder / "ckpt", every="30ms", settings=SMALL_TICKS)
        starts += 1
        before = files_in(folder / "out")
        while not run.wait(0.005) and files_in(folder / "out") < before + 6:
            pass
        assert run.stop(timeout=LONG)
        rows += run.progress.rows_in
        if run.status == "finished":
            break
    assert starts > 2, "it was never stopped in the middle"
    assert rows == ROWS.height, "a row was read twice although every stop was in order"
    check_all(ROWS, {name: written(folder / "out", name) for name in RESULTS})


def test_a_drain_closes_what_is_open(tmp_path: Path) -> None:
    live = us.scan_rate(2000, total_rows=None).with_event_time("timestamp", delay="1s")
    counts = live.group_by(parity=pl.col("value") % 2).window(us.tumbling("1h")).agg(n=pl.len())
    run = counts.sink_parquet(tmp_path / "out").start(checkpoint=tmp_path / "ckpt", every="20ms")
    while run.progress.rows_in < 10:
        assert not run.wait(0.005)
    assert not files_in(tmp_path / "out"), "no window of an hour can have ended"
    assert run.stop(drain=True, timeout=LONG)
    assert pl.read_parquet(tmp_path / "out")["n"].sum() == run.progress.rows_in


def test_a_stop_without_drain_keeps_windows_open(tmp_path: Path) -> None:
    live = us.scan_rate(2000, total_rows=None).with_event_time("timestamp", delay="1s")
    counts = live.group_by(parity=pl.col("value") % 2).window(us.tumbling("1h")).agg(n=pl.len())
    for _ in range(2):
        run = counts.sink_parquet(tmp_path / "out").start(checkpoint=tmp_path / "ckpt", every="20ms")
        while run.progress.rows_in < 10:
            assert not run.wait(0.005)
        assert run.stop(timeout=LONG)
    assert not files_in(tmp_path / "out")


def test_the_command_line_ends_at_a_signal(folder: Path) -> None:
    script = folder / "job.py"
    script.write_text(
        "import unistream as us\n"
        f"job = us.scan_rate(100).sink_csv({str(folder / 'csv')!r})\n"
        "print('ready', flush=True)\n"
    )
    command = [sys.executable, "-m", "unistream", "run", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not any(os.walk(folder / "csv")) and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LONG)
    assert process.returncode in (143, -signal.SIGTERM), errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_while_a_job_opens_waits_unless_it_comes_again(signals: int, number: signal.Signals) -> None:
    came = []
    before = signal.getsignal(number)
    with terminable() as termination:
        assert signal.getsignal(number) == termination.end  # else it would end the tests
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended, termination.held():
            for time in range(signals):
                os.kill(os.getpid(), number)
                came.append(time)
    assert (ended.type is KeyboardInterrupt) == (number == signal.SIGINT)
    assert ended.type is KeyboardInterrupt or ended.value.code == 143
    assert came == [0], "the first is waited for, the second ends at once" if signals == 2 else "held"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_while_a_sink_opens_ends_the_job_cleanly(tmp_path: Path, number: int, code: int) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal\n"
        "import unistream as us\n"
        "from unistream.io.memory import MemorySink\n"
        "class Slow(MemorySink):\n"
        "    def open(self, context):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        print('went on', flush=True)\n"
        "        return MemorySink.open(self, context)\n"
        "us.scan_rate(100).sink(Slow()).run(progress=False)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == code and done.stdout == "went on\n", done.stderr
