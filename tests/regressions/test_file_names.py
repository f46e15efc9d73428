"""Files and folders are called what they are called: no sign in a name is a pattern, a blank or a number."""

import polars as pl
import pytest

import unistream as us

WHOLE = pytest.mark.parametrize("whole", [True, False])


def settings(whole):
    return us.Settings(whole_query=whole)


@WHOLE
@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.parquet", "{a}.parquet", "'\".parquet"])
def test_a_parquet_file_with_signs_of_a_pattern_in_its_name_is_read(tmp_path, name, whole):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / name)
    pl.DataFrame({"b": [1]}).write_parquet(tmp_path / "abc.parquet")
    assert us.scan_parquet(tmp_path / name).collect(settings=settings(whole)).to_dicts() == [{"a": 1}]


@WHOLE
@pytest.mark.parametrize("key", ["a b", 'q"x', "a,b", "a=b", "a\nb", "'", "%", "_k", ".k", "__k", "ü"])
def test_any_column_name_names_folders_that_are_read_back(tmp_path, key, whole):
    rows = pl.DataFrame({"v": [1, 2], key: [3, None]})
    us.from_frame(rows).sink_parquet(tmp_path, partition_by=key).run(progress=False, settings=settings(whole))
    found = us.scan_parquet(tmp_path).collect(settings=settings(whole))
    assert found.sort("v").equals(rows)
    with pytest.raises(us.ConnectorError, match="not empty"):
        us.from_frame(rows).sink_parquet(tmp_path, partition_by=key).run(progress=False)


@WHOLE
@pytest.mark.parametrize(
    "values",
    [
        ["__HIVE_DEFAULT_PARTITION__", None],
        ["1_000", "2"],
        [" 1", "2"],
        ["+1", "2"],
        ["99999999999999999999", "1"],
        ["-9223372036854775809", "1"],
        ["\uff11", "2"],
        ["", "x"],
        ["..", "%2F"],
    ],
)
def test_text_that_is_no_plain_number_comes_back_from_folders_as_it_was(tmp_path, values, whole):
    rows = pl.DataFrame({"v": [1, 2], "k": values})
    us.from_frame(rows).sink_parquet(tmp_path, partition_by="k").run(progress=False, settings=settings(whole))
    found = us.scan_parquet(tmp_path).collect(settings=settings(whole))
    assert found.sort("v").equals(rows)


def test_a_column_without_a_name_cannot_name_folders(tmp_path):
    with pytest.raises(us.InvalidQuery, match="without a name"):
        us.from_frame({"": [1], "v": [1]}).sink_csv(tmp_path, partition_by="")


@WHOLE
def test_a_file_that_got_other_columns_after_planning_is_refused(tmp_path, whole):
    file = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(file)
    stream = us.scan_parquet(file)
    pl.DataFrame({"a": ["x"]}).write_parquet(file)
    with pytest.raises(us.UnistreamError, match="does not have the columns"):
        stream.collect(settings=settings(whole))
