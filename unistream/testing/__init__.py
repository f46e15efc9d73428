"""Checks that a stream or an operator gives the same rows however time, cuts and crashes fall.

`verify` for whole streams, `OperatorHarness` for one operator; `VirtualClock`, `ListSource` and `crash_at`
to write a schedule by hand; `assert_same_rows` to compare what came out.
"""

from unistream.faults import Crashed
from unistream.testing.asserts import assert_same_rows, fold
from unistream.testing.clock import VirtualClock
from unistream.testing.committed import CommittedSink
from unistream.testing.crash import crash_at, crash_points
from unistream.testing.harness import OperatorHarness, Passed, Splits
from unistream.testing.list_source import Crash, ListSource, Pause, Reject
from unistream.testing.verify import Certificate, VerificationFailed, verify

__all__ = [
    "Certificate",
    "CommittedSink",
    "Crash",
    "Crashed",
    "ListSource",
    "OperatorHarness",
    "Passed",
    "Pause",
    "Reject",
    "Splits",
    "VerificationFailed",
    "VirtualClock",
    "assert_same_rows",
    "crash_at",
    "crash_points",
    "fold",
    "verify",
]
