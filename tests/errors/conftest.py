"""What every message of an everyday mistake must have, and its comparison with the text that was reviewed.

With `UPDATE_GOLDEN=1` the texts under `golden` are written anew, to be read before they are committed.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from unistream.errors import UnistreamError

GOLDEN = Path(__file__).parent / "golden"
MOST_LINES = 12
MOST_COLUMNS = 400

Mistake = Callable[[], object]


@pytest.fixture
def check_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mistake], None]:
    """Make a mistake in an empty folder and look at what it is told."""
    monkeypatch.chdir(tmp_path)

    def check(mistake: Mistake) -> None:
        with pytest.raises(UnistreamError) as caught:
            mistake()
        assert_helps(caught.value, mistake)
        compare(mistake.__name__, normalised(f"{type(caught.value).__name__}: {caught.value}\n", tmp_path))

    return check


def assert_helps(error: UnistreamError, mistake: Mistake) -> None:
    """It is short, shows the line that made the mistake, and tells a way out; it shows no insides."""
    shown = str(error)
    assert len(shown.splitlines()) <= MOST_LINES, shown
    assert max(map(len, shown.splitlines())) <= MOST_COLUMNS, shown
    assert error.hint, f"no way out: {shown}"
    assert error.where, f"no place: {shown}"
    source = error.where.partition(": ")[2]
    assert source and source in inspect.getsource(mistake), f"not a line of {mistake.__name__}: {shown}"
    for inside in ("Resolved plan", "__one_group", "PyErr", "Traceback", "FAILED HERE"):
        assert inside not in shown, shown


def normalised(text: str, folder: Path) -> str:
    """The message as it is for everybody: without this machine's paths, ports and line numbers."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"/\S*/(\w+\.py):\d+", r"program.py:LINE", text)
    text = re.sub(r"(127\.0\.0\.1:|port )\d{5}", r"\1PORT", text)
    return re.sub(r"process \d+ on \S+ \(job \w+, since [^)]*\)", "process N on HOST (job ID)", text)


def compare(name: str, text: str) -> None:
    """With the text that was reviewed."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert path.is_file(), f"UPDATE_GOLDEN=1 writes {path.name}; read it before it is committed:\n{text}"
    assert text == path.read_text()


@pytest.fixture
def check_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, str], None]:
    """Look at what a command in an empty folder wrote."""
    monkeypatch.chdir(tmp_path)

    def check(name: str, exit_code: int, output: str) -> None:
        assert len(output.splitlines()) <= MOST_LINES, output
        compare(name, normalised(f"exit code {exit_code}\n{output}", tmp_path))

    return check
