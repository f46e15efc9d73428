"""Progress and rows shown to people: in a terminal with rich, in a notebook as HTML, elsewhere not at all."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import polars as pl

from unistream.runtime.progress import Progress

if TYPE_CHECKING:
    from unistream.api.job import Run
    from unistream.api.stream import Stream

UPDATES_PER_SECOND = 4
QUIET_SECONDS = 0.5
"""A job that ends sooner shows nothing."""


@contextmanager
def following(run: Run, wanted: bool | None) -> Iterator[None]:
    """Show the progress of a run while the body waits for it; by default only where somebody looks on."""
    view = _view(wanted)
    if view is None:
        yield
        return
    over = threading.Event()

    def follow() -> None:
        if over.wait(QUIET_SECONDS):
            return
        view.open()
        while not over.wait(1 / UPDATES_PER_SECOND):
            view.update(run.progress)
        view.close(run.progress)

    thread = threading.Thread(target=follow, name="unistream-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)


class View(ABC):
    """A place where progress is drawn over and over."""

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def update(self, progress: Progress) -> None: ...

    @abstractmethod
    def close(self, progress: Progress) -> None: ...


class TerminalView(View):
    """A few lines at the bottom of a terminal."""

    def __init__(self, to: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=to), auto_refresh=False, transient=False)

    def open(self) -> None:
        self._live.start()

    def update(self, progress: Progress) -> None:
        from rich.text import Text

        # As Text, because brackets in a plain string are markup.
        self._live.update(Text(progress_text(progress)), refresh=True)

    def close(self, progress: Progress) -> None:
        self.update(progress)
        self._live.stop()


class NotebookView(View):
    """A cell output that is replaced."""

    def __init__(self) -> None:
        self._handle: Any = None

    def open(self) -> None:
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)

    def update(self, progress: Progress) -> None:
        from IPython.display import HTML

        from unistream.api.html import progress_html

        self._handle.update(HTML(progress_html(progress)))

    def close(self, progress: Progress) -> None:
        self.update(progress)


def in_notebook() -> bool:
    """Whether the program runs in a kernel that shows rich output."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _view(wanted: bool | None) -> View | None:
    if wanted is False:
        return None
    if in_notebook():
        return NotebookView()
    if wanted or sys.stderr.isatty():
        return TerminalView(sys.stderr)
    return None


def progress_text(progress: Progress) -> str:
    """One or two lines: what was done and, as far as known, what is left or how far behind.

    >>> progress_text(Progress(status="running", seconds=2.0, rows_in=1500, rows_out=1000))
    'running 2s  1,500 rows in, 1,000 out, 0 rows/s'
    """
    parts = [f"{progress.status} {_seconds(progress.seconds)}"]
    counts = (
        f"{progress.rows_in:,} rows in, {progress.rows_out:,} out, {progress.rows_per_second:,.0f} rows/s"
    )
    if progress.bytes_in:
        counts += f", {_bytes(progress.bytes_in)} at {_bytes(int(progress.bytes_per_second))}/s"
    parts.append(counts)
    if progress.done is not None and progress.status == "running":
        left = "" if progress.seconds_left is None else f", {_seconds(progress.seconds_left)} left"
        parts.append(f"{_bar(progress.done)} {progress.done:.0%}{left}")
    parts += [f"{count:,} {name}" for name in ("late", "rejected") if (count := getattr(progress, name))]
    if progress.watermark_lag is not None:
        parts.append(f"watermark {_seconds(progress.watermark_lag)} behind")
    if progress.checkpoint is not None:
        parts.append(f"checkpoint {progress.checkpoint}, {_seconds(progress.checkpoint_age or 0)} old")
    backlog = sum(source.backlog_rows or 0 for source in progress.sources.values())
    if backlog and progress.done is None:
        parts.append(f"{backlog:,} rows queued")
    parts += [
        f"{name}: {source.waiting_for}" for name, source in progress.sources.items() if source.waiting_for
    ]
    return "  ".join(parts)


def _bar(share: float, width: int = 20) -> str:
    full = round(share * width)
    return "━" * full + "╌" * (width - full)


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 120 else f"{minutes // 60}h{minutes % 60:02}m"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""


def display_frame(frame: pl.DataFrame, to: TextIO) -> None:
    """Print a frame, as HTML in a notebook."""
    if in_notebook():
        from IPython.display import display

        display(frame)
    else:
        to.write(f"{frame}\n")


def live_view(stream: Stream, n: int, seconds: float | None) -> None:
    """The last `n` rows of an unbounded stream, redrawn as they come, until `seconds` or an interrupt."""
    from unistream.clock import SystemClock

    clock = SystemClock()
    last = pl.DataFrame(schema=stream.schema)
    lock = threading.Lock()

    def keep(frame: pl.DataFrame) -> None:
        nonlocal last
        with lock:
            last = pl.concat([last, frame.tail(n)]).tail(n)

    run = stream.sink_batches(keep).start()
    end = None if seconds is None else clock.steady() + seconds
    pause = threading.Event()
    draw = _Drawing()
    try:
        while run.status == "running" and (end is None or clock.steady() < end):
            clock.wait(pause, 1 / UPDATES_PER_SECOND)
            with lock:
                draw.frame(last, run.progress)
    except KeyboardInterrupt:
        pass
    finally:
        run.stop()
        draw.close()
    if run.error is not None:
        raise run.error


class _Drawing:
    """Rows and progress in one place, in a terminal or a notebook."""

    def __init__(self) -> None:
        self._notebook = in_notebook()
        self._handle: Any = None
        self._live: Any = None

    def frame(self, frame: pl.DataFrame, progress: Progress) -> None:
        if self._notebook:
            self._draw_html(frame, progress)
        else:
            self._draw_text(frame, progress)

    def _draw_html(self, frame: pl.DataFrame, progress: Progress) -> None:
        from IPython.display import HTML, display

        from unistream.api.html import progress_html

        html = HTML(f"{progress_html(progress)}{frame._repr_html_()}")
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)

    def _draw_text(self, frame: pl.DataFrame, progress: Progress) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(auto_refresh=False)
            self._live.start()
        self._live.update(Text(f"{frame}\n{progress_text(progress)}"), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
