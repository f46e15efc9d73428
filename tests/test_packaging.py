"""The wheel holds every package, and the door is as small as it was decided."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import unistream

ROOT = Path(__file__).parent.parent


def test_every_folder_with_code_is_packaged() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"unistream"}
    for base, prefix in (("unistream", "unistream"), ("io", "unistream.io"), ("state", "unistream.state")):
        for init in (ROOT / base).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / base).parts
            found.add(".".join((prefix, *parts)))
    assert set(listed) == found


def test_no_module_takes_a_standard_name() -> None:
    names = {path.stem for folder in ("io", "state") for path in (ROOT / folder).rglob("*.py")} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)


def test_the_door_is_small() -> None:
    assert len(unistream.__all__) < 60
    assert all(hasattr(unistream, name) for name in unistream.__all__)
    assert sorted(unistream.__all__) == list(unistream.__all__)


def test_importing_stays_light() -> None:
    heavy = ("pyarrow", "duckdb", "rocksdict", "rich", "click", "IPython", "cloudpickle", "asyncio")
    code = f"import sys, unistream; print([name for name in {heavy!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
