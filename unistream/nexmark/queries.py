"""Queries 0 to 22 of Nexmark, each a function from the sources to a stream.

Joins that the benchmark leaves without bounds have one here that no pair exceeds: a bid names an auction, and
an auction a seller, that began at most an hour before or will begin within ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

import unistream as us
from unistream.nexmark.sources import Sources

SOON = "10s"
"""No auction lasts longer, and nothing is named longer before it begins."""

AGO = "-1h"
"""Nothing is named that began longer ago."""

DAY = pl.col("dateTime").dt.strftime("%Y-%m-%d")
LOW = pl.col("price") < 10_000
MIDDLE = (pl.col("price") >= 10_000) & (pl.col("price") < 1_000_000)
HIGH = pl.col("price") >= 1_000_000
BID = ["auction", "bidder", "price", "dateTime", "extra"]


def q0(s: Sources) -> us.Stream:
    """Pass through."""
    return s.bid.select(BID)


def q1(s: Sources) -> us.Stream:
    """Currency conversion."""
    return s.bid.select("auction", "bidder", "dateTime", "extra", price=0.908 * pl.col("price"))


def q2(s: Sources) -> us.Stream:
    """Bids for some auctions."""
    return s.bid.filter(pl.col("auction") % 123 == 0).select("auction", "price")


def q3(s: Sources) -> us.Stream:
    """Who sells in category 10 in three states."""
    auctions = s.auction.filter(pl.col("category") == 10).select("id", "seller", "dateTime")
    persons = s.person.filter(pl.col("state").is_in(["OR", "ID", "CA"])).rename({"id": "seller"})
    found = auctions.join(persons.drop("extra"), on="seller", within=(AGO, SOON))
    return found.select("name", "city", "state", "id")


def bids_in_time(s: Sources) -> us.Stream:
    """Auctions with each bid that came before they expired."""
    bids = s.bid.rename({"auction": "id", "dateTime": "bidTime", "extra": "bidExtra"})
    bids = bids.select("id", "bidder", "price", "bidTime", "bidExtra")
    in_time = pl.col("bidTime") <= pl.col("expires")
    return s.auction.join(bids, on="id", within=("0s", SOON), predicate=in_time)


def q4(s: Sources) -> us.Stream:
    """Average closing price of each category."""
    final = bids_in_time(s).group_by("id", "category").agg(final=pl.col("price").max())
    return final.group_by("category").agg(average=pl.col("final").mean())


def q5(s: Sources) -> us.Stream:
    """The auctions with most bids in the last ten seconds, every two seconds."""
    counts = s.bid.group_by("auction").window(us.sliding("10s", every="2s")).agg(num=pl.len())
    most = pl.col("auction").filter(pl.col("num") == pl.col("num").max())
    return counts.window().agg(most, num=pl.col("num").max()).explode("auction")


def q6(s: Sources) -> us.Stream:
    """Average price of the last ten auctions that each seller closed, in order of their last bids."""
    bids = bids_in_time(s).group_by("seller", "id").window(us.session(SOON))
    closed = bids.agg(final=pl.col("price").max())
    return closed.group_by("seller").over(rows=10).agg(average=pl.col("final").mean())


def q7(s: Sources) -> us.Stream:
    """The highest bids of each ten seconds."""
    highest = pl.struct(BID).filter(pl.col("price") == pl.col("price").max())
    bids = s.bid.window(us.tumbling("10s")).agg(highest.alias("bid"))
    return bids.select("bid").explode("bid").unnest("bid")


def q8(s: Sources) -> us.Stream:
    """Who came and began to sell within the same ten seconds."""
    window = us.tumbling("10s")
    new = s.person.group_by("id", "name").window(window).agg(came=pl.len())
    selling = s.auction.group_by(id="seller").window(window).agg(auctions=pl.len())
    found = new.join(selling, on=["id", "window_start", "window_end"], within="0s")
    return found.select("id", "name", "window_start")


def q9(s: Sources) -> us.Stream:
    """The winning bid of each auction."""
    return bids_in_time(s).group_by("id").top_k(1, by=["price", "bidTime"], reverse=[False, True])


def q10(s: Sources) -> us.Stream:
    """All bids with what folders of a day and a minute are called."""
    minute = pl.col("dateTime").dt.strftime("%H:%M")
    return s.bid.select(*BID, dt=DAY, hm=minute)


def q11(s: Sources) -> us.Stream:
    """Bids of each person until ten seconds go by without one."""
    return s.bid.group_by("bidder").window(us.session("10s")).agg(bids=pl.len())


def q12(s: Sources) -> us.Stream:
    """Bids of each person in ten seconds of the clock."""
    bids = s.bid.with_ingestion_time("came").group_by("bidder")
    return bids.window(us.tumbling("10s")).agg(bids=pl.len())


def q13(s: Sources) -> us.Stream:
    """Bids with what a table says about their auctions."""
    bids = s.bid.with_columns(key=pl.col("auction") % 10_000).lookup(s.side_input, on="key", how="inner")
    return bids.select("auction", "bidder", "price", "dateTime", "value")


def q14(s: Sources) -> us.Stream:
    """Conversion, time of day and letters of expensive bids."""
    hour, price = pl.col("dateTime").dt.hour(), 0.908 * pl.col("price")
    time = (
        pl.when(hour.is_between(8, 18))
        .then(pl.lit("dayTime"))
        .when((hour <= 6) | (hour >= 20))
        .then(pl.lit("nightTime"))
        .otherwise(pl.lit("otherTime"))
    )
    letters = pl.col("extra").str.count_matches("c", literal=True)
    dear = s.bid.filter((price > 1_000_000) & (price < 50_000_000))
    return dear.select("auction", "bidder", "dateTime", "extra", price=price, time=time, letters=letters)


def statistics() -> dict[str, pl.Expr]:
    """Bids, bidders and auctions, of all prices and of three ranges."""
    made = {"bids": pl.len()}
    ranges = {"low": LOW, "middle": MIDDLE, "high": HIGH}
    made |= {f"bids_{name}": which.sum() for name, which in ranges.items()}
    for column in ("bidder", "auction"):
        made[f"{column}s"] = pl.col(column).n_unique()
        made |= {f"{column}s_{n}": pl.col(column).filter(which).n_unique() for n, which in ranges.items()}
    return made


def q15(s: Sources) -> us.Stream:
    """Statistics of each day."""
    return s.bid.group_by(day=DAY).agg(**statistics())


def q16(s: Sources) -> us.Stream:
    """Statistics of each channel and day."""
    minute = pl.col("dateTime").max().dt.strftime("%H:%M")
    return s.bid.group_by("channel", day=DAY).agg(minute=minute, **statistics())


def q17(s: Sources) -> us.Stream:
    """Statistics of each auction and day."""
    price = pl.col("price")
    return s.bid.group_by("auction", day=DAY).agg(
        bids=pl.len(),
        bids_low=LOW.sum(),
        bids_middle=MIDDLE.sum(),
        bids_high=HIGH.sum(),
        least=price.min(),
        most=price.max(),
        average=price.mean(),
        total=price.sum(),
    )


def q18(s: Sources) -> us.Stream:
    """The last bid of each person for each auction."""
    return s.bid.select(BID).unique(["bidder", "auction"], keep="last")


def q19(s: Sources) -> us.Stream:
    """The ten highest bids of each auction."""
    return s.bid.select(BID).group_by("auction").top_k(10, by="price")


def q20(s: Sources) -> us.Stream:
    """Bids with their auctions of category 10."""
    auctions = s.auction.filter(pl.col("category") == 10).rename({"id": "auction"})
    return s.bid.select(BID).join(auctions, on="auction", within=(AGO, SOON), suffix="_auction")


def q21(s: Sources) -> us.Stream:
    """The number of the channel, by its name or from the address."""
    hot = pl.col("channel").str.to_lowercase()
    numbers = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
    told = pl.col("url").str.extract(r"(?:&|^)channel_id=([^&]*)", 1)
    number = pl.coalesce(hot.replace_strict(numbers, default=None, return_dtype=pl.String), told)
    found = s.bid.select("auction", "bidder", "price", "channel", channel_id=number)
    return found.filter(pl.col("channel_id").is_not_null())


def q22(s: Sources) -> us.Stream:
    """The folders in the address."""
    parts = pl.col("url").str.splitn("/", 7).struct
    folders = {f"dir{number}": parts.field(f"field_{number + 2}") for number in (1, 2, 3)}
    return s.bid.select("auction", "bidder", "price", "channel", **folders)


_STATELESS = [q0, q1, q2, q10, q14, q21, q22]
_WITH_STATE = [q3, q4, q5, q6, q7, q8, q9, q11, q12, q13, q15, q16, q17, q18, q19, q20]
QUERIES: dict[str, Callable[[Sources], us.Stream]] = {
    query.__name__: query
    for query in sorted(_STATELESS + _WITH_STATE, key=lambda query: int(query.__name__[1:]))
}
