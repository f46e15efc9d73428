"""The modules beside the tests can be imported by them, and by the processes they start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
