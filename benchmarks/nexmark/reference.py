"""The queries in SQL for DuckDB, over tables of all events: what the streams are checked against."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_IN_TIME = """
    from auction a join bid b on a.id = b.auction and b.dateTime between a.dateTime and a.expires
"""
_CHANNEL_ID = "regexp_extract(url, '(&|^)channel_id=([^&]*)', 2)"
_RANGES = {
    "low": "price < 10000",
    "middle": "price >= 10000 and price < 1000000",
    "high": "price >= 1000000",
}


def _bids() -> str:
    parts = ["count(*) as bids"]
    return ", ".join(parts + [f"count(*) filter ({which}) as bids_{n}" for n, which in _RANGES.items()])


def _statistics() -> str:
    parts = [_bids()]
    for column in ("bidder", "auction"):
        parts.append(f"count(distinct {column}) as {column}s")
        for name, which in _RANGES.items():
            parts.append(f"count(distinct {column}) filter ({which}) as {column}s_{name}")
    return ", ".join(parts)


SQL: dict[str, str] = {
    "q0": "select auction, bidder, price, dateTime, extra from bid",
    "q1": "select auction, bidder, dateTime, extra, 0.908::double * price as price from bid",
    "q2": "select auction, price from bid where auction % 123 = 0",
    "q3": """
        select name, city, state, a.id from auction a join person p on a.seller = p.id
        where category = 10 and state in ('OR', 'ID', 'CA')
    """,
    "q4": f"""
        select category, avg(final) as average
        from (select max(price) as final, category {_IN_TIME} group by a.id, category) group by category
    """,
    "q5": """
        with counts as (
            select auction, window_start, window_start + interval 10 second as window_end, count(*) as num
            from (
                select auction, unnest([time_bucket(interval 2 second, dateTime) - k * interval 2 second
                                        for k in range(5)]) as window_start
                from bid
            ) group by all
        )
        select window_start, window_end, auction, num from counts
        qualify num = max(num) over (partition by window_start)
    """,
    "q6": f"""
        with closed as (
            select seller, a.id, min(b.dateTime) as window_start,
                   max(b.dateTime) + interval 10 second as window_end, max(price) as final
            {_IN_TIME} group by seller, a.id
        )
        select *, avg(final) over (partition by seller order by window_end rows 9 preceding) as average
        from closed
    """,
    "q7": """
        select auction, bidder, price, dateTime, extra from bid
        qualify price = max(price) over (partition by time_bucket(interval 10 second, dateTime))
    """,
    "q8": """
        select distinct p.id, name, time_bucket(interval 10 second, p.dateTime) as window_start
        from person p join auction a on p.id = a.seller
            and time_bucket(interval 10 second, p.dateTime) = time_bucket(interval 10 second, a.dateTime)
    """,
    "q9": f"""
        select a.*, bidder, price, b.dateTime as bidTime, b.extra as bidExtra {_IN_TIME}
        qualify row_number() over (partition by a.id order by price desc, b.dateTime) = 1
    """,
    "q10": """
        select auction, bidder, price, dateTime, extra,
               strftime(dateTime, '%Y-%m-%d') as dt, strftime(dateTime, '%H:%M') as hm
        from bid
    """,
    "q11": """
        with marked as (
            select bidder, dateTime,
                   coalesce(dateTime - lag(dateTime) over w >= interval 10 second, true) as begins
            from bid window w as (partition by bidder order by dateTime)
        ), numbered as (
            select bidder, dateTime,
                   count(*) filter (begins) over (partition by bidder order by dateTime) as session
            from marked
        )
        select bidder, min(dateTime) as window_start, max(dateTime) + interval 10 second as window_end,
               count(*) as bids
        from numbered group by bidder, session
    """,
    "q12": "select bidder, count(*) as bids from bid group by bidder",
    "q13": """
        select auction, bidder, price, dateTime, value from bid join side_input on auction % 10000 = key
    """,
    "q14": """
        select auction, bidder, dateTime, extra, 0.908::double * price as price,
               case when hour(dateTime) between 8 and 18 then 'dayTime'
                    when hour(dateTime) <= 6 or hour(dateTime) >= 20 then 'nightTime'
                    else 'otherTime' end as time,
               length(extra) - length(replace(extra, 'c', '')) as letters
        from bid where 0.908::double * price > 1000000 and 0.908::double * price < 50000000
    """,
    "q15": f"select strftime(dateTime, '%Y-%m-%d') as day, {_statistics()} from bid group by day",
    "q16": f"""
        select channel, strftime(dateTime, '%Y-%m-%d') as day, max(strftime(dateTime, '%H:%M')) as minute,
               {_statistics()}
        from bid group by channel, day
    """,
    "q17": f"""
        select auction, strftime(dateTime, '%Y-%m-%d') as day, {_bids()}, min(price) as least,
               max(price) as most, avg(price) as average, sum(price) as total
        from bid group by auction, day
    """,
    "q18": """
        select auction, bidder, price, dateTime, extra from bid
        qualify row_number() over (partition by bidder, auction order by dateTime desc) = 1
    """,
    "q19": """
        select auction, bidder, price, dateTime, extra from bid
        qualify row_number() over (partition by auction order by price desc, dateTime) <= 10
    """,
    "q20": """
        select b.auction, bidder, price, b.dateTime, b.extra, itemName, description, initialBid, reserve,
               a.dateTime as dateTime_auction, expires, seller, category, a.extra as extra_auction
        from bid b join auction a on b.auction = a.id where category = 10
    """,
    "q21": f"""
        select * from (
            select auction, bidder, price, channel,
                   case lower(channel) when 'apple' then '0' when 'google' then '1' when 'facebook' then '2'
                        when 'baidu' then '3' else nullif({_CHANNEL_ID}, '') end as channel_id
            from bid
        ) where channel_id is not null
    """,
    "q22": """
        select auction, bidder, price, channel, split_part(url, '/', 4) as dir1,
               split_part(url, '/', 5) as dir2, split_part(url, '/', 6) as dir3
        from bid
    """,
}


def answer(query: str, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """What a query gives over these tables."""
    import duckdb  # only here: other engines read this file too, and it would count as their memory

    with duckdb.connect() as database:
        for name, table in tables.items():
            database.register(name, table.to_arrow())
        return database.sql(SQL[query]).pl()
