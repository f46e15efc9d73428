"""One JSON value, kept as the text that a checkpoint stores."""

from __future__ import annotations

import json
from typing import Any

from unistream.errors import StateError
from unistream.state.backend import Cell


class JsonCell(Cell):
    """Reads give back what a restore would: lists for tuples, text for the keys of objects."""

    def __init__(self, name: str, text: str | None = None) -> None:
        self._name = name
        self.text = text

    def get(self, default: Any = None) -> Any:
        return default if self.text is None else json.loads(self.text)

    def set(self, value: Any) -> None:
        try:
            self.text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise StateError(
                f"The value of cell {self._name!r} is not JSON: {error}",
                hint="use numbers, text, lists and objects; NaN and infinity have no form in JSON",
            ) from error
