"""The demonstration itself: batch, live, killed, resumed, compared; each step is really done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table

from unistream.clock import SystemClock
from unistream.demo.orders import files, make_orders, revenue
from unistream.demo.server import Dropper, Server
from unistream.errors import JobFailed

LIVE_SECONDS = 12.0
FILES = 24
SOCKET_SHARE = 5
"""Every fifth order comes over the socket, the others in files."""

MOST_SECONDS = 120.0
KEY = ["item", "window_start"]


@dataclass
class Worker:
    """The live job's process and the latest of what it said."""

    arguments: list[str]
    errors: Path
    latest: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """Begin, or go on from the newest checkpoint."""
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unistream.demo.worker", *self.arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(b"}\n"):
                self.latest = json.loads(line)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> bool:
        """Have it close what is open; true when it ended well."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60) == 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None


def run_demo(rows: int, folder: Path | None, quiet: bool) -> bool:
    """Show all steps; true when both answers are the same rows."""
    console = Console()
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        console.print(f"[red]{folder} is not empty; choose another folder.[/]")
        return False
    base = Path(tempfile.mkdtemp(prefix="unistream-demo-")) if folder is None else folder
    base.mkdir(parents=True, exist_ok=True)
    try:
        return _Demo(console, base, rows, quiet).run()
    finally:
        if folder is None:
            shutil.rmtree(base, ignore_errors=True)


class _Demo:
    def __init__(self, console: Console, base: Path, rows: int, quiet: bool) -> None:
        self._console = console
        self._clock = SystemClock()
        self._rows = rows
        self._quiet = quiet
        names = ("all", "parts", "watched", "output", "checkpoints")
        self._all, self._parts, self._watched, self._output, self._checkpoints = (base / n for n in names)
        for path in (self._all, self._parts, self._watched):
            path.mkdir()
        self._errors = base / "worker.log"

    def run(self) -> bool:
        orders = self._generate()
        expected = self._batch()
        self._live(orders)
        return self._compare(expected)

    def _generate(self) -> pl.DataFrame:
        with self._step(f"Generate {self._rows:,} orders of one hour and write them as Parquet") as note:
            orders = make_orders(self._rows)
            by_file = orders.filter(pl.col("order") % SOCKET_SHARE != 0)
            size = -(-by_file.height // FILES)
            for number, part in enumerate(by_file.iter_slices(size)):
                part.write_parquet(self._parts / f"orders-{number:03}.parquet")
            orders.write_parquet(self._all / "orders.parquet")
            note(f"{sum(file.stat().st_size for file in self._all.iterdir()) / 1e6:.0f} MB")
        return orders

    def _batch(self) -> pl.DataFrame:
        with self._step("Ask for the revenue per item and minute, as a batch") as note:
            began = self._clock.steady()
            answer = revenue(files(self._all)).collect().sort(KEY)
            rate = self._rows / (self._clock.steady() - began)
            note(f"{answer.height:,} rows, {rate / 1e6:.1f} million orders a second")
        self._console.print(answer.head(3))
        return answer

    def _live(self, orders: pl.DataFrame) -> None:
        self._console.print("\nThe same query live: files appear in a folder, a server sends the rest.")
        server = Server(orders.filter(pl.col("order") % SOCKET_SHARE == 0), LIVE_SECONDS)
        dropper = Dropper(sorted(self._parts.iterdir()), self._watched, LIVE_SECONDS)
        paths = [self._output, self._checkpoints]
        worker = Worker([str(self._watched), server.address, *map(str, paths)], self._errors)
        try:
            worker.start()
            self._watch(worker, server, dropper, seconds=LIVE_SECONDS / 2)
            self._kill(worker)
            self._watch(worker, server, dropper, seconds=MOST_SECONDS)
            if not worker.end():
                raise JobFailed(f"The worker failed:\n{self._errors.read_text()}")
        finally:
            server.close()
            dropper.close()
            if worker.alive:
                worker.kill()
        self._console.print(
            f"All read, open windows closed; the server saw {server.connections} connections."
        )

    def _kill(self, worker: Worker) -> None:
        files = len(list(self._output.glob("*.parquet")))
        self._console.print(f"[bold red]kill -9 {worker.pid}[/] in the middle; {files} result files so far")
        worker.kill()
        worker.latest = {}
        worker.start()
        self._console.print(f"[bold]Started again[/] as {worker.pid}: it goes on from its newest checkpoint")

    def _watch(self, worker: Worker, server: Server, dropper: Dropper, seconds: float) -> None:
        """Show the worker until `seconds` have passed or everything was sent and it has come to rest."""
        end = self._clock.steady() + seconds
        rest = Rest(self._clock)
        pause = threading.Event()
        with Live(console=self._console, auto_refresh=False, transient=True) as view:
            while self._clock.steady() < end:
                self._clock.wait(pause, 0.1)
                if not worker.alive:
                    raise JobFailed(f"The worker ended by itself:\n{self._errors.read_text()}")
                if not self._quiet:
                    view.update(_live_table(worker.latest, server, dropper), refresh=True)
                if server.done and dropper.done and rest.reached(worker.latest.get("rows_in")):
                    return

    def _compare(self, expected: pl.DataFrame) -> bool:
        with self._step("Compare the files written live with the answer of the batch") as note:
            written = pl.read_parquet(self._output / "*.parquet").sort(KEY)
            same = written.equals(expected)
            note(f"{written.height:,} and {expected.height:,} rows")
        if same:
            self._console.print("[bold green]Row for row equal: nothing lost, nothing twice.[/]")
        else:
            missing = expected.join(written, on=expected.columns, how="anti", nulls_equal=True)
            self._console.print(
                f"[bold red]The answers differ[/] in {missing.height:,} rows:", missing.head(5)
            )
        return same

    @contextmanager
    def _step(self, what: str) -> Iterator[Callable[[str], None]]:
        began = self._clock.steady()
        found: list[str] = []
        self._console.print(f"{what} ...")
        yield found.append
        seconds = self._clock.steady() - began
        self._console.print(f"  [green]done[/] in {seconds:.2f} s: {'; '.join(found)}")


class Rest:
    """Whether a number has stayed the same for a while."""

    SECONDS = 1.5

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._last: Any = None
        self._since = clock.steady()

    def reached(self, number: Any) -> bool:
        """Tell it the number of now."""
        if number != self._last or number is None:
            self._last, self._since = number, self._clock.steady()
        return self._clock.steady() - self._since > self.SECONDS


def _live_table(latest: dict[str, Any], server: Server, dropper: Dropper) -> Table:
    table = Table(
        "status", "orders in", "per second", "results out", "watermark", "checkpoint", "files", "socket lines"
    )
    if latest:
        watermark = latest["watermark"]
        table.add_row(
            latest["status"],
            f"{latest['rows_in']:,}",
            f"{latest['rows_per_second']:,.0f}",
            f"{latest['rows_out']:,}",
            "" if watermark is None else f"{datetime.fromtimestamp(watermark / 1e6, UTC):%H:%M:%S}",
            str(latest["checkpoint"] or ""),
            str(dropper.dropped),
            f"{server.sent:,}",
        )
    return table
