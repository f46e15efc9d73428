"""A frame is written on one thread while another looks at it: neither may wait for the other for ever."""

from __future__ import annotations

import subprocess
import sys

WRITE_AND_LOOK = """
import faulthandler, threading
import polars as pl
from unistream.state.segments import encode

faulthandler.dump_traceback_later(60, exit=True)
frame = pl.DataFrame({"a": range(2000), "s": ["x" * 50] * 2000})
over = threading.Event()


def write():
    for _ in range(100):
        encode(frame)
    over.set()


threading.Thread(target=write).start()
while not over.is_set():
    for _ in range(1000):
        assert frame.height == 2000 and frame.columns == ["a", "s"]
print("both went on")
"""


def test_looking_at_a_frame_that_is_being_written() -> None:
    """In a process of its own: when this goes wrong, the interpreter stands still as a whole."""
    done = subprocess.run([sys.executable, "-c", WRITE_AND_LOOK], capture_output=True, text=True, timeout=120)
    assert done.stdout == "both went on\n", done.stderr
