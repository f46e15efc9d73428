"""The queries that Spark can state as streams, in its SQL, and why it cannot state the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.compare.tables import INTEGER, TEXT, TIME

TYPES = {INTEGER: "BIGINT", TEXT: "STRING", TIME: "TIMESTAMP"}
DELAY = "4 seconds"

_DAY = "date_format(dateTime, 'yyyy-MM-dd')"
_CHANNEL_ID = "regexp_extract(url, '(&|^)channel_id=([^&]*)', 2)"
_PRICE = "CAST(0.908 AS DOUBLE) * price"
_COUNTS = """
    SELECT auction, COUNT(*) AS num, window FROM bid
    GROUP BY auction, window(dateTime, '10 seconds', '2 seconds')
"""
_BIDS = """
    COUNT(*) AS bids, COUNT_IF(price < 10000) AS bids_low,
    COUNT_IF(price >= 10000 AND price < 1000000) AS bids_middle, COUNT_IF(price >= 1000000) AS bids_high
"""


@dataclass(frozen=True)
class Statement:
    """A query; `keys` of a result that is updated, none where rows are only added."""

    text: str
    keys: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """The output mode."""
        return "update" if self.keys else "append"


SQL: Mapping[str, Statement] = {
    "q0": Statement("SELECT auction, bidder, price, dateTime, extra FROM bid"),
    "q1": Statement(f"SELECT auction, bidder, {_PRICE} AS price, dateTime, extra FROM bid"),
    "q2": Statement("SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    "q3": Statement("""
        SELECT P.name, P.city, P.state, A.id FROM auction A JOIN person P ON A.seller = P.id
        WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')
    """),
    "q5": Statement(f"""
        SELECT best.auction, most AS num, window.start AS window_start, window.end AS window_end FROM (
            SELECT window, most, explode(filter(found, one -> one.num = most)) AS best FROM (
                SELECT window, MAX(num) AS most, collect_list(struct(auction, num)) AS found
                FROM ({_COUNTS}) GROUP BY window
            )
        )
    """),
    "q7": Statement("""
        SELECT bid.* FROM (
            SELECT explode(filter(found, one -> one.price = most)) AS bid FROM (
                SELECT MAX(price) AS most,
                       collect_list(struct(auction, bidder, price, dateTime, extra)) AS found
                FROM bid GROUP BY window(dateTime, '10 seconds')
            )
        )
    """),
    "q8": Statement("""
        SELECT id, name, ten.start AS window_start
        FROM (SELECT id, name, window AS ten FROM person GROUP BY id, name, window(dateTime, '10 seconds'))
        JOIN (
            SELECT seller, window AS ten_of_seller FROM auction
            GROUP BY seller, window(dateTime, '10 seconds')
        ) ON id = seller AND ten = ten_of_seller
    """),
    "q10": Statement(f"""
        SELECT auction, bidder, price, dateTime, extra, {_DAY} AS dt, date_format(dateTime, 'HH:mm') AS hm
        FROM bid
    """),
    "q11": Statement("""
        SELECT bidder, session_window.start AS window_start, session_window.end AS window_end,
               COUNT(*) AS bids
        FROM bid GROUP BY bidder, session_window(dateTime, '10 seconds')
    """),
    "q12": Statement(
        """
        SELECT bidder, COUNT(*) AS bids, window.start AS window_start
        FROM (SELECT bidder, current_timestamp() AS came FROM bid)
        GROUP BY bidder, window(came, '10 seconds')
        """,
        keys=("bidder", "window_start"),
    ),
    "q13": Statement("""
        SELECT auction, bidder, price, dateTime, value FROM bid JOIN side_input ON auction % 10000 = key
    """),
    "q14": Statement(f"""
        SELECT auction, bidder, {_PRICE} AS price,
               CASE WHEN hour(dateTime) BETWEEN 8 AND 18 THEN 'dayTime'
                    WHEN hour(dateTime) <= 6 OR hour(dateTime) >= 20 THEN 'nightTime'
                    ELSE 'otherTime' END AS time,
               dateTime, extra, length(extra) - length(replace(extra, 'c', '')) AS letters
        FROM bid WHERE {_PRICE} > 1000000 AND {_PRICE} < 50000000
    """),
    "q17": Statement(
        f"""
        SELECT auction, {_DAY} AS day, {_BIDS}, MIN(price) AS least, MAX(price) AS most,
               AVG(price) AS average, SUM(price) AS total
        FROM bid GROUP BY auction, {_DAY}
        """,
        keys=("auction", "day"),
    ),
    "q18": Statement(
        """
        SELECT auction, bidder, last.price, last.dateTime, last.extra FROM (
            SELECT auction, bidder, max_by(struct(price, dateTime, extra), dateTime) AS last
            FROM bid GROUP BY auction, bidder
        )
        """,
        keys=("auction", "bidder"),
    ),
    "q20": Statement("""
        SELECT B.auction, bidder, price, B.dateTime, B.extra, itemName, description, initialBid, reserve,
               A.dateTime AS dateTime_auction, expires, seller, category, A.extra AS extra_auction
        FROM bid B JOIN auction A ON B.auction = A.id WHERE category = 10
    """),
    "q21": Statement(f"""
        SELECT * FROM (
            SELECT auction, bidder, price, channel,
                   CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2'
                        WHEN 'baidu' THEN '3' ELSE nullif({_CHANNEL_ID}, '') END AS channel_id
            FROM bid
        ) WHERE channel_id IS NOT NULL
    """),
    "q22": Statement("""
        SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1,
               split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
        FROM bid
    """),
    "count": Statement("SELECT key, COUNT(*) AS n FROM counts GROUP BY key", keys=("key",)),
    "tumbling": Statement(
        """
        SELECT key, window.start AS window_start, COUNT(*) AS n, SUM(amount) AS total
        FROM readings GROUP BY key, window(dateTime, '10 seconds')
        """,
        keys=("key", "window_start"),
    ),
}

UNABLE: Mapping[str, str] = {
    "q4": "no aggregate of an aggregate without windows, nor any that is updated behind a join",
    "q6": "no aggregate over the last rows of a key",
    "q9": "no ranking of the rows of a stream, and no aggregate that is updated behind a join",
    "q15": "no distinct counts over a stream",
    "q16": "no distinct counts over a stream",
    "q19": "no ranking of the rows of a stream",
}
