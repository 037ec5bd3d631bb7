"""What a run has to do, and what it refuses to begin."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from rayclip.errors import UsageError
from rayclip.formats import file_format
from rayclip.inputs import stem
from rayclip.plan import Plan, begin, plan_files
from rayclip.run_record import COMPARED
from rayclip.storage import Extraction, OutputFolder

DIM = 4
RECORD: dict[str, object] = {**dict.fromkeys(COMPARED, "the same"), "extraction_fps": "5"}
OTHER_RECORD = RECORD | {"extraction_fps": "1", "model_name": "demo"}


def inputs(*videos: str) -> Callable[[], Iterator[str]]:
    return lambda: iter(videos)


def work(plan: Plan) -> tuple[list[str], int, list[str]]:
    """The videos to do, how many are skipped, and the videos whose features go."""
    return list(plan.videos), plan.skipped, list(plan.discarded or ())


def committed(folder: OutputFolder, stems: Sequence[str], record: dict[str, object]) -> None:
    folder.prepare()
    folder.write_run(record)
    for name in stems:
        folder.commit(name, Extraction(np.zeros((2, DIM), np.float32), np.zeros(2), 25.0))


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return OutputFolder(str(tmp_path / "out"), DIM, {})


def test_into_a_new_folder_every_video_is_done_in_input_order(folder: OutputFolder) -> None:
    plan = plan_files(inputs("b.mp4", "a.mp4"), stem, folder, RECORD, overwrite=False)
    assert work(plan) == (["b.mp4", "a.mp4"], 0, [])


def test_the_record_is_written_before_the_work_begins(folder: OutputFolder) -> None:
    plan = plan_files(inputs("a.mp4"), stem, folder, RECORD, overwrite=False)
    assert folder.read_run() is None  # nothing changes before the machine is up
    begin(plan, stem, folder, RECORD)
    assert folder.read_run() == RECORD


def test_what_is_done_already_is_skipped(folder: OutputFolder) -> None:
    committed(folder, ["a", "c"], RECORD)
    plan = plan_files(inputs("x/a.mp4", "b.mp4", "c.mkv"), stem, folder, RECORD, overwrite=False)
    assert work(plan) == (["b.mp4"], 2, [])


def test_what_is_half_done_is_done_again(folder: OutputFolder, tmp_path: Path) -> None:
    committed(folder, ["a"], RECORD)
    (tmp_path / "out" / "a_clip.npy").write_bytes(b"half")
    plan = plan_files(inputs("a.mp4"), stem, folder, RECORD, overwrite=False)
    assert work(plan) == (["a.mp4"], 0, [])


# ---- one name, several inputs ----


def test_two_inputs_of_one_name_are_refused_naming_both(folder: OutputFolder) -> None:
    with pytest.raises(UsageError, match=r"x/a\.mp4 and y/a\.mkv .* saved as a: say --naming path"):
        plan_files(inputs("x/a.mp4", "b.mp4", "y/a.mkv"), stem, folder, RECORD, overwrite=False)


def test_two_inputs_of_one_name_are_refused_before_anything_is_written(
    folder: OutputFolder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        plan_files(inputs("x/a.mp4", "y/a.mp4"), stem, folder, RECORD, overwrite=False)
    assert not (tmp_path / "out").exists()


def test_two_inputs_of_one_name_are_refused_even_where_it_is_done(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError, match=r"x/a\.mp4 and y/a\.mp4"):
        plan_files(inputs("x/a.mp4", "y/a.mp4"), stem, folder, RECORD, overwrite=True)
    assert folder.committed_frames("a") == 2


def test_the_same_input_twice_is_done_once(folder: OutputFolder) -> None:
    plan = plan_files(inputs("a.mp4", "b.mp4", "a.mp4"), stem, folder, RECORD, overwrite=False)
    assert work(plan) == (["a.mp4", "b.mp4"], 0, [])


def test_the_same_input_twice_is_skipped_once(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "a.mp4"), stem, folder, RECORD, overwrite=False)
    assert work(plan) == ([], 1, [])


# ---- other settings ----


def test_other_settings_are_refused_naming_each_difference(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError) as caught:
        plan_files(inputs("b.mp4"), stem, folder, OTHER_RECORD, overwrite=False)
    assert "model_name=the same (now demo)" in str(caught.value)
    assert "extraction_fps=5 (now 1)" in str(caught.value)
    assert folder.url in str(caught.value)


def test_a_refused_run_leaves_the_record_as_it_was(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError):
        plan_files(inputs("b.mp4"), stem, folder, OTHER_RECORD, overwrite=False)
    assert folder.read_run() == RECORD


def test_another_device_or_batch_size_is_no_other_setting(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD | {"device": "cpu", "batch_size": 1})
    now = RECORD | {"device": "cuda", "batch_size": 256}
    assert work(plan_files(inputs("a.mp4"), stem, folder, now, overwrite=False)) == ([], 1, [])


# ---- overwrite ----


def test_overwrite_makes_everything_again(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "b.mp4"), stem, folder, RECORD, overwrite=True)
    assert work(plan) == (["a.mp4", "b.mp4"], 0, ["a.mp4"])


def test_overwrite_takes_back_the_old_features_first(folder: OutputFolder) -> None:
    committed(folder, ["a", "b"], RECORD)
    plan = plan_files(inputs("a.mp4"), stem, folder, RECORD, overwrite=True)
    assert (folder.committed_frames("a"), folder.committed_frames("b")) == (2, 2)
    begin(plan, stem, folder, RECORD)
    assert (folder.committed_frames("a"), folder.committed_frames("b")) == (None, 2)


def test_overwrite_with_the_same_input_twice_takes_it_back_once(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "a.mp4"), stem, folder, RECORD, overwrite=True)
    assert work(plan) == (["a.mp4"], 0, ["a.mp4"])


def test_overwrite_with_other_settings_may_replace_all_that_is_there(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    plan = plan_files(inputs("a.mp4", "b.mp4"), stem, folder, OTHER_RECORD, overwrite=True)
    begin(plan, stem, folder, OTHER_RECORD)
    assert folder.read_run() == OTHER_RECORD


def test_overwrite_with_other_settings_is_refused_where_other_videos_would_stay(
    folder: OutputFolder,
) -> None:
    committed(folder, ["a", "b", "c"], RECORD)
    with pytest.raises(UsageError, match=r"other videos, 2 of them, .*extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, folder, OTHER_RECORD, overwrite=True)
    assert folder.committed_frames("a") == 2


# ---- several formats in one folder ----


def pickles(folder: OutputFolder) -> OutputFolder:
    return OutputFolder(folder.url, DIM, {}, file_format("save_pickle", "float32"))


def test_files_of_another_format_count_where_settings_differ(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    with pytest.raises(UsageError, match=r"extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, pickles(folder), OTHER_RECORD, overwrite=False)


def test_damaged_files_count_where_settings_differ(folder: OutputFolder, tmp_path: Path) -> None:
    committed(folder, ["a"], RECORD)
    (tmp_path / "out" / "a_timestamps_ms.npy").write_bytes(b"half")
    with pytest.raises(UsageError, match=r"extraction_fps=5 \(now 1\)"):
        plan_files(inputs("a.mp4"), stem, folder, OTHER_RECORD, overwrite=False)


def test_overwrite_takes_back_the_files_of_every_format(folder: OutputFolder) -> None:
    committed(folder, ["a"], RECORD)
    committed(pickles(folder), ["a"], RECORD)
    plan = plan_files(inputs("a.mp4"), stem, pickles(folder), OTHER_RECORD, overwrite=True)
    begin(plan, stem, pickles(folder), OTHER_RECORD)
    assert folder.committed_frames("a") is None
    assert pickles(folder).committed_frames("a") is None
