"""Nexmark events: each a function of its number, whichever way they are cut, pushed, paced or resumed."""

from __future__ import annotations

import re
import threading
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unistream as us
from unistream.clock import Clock
from unistream.errors import InvalidSettings
from unistream.io.base import Chunk, Exhausted, Request, Wait
from unistream.io.nexmark import START, NexmarkSource
from unistream.io.nexmark_draws import Draw

KINDS = ("person", "auction", "bid")
MASK = (1 << 64) - 1


class HandClock(Clock):
    """Moves only by hand; `step` is what was put right in the time of day."""

    def __init__(self, now: int = 0) -> None:
        self.time = now
        self.step = 0

    def now(self) -> int:
        return self.time + self.step

    def steady(self) -> float:
        return self.time / 1e6

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += round(seconds * 1e6)
        return event.is_set()


def rows_of(source: NexmarkSource, first: int = 0, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
    """All that is left from an event on, in large chunks."""
    positions = {"events": {"start": START, "next": first}} if first else {}
    reader = source.open(positions, Request(columns=columns))
    frames = [pl.DataFrame(schema=source.schema()).select(columns or list(source.schema()))]
    while isinstance(chunk := reader.poll(1_000_000), Chunk):
        frames.append(chunk.frame)
    return pl.concat(frames)


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def bits(seed: int, what: Draw, number: int) -> int:
    """One draw, by plain integers."""
    golden = 0x9E3779B97F4A7C15
    of_seed = mixed((seed * golden + golden) & MASK)
    key = mixed(((of_seed + what) * golden + golden) & MASK)
    return mixed((number * golden + key) & MASK)


def price(drawn: int) -> int:
    steps = [round(100 * 10 ** (6 * step / 4096)) for step in (drawn >> 52, (drawn >> 52) + 1)]
    return steps[0] + ((steps[1] - steps[0]) * (drawn & 0xFFFF) >> 16)


def bid(seed: int, event: int) -> dict[str, object]:
    """One bid by the rules of the benchmark, with plain integers."""
    epoch = event // 50
    last_auction, persons = epoch * 3 + 2, epoch + 1
    drawn = bits(seed, Draw.AUCTION, event)
    least = max(last_auction - 100, 0)
    some = least + ((drawn >> 32) * (last_auction - least + 11) >> 32)
    auction = last_auction // 100 * 100 if drawn & 1 else some
    drawn = bits(seed, Draw.BIDDER, event)
    active = min(persons, 1000)
    anybody = persons - active + ((drawn >> 32) * (active + 10) >> 32)
    bidder = epoch // 100 * 100 + 1 if drawn & 3 else anybody
    return {
        "auction": 1000 + auction,
        "bidder": 1000 + bidder,
        "price": price(bits(seed, Draw.PRICE, event)),
        "dateTime": datetime(2015, 7, 15) + timedelta(microseconds=100 * event),
    }


@pytest.mark.parametrize("first", [0, 149_950, 7_000_000_000_000])
def test_bids_follow_the_rules_row_by_row(first: int) -> None:
    made = rows_of(NexmarkSource(first + 500, seed=7, which="bid"), first)
    events = [event for event in range(first, first + 500) if event % 50 >= 4]
    expected = [bid(7, event) for event in events]
    assert made.select("auction", "bidder", "price", "dateTime").to_dicts() == expected


def test_a_seed_gives_the_same_events_for_ever() -> None:
    persons, auctions, bids = (rows_of(NexmarkSource(50, which=which)) for which in KINDS)
    assert persons.drop("extra").rows() == [
        (
            1000,
            "Walter Jones",
            "lsah@ntjo.com",
            "2807 8422 6060 4582",
            "Bend",
            "ID",
            datetime(2015, 7, 15),
        )
    ]
    assert auctions.select("itemName", "initialBid", "reserve", "seller", "category").row(1) == (
        "jlxfecbsrajfs",
        2898344,
        3210291,
        1000,
        11,
    )
    assert bids.select("auction", "price", "channel", "url").row(0) == (
        1004,
        30479,
        "Facebook",
        "https://www.nexmark.com/moh/svo/pva/item.htm?query=1",
    )
    assert bids["extra"][2] == "rhizgworpqogzsvpwvaaldairijrlqoxwcpixolrxztvcoesuvtskebswlmu"


@settings(max_examples=30)
@given(
    which=st.sampled_from([*KINDS, None]),
    total=st.integers(0, 3_000),
    seed=st.integers(-5, 5),
    rate=st.sampled_from([None, 3.0, 10_000.0, 3e6]),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=8),
)
def test_every_event_is_the_same_whichever_way_the_range_is_cut(
    which: str | None, total: int, seed: int, rate: float | None, cuts: list[int]
) -> None:
    source = NexmarkSource(total, rate=rate, seed=seed, start=START, which=which)
    clock = HandClock(START + 10**12)
    reader = source.open({}, Request(clock=clock))
    frames, step = [pl.DataFrame(schema=source.schema())], 0
    while isinstance(chunk := reader.poll(cuts[step % len(cuts)]), Chunk):
        frames.append(chunk.frame)
        assert chunk.frame.schema == source.schema()
        step += 1
        if step % 3 == 0:  # a restart
            reader.close()
            reader = source.open({"events": chunk.position}, Request(clock=clock))
    whole = source.open({}, Request(clock=clock)).poll(10_000)
    expected = whole.frame if isinstance(whole, Chunk) else pl.DataFrame(schema=source.schema())
    assert pl.concat(frames).equals(expected)
    assert expected.height == (reader.backlog().total_rows or 0)


@pytest.mark.parametrize("which", [*KINDS, None])
def test_a_column_is_the_same_with_others_and_alone(which: str | None) -> None:
    source = NexmarkSource(2_000, which=which)
    whole = rows_of(source, 1_010)
    names = list(source.schema())
    for columns in [(name,) for name in names] + [tuple(reversed(names))]:
        assert rows_of(source, 1_010, columns).equals(whole.select(columns))


def test_all_events_in_one_stream_are_the_three_kinds_in_order() -> None:
    everything = rows_of(NexmarkSource(1_007), 13)
    assert everything.height == 1_007 - 13
    assert everything["dateTime"].is_sorted()
    for which in KINDS:
        part = everything.filter(pl.col("event_type") == which)
        assert part[which].struct.unnest().equals(rows_of(NexmarkSource(1_007, which=which), 13))
        others = everything.filter(pl.col("event_type") != which)
        assert others[which].null_count() == others.height
        assert (part["dateTime"] == part[which].struct.field("dateTime")).all()


def test_proportions_skew_and_ranges_are_those_of_the_benchmark() -> None:
    total = 100_000
    persons, auctions, bids = (rows_of(NexmarkSource(total, which=which)) for which in KINDS)
    assert [persons.height, auctions.height, bids.height] == [2_000, 6_000, 92_000]
    assert persons["id"].to_list() == list(range(1000, 3000))
    assert auctions["id"].to_list() == list(range(1000, 7000))
    hot = bids.select(
        auction=((pl.col("auction") - 1000) % 100 == 0).mean(),
        bidder=((pl.col("bidder") - 1000) % 100 == 1).mean(),
        channel=pl.col("channel").is_in(["Google", "Facebook", "Baidu", "Apple"]).mean(),
        identified=pl.col("url").str.contains("channel_id=").mean(),
    ).row(0)
    assert hot == pytest.approx((0.505, 0.7525, 0.5, 0.45), abs=0.01)
    sellers = ((auctions["seller"] - 1000) % 100 == 0).mean()
    assert sellers == pytest.approx(0.7525, abs=0.02)
    for frame, column in ((bids, "price"), (auctions, "initialBid")):
        logs = frame[column].log10()
        assert (logs.min(), logs.mean(), logs.max()) == pytest.approx((2, 5, 8), abs=0.06)
    assert sorted(auctions["category"].unique()) == [10, 11, 12, 13, 14]
    assert persons["state"].n_unique() == 6
    assert persons["city"].n_unique() == 10
    lasts = auctions.select((pl.col("expires") - pl.col("dateTime")).dt.total_milliseconds()).to_series()
    assert (lasts.min(), lasts.mean(), lasts.max()) == pytest.approx((1, 166, 333), abs=3)


def test_texts_have_their_lengths_and_forms() -> None:
    persons, auctions, bids = (rows_of(NexmarkSource(20_000, which=which)) for which in KINDS)
    ranges = [(persons, 104, 156), (auctions, 312, 467), (bids, 54, 81)]
    for frame, least, most in ranges:
        lengths = frame["extra"].str.len_bytes()
        assert least <= int(lengths.min()) < least + 10
        assert most - 10 < int(lengths.max()) <= most
        assert frame["extra"].str.contains("^[a-z]+$").all()
    assert auctions["itemName"].str.contains("^[a-z ]*$").all()
    assert int(auctions["description"].str.len_bytes().max()) > 90
    assert persons["creditCard"].str.contains(r"^\d{4} \d{4} \d{4} \d{4}$").all()
    assert persons["emailAddress"].str.contains(r"^[a-z]{3,6}@[a-z]{3,4}\.com$").all()
    assert bids["url"].str.contains(r"^https://www\.nexmark\.com/\w+/\w+/\w+/item\.htm\?query=1").all()
    told = bids.filter(pl.col("url").str.contains("channel_id"))["channel", "url"].unique()
    for channel, url in told.head(200).rows():
        number = int(channel.removeprefix("channel-"))
        turned = int(f"{number:032b}"[::-1], 2)
        assert re.search(r"channel_id=(\d+)$", url).group(1) == str(min(turned, 2**32 - turned))  # type: ignore[union-attr]


def test_a_rate_paces_by_the_clock_and_catches_up() -> None:
    clock = HandClock(1_000_000)
    reader = NexmarkSource(rate=100, which="bid").open({}, Request(clock=clock))
    seen = 0
    while clock.time < 3_000_000:
        match reader.poll(1_000):
            case Chunk() as chunk:
                times = chunk.frame["dateTime"].to_physical().to_list()
                assert all(time == clock.time for time in times)
                seen += chunk.frame.height
                position = chunk.position
            case Wait(seconds):
                assert seconds > 0
                clock.wait(threading.Event(), seconds)
    assert seen == 4 * 46
    clock.time = 60_000_000
    reader = NexmarkSource(rate=100, which="bid").open({"events": position}, Request(clock=clock))
    late = reader.poll(100_000)
    assert isinstance(late, Chunk)
    assert late.position == {"start": 1_000_000, "next": 5_901}
    assert late.frame["dateTime"].to_physical().max() <= clock.time


@pytest.mark.parametrize("step", [-3_600_000_000, 3_600_000_000])
def test_the_pace_does_not_hang_on_the_time_of_day(step: int) -> None:
    clock = HandClock(1_000_000)
    source = NexmarkSource(rate=100)
    reader = source.open({}, Request(clock=clock))
    assert isinstance(reader.poll(1_000), Chunk)
    clock.step = step
    clock.time += 20_000
    assert reader.backlog().rows == 2
    chunk = reader.poll(1_000)
    assert isinstance(chunk, Chunk)
    assert chunk.frame["dateTime"].to_physical().to_list() == [1_010_000, 1_020_000]
    assert reader.poll(1_000) == Wait(0.01)
    if step < 0:
        resumed = source.open({"events": chunk.position}, Request(clock=clock))
        assert resumed.poll(1_000) == Wait(0.01)


def test_bounds_and_refusals() -> None:
    assert not NexmarkSource().bounded
    assert isinstance(NexmarkSource(0).open({}, Request()).poll(10), Exhausted)
    for wrong in ({"events": -1}, {"rate": 0}, {"rate": 1e10}, {"which": "bids"}):
        with pytest.raises(InvalidSettings):
            NexmarkSource(**wrong)  # type: ignore[arg-type]


def test_the_public_name_reads_only_what_is_used() -> None:
    stream = us.scan_nexmark(5_000, which="bid", seed=3, start=datetime(2024, 1, 1))
    first = stream.select("dateTime", "price").head(1).row(0)
    assert first == (datetime(2024, 1, 1) + timedelta(microseconds=400), bid(3, 4)["price"])
    assert "columns: price" in " ".join(stream.select("price").explain().split())
    assert stream.select("price").collect().height == 4_600
