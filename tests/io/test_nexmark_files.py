"""`unistream bench generate` writes the same events in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import unistream as us
from unistream.cli import main
from unistream.testing import assert_same_rows

KINDS = ("person", "auction", "bid")


def generate(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["bench", "generate", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("form", ["parquet", "ndjson", "csv"])
def test_what_is_read_back_is_what_the_source_gives(form: str, tmp_path: Path) -> None:
    written = generate(str(tmp_path), "--events", "1030", "--format", form, "--seed", "5", "--json")
    assert json.loads(written) == {"person": 21, "auction": 63, "bid": 946}
    for kind in KINDS:
        expected = us.scan_nexmark(1030, which=kind, seed=5).collect()  # type: ignore[arg-type]
        folder = tmp_path / kind
        if form == "parquet":
            read = us.scan_parquet(folder)
        else:
            scan = us.scan_ndjson if form == "ndjson" else us.scan_csv
            read = scan(folder, schema=expected.schema)
        assert_same_rows(read.collect(), expected, ordered=True)


def test_options_say_which_kinds_and_when(tmp_path: Path) -> None:
    folder = str(tmp_path)
    options = ["--events", "100", "--kind", "bid", "--start", "2024-02-29", "--event-rate", "10"]
    assert generate(folder, *options).startswith("92 rows in ")
    assert [path.name for path in tmp_path.iterdir()] == ["bid"]
    times = us.scan_parquet(tmp_path / "bid").collect()["dateTime"]
    assert [str(times.min()), str(times.max())] == [
        "2024-02-29 00:00:00.400000",
        "2024-02-29 00:00:09.900000",
    ]
    refused = CliRunner().invoke(main, ["bench", "generate", folder, *options])
    assert refused.exit_code != 0
    assert "bid" in refused.output
    generate(folder, *options, "--overwrite")
    assert us.scan_parquet(tmp_path / "bid").collect().height == 92
