"""The command line: run and explain jobs in files, try the demo, look at the machine.

Exit codes: 0 done, 1 the job failed, 2 the program or the command line is wrong, 3 the outside world
refused, 4 stored state is unusable, 130 interrupted.
"""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from unistream import errors
from unistream.cli_base import guarded, telling_of
from unistream.cli_bench import bench
from unistream.cli_checkpoints import checkpoints, savepoint, state
from unistream.location import raised_at


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unistream")
def main() -> None:
    """unistream: bounded and unbounded data with one program."""


@main.command()
@click.argument("target")
@click.option("--until", type=click.Choice(["end", "available"]), default="end", show_default=True)
@click.option("--checkpoint", metavar="FOLDER", help="Keep checkpoints here, and go on from the newest.")
@click.option("--every", metavar="DURATION", help="Time between checkpoints, as in 30s.")
@click.option("--restore", metavar="ID|FOLDER", help="Begin from an older checkpoint, or from a savepoint.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting, as in tick_rows=50000."
)
@click.option("--json", "as_json", is_flag=True, help="Print the final progress as JSON.")
@guarded
def run(
    target: str,
    until: str,
    checkpoint: str | None,
    every: str | None,
    restore: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the job in TARGET, a Python file, as FILE.py or FILE.py:NAME."""
    with nullcontext() if as_json else telling_of("unistream.runtime.checkpoint"):
        progress = load_job(target).run(
            until=until,
            checkpoint=checkpoint,
            every=every,
            restore=int(restore) if restore is not None and restore.isdigit() else restore,
            settings=load_settings(settings),
            progress=False if as_json else None,
        )
    if as_json:
        click.echo(json.dumps(progress.to_dict()))
    else:
        from unistream.api.display import progress_text

        click.echo(progress_text(progress))


@main.command()
@click.argument("target")
@click.option(
    "--format", "form", type=click.Choice(["text", "mermaid", "json"]), default="text", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@guarded
def explain(target: str, form: str, as_json: bool) -> None:
    """Show what the job in TARGET (FILE.py or FILE.py:NAME) would do; nothing runs."""
    click.echo(load_job(target).explain("json" if as_json else form))


@main.command()
@click.option("--rows", type=click.IntRange(1_000, 50_000_000), default=1_000_000, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the files here; otherwise a temporary folder."
)
@click.option("--quiet", is_flag=True, help="No live view.")
@guarded
def demo(rows: int, folder: Path | None, quiet: bool) -> None:
    """Batch, live, killed, resumed, compared: on generated orders, in half a minute."""
    from unistream.demo.show import run_demo

    if not run_demo(rows, folder, quiet):
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@guarded
def doctor(as_json: bool) -> None:
    """Check that this machine and environment can run unistream."""
    from unistream.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
            click.echo(f"{mark} {finding.what}: {finding.found}")
            if not finding.ok and finding.hint:
                click.echo(f"     Hint: {finding.hint}")
    if not all(finding.ok for finding in findings):
        sys.exit(3)


main.add_command(checkpoints)
main.add_command(state)
main.add_command(savepoint)
main.add_command(bench)


def load_job(target: str) -> Any:
    """The job (or stream) that FILE.py:NAME names; without NAME the only job in the file."""
    from unistream.api.job import Job

    path, _, name = target.partition(":")
    file = Path(path)
    if not file.is_file():
        near = (
            errors.nearest(file.name, [entry.name for entry in file.parent.glob("*.py")])
            if file.parent.is_dir()
            else None
        )
        hint = f"did you mean {near!r}?" if near else "name a Python file, as in `unistream run jobs.py`"
        raise errors.InvalidQuery(f"There is no file {path!r}", hint=hint)
    names = run_file(file)
    jobs = {key: value for key, value in names.items() if isinstance(value, Job)}
    if name:
        if name not in names:
            raise errors.InvalidQuery.from_missing_name(name, jobs, path)
        if not isinstance(names[name], Job):
            kind = type(names[name]).__name__
            raise errors.InvalidQuery(
                f"{name!r} in {path} is a {kind}, not a job", hint="a job is what stream.sink_...() returns"
            )
        return names[name]
    if len(jobs) != 1:
        found = f"{len(jobs)} jobs: {', '.join(sorted(jobs))}" if jobs else "no job"
        hint = (
            f"name one: {path}:{next(iter(sorted(jobs)))}"
            if jobs
            else "assign one, as in `job = stream.sink_parquet(...)`"
        )
        raise errors.InvalidQuery(f"{path} has {found} at its top level", hint=hint)
    return next(iter(jobs.values()))


def run_file(file: Path) -> dict[str, Any]:
    """The top-level names of a Python file; its folder can be imported from, as with `python FILE`."""
    sys.path.insert(0, str(file.resolve().parent))
    try:
        return runpy.run_path(str(file), run_name="__unistream__")
    except errors.UnistreamError:
        raise
    except Exception as error:
        what = error.msg if isinstance(error, SyntaxError) else error
        raise errors.InvalidQuery(
            f"{file} failed while it was read: {type(error).__name__}: {what}",
            _place(error),
            f"python {file} shows where; a program only describes jobs, `unistream run` runs them",
        ) from error


def _place(error: Exception) -> str | None:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"
    return raised_at(error)


def load_settings(given: tuple[str, ...]) -> Any:
    """Settings from `--set NAME=VALUE`, the environment and unistream.toml."""
    from unistream.config import Settings, parsed

    keywords: dict[str, Any] = {}
    for entry in given:
        name, sign, value = entry.partition("=")
        if not sign:
            raise errors.InvalidSettings(f"--set {entry!r} has no value", hint="write --set NAME=VALUE")
        keywords[name.strip()] = parsed(value.strip())
    return Settings.load(keywords)


if __name__ == "__main__":
    main()
