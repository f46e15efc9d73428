"""The notebooks run from top to bottom, are stored without outputs, and can be interrupted.

`STRIP_NOTEBOOKS=1 pytest tests/test_notebooks.py` writes them without outputs, after working on one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import polars as pl
import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook tests need the extra `test`")
nbclient = pytest.importorskip("nbclient", reason="the notebook tests need the extra `test`")
pytest.importorskip("ipykernel", reason="the notebook tests need the extra `test`")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATIENCE = 60
"""Seconds until a kernel counts as hung; nothing is measured with it."""


@pytest.fixture(autouse=True)
def checkout_in_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernels import what is tested here, and keep their files to themselves."""
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(ROOT) if before is None else f"{ROOT}:{before}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Cells that show a mistake are tagged `raises-exception`; they have to raise one of ours."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        if "raises-exception" in cell.metadata.get("tags", ()):
            errors = [output for output in cell.outputs if output.output_type == "error"]
            assert errors, f"raises nothing: {cell.source}"
            shown = "\n".join(errors[0].traceback)
            assert "Hint:" in shown and len(shown.splitlines()) <= 12, shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    stripped = nbformat.writes(notebook) + "\n"
    if os.environ.get("STRIP_NOTEBOOKS") == "1":
        path.write_text(stripped)
    assert path.read_text() == stripped, "STRIP_NOTEBOOKS=1 removes outputs"


# Interrupts

LIVE = """
import unistream as us

job = us.scan_rate(20_000).sink_parquet("out", max_file_rows=2_000)
"""


class Kernel:
    """A kernel in a folder of its own, which can be interrupted while a cell runs."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import start_new_kernel

        self._manager, self._client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def begin(self, code: str) -> str:
        """Start a cell; the id of its request."""
        return str(self._client.execute(code))

    def reply(self, request: str) -> dict[str, Any]:
        """How the cell ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                message = self._client.get_shell_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == request:
                return dict(message["content"])
        raise AssertionError("the cell does not end")

    def run(self, code: str) -> dict[str, Any]:
        """Run a cell to its end."""
        return self.reply(self.begin(code))

    def interrupt(self) -> None:
        """What the stop button of a notebook does."""
        self._manager.interrupt_kernel()

    def close(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.close()


def test_an_interrupted_job_leaves_whole_files_and_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.run(LIVE)["status"] == "ok"
    cell = kernel.begin('job.run(checkpoint="ckpt", every="100ms")')
    wait_for_files(tmp_path / "out")
    kernel.interrupt()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"
    assert half_written(tmp_path / "out") == []
    first = values(tmp_path / "out")
    assert first == list(range(len(first)))

    again = kernel.run(
        'run = job.start(checkpoint="ckpt")\nassert run.progress.status == "running"\nrun.stop()'
    )
    assert again["status"] == "ok"
    second = values(tmp_path / "out")
    assert second == list(range(len(second)))
    assert len(second) >= len(first)


@pytest.mark.slow
def test_a_collect_that_would_not_end_soon_can_be_interrupted(kernel: Kernel, tmp_path: Path) -> None:
    cell = kernel.begin(
        "import unistream as us\nfrom pathlib import Path\nPath('begun').touch()\n"
        "us.scan_rate(10, total_rows=100_000).collect()"
    )
    wait_until(lambda: (tmp_path / "begun").exists())
    kernel.interrupt()
    assert kernel.reply(cell)["ename"] == "KeyboardInterrupt"
    assert kernel.run("us.from_frame({'a': [1]}).collect()")["status"] == "ok"


def wait_until(happened: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.01)


def wait_for_files(folder: Path) -> None:
    wait_until(lambda: len(list(folder.glob("*.parquet"))) > 2)


def half_written(folder: Path) -> list[str]:
    """Whatever does not belong to a sink's folder when no job runs."""
    return [path.name for path in folder.rglob("*") if path.suffix != ".parquet"]


def values(folder: Path) -> list[int]:
    return pl.read_parquet(folder / "*.parquet")["value"].sort().to_list()
