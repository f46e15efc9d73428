"""Counters and gauges of a running job; plain numbers, read from any thread."""

from __future__ import annotations

from collections.abc import Iterator


class Metrics:
    """A flat set of numbers, each under `operator.name`.

    Only the operator thread writes, so adding needs no lock; readers see a number that was true a
    moment ago.
    """

    def __init__(self, prefix: str = "", shared: dict[str, float] | None = None) -> None:
        self._prefix = prefix
        self._values: dict[str, float] = {} if shared is None else shared

    def scoped(self, name: str) -> Metrics:
        """The same numbers, written under `name.`."""
        return Metrics(f"{self._prefix}{name}.", self._values)

    def add(self, name: str, amount: float = 1) -> None:
        """Count `amount` more."""
        key = self._prefix + name
        self._values[key] = self._values.get(key, 0) + amount

    def set(self, name: str, value: float) -> None:
        """Remember the latest value."""
        self._values[self._prefix + name] = value

    def get(self, name: str) -> float:
        """The number under `name`, 0 when it was never written."""
        return self._values.get(self._prefix + name, 0)

    def items(self) -> Iterator[tuple[str, float]]:
        """All numbers of this scope, by full name."""
        return iter([(k, v) for k, v in self._values.copy().items() if k.startswith(self._prefix)])
