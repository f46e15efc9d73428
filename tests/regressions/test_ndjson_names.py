"""Keys of JSON lines may hold any sign, and columns come in the order of the keys."""

import polars as pl
import pytest

import unistream as us

STRANGE = {'a "quoted" name': 1, "back\\slash": 2, "new\nline": 3, "tab\t": 4, "ü": 5}


def test_names_that_json_escapes_are_read_back(tmp_path):
    rows = [STRANGE, {name: value * 10 for name, value in STRANGE.items()}]
    us.from_frame(rows).sink_ndjson(tmp_path / "out").run(progress=False)
    assert us.scan_ndjson(tmp_path / "out").collect().to_dicts() == rows


def test_values_under_such_names_are_judged_like_others(tmp_path):
    (tmp_path / "x.ndjson").write_text('{"a\\"": 1}\n{"a\\"": "x"}\nbroken\n{"a\\"": 3}\n')
    lines = us.scan_ndjson(tmp_path / "x.ndjson", schema={'a"': pl.Int64}, on_error="collect")
    assert lines.collect().to_series().to_list() == [1, 3]
    assert lines.rejected().collect()["position"].to_list() == [2, 3]


def test_so_are_nested_ones(tmp_path):
    (tmp_path / "x.ndjson").write_text('{"s": [{"a\\"": 1}]}\n{"s": [{"a\\"": "x"}]}\n')
    schema = {"s": pl.List(pl.Struct({'a"': pl.Int64}))}
    lines = us.scan_ndjson(tmp_path / "x.ndjson", schema=schema, on_error="collect")
    assert lines.collect().to_series().to_list() == [[{'a"': 1}]]
    assert lines.rejected().collect()["position"].to_list() == [2]


@pytest.mark.parametrize("width", [3, 33, 60])
def test_columns_come_in_the_order_in_which_their_keys_first_occur(tmp_path, width):
    names = [f"c{number}" for number in range(width)]
    row = {name: dict.fromkeys(names, 1) if name == "c1" else [1] for name in names}
    us.from_frame([row]).sink_ndjson(tmp_path / "out").run(progress=False)
    found = us.scan_ndjson(tmp_path / "out")
    assert found.columns == names
    assert [field.name for field in found.schema["c1"].fields] == names
    assert found.collect().to_dicts() == [row]
