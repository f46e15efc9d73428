"""What all commands share: how errors end them, how frames are printed."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import click

from unistream import errors

EXIT_CODES: tuple[tuple[type[errors.UnistreamError], int], ...] = (
    (errors.JobFailed, 1),
    (errors.ConnectorError, 3),
    (errors.StateError, 4),
    (errors.UnistreamError, 2),
)
INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def guarded(command: Command) -> Command:
    """Turn our errors into a message and an exit code; the inner trace is shown with --debug only."""

    @wraps(command)
    def call(*args: Any, debug: bool, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except errors.UnistreamError as error:
            if debug:
                traceback.print_exc()
            click.echo(f"Error: {error}", err=True)
            sys.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))

    return click.option("--debug", is_flag=True, help="Show the inner trace of an error.")(call)  # type: ignore[return-value]


@contextmanager
def telling_of(part: str) -> Iterator[None]:
    """Print what this part of the library logs: from where a job goes on, and what it keeps."""
    logger, handler = logging.getLogger(part), _Told()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def rows_of(frame: Any) -> Any:
    """The rows of a frame as JSON has them."""
    return json.loads(frame.write_json())


def show_frame(frame: Any, as_json: bool) -> None:
    """All rows and columns of a small frame."""
    import polars as pl

    if as_json:
        click.echo(json.dumps(rows_of(frame), indent=2))
        return
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=80, tbl_hide_column_data_types=True
    ):
        click.echo(str(frame))
