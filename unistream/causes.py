"""What code that is not ours raised, in a sentence, and the ways out that are known."""

from __future__ import annotations

import re

_STRICT = "cast(..., strict=False) makes null of what does not fit; or filter such rows first"
_HINTS: tuple[tuple[str, str], ...] = (
    ("failed in column", _STRICT),
    ("conversion from", _STRICT),
    ("cannot compare string with", "cast one side, as in `pl.col(...).cast(pl.Int64)`"),
    ("No space left on device", "free some space; what was committed is safe"),
)
"""Words of a message and what to do about it."""


def first_words(error: BaseException) -> str:
    """The message without the plan that Polars prints below it, but with the expression it blames.

    >>> first_words(ValueError("too big\\n\\nThis occurred in the following expression:\\n\\tcol(a)"))
    'too big (in `col(a)`)'
    """
    text = str(error)
    blamed = re.search(r"following expression:\s*(.+)", text)
    sentence = text.split("\n\n")[0].strip()
    return f"{sentence} (in `{blamed.group(1).strip()}`)" if blamed else sentence


def way_out(error: BaseException) -> str | None:
    """What the user can do about it, where that is known."""
    text = str(error)
    return next((hint for words, hint in _HINTS if words in text), None)
