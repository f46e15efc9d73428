"""The wheel holds every package, and the door is as small as it was decided."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import unistream

ROOT = Path(__file__).parent.parent
HEAVY = ("pyarrow", "duckdb", "rocksdict", "rich", "click", "IPython", "cloudpickle", "asyncio")


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
    code = f"import sys, unistream; print([name for name in {HEAVY!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_counting_lines_of_text_stays_light(tmp_path: Path) -> None:
    """Libraries that other jobs need are not loaded for this one: they take a third of its memory."""
    rows = "".join(f"{n % 3},{n},some text of row {n}\n" for n in range(1000))
    (tmp_path / "in.csv").write_text("key,time,text\n" + rows)
    code = f"""
import sys, polars as pl, unistream as us
schema = {{"key": pl.Int64, "time": pl.Int64, "text": pl.String}}
rows = us.scan_csv("in.csv", schema=schema).with_event_time("time", unit="s")
counts = rows.group_by("key").window(us.tumbling("10s")).agg(n=pl.len(), last=pl.last("text"))
counts.sink_csv("out").run(progress=False, settings=us.Settings(whole_query=False))
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert printed.strip() == "[]"
    written = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.csv"))
    assert "some text of row 999" in written
