"""The comparison lies with the benchmarks, beside the tests."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:  # last, so that an installed package is still what is tested
    sys.path.append(ROOT)
