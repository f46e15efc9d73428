"""Streams and runs as notebooks show them; every text is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from unistream.runtime.progress import Progress

if TYPE_CHECKING:
    from unistream.api.stream import Stream

MOST_COLUMNS = 200


def stream_html(stream: Stream) -> str:
    """Columns and kind of a stream; never runs it."""
    kind = "bounded" if stream.bounded else "unbounded"
    shown = list(stream.schema.items())[:MOST_COLUMNS]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(str(dtype))}</code></td></tr>" for name, dtype in shown
    )
    more = len(stream.schema) - len(shown)
    rest = f"<tr><td colspan=2>and {more} more</td></tr>" if more else ""
    head = "<tr><th>column</th><th>type</th></tr>"
    return f"<div><b>Stream</b> ({kind})<table>{head}{rows}{rest}</table></div>"


def progress_html(progress: Progress) -> str:
    """One line of progress with a bar where the end is known."""
    from unistream.api.display import progress_text

    bar = ""
    if progress.done is not None:
        bar = f'<progress value="{progress.done:.3f}" max="1" style="width:16em"></progress> '
    return f"<div>{bar}<code>{escape(progress_text(progress))}</code></div>"
