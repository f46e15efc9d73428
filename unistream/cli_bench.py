"""`unistream bench`: the Nexmark queries measured on this machine, and their events as files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unistream import errors
from unistream.cli_base import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from unistream.nexmark.measure import Result, Step
    from unistream.nexmark.trial import Mode, Sample

MODES: dict[str, tuple[Mode, ...]] = {"batch": ("batch",), "stream": ("stream",), "both": ("batch", "stream")}
STDOUT = "-"

BUSY = 0.25
"""Share of the cores that others may use before it is worth a warning."""


class QueriesOrCommand(click.Group):
    """A group whose first word may be an argument: then, and without any, `run` is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of `run`, which needs no name, before the commands."""
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=QueriesOrCommand, subcommand_metavar="[QUERY]... | COMMAND [ARGS]...")
def bench() -> None:
    """Measure the Nexmark queries on this machine: all, or each QUERY (q0 to q22).

    Every run is a process of its own. Shown are medians over the rounds: events of all kinds a second with
    the least and most, cores used, peak memory, the largest state, how many checkpoints were taken and what
    they wrote, rows out, and how long a tick takes.

    \b
    Examples:
      unistream bench                              all queries, a million events
      unistream bench q5 q7 --events 10000000      two, on more events
      unistream bench q0 q15 --rate 50000          live: how late results are
      unistream bench generate events              events as files, once
      unistream bench q4 --input events --json q4.json
    """


@bench.command()
@click.argument("queries", nargs=-1, metavar="[QUERY]...")
@click.option("--events", type=click.IntRange(1), help="Events of all kinds.  [default: 1000000]")
@click.option(
    "--mode", type=click.Choice(list(MODES)), help="As a bounded job, in ticks, or both.  [default: both]"
)
@click.option(
    "--tick-rows", type=click.IntRange(1), default=100_000, show_default=True, help="Most rows of a tick."
)
@click.option(
    "--checkpoint",
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="Time between checkpoints of a stream, or none.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Counted runs of each.")
@click.option("--rate", type=float, help="Live, at so many events a second, for latency; streams alone.")
@click.option(
    "--input",
    "folder",
    type=click.Path(path_type=Path),
    help="Read what `bench generate` wrote; otherwise events are generated once, to a temporary folder.",
)
@click.option(
    "--json",
    "json_to",
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE|-]",
    help="Write JSON to FILE, or in place of the table.",
)
@guarded
def run(
    queries: tuple[str, ...], mode: str | None, checkpoint: str, json_to: str | None, **options: Any
) -> None:
    """Measure; the name `run` may be left out."""
    from unistream.api.termination import terminable
    from unistream.nexmark import report
    from unistream.nexmark.measure import Plan, machine, results, samples

    _check_target(json_to, queries)
    taken: list[Sample] = []
    complete = False
    with _without_place():
        options["checkpoint"] = None if checkpoint == "none" else checkpoint
        plan = Plan(queries=queries, modes=MODES[mode] if mode else (), **options)
        before = machine()
        _warn_of_others(before)
        try:
            with terminable(), _progress() as watch:
                taken.extend(samples(plan, watch))
            complete = True
        finally:
            # Also when it was interrupted or a query failed: what was measured so far is not lost.
            found = results(taken)
            _show(report.to_dict(plan, found, before, complete), found, json_to)


@contextmanager
def _without_place() -> Iterator[None]:
    """Errors name no line of a program: there is none but ours."""
    try:
        yield
    except errors.UnistreamError as error:
        error.where = None
        raise


def _check_target(json_to: str | None, queries: tuple[str, ...]) -> None:
    """Before minutes of work: can the file be written, and is it one?"""
    from unistream.nexmark.queries import QUERIES

    if json_to is None or json_to == STDOUT:
        return
    if json_to in QUERIES:
        hint = f"queries come first, as in `unistream bench {json_to} --json`; a file can be ./{json_to}"
        raise errors.InvalidSettings(f"--json {json_to} names a query", hint=hint)
    file = Path(json_to).absolute()
    try:
        writable = not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)
    except OSError:  # not even looking is allowed
        writable = False
    if not writable:
        hint = "name a file in a folder that is there and that you may write to"
        raise errors.ConnectorError(f"{json_to!r} cannot be written", hint=hint)


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """A line that changes in a terminal, a line for each run elsewhere; beside the results either way."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: click.echo(_told(step), err=True)
        return
    with console.status("") as status:
        yield lambda step: status.update(escape(_told(step)))


def _told(step: Step) -> str:
    return f"{step.number} of {step.total}: {step.what}" if step.total else step.what


def _warn_of_others(machine: dict[str, Any]) -> None:
    """Figures of a machine that does other things are lower, and differ more."""
    load, cores = machine["load_before"], machine["usable_cores"]
    if load > BUSY * cores:
        told = f"the load of the last minute was {load:.1f} on {cores} cores"
        click.echo(f"{told}: if that goes on, figures will be lower and differ more", err=True)


def _show(everything: dict[str, Any], found: list[Result], json_to: str | None) -> None:
    from unistream.nexmark import report

    if not found:
        return
    if json_to is not None:
        text = json.dumps(everything, indent=2)
        if json_to == STDOUT:
            click.echo(text)
            return
        try:
            Path(json_to).write_text(text + "\n")
        except OSError as error:
            hint = "the table has the figures; name another file next time"
            click.echo(report.plain_table(found))
            raise errors.ConnectorError(
                f"{json_to!r} was not written: {error.strerror}", hint=hint
            ) from error
    if not (sys.stdout.isatty() and _drawn(report.rich_table(found))):
        click.echo(report.plain_table(found))


def _drawn(table: Table) -> bool:
    """Print it where the terminal is wide enough: cells that are cut or folded cannot be read."""
    from rich.console import Console

    console = Console()
    unlimited = console.options.update(width=1_000)
    fits = console.measure(table, options=unlimited).maximum <= console.width
    if fits:
        console.print(table)
    return fits


@bench.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--events", type=click.IntRange(0), default=1_000_000, show_default=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "ndjson", "csv"]),
    default="parquet",
    show_default=True,
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["person", "auction", "bid"]),
    help="Only these; may be given several times.",
)
@click.option(
    "--event-rate", type=float, default=10_000, show_default=True, help="Events a second of event time."
)
@click.option("--start", type=click.DateTime(), help="When the first event happens.  [default: 2015-07-15]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace what the folders hold.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@guarded
def generate(
    folder: Path,
    events: int,
    kinds: tuple[str, ...],
    start: datetime | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write Nexmark events to FOLDER/person, FOLDER/auction and FOLDER/bid."""
    from unistream.nexmark.files import FIRST_EVENT, generate_events
    from unistream.nexmark.sources import KINDS

    options |= {
        "kinds": kinds or KINDS,
        "start": start or FIRST_EVENT,
        "progress": False if as_json else None,
    }
    written = {}
    for kind, done in generate_events(folder, events, **options):
        written[kind] = done.rows_out
        if not as_json:
            click.echo(f"{done.rows_out:,} rows in {folder / kind}")
    if as_json:
        click.echo(json.dumps(written))
