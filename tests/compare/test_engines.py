"""What the engines are told: every statement is of a known query, every gap has a reason."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.compare import check, environments, inputs, runs
from benchmarks.compare.engines import bytewax_flows, embedded_queries, flink_sql, spark_sql
from benchmarks.compare.measure import verdict
from benchmarks.compare.protocol import Unable, cpu_seconds, peak_mb, write_rows
from benchmarks.compare.runs import CONTENDERS, attempt
from benchmarks.compare.tables import QUERIES, TABLES, reads

BYTEWAX = {
    *bytewax_flows.STATELESS,
    *bytewax_flows.UPDATED,
    *bytewax_flows.JOINS,
    *("q11", "q12", "tumbling"),
}


@pytest.mark.parametrize(
    ("stated", "unable"),
    [
        (set(flink_sql.SQL), flink_sql.UNABLE),
        (set(spark_sql.SQL), spark_sql.UNABLE),
        (BYTEWAX, bytewax_flows.UNABLE),
    ],
    ids=["flink", "spark", "bytewax"],
)
def test_each_query_is_stated_or_has_a_reason(stated: set[str], unable: dict[str, str]) -> None:
    assert stated | set(unable) == set(QUERIES)
    assert not stated & set(unable)
    assert all(unable.values())


def test_the_reference_knows_every_query() -> None:
    assert set(embedded_queries.DUCKDB) == set(QUERIES)
    assert set(embedded_queries.POLARS_QUERIES) <= set(QUERIES)


@pytest.mark.parametrize("query", flink_sql.SQL)
def test_flink_reads_the_tables_that_are_declared(query: str) -> None:
    text = flink_sql.SQL[query]
    named = set(re.findall(r"(?:FROM|JOIN|TABLE|A,) (\w+)\b", text)) & {*TABLES, "clocked"}
    assert {"bid" if name == "clocked" else name for name in named} == set(reads(query))
    assert not re.search(r"(?<!`)\b(dateTime|extra)\b(?!`)", text)


def test_a_declaration_has_all_columns_and_a_watermark_where_there_is_a_time() -> None:
    bids = flink_sql.source("bid", "/data/bid")
    assert all(f"`{column}`" in bids for column in TABLES["bid"])
    assert "WATERMARK FOR `dateTime`" in bids
    assert "WATERMARK" not in flink_sql.source("counts", "/data/counts")


def test_flows_of_lines_give_as_many_columns_as_they_name(tmp_path: Path) -> None:
    folder = inputs.prepared(tmp_path, 5_000)
    lines = (folder / "whole" / "bid" / "0.csv").read_text().splitlines()
    for query, (turn, names) in bytewax_flows.STATELESS.items():
        rows = list(turn(lines))
        assert rows, query
        assert {len(row) for row in rows} == {len(names)}, query


def test_a_join_gives_each_pair_once_whichever_side_comes_first() -> None:
    found, state = [], None
    for side in [(False, ("a",)), (False, ("b",)), (True, (1,)), (False, ("c",))]:
        state, rows = bytewax_flows.join(state, side)
        found += rows
    assert found == [(1, "a"), (1, "b"), (1, "c")]


@pytest.mark.parametrize("name", ["unistream", "polars"])
def test_an_embedded_engine_answers_in_a_process_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environments.FOLDER, str(tmp_path))
    folder = inputs.prepared(tmp_path, 2_000, rate=50)
    answer = attempt(CONTENDERS[name], "tumbling q1", folder, rows=str(tmp_path / "{query}.json"))
    for query in ("tumbling", "q1"):
        file, expected = tmp_path / f"{query}.json", check.expected(query, folder)
        found = verdict(CONTENDERS[name], query, answer.extra[query], file, folder, expected)
        assert found == {"verdict": "right", "why": ""}


def test_a_timed_run_says_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.FOLDER, str(tmp_path))
    folder = inputs.prepared(tmp_path, 2_000)
    answer = attempt(CONTENDERS["unistream"], "count", folder, warm=folder)
    assert answer.seconds == answer.wall_seconds > 0
    assert answer.peak_mb > 10
    assert not answer.unable


def test_a_process_that_dies_is_a_failure_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environments.FOLDER, str(tmp_path))
    with pytest.raises(runs.Failed, match="no-such-folder"):
        attempt(CONTENDERS["duckdb"], "count", tmp_path / "no-such-folder")


def test_wrong_and_failed_answers_are_told_apart(tmp_path: Path) -> None:
    folder = inputs.prepared(tmp_path, 1_000)
    expected, file = check.expected("count", folder), tmp_path / "rows"
    write_rows(str(file), expected.columns, expected.head(-1).iter_rows())
    flink = CONTENDERS["flink"]
    assert verdict(flink, "count", "", file, folder, expected)["verdict"] == "wrong"
    assert verdict(flink, "count", "failed: no memory", file, folder, expected)["verdict"] == "failed"
    assert verdict(flink, "q6", "no words", file, folder, expected)["verdict"] == "unable"
    assert verdict(flink, "q12", "", file, folder, expected)["verdict"] == "unchecked"


def test_without_java_an_engine_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "java_version", lambda: None)
    with pytest.raises(Unable, match="needs Java 17 or 21 on the path, found none"):
        environments.interpreter("spark")
    assert environments.interpreter("polars") == sys.executable


def test_rows_are_lines_of_json_with_names_first(tmp_path: Path) -> None:
    write_rows(str(tmp_path / "rows"), ["a", "b"], [(1, "x"), (None, 2.5)])
    lines = (tmp_path / "rows").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [["a", "b"], [1, "x"], [None, 2.5]]


def test_a_process_has_memory_and_time() -> None:
    assert peak_mb(os.getpid(), client=False) > peak_mb(os.getpid(), client=True)
    assert cpu_seconds(os.getpid()) > 0
