"""Files appear whole under their final name or not at all, whatever happens between the steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unistream.errors import ConnectorError, InvalidSettings, StateError
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Token, WriterContext
from unistream.io.listing import FileEntry, Listing
from unistream.io.staging import StagedFolder, partition_folder

CONTEXT = WriterContext("job-1", StreamSchema(pl.Schema({"a": pl.Int64})))


def visible(folder: Path) -> list[str]:
    return [entry.split for entry in Listing.of(folder).find(required=False)]


def staged(target: StagedFolder, number: int, text: str, checkpoint: int = 1) -> Token:
    path = target.stage(CONTEXT, number)
    Path(path).write_text(text)
    return target.token([(path, target.final_name(CONTEXT, checkpoint, number))])


@pytest.fixture
def target(tmp_path: Path) -> StagedFolder:
    folder = StagedFolder(str(tmp_path / "out"), ".txt")
    folder.prepare_target(restored=False)
    return folder


def test_nothing_is_visible_before_the_commit_or_hidden_after_it(
    target: StagedFolder,
) -> None:
    folder = Path(target.folder)
    token = json.loads(json.dumps(staged(target, 0, "rows")))
    assert visible(folder) == []
    target.commit([token])
    assert visible(folder) == ["part-0-00000001-0000.txt"]
    target.leave(CONTEXT)
    assert [path.name for path in folder.iterdir()] == ["part-0-00000001-0000.txt"]
    assert (folder / "part-0-00000001-0000.txt").read_text() == "rows"


def test_a_commit_may_come_again(target: StagedFolder) -> None:
    tokens = [staged(target, 0, "a"), staged(target, 1, "b")]
    target.commit(tokens[:1])
    target.commit(tokens)
    target.commit(tokens)
    assert visible(Path(target.folder)) == ["part-0-00000001-0000.txt", "part-0-00000001-0001.txt"]


def test_a_commit_cut_short_is_finished_by_the_next(target: StagedFolder) -> None:
    path = [target.stage(CONTEXT, number) for number in (0, 1)]
    for name in path:
        Path(name).write_text("x")
    token = target.token([(path[0], "a.txt"), (path[1], "k=1/b.txt")])
    Path(path[0]).rename(Path(target.folder) / "a.txt")  # what a crash between two renames leaves
    target.commit([token])
    assert visible(Path(target.folder)) == ["a.txt", "k=1/b.txt"]


def test_abort_removes_what_this_job_staged_and_nothing_else(target: StagedFolder) -> None:
    staged(target, 0, "mine")
    other = WriterContext("job-2", CONTEXT.schema)
    theirs = Path(target.stage(other, 0))
    theirs.write_text("theirs")
    target.abort(CONTEXT)
    target.abort(CONTEXT)
    assert theirs.read_text() == "theirs"
    assert [path.name for path in Path(target.folder).iterdir()] == [theirs.parent.name]


def test_a_commit_leaves_the_place_of_the_next_file(target: StagedFolder) -> None:
    token = staged(target, 0, "rows")
    following = Path(target.stage(CONTEXT, 1))  # by a thread of the writer that opens it later
    target.commit([token])
    following.write_text("more")
    target.leave(CONTEXT)
    assert following.read_text() == "more"


def test_a_token_of_another_folder_names_it(target: StagedFolder, tmp_path: Path) -> None:
    token = json.loads(json.dumps(staged(target, 0, "rows")))
    later = Path(target.stage(CONTEXT, 1))
    later.write_text("of no checkpoint")
    other = StagedFolder(str(tmp_path / "other"), ".txt", "append")
    other.prepare_target(restored=True)
    Path(other.folder, "part-0-00000001-0000.txt").write_text("foreign")
    for _ in range(2):
        other.recover([token], CONTEXT)
        assert [path.name for path in Path(target.folder).iterdir()] == ["part-0-00000001-0000.txt"]
        assert Path(target.folder, "part-0-00000001-0000.txt").read_text() == "rows"
    assert Path(other.folder, "part-0-00000001-0000.txt").read_text() == "foreign"


def test_leftovers_of_another_run_are_not_taken_for_files_of_a_token(
    target: StagedFolder, tmp_path: Path
) -> None:
    token = staged(target, 0, "rows")
    other = StagedFolder(str(tmp_path / "other"), ".txt")
    staged(other, 0, "of no checkpoint")
    other.recover([token], CONTEXT)
    assert visible(Path(other.folder)) == []
    assert Path(target.folder, "part-0-00000001-0000.txt").read_text() == "rows"


def test_a_token_renames_nothing_but_staged_files(target: StagedFolder, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "file").write_text("mine")
    token = {"files": [["file", "part-1"]], "folder": str(tmp_path / "private"), "mode": "error"}
    with pytest.raises(StateError, match="no staged file"):
        target.commit([token])
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["file"]


def test_a_lost_staged_file_is_an_error(target: StagedFolder) -> None:
    token = staged(target, 0, "rows")
    target.abort(CONTEXT)
    with pytest.raises(StateError, match="is gone"):
        target.commit([token])


def test_a_foreign_file_is_never_written_over(target: StagedFolder) -> None:
    token = staged(target, 0, "rows")
    foreign = Path(target.folder) / "part-0-00000001-0000.txt"
    foreign.write_text("foreign")
    with pytest.raises(ConnectorError, match="exists already"):
        target.commit([token])
    assert foreign.read_text() == "foreign"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_names_outside_the_folder_are_refused(target: StagedFolder, name: str) -> None:
    token = staged(target, 0, "rows")
    with pytest.raises(StateError):
        target.commit([{"files": [[token["files"][0][0], name]]}])
    with pytest.raises(StateError):
        target.commit([{"files": [[name, "x"]]}])


def test_error_refuses_a_folder_with_data_but_not_after_a_restore(tmp_path: Path) -> None:
    (tmp_path / "k=1").mkdir()
    (tmp_path / ".hidden").write_text("")
    StagedFolder(str(tmp_path), ".txt").prepare_target(restored=False)
    (tmp_path / "k=1" / "old.txt").write_text("")
    with pytest.raises(ConnectorError) as caught:
        StagedFolder(str(tmp_path), ".txt").prepare_target(restored=False)
    assert "k=1/old.txt" in caught.value.message
    assert 'mode="append"' in (caught.value.hint or "")
    StagedFolder(str(tmp_path), ".txt").prepare_target(restored=True)


def test_append_keeps_what_is_there_and_two_jobs_do_not_collide(tmp_path: Path) -> None:
    target = StagedFolder(str(tmp_path), ".txt", "append")
    for job in ("job 1", "job-2"):
        target.prepare_target(restored=False)
        context = WriterContext(job, CONTEXT.schema)
        path = target.stage(context, 0)
        Path(path).write_text(job)
        target.commit([target.token([(path, target.final_name(context, 1, 0))])])
    assert [(tmp_path / name).read_text() for name in visible(tmp_path)] == ["job-2", "job 1"]


def test_overwrite_keeps_the_old_files_until_the_first_commit(tmp_path: Path) -> None:
    for name in ("part-0-00000001-0000.txt", "k=1/deep=2/old.txt", "older.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    target = StagedFolder(str(tmp_path), ".txt", "overwrite")
    target.prepare_target(restored=False)
    tokens = [staged(target, 0, "new"), staged(target, 1, "newer", checkpoint=2)]
    assert len(visible(tmp_path)) == 3
    target.commit(tokens[:1])
    target.commit(tokens)
    assert visible(tmp_path) == ["part-0-00000001-0000.txt", "part-0-00000002-0001.txt"]
    assert (tmp_path / "part-0-00000001-0000.txt").read_text() == "new"
    assert not (tmp_path / "k=1").exists()


def test_overwrite_that_is_cut_short_loses_no_new_file(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("old")
    target = StagedFolder(str(tmp_path), ".txt", "overwrite")
    target.prepare_target(restored=False)
    tokens = [staged(target, 0, "new")]
    note = (tmp_path / ".unistream-replaced.json").read_text()
    target.commit(tokens)
    (tmp_path / ".unistream-replaced.json").write_text(note)  # as if the crash came before its removal
    target.prepare_target(restored=True)
    target.commit(tokens)
    assert visible(tmp_path) == ["part-0-00000001-0000.txt"]


def test_unknown_mode() -> None:
    with pytest.raises(InvalidSettings, match="Unknown mode"):
        StagedFolder("x", ".txt", "replace")  # type: ignore[arg-type]


SHORT = st.text(max_size=10)  # a byte of it may take three


@given(st.dictionaries(SHORT.filter(bool), st.one_of(st.none(), SHORT), max_size=3))
def test_partition_values_come_back_and_stay_inside(values: dict[str, str | None]) -> None:
    name = f"{partition_folder(values)}/x" if values else "x"
    assert len(name.split("/")) == len(values) + 1
    assert not {".", ".."} & set(name.split("/"))
    assert FileEntry("", name, 0, 0).partition == values


def test_what_is_left_of_a_crash_is_found_by_name(target: StagedFolder, tmp_path: Path) -> None:
    staged(target, 0, "rows")
    shutil.copytree(target.folder, tmp_path / "copy")  # the state of the disk at a crash
    again = StagedFolder(str(tmp_path / "copy"), ".txt")
    again.prepare_target(restored=True)
    again.abort(CONTEXT)
    assert list((tmp_path / "copy").iterdir()) == []
