"""Bounded and unbounded data with one program: Flink's semantics as an embedded, columnar engine.

>>> import polars as pl
>>> import unistream as us
>>> orders = us.from_frame({"item": ["a", "b", "a"], "amount": [3, 4, 5]})
>>> orders.filter(pl.col("amount") > 3).collect().rows()
[('b', 4), ('a', 5)]
"""

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "io").is_dir():  # source checkout: io/ and state/ lie beside this package
    __path__.append(str(_here.parent))

from unistream.api.job import Job, Run, job
from unistream.api.sources import (
    from_frame,
    scan,
    scan_csv,
    scan_iterable,
    scan_ndjson,
    scan_nexmark,
    scan_parquet,
    scan_rate,
    scan_socket,
    scan_text,
)
from unistream.api.state import read_state
from unistream.api.stream import Stream
from unistream.api.windows import counting, cumulating, every, global_window, session, sliding, tumbling
from unistream.config import Settings
from unistream.errors import (
    ConnectorError,
    DataError,
    InvalidQuery,
    InvalidSettings,
    JobFailed,
    MissingDependency,
    StateError,
    UnistreamError,
)
from unistream.operators.process import ProcessFunction
from unistream.operators.process_context import ProcessContext
from unistream.runtime.progress import Progress
from unistream.runtime.recovery import Exponential, FailureRate, FixedDelay
from unistream.state.handles import ListState, MapState, ReducingState, ValueState

__version__ = "0.1.0"

__all__ = [
    "ConnectorError",
    "DataError",
    "Exponential",
    "FailureRate",
    "FixedDelay",
    "InvalidQuery",
    "InvalidSettings",
    "Job",
    "JobFailed",
    "ListState",
    "MapState",
    "MissingDependency",
    "ProcessContext",
    "ProcessFunction",
    "Progress",
    "ReducingState",
    "Run",
    "Settings",
    "StateError",
    "Stream",
    "UnistreamError",
    "ValueState",
    "counting",
    "cumulating",
    "every",
    "from_frame",
    "global_window",
    "job",
    "read_state",
    "scan",
    "scan_csv",
    "scan_iterable",
    "scan_ndjson",
    "scan_nexmark",
    "scan_parquet",
    "scan_rate",
    "scan_socket",
    "scan_text",
    "session",
    "sliding",
    "tumbling",
]
