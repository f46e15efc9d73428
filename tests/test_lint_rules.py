"""Rules that no linter knows: what may not be called, because it was measured to lose or to leak data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ROCKS_WRAPPER: set[str] = set()
"""Files that may iterate over RocksDB: its plain iterators end early on damage, so blobs are read by key."""

CLOUDPICKLE: set[str] = set()
"""Files that may pickle code for workers of the same job; nothing of it is ever stored."""

PRINTS = {"unistream/cli.py"}
"""The only files whose purpose is to write to the terminal."""


def library() -> list[Path]:
    return sorted(p for folder in ("unistream", "io", "state") for p in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def pickles(tree: ast.AST) -> Iterator[str]:
    """Imports of modules that store or load code with data."""
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in banned:
                yield f"line {node.lineno} imports {name}"  # type: ignore[attr-defined]


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that run code found in data, or that fall over on hostile data."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        if text in ("eval", "exec", "pl.Object", "np.load", "numpy.load"):
            allowed = any(
                keyword.arg == "allow_pickle" and ast.unparse(keyword.value) == "False"
                for keyword in node.keywords
            )
            if not allowed:
                yield f"line {node.lineno} calls {text}"
        if text.startswith(("pyarrow.json", "pa.json")) or text.endswith("json.read_json"):
            yield f"line {node.lineno} calls {text}: deep nesting ends the process"


def prints(tree: ast.AST) -> Iterator[str]:
    """Calls of `print`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "print",
            "builtins.print",
            "pprint.pprint",
        ):
            yield f"line {node.lineno} prints"


def rocks_iterations(tree: ast.AST) -> Iterator[str]:
    """In a file that knows rocksdict: anything that walks a database, and opening it without raw mode."""
    knows = any(
        (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] == "rocksdict" for alias in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rocksdict")
        for node in ast.walk(tree)
    )
    if not knows:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("iter", "entities"):
            yield f"line {node.lineno} calls {text}"
        if text.endswith("Options") and not text.endswith(("WriteOptions", "ReadOptions")):
            raw = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "raw_mode"]
            if text.split(".")[-1] == "Options" and raw != ["True"]:
                yield f"line {node.lineno} opens without raw_mode=True, which runs pickles on reading"
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("items", "keys", "values"):
            owner = ast.unparse(node.func.value)
            if any(word in owner.lower() for word in ("db", "rdict", "rocks")):
                yield f"line {node.lineno} calls {text}, which ends early on damage without an error"


@pytest.mark.parametrize("path", library(), ids=name_of)
class TestLibrary:
    def test_nothing_is_pickled(self, path: Path) -> None:
        if name_of(path) not in CLOUDPICKLE:
            assert list(pickles(ast.parse(path.read_text()))) == []

    def test_nothing_found_in_data_is_run(self, path: Path) -> None:
        assert list(unsafe_calls(ast.parse(path.read_text()))) == []

    def test_nothing_is_printed(self, path: Path) -> None:
        if name_of(path) not in PRINTS:
            assert list(prints(ast.parse(path.read_text()))) == []

    def test_databases_are_walked_by_the_one_wrapper(self, path: Path) -> None:
        if name_of(path) not in ROCKS_WRAPPER:
            assert list(rocks_iterations(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (pickles, "import pickle"),
        (pickles, "from pickle import loads"),
        (pickles, "def f():\n    import cloudpickle"),
        (unsafe_calls, "eval('1')"),
        (unsafe_calls, "np.load(file)"),
        (unsafe_calls, "pyarrow.json.read_json(file)"),
        (prints, "print(1)"),
        (rocks_iterations, "from rocksdict import Rdict\nfor k, v in self._db.items(): pass"),
        (rocks_iterations, "import rocksdict\ndb.iter()"),
        (rocks_iterations, "from rocksdict import Options\nOptions()"),
        (rocks_iterations, "from rocksdict import Options\nOptions(raw_mode=False)"),
    ],
)
def test_each_rule_finds_what_it_is_for(check: object, code: str) -> None:
    assert list(check(ast.parse(code)))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (pickles, "import json\nfrom unistream.state import pickles"),
        (unsafe_calls, "np.load(file, allow_pickle=False)"),
        (prints, "self.print_all()"),
        (rocks_iterations, "self._db.items()"),
        (rocks_iterations, "from rocksdict import Options\nOptions(raw_mode=True)\n{}.items()"),
    ],
)
def test_each_rule_leaves_the_rest_alone(check: object, code: str) -> None:
    assert not list(check(ast.parse(code)))  # type: ignore[operator]
