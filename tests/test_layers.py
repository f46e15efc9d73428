"""Who may import whom: the rooms of the engine, as a table that is checked."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOUNDATIONS = {
    "errors",
    "config",
    "elements",
    "clock",
    "graph",
    "metrics",
    "durations",
    "location",
    "faults",
    "causes",
    "one_query",
    "of_columns",
}

MAY_IMPORT = {
    "expressions": set[str](),
    "state": {"expressions"},
    "io": {"expressions"},
    "operators": {"expressions", "state", "io.base"},
    "plan": {"expressions", "operators", "io.base"},
    "runtime": {"state", "operators.base", "io.base"},
    "api": {"expressions", "operators", "plan", "runtime", "state", "io"},
    "testing": {"expressions", "operators", "plan", "runtime", "state", "io", "api"},
    "cli": {
        "expressions",
        "operators",
        "plan",
        "runtime",
        "state",
        "io",
        "api",
        "demo",
        "doctor",
        "nexmark",
        "cli_base",
        "cli_bench",
        "cli_checkpoints",
    },
    "cli_base": set[str](),
    "cli_bench": {"cli_base", "api", "nexmark"},
    "nexmark": {"expressions", "runtime", "api", "io.base", "state"},
    "cli_checkpoints": {"cli_base", "api", "state"},
    "doctor": set[str](),
    "demo": {"expressions", "api", "io"},
}
"""Besides foundations and itself. `expressions` is open to `io` and `state` for `schema.py` alone."""

ONLY_SCHEMA = {"io", "state"}


def files() -> list[Path]:
    return sorted(path for folder in ("unistream", "io", "state") for path in (ROOT / folder).rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("io", "state"):
        return parts[0]
    return parts[1] if len(parts) > 1 else "unistream"


def imports(path: Path) -> list[tuple[int, str]]:
    """Absolute imports of our own modules that happen when the file runs."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [node.module or ""]
            if node.module == "unistream":
                names = [f"unistream.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] == "unistream"]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ("unistream", "__init__", "__main__"):
        return
    for line, name in imports(path):
        target = name.removeprefix("unistream").removeprefix(".")
        first = target.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        assert first not in ("unistream", "tests", "notebooks", "benchmarks"), where
        if first in FOUNDATIONS or first == room or target == "":
            assert not (room in FOUNDATIONS and first not in FOUNDATIONS), where
            continue
        assert room in MAY_IMPORT, f"{where}: the table of rooms does not know {room!r}"
        allowed = MAY_IMPORT[room]
        assert first in allowed or any(target.startswith(entry) for entry in allowed if "." in entry), where
        if room in ONLY_SCHEMA and first == "expressions":
            assert target == "expressions.schema", where


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in files()} - FOUNDATIONS - {"unistream", "__init__", "__main__"}
    assert rooms <= set(MAY_IMPORT), rooms - set(MAY_IMPORT)


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("from unistream import api\nimport unistream.runtime.local\nimport os\n")
    assert imports(bad) == [(1, "unistream.api"), (2, "unistream.runtime.local")]
