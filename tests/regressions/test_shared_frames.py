"""A frame that goes to several branches is not changed for one by the function of another."""

import polars as pl

import unistream as us

ROWS = us.from_frame({"a": [1, 2, 3]})


def overwrite(frame: pl.DataFrame) -> pl.DataFrame:
    if frame.height:
        frame[0, "a"] = 99
    return frame


def test_map_batches_that_changes_its_frame_leaves_the_other_branch_alone():
    changed, plain = [], []
    us.job(ROWS.map_batches(overwrite).sink_batches(changed.append), ROWS.sink_batches(plain.append)).run(
        progress=False
    )
    assert pl.concat(changed)["a"].to_list() == [99, 2, 3]
    assert pl.concat(plain)["a"].to_list() == [1, 2, 3]


def test_a_sink_function_that_changes_its_frame_leaves_the_other_sink_alone():
    plain = []
    us.job(ROWS.sink_batches(overwrite), ROWS.sink_batches(plain.append)).run(progress=False)
    assert pl.concat(plain)["a"].to_list() == [1, 2, 3]
