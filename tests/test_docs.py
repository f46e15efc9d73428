"""Documentation runs: docstring examples of every module, and the Python blocks of the Markdown files."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from unistream.errors import MissingDependency

ROOT = Path(__file__).parent.parent

OPTIONAL = {
    "IPython",
    "altair",
    "ipywidgets",
    "hypothesis",
    "ray",
    "confluent_kafka",
    "psycopg",
    "pymysql",
    "redis",
}
"""Packages that a module may need and an environment may lack."""

# Docstring examples. Modules are imported by name: collecting files would hide the standard io behind io/.


def module_names() -> list[str]:
    names = []
    for folder, room in (
        (ROOT / "unistream", "unistream"),
        (ROOT / "io", "unistream.io"),
        (ROOT / "state", "unistream.state"),
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = [room, *path.relative_to(folder).with_suffix("").parts]
            names.append(".".join(part for part in parts if part != "__init__"))
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("name", module_names())
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except MissingDependency as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail, printed above"


# Markdown


@dataclass(frozen=True)
class Block:
    """A fenced block of Python; `skipped` is the reason given in the comment before it."""

    code: str
    line: int
    skipped: str | None


_FENCE = re.compile(
    r"(?P<skip><!--\s*not run:(?P<reason>.*?)-->\s*\n)?"
    r"^(?P<indent>[ \t]*)```(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


def blocks(text: str) -> Iterator[Block]:
    """The blocks marked ```python, in order."""
    for found in _FENCE.finditer(text):
        if found["language"] not in ("python", "py"):
            continue
        line = text.count("\n", 0, found.start("code")) + 1
        indent = found["indent"]
        code = "\n".join(row.removeprefix(indent) for row in found["code"].splitlines())
        reason = found["reason"]
        yield Block(code, line, None if reason is None else reason.strip())


def run_blocks(path: Path, text: str) -> int:
    """Run the blocks of a file in one namespace; how many ran."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    ran = 0
    for block in blocks(text):
        if block.skipped is not None:
            continue
        # Blank lines before the code, so that a traceback names the line of the document.
        exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), namespace)
        ran += 1
    return ran


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_of_a_document_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(path, path.read_text())


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_block_that_is_not_run_says_why(path: Path) -> None:
    assert all(block.skipped != "" for block in blocks(path.read_text()))


# The test itself

SAMPLE = """
Text
```python
x = 1
```
```sh
not python
```
<!-- not run: needs a server -->
```python
x = 1 / 0
```
- in a list
  ```python
  if x:
      x += 1
  ```
```python
assert x == 2
```
"""


def test_blocks_share_names_and_marked_ones_are_left_out() -> None:
    found = list(blocks(SAMPLE))
    assert [block.skipped for block in found] == [None, "needs a server", None, None]
    assert [block.line for block in found] == [4, 11, 15, 19]
    assert run_blocks(Path("sample.md"), SAMPLE) == 3


def test_a_block_that_fails_is_found_with_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(Path("sample.md"), SAMPLE.replace("assert x == 2", "x / 0"))
    assert caught.traceback[-1].lineno + 1 == 19


def test_a_wrong_example_is_found() -> None:
    def wrong() -> None:
        """
        >>> 1 + 1
        3
        """

    runner = doctest.DocTestRunner(verbose=False)
    for example in doctest.DocTestFinder().find(wrong, globs={}):
        runner.run(example, out=lambda text: None)
    assert runner.summarize(verbose=False).failed == 1
