"""Everyday mistakes at the command line, each with what it prints and the exit code it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from unistream.cli import main

PROGRAM = """
import unistream as us

orders = us.from_frame({"item": ["a", "b"], "amount": [3, 4]})
job = orders.sink_csv("out")
"""
TWO_JOBS = PROGRAM + "other = orders.sink_ndjson('other')\n"
NO_JOB = "import unistream as us\n\norders = us.from_frame({'a': [1]})\n"
WRONG_COLUMN = PROGRAM.replace("orders.sink", "orders.select('itme').sink")
FAILS = "prices = {}\nprice = prices['apple']\n"
FAILS_LATER = PROGRAM.replace("orders.sink", "orders.cast({'item': int}).sink")

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "command_unknown": (PROGRAM, ["rum", "program.py"]),
    "program_misspelled": (PROGRAM, ["run", "progam.py"]),
    "program_in_no_folder": (PROGRAM, ["run", "jobs/program.py"]),
    "program_left_out": (PROGRAM, ["run"]),
    "job_misspelled": (PROGRAM, ["run", "program.py:jop"]),
    "job_that_is_a_stream": (PROGRAM, ["explain", "program.py:orders"]),
    "no_job_in_the_program": (NO_JOB, ["run", "program.py"]),
    "several_jobs_in_the_program": (TWO_JOBS, ["run", "program.py"]),
    "program_with_a_wrong_column": (WRONG_COLUMN, ["run", "program.py"]),
    "program_that_raises": (FAILS, ["run", "program.py"]),
    "program_that_is_no_python": ("job = = 3\n", ["explain", "program.py"]),
    "program_whose_job_fails": (FAILS_LATER, ["run", "program.py", "--set", "whole_query=false"]),
    "option_with_an_unknown_value": (PROGRAM, ["run", "program.py", "--until", "now"]),
    "set_without_a_value": (PROGRAM, ["run", "program.py", "--set", "tick_rows"]),
    "set_of_an_unknown_setting": (PROGRAM, ["run", "program.py", "--set", "tick_row=5"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str, check_output: Callable[[str, int, str], None]) -> None:
    program, arguments = MISTAKES[name]
    Path("program.py").write_text(program)
    result = CliRunner().invoke(main, arguments, prog_name="unistream")
    check_output(name, result.exit_code, result.output)
