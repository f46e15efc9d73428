"""Look-ups against Polars' joins, and what tables and functions are asked, kept and refused."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.elements import Batch
from unistream.expressions.schema import CHANGE, Changes, StreamSchema
from unistream.operators import lookup
from unistream.operators.lookup import Lookup
from unistream.operators.lookup_index import RowsByKey
from unistream.operators.lookup_tables import AskedTable, Calls, WholeTable
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.clock import VirtualClock
from unistream.testing.harness import OperatorHarness, Schedule

ROWS = StreamSchema(pl.Schema({"k": pl.Int64, "n": pl.Int64}))
TABLE = pl.Schema({"k": pl.Int64, "v": pl.String})


def random_rows(seed: int, count: int = 40) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows and a table with duplicates, nulls and keys that only one of them has."""
    rng = np.random.default_rng(seed)
    keys = rng.choice([1, 2, 3, 4, 5, None], count).tolist()
    rows = pl.DataFrame({"k": keys, "n": range(count)}, schema=ROWS.columns)
    known = rng.choice([2, 3, 4, 6, None], 12).tolist()
    return rows, pl.DataFrame({"k": known, "v": [f"v{n}" for n in range(12)]}, schema=TABLE)


def in_memory(table: pl.DataFrame, how: str = "left", refresh: int | None = None) -> Lookup:
    whole = WholeTable(columns=table.schema, load=lambda: table, text="a frame", refresh=refresh)
    return Lookup(by=("k",), table_by=("k",), adds={"v": "v"}, table=whole, how=how)  # type: ignore[arg-type]


class Asked:
    """A table that notes what it is asked."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.table = table
        self.questions: list[list[int]] = []

    def ask(self, keys: pl.DataFrame) -> pl.DataFrame:
        self.questions.append(keys["k"].to_list())
        return self.table.join(keys, on="k", how="semi")

    def close(self) -> None:
        self.questions.append([])


def asking(asked: Asked, keep: int = 0, most_keys: int = 100, how: str = "left") -> Lookup:
    table = AskedTable(columns=TABLE, open=lambda _: asked, text="asked", keep=keep, most_keys=most_keys)
    return Lookup(by=("k",), table_by=("k",), adds={"v": "v"}, table=table, how=how)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["left", "inner"])
@pytest.mark.parametrize("seed", range(20))
def test_a_table_in_memory_equals_a_join(seed: int, how: str) -> None:
    rows, table = random_rows(seed)
    expected = rows.join(table, on="k", how=how, maintain_order="left_right")  # type: ignore[arg-type]
    OperatorHarness(in_memory(table, how), ROWS).feeds(rows).expects(expected, ordered=True, conserved=False)


@pytest.mark.parametrize(("keep", "most_keys"), [(0, 100), (10**9, 100), (10**9, 2), (10**9, 1)])
@pytest.mark.parametrize("how", ["left", "inner"])
def test_a_table_that_is_asked_equals_a_join(how: str, keep: int, most_keys: int) -> None:
    for seed in range(10):
        rows, table = random_rows(seed)
        expected = rows.join(table, on="k", how=how, maintain_order="left_right")  # type: ignore[arg-type]
        harness = OperatorHarness(asking(Asked(table), keep, most_keys, how), ROWS).feeds(rows)
        for cuts in ("whole", "rows", seed):
            got = pl.concat(harness.run(Schedule(cuts=cuts)).frames[""])
            assert_same_rows(got, expected, ordered=True)


def test_each_key_is_asked_for_once_until_its_answer_is_old() -> None:
    asked = Asked(random_rows(1)[1])
    with OperatorBench(asking(asked, keep=10_000_000), [ROWS]) as bench:
        for keys in ([1, 2, 2], [2, 3, None], [1, 2, 3]):
            bench.process(Batch(pl.DataFrame({"k": keys, "n": [0, 0, 0]}, schema=ROWS.columns)))
        assert asked.questions == [[1, 2], [3]]
        bench.pass_time("10s")
        bench.process(Batch(pl.DataFrame({"k": [3, 1], "n": [0, 0]})))
        assert asked.questions == [[1, 2], [3], [3, 1]]


def test_only_so_many_answers_are_kept() -> None:
    table = pl.DataFrame({"k": range(1000), "v": ["x"] * 1000}, schema=TABLE)
    with OperatorBench(asking(Asked(table), keep=10**12, most_keys=100), [ROWS]) as bench:
        for start in range(0, 1000, 50):
            bench.process(Batch(pl.DataFrame({"k": range(start, start + 50), "n": [0] * 50})))
            operator = bench._subtasks[0].operator
            assert operator.explain_time()["keys_known"] <= 100


def test_answers_learnt_again_and_again_do_not_pile_up() -> None:
    index = RowsByKey(pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.String}))
    keys = pl.DataFrame({"k": range(100)})
    for turn in range(50):
        index.learn(keys, keys.with_columns(v=pl.lit(str(turn))))
        if index.wasteful:
            index.forget(1000)
        assert index.rows <= 2 * 100 + 1024 + 100
    ids = index.find(keys)
    _, places = index.places(ids, ids >= 0, keep_all=False)
    assert index.values(places)["v"].to_list() == ["49"] * 100


def test_files_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"k": [1], "v": ["old"]}).write_parquet(path)
    stream = us.from_frame({"k": [1], "n": [1]}).lookup(str(path), on="k", refresh="10m")
    spec = stream._node.spec  # type: ignore[attr-defined]
    with OperatorBench(spec, [ROWS]) as bench:
        row = pl.DataFrame({"k": [1], "n": [1]})
        bench.process(Batch(row))
        pl.DataFrame({"k": [1], "v": ["new"]}).write_parquet(path)
        bench.process(Batch(row))
        bench.pass_time("10m")
        bench.process(Batch(row))
        path.write_bytes(b"not Parquet")
        bench.pass_time("10m")
        bench.process(Batch(row))
        assert pl.concat(bench.frames[""])["v"].to_list() == ["old", "old", "new", "new"]
        assert bench.metrics.get("refreshes_failed") == 1


def test_rows_that_are_taken_back_take_their_matches_with_them() -> None:
    _, table = random_rows(2)
    schema = StreamSchema(ROWS.columns, changes=Changes.RETRACT)
    rows = pl.DataFrame({"k": [2, 3, 2], "n": [1, 2, 1], CHANGE: [0, 0, 3]}, schema=schema.physical)
    expected = pl.DataFrame({"k": [3], "n": [2]}).join(table, on="k")
    OperatorHarness(in_memory(table, "inner"), schema).feeds(rows).expects(expected, conserved=False)


def test_a_lookup_by_an_updating_column() -> None:
    latest = us.from_frame({"user": ["a", "a"], "item": [1, 2]}).unique("user", keep="last")
    items = pl.DataFrame({"item": [1], "price": [5]})
    assert latest.lookup(items, on="item", how="inner").collect().is_empty()
    assert latest.lookup(items, on="item").collect().rows() == [("a", 2, None)]


def make_database(tmp_path: Path, scheme: str) -> str:
    path = tmp_path / f"shop.{scheme}"
    connection: Any = sqlite3.connect(path) if scheme == "sqlite" else duckdb.connect(str(path))
    connection.execute("CREATE TABLE users (id BIGINT, day TEXT, name TEXT, score DOUBLE)")
    rows = [(n, f"d{n % 3}", f"name {n}", n / 2) for n in range(100)] + [(1, "d1", "again", 0.0)]
    connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
    if scheme == "sqlite":
        connection.commit()
    connection.close()
    return f"{scheme}:///{path}"


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_database_table(tmp_path: Path, scheme: str) -> None:
    url = make_database(tmp_path, scheme)
    rows = us.from_frame({"user": [1, 500, 2, None], "day": ["d1", "d1", "d0", "d2"]})
    by_one = rows.lookup(url, left_on="user", right_on="id", table="users").collect()
    assert by_one.columns == ["user", "day", "day_right", "name", "score"]
    assert by_one["name"].to_list() == ["name 1", "again", None, "name 2", None]
    both = rows.lookup(url, left_on=["user", "day"], right_on=["id", "day"], table="users", how="inner")
    assert both.collect().rows() == [(1, "d1", "name 1", 0.5), (1, "d1", "again", 0.0)]


def test_many_keys_are_one_question(tmp_path: Path) -> None:
    url = make_database(tmp_path, "sqlite")
    rows = us.from_frame({"id": list(range(50_000))}).lookup(url, on="id", table="users", how="inner")
    assert rows.collect().height == 101


def test_functions_are_called_for_parts_at_once_and_answers_stay_in_order() -> None:
    together = threading.Barrier(3, timeout=10)
    calls: list[int] = []

    def slow(keys: pl.DataFrame) -> pl.DataFrame:
        calls.append(keys.height)
        together.wait()
        return keys.with_columns(v=pl.col("k") * 10)

    stream = us.from_frame({"k": list(range(12))}).lookup(
        slow, on="k", batch=4, concurrency=3, schema={"k": pl.Int64, "v": pl.Int64}
    )
    assert stream.collect()["v"].to_list() == [key * 10 for key in range(12)]
    assert calls == [4, 4, 4]


def test_no_more_asynchronous_calls_at_once_than_allowed() -> None:
    running, most = 0, 0

    async def answer(keys: pl.DataFrame) -> pl.DataFrame:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return keys.with_columns(v=pl.col("k") * 10)

    stream = us.from_frame({"k": list(range(20))}).lookup(answer, on="k", batch=2, concurrency=3)
    assert stream.collect()["v"].to_list() == [key * 10 for key in range(20)]
    assert most == 3


def test_a_call_that_fails_is_tried_again_alone() -> None:
    seen: list[tuple[int, ...]] = []

    def flaky(keys: pl.DataFrame) -> pl.DataFrame:
        asked = tuple(keys["k"].to_list())
        seen.append(asked)
        if 3 in asked and seen.count(asked) < 3:
            raise OSError("no connection")
        return keys

    clock = VirtualClock()
    calls = Calls(function=flaky, batch=2, concurrency=1, retries=2).open(clock)
    assert calls.ask(pl.DataFrame({"k": [1, 2, 3, 4]}))["k"].to_list() == [1, 2, 3, 4]
    calls.close()
    assert seen == [(1, 2), (3, 4), (3, 4), (3, 4)]
    assert clock.now() > 0


def test_a_call_that_always_fails() -> None:
    def broken(keys: pl.DataFrame) -> pl.DataFrame:
        raise OSError("no connection")

    stream = us.from_frame({"k": [1]}).lookup(
        broken, on="k", retries=1, schema={"k": pl.Int64, "v": pl.Int64}
    )
    with pytest.raises(us.JobFailed, match=r"raised OSError: no connection \(2 tries\)"):
        stream.collect()


def test_a_call_that_takes_too_long() -> None:
    async def never(keys: pl.DataFrame) -> pl.DataFrame:
        await asyncio.Event().wait()
        return keys

    calls = Calls(function=never, timeout=1_000, retries=0).open(VirtualClock())
    with pytest.raises(us.ConnectorError, match="did not answer within 1ms"):
        calls.ask(pl.DataFrame({"k": [1]}))
    calls.close()


def test_a_bounded_stream_is_read_first() -> None:
    items = us.from_frame({"item": ["a", "b"], "price": [1, 2]}).filter(pl.col("price") > 1)
    rows = us.from_frame({"item": ["a", "b"], "price": [7, 8]})
    assert rows.lookup(items, on="item").collect().rows() == [("a", 7, None), ("b", 8, 2)]


def test_the_same_rows_however_they_arrive() -> None:
    rows, table = random_rows(4)
    verify(us.from_frame(rows).lookup(table, on="k"), seeds=5, ordered=True)
    verify(us.from_frame(rows).lookup(us.from_frame(table), on="k", how="inner"), seeds=5, ordered=True)


ORDERS = us.from_frame({"item": ["a"], "n": [1]})
ITEMS = pl.DataFrame({"item": ["a"], "price": [2]})


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: ORDERS.lookup(ITEMS, on="itm"), "did you mean 'item'"),
        (lambda: ORDERS.lookup(ITEMS.cast({"item": pl.Binary}), on="item"), "is String here and Binary in"),
        (lambda: ORDERS.lookup(ITEMS, on="item", how="full"), 'use how="left" or how="inner"'),
        (lambda: ORDERS.lookup(3, on="item"), "cannot look into a int"),
        (lambda: ORDERS.lookup(us.scan_rate(1), left_on="n", right_on="value"), "has no end"),
        (lambda: ORDERS.lookup(lambda keys: 3, on="item"), "returned int, not a frame"),
        (lambda: ORDERS.lookup(lambda keys: keys.foo, on="item"), "it raised AttributeError"),
        (lambda: ORDERS.lookup("sqlite:///none.db", on="item"), "needs the name of the table"),
        (lambda: ORDERS.lookup("postgres://h/db", on="item", table="t"), "is no database that lookup knows"),
        (lambda: ORDERS.lookup(ITEMS, on="item", refresh="1m"), "refresh= is for tables in files"),
        (lambda: ORDERS.lookup(ITEMS, on="item", batch=0), "batch must be a whole number from 1"),
    ],
)
def test_mistakes(mistake: Any, message: str) -> None:
    with pytest.raises(us.UnistreamError) as caught:
        mistake()
    assert message in str(caught.value)
    assert "test_lookup_join.py" in str(caught.value)


@pytest.mark.parametrize("how", ["left", "inner"])
def test_few_rows_at_a_time(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(10):
        rows, table = random_rows(seed)
        expected = rows.join(table, on="k", how=how, maintain_order="left_right")  # type: ignore[arg-type]
        for most in (1, 2, 3, 5, 40):
            monkeypatch.setattr(lookup, "MOST_ROWS", most)
            frames = OperatorHarness(in_memory(table, how), ROWS).feeds(rows).run(Schedule()).frames[""]
            assert_same_rows(pl.concat(frames), expected, ordered=True)
            matches = table["k"].drop_nulls().value_counts()["count"].max()
            assert max(frame.height for frame in frames) <= max(most, matches)


def test_a_key_with_many_rows_does_not_make_one_frame_of_all() -> None:
    table = pl.DataFrame({"k": [1] * 50_000, "v": ["x"] * 50_000}, schema=TABLE)
    rows = pl.DataFrame({"k": [1] * 100 + [2], "n": range(101)}, schema=ROWS.columns)
    largest, total = 0, 0
    with OperatorBench(in_memory(table, "left"), [ROWS]) as bench:
        bench.process(Batch(rows))
        largest = max(frame.height for frame in bench.frames[""])
        total = sum(frame.height for frame in bench.frames[""])
    assert total == 100 * 50_000 + 1 and largest <= lookup.MOST_ROWS


def test_keys_that_are_no_numbers() -> None:
    nan = float("nan")
    index = RowsByKey(pl.Schema({"k": pl.Float64}), pl.Schema({"v": pl.Int64}))
    for keys, rows in (([nan], [nan]), ([1.5, 0.0], [0.0, 1.5, 7.0]), ([nan, -1.0], [-1.0, nan, nan])):
        asked = pl.DataFrame({"k": keys})
        index.learn(asked, pl.DataFrame({"k": rows, "v": range(len(rows))}))
        ids = index.find(asked)
        at, of = index.places(ids, ids >= 0, keep_all=False)
        found = list(zip(at.tolist(), index.values(of)["v"].to_list(), strict=True))
        wanted = [(a, b) for a, k in enumerate(keys) for b, r in enumerate(rows) if str(k) == str(r)]
        assert found == wanted


def one_row(key: int = 1) -> Batch:
    return Batch(pl.DataFrame({"k": [key], "n": [0]}))


def test_a_folder_of_files_is_read_again_with_its_new_files(tmp_path: Path) -> None:
    pl.DataFrame({"k": [1], "v": ["one"]}).write_parquet(tmp_path / "1.parquet")
    stream = us.from_frame({"k": [1], "n": [1]}).lookup(tmp_path, on="k", refresh="1m")
    with OperatorBench(stream._node.spec, [ROWS]) as bench:  # type: ignore[attr-defined]
        bench.process(one_row(2))
        pl.DataFrame({"k": [2], "v": ["two"]}).write_parquet(tmp_path / "2.parquet")
        bench.pass_time("59s")
        bench.process(one_row(2))
        bench.pass_time("1s")
        bench.process(one_row(2))
        assert pl.concat(bench.frames[""])["v"].to_list() == [None, None, "two"]


@pytest.mark.parametrize("damage", ["no Parquet", "gone", "other columns"])
def test_a_table_that_cannot_be_read_again_says_so_and_stays(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "items.parquet"
    good = pl.DataFrame({"k": [1], "v": ["good"]})
    good.write_parquet(path)
    stream = us.from_frame({"k": [1], "n": [1]}).lookup(path, on="k", refresh="1m")
    with OperatorBench(stream._node.spec, [ROWS]) as bench:  # type: ignore[attr-defined]
        operator = bench._subtasks[0].operator
        bench.process(one_row())
        if damage == "gone":
            path.unlink()
        elif damage == "no Parquet":
            path.write_bytes(b"no Parquet at all")
        else:
            good.rename({"v": "w"}).write_parquet(path)
        for minute in (1, 2):
            bench.pass_time("1m")
            bench.process(one_row())
            report = operator.explain_time()
            assert report["table_not_read_again"] and report["table_read"] == 0
            assert bench.metrics.get("refreshes_failed") == minute
        good.with_columns(v=pl.lit("better")).write_parquet(path)
        bench.pass_time("1m")
        bench.process(one_row())
        assert operator.explain_time()["table_not_read_again"] is None
        assert pl.concat(bench.frames[""])["v"].to_list() == ["good", "good", "good", "better"]


def test_a_database_is_asked_once_for_many_keys_and_again_when_answers_are_old(tmp_path: Path) -> None:
    url = make_database(tmp_path, "sqlite")
    stream = us.from_frame({"id": [1], "n": [1]}).lookup(url, on="id", table="users", cache="10s")
    rows = StreamSchema(pl.Schema({"id": pl.Int64, "n": pl.Int64}))
    with OperatorBench(stream._node.spec, [rows]) as bench:  # type: ignore[attr-defined]
        questions: list[str] = []
        bench._subtasks[0].operator._asker._connection.set_trace_callback(questions.append)  # type: ignore[attr-defined]

        def asked(keys: range) -> int:
            questions.clear()
            bench.process(Batch(pl.DataFrame({"id": keys, "n": keys})))
            return sum(text.startswith("SELECT") for text in questions)

        assert asked(range(30_000)) == 2  # SQLite takes at most 32,766 values
        assert asked(range(30_000)) == 0
        assert asked(range(29_000, 31_000)) == 1
        with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
            connection.execute("UPDATE users SET name = 'new' WHERE id = 5")
        assert asked(range(6)) == 0
        assert bench.frames[""][-1].filter(id=5)["name"].to_list() == ["name 5"]
        bench.pass_time("10s")
        assert asked(range(6)) == 1
        assert bench.frames[""][-1].filter(id=5)["name"].to_list() == ["new"]


def test_duckdb_is_asked_once_for_each_batch(tmp_path: Path) -> None:
    url = make_database(tmp_path, "duckdb")
    stream = us.from_frame({"id": [1], "n": [1]}).lookup(url, on="id", table="users", cache="10s")
    rows = StreamSchema(pl.Schema({"id": pl.Int64, "n": pl.Int64}))
    with OperatorBench(stream._node.spec, [rows]) as bench:  # type: ignore[attr-defined]
        asker = bench._subtasks[0].operator._asker  # type: ignore[attr-defined]
        questions: list[str] = []
        frame = asker._frame
        asker._frame = lambda text: (questions.append(text), frame(text))[1]
        for keys in (range(50_000), range(50_000), range(49_000, 51_000)):
            bench.process(Batch(pl.DataFrame({"id": keys, "n": keys})))
        assert len(questions) == 2


def test_what_is_kept_is_bounded_by_the_number_of_keys() -> None:
    table = pl.DataFrame({"k": [n // 3 for n in range(30_000)], "v": ["x"] * 30_000}, schema=TABLE)
    with OperatorBench(asking(Asked(table), keep=10**12, most_keys=100), [ROWS]) as bench:
        for start in range(0, 10_000, 50):
            bench.process(Batch(pl.DataFrame({"k": range(start, start + 50), "n": [0] * 50})))
            index = bench._subtasks[0].operator._index  # type: ignore[attr-defined]
            assert len(index) <= 100 and index.rows <= 3 * 150


def test_asynchronous_calls_share_one_loop_from_batch_to_batch() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Client:
        """Lives in the loop that it was made in, as clients of services do."""

        def __init__(self) -> None:
            self.future = asyncio.get_running_loop().create_future()
            self.future.set_result(10)

    clients: list[Client] = []

    async def answer(keys: pl.DataFrame) -> pl.DataFrame:
        loops.append(asyncio.get_running_loop())
        if not clients:
            clients.append(Client())
        factor = await asyncio.wait_for(asyncio.shield(clients[0].future), 5)
        return keys.with_columns(v=pl.col("k") * factor)

    calls = Calls(function=answer, batch=2).open(VirtualClock())
    for start in range(3):
        keys = pl.DataFrame({"k": range(start, start + 5)})
        assert calls.ask(keys)["v"].to_list() == [key * 10 for key in range(start, start + 5)]
    calls.close()
    assert len(set(map(id, loops))) == 1 and len(loops) == 9


def test_an_asynchronous_call_that_is_late_is_tried_again() -> None:
    tries: list[int] = []

    async def late(keys: pl.DataFrame) -> pl.DataFrame:
        tries.append(keys["k"][0])
        if tries == [1]:
            await asyncio.Event().wait()
        return keys

    calls = Calls(function=late, batch=1, timeout=20_000, retries=1).open(VirtualClock())
    assert calls.ask(pl.DataFrame({"k": [1]}))["k"].to_list() == [1]
    calls.close()
    assert tries == [1, 1]


def test_plain_calls_that_hang_take_no_place_from_those_that_follow() -> None:
    released = threading.Event()
    tries: list[int] = []

    def hangs(keys: pl.DataFrame) -> pl.DataFrame:
        tries.append(keys["k"][0])
        if len(tries) <= 2:
            released.wait(30)
        return keys

    calls = Calls(function=hangs, batch=1, concurrency=2, timeout=100_000, retries=1).open(VirtualClock())
    try:
        assert calls.ask(pl.DataFrame({"k": [1, 2]}))["k"].to_list() == [1, 2]
    finally:
        released.set()
        calls.close()
    assert sorted(tries) == [1, 1, 2, 2]


def test_an_asynchronous_call_that_always_fails_is_named() -> None:
    async def broken(keys: pl.DataFrame) -> pl.DataFrame:
        raise OSError("no route")

    rows = us.from_frame({"k": [1]})
    stream = rows.lookup(broken, on="k", retries=2, schema={"k": pl.Int64, "v": pl.Int64})
    runtime = stream.sink_batches(lambda frame: None).runtime(clock=VirtualClock(), threads=False)
    runtime.open()
    with pytest.raises(us.JobFailed) as caught:
        runtime.run()
    runtime.close()
    shown = str(caught.value)
    assert "lookup-1 failed" in shown and "raised OSError: no route (3 tries)" in shown
    assert "test_lookup_join.py" in shown and "try the function by itself" in shown


def test_rows_of_keys_that_another_call_asked_for_do_not_count() -> None:
    table = pl.DataFrame({"k": [1, 2, 2, 7], "v": [1, 2, 3, 7]})
    rows = us.from_frame({"k": [1, 2, 3]})
    for batch in (1, 2, 3):
        found = rows.lookup(lambda keys: table, on="k", batch=batch, schema=table.schema)
        assert found.collect().rows() == [(1, 1), (2, 2), (2, 3), (3, None)]
