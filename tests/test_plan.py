"""What a run has to do, and what it refuses."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayclip.errors import RunStopped, UsageError
from rayclip.inputs.selection import Inputs, select_all
from rayclip.inputs.video_rows import from_video_table, name_tables, names_in
from rayclip.output.array_folder import ArrayFolder, Extraction
from rayclip.output.formats import file_format
from rayclip.output.run_record import COMPARED
from rayclip.output.safe_names import stem
from rayclip.plan import Plan, Target, begin, plan_files

DIM = 4
RECORD: dict[str, object] = {**dict.fromkeys(COMPARED, "the same"), "extraction_fps": "5"}
OTHER_RECORD = RECORD | {"extraction_fps": "1", "model_name": "demo"}


def inputs(*videos: str) -> Inputs:
    return given(lambda: iter(videos))


def given(names: Callable[[], Iterator[str]]) -> Inputs:
    """Inputs without extra columns, read again for each pass."""
    return Inputs(names, lambda: name_tables(names(), 2))


def work(plan: Plan) -> tuple[list[str], int, list[str]]:
    """Return the videos to extract, the number skipped, and the discarded videos."""
    (folder,) = plan.folders
    return list(plan.videos), plan.skipped, list(folder.discarded or ())


def committed(folder: ArrayFolder, stems: Sequence[str], record: dict[str, object]) -> None:
    folder.prepare()
    folder.write_run(record)
    for name in stems:
        folder.commit(name, Extraction(np.zeros((2, DIM), np.float32), np.zeros(2), 25.0))


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    return ArrayFolder(str(tmp_path / "out"), DIM, {})


def test_a_new_folder_needs_every_video_in_input_order(folder: ArrayFolder) -> None:
    plan = plan_files(inputs("b.mp4", "a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    assert work(plan) == (["b.mp4", "a.mp4"], 0, [])


def test_the_record_is_written_before_the_run_starts(folder: ArrayFolder) -> None:
    plan = plan_files(inputs("a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    assert folder.read_run() is None  # nothing changes before the machine is up
    begin(plan, stem)
    assert folder.read_run() == RECORD


def test_finished_videos_are_skipped(folder: ArrayFolder) -> None:
    committed(folder, ["a", "c"], RECORD)
    plan = plan_files(
        inputs("x/a.mp4", "b.mp4", "c.mkv"), stem, [Target(folder, RECORD)], overwrite=False
    )
    assert work(plan) == (["b.mp4"], 2, [])


def test_incomplete_videos_are_recomputed(folder: ArrayFolder, tmp_path: Path) -> None:
    committed(folder, ["a"], RECORD)
    (tmp_path / "out" / "a_clip.npy").write_bytes(b"half")
    plan = plan_files(inputs("a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    assert work(plan) == (["a.mp4"], 0, [])


# ---- one name, several inputs ----


def test_two_inputs_with_one_name_are_refused_naming_both(folder: ArrayFolder) -> None:
    with pytest.raises(UsageError, match=r"x/a\.mp4 and y/a\.mkv .* saved as a: use --naming path"):
        plan_files(
            inputs("x/a.mp4", "b.mp4", "y/a.mkv"), stem, [Target(folder, RECORD)], overwrite=False
        )


def test_two_inputs_of_one_name_are_refused_before_anything_is_written(
    folder: ArrayFolder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        plan_files(inputs("x/a.mp4", "y/a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    assert not (tmp_path / "out").exists()


def test_two_inputs_with_one_name_are_refused_even_if_it_is_done(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError, match=r"x/a\.mp4 and y/a\.mp4"):
        plan_files(inputs("x/a.mp4", "y/a.mp4"), stem, [Target(folder, RECORD)], overwrite=True)
    assert folder.committed_frames("a") == 2


def test_the_same_input_twice_is_done_once(folder: ArrayFolder) -> None:
    plan = plan_files(
        inputs("a.mp4", "b.mp4", "a.mp4"), stem, [Target(folder, RECORD)], overwrite=False
    )
    assert work(plan) == (["a.mp4", "b.mp4"], 0, [])


def test_the_same_input_twice_is_skipped_once(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    assert work(plan) == ([], 1, [])


# ---- other settings ----


def test_other_settings_are_refused_naming_each_difference(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError) as caught:
        plan_files(inputs("b.mp4"), stem, [Target(folder, OTHER_RECORD)], overwrite=False)
    assert "model_name=the same (now demo)" in str(caught.value)
    assert "extraction_fps=5 (now 1)" in str(caught.value)
    assert folder.url in str(caught.value)


def test_a_refused_run_leaves_the_record_as_it_was(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError):
        plan_files(inputs("b.mp4"), stem, [Target(folder, OTHER_RECORD)], overwrite=False)
    assert folder.read_run() == RECORD


def test_device_and_batch_size_may_change(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD | {"device": "cpu", "batch_size": 1})
    now = RECORD | {"device": "cuda", "batch_size": 256}
    assert work(plan_files(inputs("a.mp4"), stem, [Target(folder, now)], overwrite=False)) == (
        [],
        1,
        [],
    )


# ---- overwrite ----


def test_overwrite_recomputes_everything(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "b.mp4"), stem, [Target(folder, RECORD)], overwrite=True)
    assert work(plan) == (["a.mp4", "b.mp4"], 0, ["a.mp4"])


def test_overwrite_removes_the_old_features_first(folder: ArrayFolder) -> None:
    committed(folder, ["a", "b"], RECORD)
    plan = plan_files(inputs("a.mp4"), stem, [Target(folder, RECORD)], overwrite=True)
    assert (folder.committed_frames("a"), folder.committed_frames("b")) == (2, 2)
    begin(plan, stem)
    assert (folder.committed_frames("a"), folder.committed_frames("b")) == (None, 2)


def test_overwrite_with_the_same_input_twice_removes_it_once(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "a.mp4"), stem, [Target(folder, RECORD)], overwrite=True)
    assert work(plan) == (["a.mp4"], 0, ["a.mp4"])


def test_overwrite_with_other_settings_may_replace_all_that_is_there(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(
        inputs("a.mp4", "b.mp4"), stem, [Target(folder, OTHER_RECORD)], overwrite=True
    )
    begin(plan, stem)
    assert folder.read_run() == OTHER_RECORD


def test_overwrite_with_other_settings_is_refused_if_other_videos_would_remain(
    folder: ArrayFolder,
) -> None:
    committed(folder, ["a", "b", "c"], RECORD)
    with pytest.raises(UsageError, match=r"other videos \(2\), .*extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, [Target(folder, OTHER_RECORD)], overwrite=True)
    assert folder.committed_frames("a") == 2


# ---- several formats in one folder ----


def pickles(folder: ArrayFolder) -> ArrayFolder:
    return ArrayFolder(folder.url, DIM, {}, file_format("save_pickle", "float32"))


def test_files_of_another_format_count_if_settings_differ(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError, match=r"extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, [Target(pickles(folder), OTHER_RECORD)], overwrite=False)


def test_damaged_files_count_if_settings_differ(folder: ArrayFolder, tmp_path: Path) -> None:
    committed(folder, ["a"], RECORD)
    (tmp_path / "out" / "a_timestamps_ms.npy").write_bytes(b"half")
    with pytest.raises(UsageError, match=r"extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, [Target(folder, OTHER_RECORD)], overwrite=False)


def test_overwrite_removes_the_files_of_every_format(folder: ArrayFolder) -> None:
    committed(folder, ["a"], RECORD)
    committed(pickles(folder), ["a"], RECORD)
    plan = plan_files(
        inputs("a.mp4"), stem, [Target(pickles(folder), OTHER_RECORD)], overwrite=True
    )
    begin(plan, stem)
    assert folder.committed_frames("a") is None
    assert pickles(folder).committed_frames("a") is None


# ---- long lists ----


def test_a_plan_holds_no_list_of_all_videos(
    folder: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_rows, count = 5_000, 20_000
    monkeypatch.setattr("rayclip.inputs.selection.BLOCK_ROWS", block_rows)
    tracemalloc.start()
    plan = plan_files(
        given(lambda: map(str, range(count))), str, [Target(folder, RECORD)], overwrite=False
    )
    most = tracemalloc.get_traced_memory()[1]
    done = sum(1 for _ in plan.videos)
    kept, most_of_all = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done == len(plan.videos) == count
    assert kept < count * 4  # a byte each; a list of these strings takes 64
    assert max(most, most_of_all) < count * 48 + block_rows * 100


def test_a_plan_is_one_pass_over_the_inputs_and_its_videos_are_another(
    folder: ArrayFolder,
) -> None:
    committed(folder, ["a"], RECORD)
    passes = []

    def counted() -> Iterator[str]:
        passes.append(1)
        return iter(["a.mp4", "b.mp4", "b.mp4"])

    plan = plan_files(given(counted), stem, [Target(folder, RECORD)], overwrite=False)
    assert len(passes) == 1
    assert (list(plan.videos), len(passes)) == (["b.mp4"], 2)


def test_shared_names_are_found_across_the_blocks_of_a_list(
    folder: ArrayFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.inputs.selection.BLOCK_ROWS", 2)
    committed(folder, ["c"], RECORD)
    listed = inputs("a.mp4", "b.mp4", "c.mp4", "a.mp4", "d.mp4")
    plan = plan_files(listed, stem, [Target(folder, RECORD)], overwrite=False)
    assert work(plan) == (["a.mp4", "b.mp4", "d.mp4"], 1, [])
    assert list(map(names_in, plan.videos.blocks())) == [["a.mp4", "b.mp4"], ["d.mp4"]]


@pytest.mark.parametrize(
    "after",
    [["b.mp4", "a.mp4", "c.mp4"], ["a.mp4", "b.mp4"], []],
    ids=["other-order", "shorter", "empty"],
)
def test_a_list_that_is_changed_between_its_passes_stops_the_run(after: list[str]) -> None:
    now = ["a.mp4", "b.mp4", "c.mp4"]
    chosen = select_all(given(lambda: iter(now)))
    now = after
    with pytest.raises(RunStopped, match="was changed during the run"):
        list(chosen)


def test_videos_appended_to_a_list_during_a_run_are_ignored() -> None:
    now = ["a.mp4", "b.mp4"]
    chosen = select_all(given(lambda: iter(now)))
    now = ["a.mp4", "b.mp4", "c.mp4"]
    assert list(chosen) == ["a.mp4", "b.mp4"]


def test_a_list_that_becomes_unreadable_stops_the_run() -> None:
    def gone() -> Iterator[str]:
        raise UsageError("The list cannot be read.")

    with pytest.raises(RunStopped, match=r"The list cannot be read\."):
        list(replace(select_all(inputs("a.mp4")), inputs=given(gone)))


def test_each_model_gets_only_the_videos_that_it_lacks(tmp_path: Path) -> None:
    folders = [ArrayFolder(str(tmp_path / name), DIM, {}) for name in ("full", "half", "empty")]
    for folder, names in zip(folders, (["a", "b", "c"], ["b", "c"], ["c"]), strict=True):
        committed(folder, names, RECORD)
    targets = [Target(folder, RECORD) for folder in folders]
    videos = inputs("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    plan = plan_files(videos, stem, targets, overwrite=False)
    assert (list(plan.videos), plan.skipped) == (["a.mp4", "b.mp4", "d.mp4"], 1)
    (block,) = plan.videos.blocks()
    assert from_video_table(block) == (
        ["a.mp4", "b.mp4", "d.mp4"],
        None,
        [[1, 2], [2], [0, 1, 2]],
    )
    (block,) = plan_files(videos, stem, targets, overwrite=True).videos.blocks()
    assert from_video_table(block).lacking == [[0, 1, 2]] * 4


def test_with_one_model_rows_say_nothing_of_models(folder: ArrayFolder) -> None:
    plan = plan_files(inputs("a.mp4"), stem, [Target(folder, RECORD)], overwrite=False)
    (block,) = plan.videos.blocks()
    assert block.column_names == ["video"]
    assert from_video_table(block).lacking is None
