"""Commands that look into checkpoints, whether their job runs or not."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from unistream import errors
from unistream.cli_base import as_json_option, guarded, rows_of, show_frame

NO_CHECKPOINT = "a job keeps them in the folder that it is given as checkpoint="


@click.group()
def checkpoints() -> None:
    """Look into a checkpoint folder or savepoint, whether its job runs or not."""


@checkpoints.command("ls")
@click.argument("folder")
@as_json_option
@guarded
def list_checkpoints(folder: str, as_json: bool) -> None:
    """List the checkpoints in FOLDER, oldest first."""
    from unistream.state.checkpoint_tables import listing

    show_frame(listing(reader_of(folder)), as_json)


@checkpoints.command("verify")
@click.argument("folder")
@click.option("--id", "number", type=int, help="Only this checkpoint.")
@as_json_option
@guarded
def verify_checkpoints(folder: str, number: int | None, as_json: bool) -> None:
    """Read every byte of the checkpoints in FOLDER; exit code 4 when something is damaged."""
    from unistream.state.verification import verify

    report = verify(reader_of(folder).storage, number)
    if as_json or not report.ok:
        show_frame(report.frame(), as_json)
    else:
        found = f"{len(report.checkpoints)} checkpoints, {report.files} files, {report.nbytes:,} bytes"
        click.echo(f"all as recorded: {found}")
    if not report.ok:
        sys.exit(4)


@checkpoints.command("inspect")
@click.argument("folder")
@click.option("--id", "number", type=int, help="This checkpoint instead of the newest.")
@as_json_option
@guarded
def inspect_checkpoint(folder: str, number: int | None, as_json: bool) -> None:
    """Show what a checkpoint in FOLDER holds: tables, files, positions, tokens."""
    from unistream.state.checkpoint_tables import inspect

    frames = inspect(load_checkpoint(folder, number))
    if as_json:
        click.echo(json.dumps({name: rows_of(frame) for name, frame in frames.items()}, indent=2))
        return
    for name, frame in frames.items():
        click.echo(click.style(name, bold=True))
        show_frame(frame, as_json)


@checkpoints.command("diff")
@click.argument("folder")
@click.argument("before", type=int)
@click.argument("after", type=int)
@as_json_option
@guarded
def diff_checkpoints(folder: str, before: int, after: int, as_json: bool) -> None:
    """Show what differs between two checkpoints in FOLDER, given by their ids."""
    from unistream.state.checkpoint_tables import diff

    show_frame(diff(load_checkpoint(folder, before), load_checkpoint(folder, after)), as_json)


@checkpoints.command("rm")
@click.argument("folder")
@click.argument("ids", type=int, nargs=-1)
@click.option("--keep", type=click.IntRange(1), help="Remove all but so many of the newest.")
@as_json_option
@guarded
def remove_checkpoints(folder: str, ids: tuple[int, ...], keep: int | None, as_json: bool) -> None:
    """Remove checkpoints of FOLDER by their IDS, and the files that only they need.

    Also damaged ones, and the newest: the job then goes on from the one before. The job must not run.
    """
    from unistream.clock import SystemClock, fresh_random
    from unistream.state.checkpoint_store import CheckpointStore
    from unistream.state.ownership import own

    if bool(ids) == (keep is not None):
        raise errors.InvalidSettings("Say which: either ids or --keep", hint="`checkpoints ls` lists them")
    storage, clock = reader_of(folder).storage, SystemClock()
    with own(storage, None, clock, fresh_random()) as lease:
        store = CheckpointStore(storage, lease, clock=clock)
        removed = [store.remove(number) for number in ids] if keep is None else [store.retain(keep)]
    gone: dict[str, list[Any]] = {
        "checkpoints": [number for one in removed for number in one.checkpoints],
        "files": [name for one in removed for name in one.files],
    }
    if as_json:
        click.echo(json.dumps(gone, indent=2))
    else:
        click.echo(f"removed {len(gone['checkpoints'])} checkpoints and {len(gone['files'])} files")


@click.command()
@click.argument("folder")
@click.argument("operator", required=False)
@click.argument("table", required=False)
@click.option("--id", "number", type=int, help="Of this checkpoint instead of the newest.")
@click.option("--rows", type=click.IntRange(0), default=50, show_default=True, help="Show so many.")
@as_json_option
@guarded
def state(
    folder: str, operator: str | None, table: str | None, number: int | None, rows: int, as_json: bool
) -> None:
    """Show the state of OPERATOR in the newest checkpoint of FOLDER; without OPERATOR list all tables."""
    from unistream.api.state import read_state

    frame = read_state(reader_of(folder).storage.url, operator, table, id=number)
    show_frame(frame if operator is None else frame.head(rows), as_json)
    if not as_json and operator is not None and frame.height > rows:
        click.echo(f"{rows:,} of {frame.height:,} rows; --rows shows more")


@click.command()
@click.argument("folder")
@click.argument("target")
@click.option("--id", "number", type=int, help="This checkpoint instead of the newest.")
@as_json_option
@guarded
def savepoint(folder: str, target: str, number: int | None, as_json: bool) -> None:
    """Copy the newest checkpoint of FOLDER, every byte verified, to TARGET, a folder or URL of its own.

    A job starts from it with `restore=TARGET`. The job of FOLDER may run.
    """
    from unistream.state.checkpoint_store import CheckpointStore

    found = load_checkpoint(folder, number)
    copy = CheckpointStore(folder).savepoint(found.id, target)
    size = sum(entry.length for entry in copy.files)
    if as_json:
        click.echo(json.dumps({"id": copy.id, "files": len(copy.stored_names), "bytes": size}))
    else:
        click.echo(
            f"checkpoint {copy.id} is kept in {target}: {len(copy.stored_names)} files, {size:,} bytes"
        )


def reader_of(folder: str) -> Any:
    """What lies in a folder or under a URL; an error when there is no such folder."""
    from unistream.state.checkpoint_reader import CheckpointReader
    from unistream.state.ownership import owners

    reader = CheckpointReader(folder)
    if not owners(reader.storage) and not reader.storage.list("checkpoints"):
        raise errors.StateError(f"There is no checkpoint in {folder}", hint=NO_CHECKPOINT)
    return reader


def load_checkpoint(folder: str, number: int | None) -> Any:
    """A checkpoint by its id, or the newest."""
    reader = reader_of(folder)
    found = reader.newest() if number is None else reader.load(number)
    if found is None:
        raise errors.StateError(f"There is no checkpoint in {folder}", hint=NO_CHECKPOINT)
    return found
