"""Persons, auctions and bids of the Nexmark benchmark, as columns computed from event numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from unistream.io.nexmark_draws import Draw, Draws, Text, scaled

EPOCH = 50
"""Of so many events one is a person, the next three are auctions and the rest are bids."""

_FIRST_ID = 1000
_FIRST_CATEGORY = 10
_CATEGORIES = 5
_HOT_GROUP = 100
"""The hot auction, seller and bidder change after so many auctions and persons."""

_ACTIVE_PERSONS = 1000
_OPEN_AUCTIONS = 100
_LEAD = 10
"""So many ids that do not exist yet may be named, as if events had been swapped."""

_CHANNELS = 10_000
_HOT_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
_FIRST_NAMES = [
    "Peter",
    "Paul",
    "Luke",
    "John",
    "Saul",
    "Vicky",
    "Kate",
    "Julie",
    "Sarah",
    "Deiter",
    "Walter",
]
_LAST_NAMES = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"]
_STATES = ["AZ", "CA", "ID", "OR", "WA", "WY"]
_CITIES = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
]

TIME = pl.Datetime("us")
_INTEGER, _STRING = pl.Int64(), pl.String()
PERSON = pl.Schema(
    {
        "id": _INTEGER,
        "name": _STRING,
        "emailAddress": _STRING,
        "creditCard": _STRING,
        "city": _STRING,
        "state": _STRING,
        "dateTime": TIME,
        "extra": _STRING,
    }
)
AUCTION = pl.Schema(
    {
        "id": _INTEGER,
        "itemName": _STRING,
        "description": _STRING,
        "initialBid": _INTEGER,
        "reserve": _INTEGER,
        "dateTime": TIME,
        "expires": TIME,
        "seller": _INTEGER,
        "category": _INTEGER,
        "extra": _STRING,
    }
)
BID = pl.Schema(
    {
        "auction": _INTEGER,
        "bidder": _INTEGER,
        "price": _INTEGER,
        "channel": _STRING,
        "url": _STRING,
        "dateTime": TIME,
        "extra": _STRING,
    }
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Event `i` happens `i * micros // rows` microseconds after `start`."""

    start: int
    micros: int
    rows: int

    def of(self, first: int, events: np.ndarray) -> np.ndarray:
        """Moments of these events, which are `first` or later ones not far behind it."""
        whole, rest = divmod(first * self.micros, self.rows)  # in Python, where nothing overflows
        made = (events - first) * self.micros
        made += rest
        if self.rows != 1:
            made //= self.rows
        made += self.start + whole
        return made


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of one kind: their number within the kind, the fifty events they belong to, their event."""

    draws: Draws
    timing: Timing
    first: int
    rank: np.ndarray
    epoch: np.ndarray
    event: np.ndarray

    def bits(self, what: Draw) -> np.ndarray:
        """Random bits for each row."""
        return self.draws.bits(what, self.event)

    def below(self, what: Draw, limit: int) -> np.ndarray:
        """A random number under a limit for each row."""
        return self.draws.below(what, self.event, limit)

    def price(self, what: Draw) -> np.ndarray:
        """A random price for each row."""
        return self.draws.price(what, self.event)

    def times(self) -> np.ndarray:
        """When each happened, in microseconds."""
        return self.timing.of(self.first, self.event)

    def extra(self, least: int, most: int) -> pl.Series:
        """Filler of that many letters."""
        bits = self.bits(Draw.EXTRA)
        lengths = least + scaled(bits << np.uint64(32), most - least + 1)
        return letters(self.draws).cut(bits, lengths)

    @cached_property
    def channel(self) -> np.ndarray:
        """Numbers of channels in their table: every second one is hot."""
        bits = self.bits(Draw.CHANNEL)
        hot = (bits >> np.uint64(1) & np.uint64(3)).view(np.int64)
        return np.where(bits & np.uint64(1), hot, len(_HOT_CHANNELS) + scaled(bits, _CHANNELS))

    def person(self, what: Draw, hot: int, one_in: int) -> np.ndarray:
        """Somebody: the one who is hot now, or in one of `one_in` cases anybody active."""
        bits = self.bits(what)
        active = np.minimum(self.epoch + 1, _ACTIVE_PERSONS)
        anybody = self.epoch + 1 - active + scaled(bits, active + _LEAD)
        star = self.epoch // _HOT_GROUP * _HOT_GROUP + hot
        return np.where(bits & np.uint64(one_in - 1), star, anybody) + _FIRST_ID


@dataclass(frozen=True)
class Kind:
    """Which of fifty events are of a kind, and how each of its columns is made."""

    offset: int
    share: int
    schema: pl.Schema
    columns: Mapping[str, Callable[[Rows], np.ndarray | pl.Series]]

    def rank(self, event: int) -> int:
        """How many events of the kind come before this one."""
        epoch, place = divmod(event, EPOCH)
        return epoch * self.share + min(max(place - self.offset, 0), self.share)

    def rows(self, draws: Draws, timing: Timing, first: int, stop: int) -> Rows:
        """The rows of the kind among the events from `first` up to `stop`."""
        rank = np.arange(self.rank(first), self.rank(stop), dtype=np.int64)
        epoch = rank if self.share == 1 else rank // self.share
        event = rank + epoch * (EPOCH - self.share) + self.offset
        return Rows(draws, timing, first, rank, epoch, event)

    def frame(self, rows: Rows, columns: Sequence[str]) -> pl.DataFrame:
        """These columns, and nothing computed for others."""
        return pl.DataFrame(
            [pl.Series(name, self.columns[name](rows)).cast(self.schema[name]) for name in columns]
        )


@lru_cache(maxsize=4)
def letters(draws: Draws, spaces: bool = False) -> Text:
    """What texts are cut from; made once for a generator."""
    return Text(draws, spaces)


@lru_cache(maxsize=4)
def channels(draws: Draws) -> pl.DataFrame:
    """The four hot channels and ten thousand others, each with its address."""
    numbers = np.arange(-len(_HOT_CHANNELS), _CHANNELS)
    text = letters(draws)
    parts = [text.words(draws.bits(Draw.URL, numbers * 4 + part), 3, 4) for part in range(3)]
    names = [_HOT_CHANNELS[number] if number < 0 else f"channel-{number}" for number in numbers]
    # Nine of ten channels that are not hot say in the address which they are.
    named = (numbers >= 0) & (draws.below(Draw.URL, numbers * 4 + 3, 10) > 0)
    ids = pl.Series(_reversed(numbers)).cast(pl.String)
    base = pl.format("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", *(pl.lit(part) for part in parts))
    ending = pl.when(pl.lit(pl.Series(named))).then("&channel_id=" + pl.lit(ids)).otherwise(pl.lit(""))
    return pl.select(pl.lit(pl.Series("channel", names)), (base + ending).alias("url"))


def _reversed(numbers: np.ndarray) -> np.ndarray:
    """The 32 bits of each number the other way round, without sign."""
    bits = np.unpackbits(numbers.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    turned = np.packbits(bits, axis=1, bitorder="big").view(">u4").ravel()
    absolute: np.ndarray = np.absolute(turned.astype(np.uint32).view(np.int32).astype(np.int64))
    return absolute


def _auction(rows: Rows) -> np.ndarray:
    """Every second bid is for the hot auction, the others for one that is probably open."""
    bits = rows.bits(Draw.AUCTION)
    last = rows.epoch * 3 + 2
    least = np.maximum(last - _OPEN_AUCTIONS, 0)
    some = least + scaled(bits, last - least + 1 + _LEAD)
    return np.where(bits & np.uint64(1), last // _HOT_GROUP * _HOT_GROUP, some) + _FIRST_ID


def _of_channel(column: str) -> Callable[[Rows], pl.Series]:
    return lambda rows: channels(rows.draws)[column].gather(rows.channel)


def _expires(rows: Rows) -> np.ndarray:
    """On average when a hundred more auctions have begun, in whole milliseconds from the beginning."""
    timing = rows.timing
    horizon = 2 * _OPEN_AUCTIONS * EPOCH // 3 * timing.micros // timing.rows // 1000
    ends = 1000 * (1 + rows.below(Draw.LENGTH, max(1, min(horizon, 2**32 - 1))))
    ends += rows.times()
    return ends


def _sentence(what: Draw, most: int) -> Callable[[Rows], pl.Series]:
    return lambda rows: letters(rows.draws, True).words(rows.bits(what), 3, most).str.strip_chars()


def _name(rows: Rows) -> pl.Series:
    names = pl.Series([f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES])
    return names.gather(rows.below(Draw.NAME, len(names)))


def _email(rows: Rows) -> pl.Series:
    text, bits = letters(rows.draws), rows.bits(Draw.EMAIL)
    left, right = text.words(bits, 3, 6), text.words(bits << np.uint64(16), 3, 4)
    return left + "@" + right + ".com"


def _card(rows: Rows) -> pl.Series:
    bits = rows.bits(Draw.CARD)
    parts = [scaled(bits << np.uint64(16 * part), 10_000) for part in range(4)]
    texts = [pl.Series(part).cast(pl.String).str.zfill(4) for part in parts]
    return texts[0] + " " + texts[1] + " " + texts[2] + " " + texts[3]


def _city(rows: Rows) -> pl.Series:
    return pl.Series(_CITIES).gather(rows.below(Draw.PLACE, len(_CITIES)))


def _state(rows: Rows) -> pl.Series:
    return pl.Series(_STATES).gather(scaled(rows.bits(Draw.PLACE) << np.uint64(32), len(_STATES)))


PERSONS = Kind(
    0,
    1,
    PERSON,
    {
        "id": lambda rows: rows.rank + _FIRST_ID,
        "name": _name,
        "emailAddress": _email,
        "creditCard": _card,
        "city": _city,
        "state": _state,
        "dateTime": Rows.times,
        "extra": lambda rows: rows.extra(104, 156),
    },
)
AUCTIONS = Kind(
    1,
    3,
    AUCTION,
    {
        "id": lambda rows: rows.rank + _FIRST_ID,
        "itemName": _sentence(Draw.NAME, 19),
        "description": _sentence(Draw.DESCRIPTION, 99),
        "initialBid": lambda rows: rows.price(Draw.INITIAL_BID),
        "reserve": lambda rows: rows.price(Draw.INITIAL_BID) + rows.price(Draw.RESERVE),
        "dateTime": Rows.times,
        "expires": _expires,
        "seller": lambda rows: rows.person(Draw.SELLER, hot=0, one_in=4),
        "category": lambda rows: rows.below(Draw.CATEGORY, _CATEGORIES) + _FIRST_CATEGORY,
        "extra": lambda rows: rows.extra(312, 467),
    },
)
BIDS = Kind(
    4,
    46,
    BID,
    {
        "auction": _auction,
        "bidder": lambda rows: rows.person(Draw.BIDDER, hot=1, one_in=4),
        "price": lambda rows: rows.price(Draw.PRICE),
        "channel": _of_channel("channel"),
        "url": _of_channel("url"),
        "dateTime": Rows.times,
        "extra": lambda rows: rows.extra(54, 81),
    },
)
KINDS: Mapping[str, Kind] = {"person": PERSONS, "auction": AUCTIONS, "bid": BIDS}
"""In the order in which each fifty events begin."""
