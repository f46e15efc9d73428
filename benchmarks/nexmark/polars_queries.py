"""The queries that one Polars query can state, over all events at once, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from unistream.nexmark.queries import BID, QUERIES
from unistream.nexmark.sources import side_input

Tables = Mapping[str, pl.LazyFrame]
TEN_SECONDS = pl.col("dateTime").dt.truncate("10s")


class _Sources:
    """Tables under the names of streams: queries that use only Polars' words run over both."""

    def __init__(self, tables: Tables) -> None:
        self.person, self.auction, self.bid = tables["person"], tables["auction"], tables["bid"]


def _the_same(query: str) -> Callable[[Tables], pl.LazyFrame]:
    run: Callable[[Any], Any] = QUERIES[query]
    return lambda tables: run(_Sources(tables))


def q3(t: Tables) -> pl.LazyFrame:
    """Who sells in category 10 in three states."""
    persons = t["person"].filter(pl.col("state").is_in(["OR", "ID", "CA"]))
    auctions = t["auction"].filter(pl.col("category") == 10)
    return auctions.join(persons, left_on="seller", right_on="id").select("name", "city", "state", "id")


def _in_time(t: Tables) -> pl.LazyFrame:
    bids = t["bid"].select("auction", "bidder", "price", bidTime="dateTime", bidExtra="extra")
    pairs = t["auction"].join(bids, left_on="id", right_on="auction")
    return pairs.filter(pl.col("bidTime").is_between("dateTime", "expires"))


def q4(t: Tables) -> pl.LazyFrame:
    """Average closing price of each category."""
    final = _in_time(t).group_by("id", "category").agg(final=pl.col("price").max())
    return final.group_by("category").agg(average=pl.col("final").mean())


def q5(t: Tables) -> pl.LazyFrame:
    """The auctions with most bids in the last ten seconds, every two seconds."""
    start = pl.col("dateTime").dt.truncate("2s")
    panes = t["bid"].group_by("auction", start=start).agg(num=pl.len())
    starts = pl.concat_list(*(pl.col("start").dt.offset_by(f"-{2 * back}s") for back in range(5)))
    counts = panes.select("auction", "num", start=starts).explode("start")
    counts = counts.group_by("auction", "start").agg(pl.col("num").sum())
    most = counts.group_by("start").agg(most=pl.col("num").max())
    found = counts.join(most, on="start").filter(pl.col("num") == pl.col("most"))
    return found.select(
        "auction", "num", window_start="start", window_end=pl.col("start").dt.offset_by("10s")
    )


def q7(t: Tables) -> pl.LazyFrame:
    """The highest bids of each ten seconds."""
    bids = t["bid"].select(*BID, start=TEN_SECONDS)
    most = bids.group_by("start").agg(most=pl.col("price").max())
    return bids.join(most, left_on=["start", "price"], right_on=["start", "most"]).select(BID)


def q8(t: Tables) -> pl.LazyFrame:
    """Who came and began to sell within the same ten seconds."""
    new = t["person"].select("id", "name", window_start=TEN_SECONDS)
    selling = t["auction"].select(id="seller", window_start=TEN_SECONDS).unique()
    return new.join(selling, on=["id", "window_start"], how="semi")


def q9(t: Tables) -> pl.LazyFrame:
    """The winning bid of each auction."""
    best = pl.all().sort_by("price", "bidTime", descending=[True, False]).first()
    return _in_time(t).group_by("id").agg(best)


def q13(t: Tables) -> pl.LazyFrame:
    """Bids with what a table says about their auctions."""
    bids = t["bid"].with_columns(key=pl.col("auction") % 10_000).join(side_input().lazy(), on="key")
    return bids.select("auction", "bidder", "price", "dateTime", "value")


def q19(t: Tables) -> pl.LazyFrame:
    """The ten highest bids of each auction."""
    best = pl.all().sort_by("price", descending=True, maintain_order=True).head(10)
    return t["bid"].select(BID).group_by("auction").agg(best).explode(pl.exclude("auction"))


def q20(t: Tables) -> pl.LazyFrame:
    """Bids with their auctions of category 10."""
    auctions = t["auction"].filter(pl.col("category") == 10)
    return t["bid"].select(BID).join(auctions, left_on="auction", right_on="id", suffix="_auction")


POLARS: dict[str, Callable[[Tables], pl.LazyFrame]] = {
    **{f"q{n}": _the_same(f"q{n}") for n in (0, 1, 2, 10, 14, 15, 16, 17, 18, 21, 22)},
    **{query.__name__: query for query in (q3, q4, q5, q7, q8, q9, q13, q19, q20)},
}
