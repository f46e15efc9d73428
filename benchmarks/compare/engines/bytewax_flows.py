"""The queries as Bytewax flows in plain Python: a whole batch of lines at a time where there is no state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

Row = tuple[Any, ...]
Lines = list[str]
moment = datetime.fromisoformat

TEN = timedelta(seconds=10)
START = datetime(2015, 7, 15, tzinfo=UTC)
_NUMBERS = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
_CHANNEL_ID = re.compile("(?:&|^)channel_id=([^&]*)")
SIDE_INPUT = {key: f"value {key}" for key in range(10_000)}

BID = ("auction", "bidder", "price", "dateTime", "extra")


def bid(line: str) -> Row:
    """The columns of `BID`."""
    auction, bidder, price, _, _, time, extra = line.split(",")
    return int(auction), int(bidder), int(price), moment(time), extra


def q0(lines: Lines) -> Iterable[Row]:
    return [bid(line) for line in lines]


def q1(lines: Lines) -> Iterable[Row]:
    rows = map(bid, lines)
    return [(auction, bidder, 0.908 * price, time, extra) for auction, bidder, price, time, extra in rows]


def q2(lines: Lines) -> Iterable[Row]:
    rows = (line.split(",", 3) for line in lines)
    return [(int(row[0]), int(row[2])) for row in rows if int(row[0]) % 123 == 0]


def q10(lines: Lines) -> Iterable[Row]:
    rows = map(bid, lines)
    return [(*row, row[3].strftime("%Y-%m-%d"), row[3].strftime("%H:%M")) for row in rows]


def q13(lines: Lines) -> Iterable[Row]:
    return [(*row[:4], SIDE_INPUT[row[0] % 10_000]) for row in map(bid, lines)]


def _time_of_day(hour: int) -> str:
    if 8 <= hour <= 18:
        return "dayTime"
    return "nightTime" if hour <= 6 or hour >= 20 else "otherTime"


def q14(lines: Lines) -> Iterable[Row]:
    found = []
    for auction, bidder, price, time, extra in map(bid, lines):
        converted = 0.908 * price
        if 1_000_000 < converted < 50_000_000:
            letters = extra.count("c")
            found.append((auction, bidder, converted, _time_of_day(time.hour), time, extra, letters))
    return found


def _channel_id(channel: str, url: str) -> str | None:
    number = _NUMBERS.get(channel.lower())
    if number is None and (told := _CHANNEL_ID.search(url)):
        number = told[1]
    return number


def q21(lines: Lines) -> Iterable[Row]:
    found = []
    for line in lines:
        auction, bidder, price, channel, url, _ = line.split(",", 5)
        number = _channel_id(channel, url)
        if number is not None:
            found.append((int(auction), int(bidder), int(price), channel, number))
    return found


def q22(lines: Lines) -> Iterable[Row]:
    found = []
    for line in lines:
        auction, bidder, price, channel, url, _ = line.split(",", 5)
        parts = url.split("/")
        found.append((int(auction), int(bidder), int(price), channel, parts[3], parts[4], parts[5]))
    return found


STATELESS: Mapping[str, tuple[Callable[[Lines], Iterable[Row]], tuple[str, ...]]] = {
    "q0": (q0, BID),
    "q1": (q1, BID),
    "q2": (q2, ("auction", "price")),
    "q10": (q10, (*BID, "dt", "hm")),
    "q13": (q13, ("auction", "bidder", "price", "dateTime", "value")),
    "q14": (q14, ("auction", "bidder", "price", "time", "dateTime", "extra", "letters")),
    "q21": (q21, ("auction", "bidder", "price", "channel", "channel_id")),
    "q22": (q22, ("auction", "bidder", "price", "channel", "dir1", "dir2", "dir3")),
}
"""What becomes of a batch of lines, and the names of its columns."""


def keyed_count(lines: Lines) -> Iterable[tuple[str, int]]:
    return [(line[: line.index(",")], 1) for line in lines]


def count(state: int | None, one: int) -> tuple[int, list[Row]]:
    total = (state or 0) + one
    return total, [(total,)]


def keyed_q17(lines: Lines) -> Iterable[tuple[str, int]]:
    rows = (line.split(",") for line in lines)
    return [(f"{row[0]} {row[5][:10]}", int(row[2])) for row in rows]


def q17(state: Row | None, price: int) -> tuple[Row, list[Row]]:
    bids, low, middle, high, least, most, total = state or (0, 0, 0, 0, price, price, 0)
    bids, total = bids + 1, total + price
    low, middle = low + (price < 10_000), middle + (10_000 <= price < 1_000_000)
    high = high + (price >= 1_000_000)
    least, most = min(least, price), max(most, price)
    row = (bids, low, middle, high, least, most, total / bids, total)
    return (bids, low, middle, high, least, most, total), [row]


def keyed_q18(lines: Lines) -> Iterable[tuple[str, Row]]:
    return [(f"{row[0]} {row[1]}", row[2:]) for row in map(bid, lines)]


def q18(state: Row | None, row: Row) -> tuple[Row, list[Row]]:
    if state is None or state[1] <= row[1]:
        return row, [row]
    return state, []


UPDATED: Mapping[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...], tuple[str, ...]]] = {
    "count": (keyed_count, count, ("key",), ("n",)),
    "q17": (
        keyed_q17,
        q17,
        ("auction", "day"),
        ("bids", "bids_low", "bids_middle", "bids_high", "least", "most", "average", "total"),
    ),
    "q18": (keyed_q18, q18, ("auction", "bidder"), ("price", "dateTime", "extra")),
}
"""Keys and values of a batch of lines, a step with state, the names of the keys and those of the values."""


def people(lines: Lines) -> Iterable[tuple[str, tuple[bool, Row]]]:
    rows = (line.split(",", 6) for line in lines)
    return [(row[0], (True, (row[1], row[4], row[5]))) for row in rows if row[5] in ("OR", "ID", "CA")]


def sellers(lines: Lines) -> Iterable[tuple[str, tuple[bool, Row]]]:
    rows = (line.split(",", 9) for line in lines)
    return [(row[7], (False, (int(row[0]),))) for row in rows if row[8] == "10"]


def auctions(lines: Lines) -> Iterable[tuple[str, tuple[bool, Row]]]:
    rows = (line.split(",") for line in lines)
    return [(row[0], (True, _auction(row))) for row in rows if row[8] == "10"]


def _auction(row: list[str]) -> Row:
    _, name, description, initial, reserve, time, expires, seller, category, extra = row
    numbers = int(initial), int(reserve)
    return name, description, *numbers, moment(time), moment(expires), int(seller), int(category), extra


def bids(lines: Lines) -> Iterable[tuple[str, tuple[bool, Row]]]:
    return [(str(row[0]), (False, row)) for row in map(bid, lines)]


def join(state: Any, side: tuple[bool, Row]) -> tuple[Any, list[Row]]:
    """Each row of the one side with each of the other, of which there is at most one."""
    one, waiting = state or (None, [])
    is_one, row = side
    if is_one:
        return (row, []), [(*row, *other) for other in waiting]
    if one is None:
        return (None, [*waiting, row]), []
    return (one, []), [(*one, *row)]


JOINS: Mapping[str, tuple[Mapping[str, Callable[[Lines], Any]], tuple[str, ...]]] = {
    "q3": ({"person": people, "auction": sellers}, ("name", "city", "state", "id")),
    "q20": (
        {"auction": auctions, "bid": bids},
        (
            *("itemName", "description", "initialBid", "reserve", "dateTime_auction", "expires"),
            *("seller", "category", "extra_auction"),
            *BID,
        ),
    ),
}
"""What each side makes of a batch of lines, and the names of the columns of both."""


def keyed_time(lines: Lines) -> Iterable[tuple[str, datetime]]:
    """Times of bids by bidder."""
    rows = (line.split(",", 6) for line in lines)
    return [(row[1], moment(row[5]).replace(tzinfo=UTC)) for row in rows]


def keyed_reading(lines: Lines) -> Iterable[tuple[str, tuple[datetime, int]]]:
    """Times and amounts by key."""
    rows = (line.split(",") for line in lines)
    return [(row[1], (moment(row[0]).replace(tzinfo=UTC), int(row[2]))) for row in rows]


UNABLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("q5", "q7", "q8"),
        "no step of the library: windows close for each key on its own, and results of windows have no time",
    ),
    **dict.fromkeys(
        ("q4", "q6", "q9", "q15", "q16", "q19"),
        "no step of the library: rankings, sets of values and results taken back would be our own code",
    ),
}
