"""Bounded and unbounded data with one program: Flink's semantics as an embedded, columnar engine."""

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "io").is_dir():  # source checkout: io/ and state/ lie beside this package
    __path__.append(str(_here.parent))
