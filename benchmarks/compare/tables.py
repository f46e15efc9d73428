"""The tables that all engines read, and which of them a query needs."""

from __future__ import annotations

from collections.abc import Mapping

INTEGER, TEXT, TIME = "integer", "text", "time"

TABLES: Mapping[str, Mapping[str, str]] = {
    "person": {
        "id": INTEGER,
        "name": TEXT,
        "emailAddress": TEXT,
        "creditCard": TEXT,
        "city": TEXT,
        "state": TEXT,
        "dateTime": TIME,
        "extra": TEXT,
    },
    "auction": {
        "id": INTEGER,
        "itemName": TEXT,
        "description": TEXT,
        "initialBid": INTEGER,
        "reserve": INTEGER,
        "dateTime": TIME,
        "expires": TIME,
        "seller": INTEGER,
        "category": INTEGER,
        "extra": TEXT,
    },
    "bid": {
        "auction": INTEGER,
        "bidder": INTEGER,
        "price": INTEGER,
        "channel": TEXT,
        "url": TEXT,
        "dateTime": TIME,
        "extra": TEXT,
    },
    "counts": {"key": INTEGER, "amount": INTEGER},
    "readings": {"dateTime": TIME, "key": INTEGER, "amount": INTEGER},
}
"""Columns in the order in which they stand in the files, which have no header."""

NEXMARK = tuple(f"q{number}" for number in range(23))
KEYED = ("count", "tumbling")
QUERIES = (*NEXMARK, *KEYED)

_OTHERS = {
    "q3": ("person", "auction"),
    "q4": ("auction", "bid"),
    "q6": ("auction", "bid"),
    "q8": ("person", "auction"),
    "q9": ("auction", "bid"),
    "q20": ("auction", "bid"),
    "count": ("counts",),
    "tumbling": ("readings",),
}


def reads(query: str) -> tuple[str, ...]:
    """The tables that a query reads: those of bids where nothing else is said."""
    return _OTHERS.get(query, ("bid",))
