"""Paths that a glob stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from glob import has_magic

ANY_DEPTH = "**"
"""The part of a glob that stands for any number of folders, also none."""


def entries_of(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing when it has gone meanwhile. What cannot be read is an `OSError`."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


class Glob:
    """A pattern of paths below a folder, with `*`, `?`, `[...]` and `**`.

    Wildcards stand for the names that `offers` takes. Links to folders are followed where they are spelled
    out and where `*` stands for them, but from the first `**` on not by wildcards: no file is found under
    two names, and no loop is possible. The module `glob` follows them all, and it leaves out silently what
    cannot be read.
    """

    def __init__(self, pattern: str, offers: Callable[[str], bool]) -> None:
        parts = pattern.split("/")
        if parts[-1] == ANY_DEPTH:
            parts.append("*")
        self._steps = [_step(part) for part in parts]
        self._offers = offers

    def paths(self, folder: str) -> Iterator[str]:
        """What the pattern stands for below `folder`, of several `**` some more than once."""
        return self._below(folder, 0, links=True)

    def matches(self, parts: Sequence[str], at: int = 0) -> bool:
        """Whether the steps from `at` on stand for the path of these parts, none of which is a link."""
        if at == len(self._steps):
            return not parts
        step = self._steps[at]
        if step == ANY_DEPTH and self.matches(parts, at + 1):
            return True
        if not parts:
            return False
        name, *rest = parts
        if step == ANY_DEPTH:
            return self._offers(name) and self.matches(rest, at)
        fits = name == step if isinstance(step, str) else bool(step.match(name)) and self._offers(name)
        return fits and self.matches(rest, at + 1)

    def _below(self, folder: str, at: int, links: bool) -> Iterator[str]:
        """What the steps from `at` on stand for; `links` says whether wildcards go through links."""
        step, is_last = self._steps[at], at + 1 == len(self._steps)
        if step == ANY_DEPTH:
            yield from self._below(folder, at + 1, links=False)
            for entry in entries_of(folder):
                if self._offers(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield from self._below(entry.path, at, links=False)
        elif isinstance(step, str):
            path = os.path.join(folder, step)  # noqa: PTH118 (a Path per folder is slow)
            if not is_last:
                yield from self._below(path, at + 1, links)
            elif _is_there(path):
                yield path
        else:
            for entry in entries_of(folder):
                if not (step.match(entry.name) and self._offers(entry.name)):
                    continue
                if not links and entry.is_symlink() and entry.is_dir():
                    continue
                if is_last:
                    yield entry.path
                elif entry.is_dir():
                    yield from self._below(entry.path, at + 1, links)


def _step(part: str) -> str | re.Pattern[str]:
    return part if part == ANY_DEPTH or not has_magic(part) else re.compile(translate(part))


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
