"""The queries in Flink's SQL, after the definitions of Nexmark."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.compare.tables import INTEGER, TABLES, TEXT, TIME

TYPES = {INTEGER: "BIGINT", TEXT: "STRING", TIME: "TIMESTAMP(3)"}
DELAY = "INTERVAL '4' SECOND"

_IN_TIME = """
    FROM auction A, bid B WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
"""
_DAY = "DATE_FORMAT(dateTime, 'yyyy-MM-dd')"
_CHANNEL_ID = "REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)"
_RANGES = {
    "low": "price < 10000",
    "middle": "price >= 10000 AND price < 1000000",
    "high": "price >= 1000000",
}


def _bids() -> str:
    return ", ".join(
        ["COUNT(*) AS bids"]
        + [f"COUNT(*) FILTER (WHERE {which}) AS bids_{name}" for name, which in _RANGES.items()]
    )


def _statistics() -> str:
    parts = [_bids()]
    for column in ("bidder", "auction"):
        parts.append(f"COUNT(DISTINCT {column}) AS {column}s")
        for name, which in _RANGES.items():
            parts.append(f"COUNT(DISTINCT {column}) FILTER (WHERE {which}) AS {column}s_{name}")
    return ", ".join(parts)


def _hopping(columns: str) -> str:
    window = "HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)"
    return f"SELECT {columns} FROM TABLE({window}) GROUP BY auction, window_start, window_end"


def _tumbling(table: str, columns: str, keys: str, time: str = "dateTime") -> str:
    window = f"TUMBLE(TABLE {table}, DESCRIPTOR({time}), INTERVAL '10' SECOND)"
    return f"SELECT {columns} FROM TABLE({window}) GROUP BY {keys}, window_start, window_end"


_COUNTS = _hopping("auction, COUNT(*) AS num, window_start, window_end")
_NEW = _tumbling("person", "id, name, window_start, window_end", "id, name")
_SELLING = _tumbling("auction", "seller, window_start, window_end", "seller")
_HIGHEST = (
    "SELECT MAX(price) AS most, window_end AS upTo"
    " FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))"
    " GROUP BY window_start, window_end"
)

_TEXTS: Mapping[str, str] = {
    "q0": "SELECT auction, bidder, price, dateTime, extra FROM bid",
    "q1": "SELECT auction, bidder, CAST(0.908 AS DOUBLE) * price AS price, dateTime, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
    "q3": """
        SELECT P.name, P.city, P.state, A.id FROM auction AS A INNER JOIN person AS P ON A.seller = P.id
        WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')
    """,
    "q4": f"""
        SELECT category, AVG(final) AS average FROM (
            SELECT MAX(CAST(B.price AS DOUBLE)) AS final, A.category {_IN_TIME} GROUP BY A.id, A.category
        ) GROUP BY category
    """,
    "q5": f"""
        SELECT C.auction, C.num, C.window_start, C.window_end FROM ({_COUNTS}) AS C
        JOIN (
            SELECT MAX(num) AS most, window_start, window_end FROM ({_COUNTS})
            GROUP BY window_start, window_end
        ) AS M
        ON C.window_start = M.window_start AND C.window_end = M.window_end AND C.num >= M.most
    """,
    "q7": f"""
        SELECT B.auction, B.bidder, B.price, B.dateTime, B.extra FROM bid B JOIN ({_HIGHEST}) M
        ON B.price = M.most
        WHERE B.dateTime BETWEEN M.upTo - INTERVAL '10' SECOND AND M.upTo - INTERVAL '0.001' SECOND
    """,
    "q8": f"""
        SELECT P.id, P.name, P.window_start FROM ({_NEW}) P JOIN ({_SELLING}) A
        ON P.id = A.seller AND P.window_start = A.window_start AND P.window_end = A.window_end
    """,
    "q9": f"""
        SELECT id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra,
               bidder, price, bidTime, bidExtra
        FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY price DESC, bidTime ASC) AS place
            FROM (SELECT A.*, B.bidder, B.price, B.dateTime AS bidTime, B.extra AS bidExtra {_IN_TIME})
        ) WHERE place <= 1
    """,
    "q10": f"""
        SELECT auction, bidder, price, dateTime, extra, {_DAY} AS dt, DATE_FORMAT(dateTime, 'HH:mm') AS hm
        FROM bid
    """,
    "q11": """
        SELECT bidder, window_start, window_end, COUNT(*) AS bids FROM TABLE(
            SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(dateTime), INTERVAL '10' SECOND)
        ) GROUP BY bidder, window_start, window_end
    """,
    "q12": _tumbling("clocked", "bidder, COUNT(*) AS bids, window_start, window_end", "bidder", "came"),
    "q14": """
        SELECT auction, bidder, CAST(0.908 AS DOUBLE) * price AS price,
               CASE WHEN HOUR(dateTime) >= 8 AND HOUR(dateTime) <= 18 THEN 'dayTime'
                    WHEN HOUR(dateTime) <= 6 OR HOUR(dateTime) >= 20 THEN 'nightTime'
                    ELSE 'otherTime' END AS `time`,
               dateTime, extra, CHAR_LENGTH(extra) - CHAR_LENGTH(REPLACE(extra, 'c', '')) AS letters
        FROM bid
        WHERE CAST(0.908 AS DOUBLE) * price > 1000000 AND CAST(0.908 AS DOUBLE) * price < 50000000
    """,
    "q15": f"SELECT {_DAY} AS `day`, {_statistics()} FROM bid GROUP BY {_DAY}",
    "q16": f"""
        SELECT channel, {_DAY} AS `day`, MAX(DATE_FORMAT(dateTime, 'HH:mm')) AS `minute`, {_statistics()}
        FROM bid GROUP BY channel, {_DAY}
    """,
    "q17": f"""
        SELECT auction, {_DAY} AS `day`, {_bids()}, MIN(price) AS least, MAX(price) AS most,
               AVG(CAST(price AS DOUBLE)) AS average, SUM(price) AS total
        FROM bid GROUP BY auction, {_DAY}
    """,
    "q18": """
        SELECT auction, bidder, price, dateTime, extra FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC) AS place
            FROM bid
        ) WHERE place <= 1
    """,
    "q19": """
        SELECT auction, bidder, price, dateTime, extra FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid
        ) WHERE place <= 10
    """,
    "q20": """
        SELECT B.auction, B.bidder, B.price, B.dateTime, B.extra, A.itemName, A.description, A.initialBid,
               A.reserve, A.dateTime AS dateTime_auction, A.expires, A.seller, A.category,
               A.extra AS extra_auction
        FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id WHERE A.category = 10
    """,
    "q21": f"""
        SELECT auction, bidder, price, channel, channel_id FROM (
            SELECT *, CASE LOWER(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1'
                           WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
                           ELSE {_CHANNEL_ID} END AS channel_id
            FROM bid
        ) WHERE channel_id IS NOT NULL
    """,
    "q22": """
        SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1,
               SPLIT_INDEX(url, '/', 4) AS dir2, SPLIT_INDEX(url, '/', 5) AS dir3
        FROM bid
    """,
    "count": "SELECT `key`, COUNT(*) AS n FROM counts GROUP BY `key`",
    "tumbling": _tumbling("readings", "`key`, window_start, COUNT(*) AS n, SUM(amount) AS total", "`key`"),
}

_RESERVED = re.compile(r"(?<!`)\b(dateTime|extra|state|channel|name)\b(?!`)")

SQL: Mapping[str, str] = {
    query: _RESERVED.sub(r"`\1`", " ".join(text.split())) for query, text in _TEXTS.items()
}

KEYS: Mapping[str, str] = {"q9": "id"}
"""Results that Flink plans as rows that are only added, where a later one stands for all before it."""

UNABLE: Mapping[str, str] = {
    "q6": "SQL has no OVER window of rows over results that are taken back",
    "q13": "the file connector cannot be looked up in, and no other table comes with the package",
}


def source(name: str, folder: str) -> str:
    """The declaration of a table that is read from CSV files."""
    columns = [f"`{column}` {TYPES[kind]}" for column, kind in TABLES[name].items()]
    if TIME in TABLES[name].values():
        columns.append(f"WATERMARK FOR `dateTime` AS `dateTime` - {DELAY}")
    where = f"'connector' = 'filesystem', 'path' = 'file://{folder}', 'format' = 'csv'"
    return f"CREATE TEMPORARY TABLE `{name}` ({', '.join(columns)}) WITH ({where})"
