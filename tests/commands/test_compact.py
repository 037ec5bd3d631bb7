"""``rayclip compact``: fewer shards and no duplicates, even if the command is killed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from output_folders import a_run as a_run_of_files
from output_folders import commit
from run_cli import call
from shard_folders import DIM, a_run, cut, rows, save, shards, table, videos

from rayclip.commands import compact
from rayclip.commands.compact import compact_folder
from rayclip.errors import RunStopped
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Extraction, Row
from rayclip.output.shards import ShardFolder, shard_damage


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> str:
    return memory_url if request.param == "memory" else str(tmp_path / "out")


def row_count(folder: FeatureFolder) -> dict[str, object]:
    found = table(folder).to_pylist()
    assert len({row["video"] for row in found}) == len(found), "duplicate video"
    return {row["video"]: row for row in found}


def compact_until(
    killed: Callable[..., None], folder: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compact; ``killed`` replaces the deletion of old shards and raises KeyboardInterrupt."""
    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            compact_folder(folder)


def test_small_shards_become_one_with_the_same_rows(output: str) -> None:
    folder = a_run(output)
    save(folder, "a", "bb")
    save(folder, "ccc")
    save(folder, "dddd", "eeeee")
    before = row_count(folder)
    ended = call("compact", output)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == f"{folder.url}: 5 videos, 3 shards are now 1\n"
    assert row_count(folder) == before
    assert shard_damage(folder, shards(folder)[0]) is None
    assert len(folder.done()) == 5


def test_a_compact_folder_stays_unchanged(output: str) -> None:
    folder = a_run(output)
    save(folder, "a")
    save(folder, "b")
    compact_folder(folder)
    before = list(folder.files())
    compact_folder(folder)
    assert list(folder.files()) == before


def test_a_duplicate_video_is_kept_once(output: str) -> None:
    folder = a_run(output)
    save(folder, "a", "b")
    save(folder, "b", "c")
    assert "1 duplicate rows dropped" in compact_folder(folder)
    assert sorted(row_count(folder)) == ["a", "b", "c"]


def test_a_kill_before_the_deletion_loses_and_duplicates_nothing(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(output)
    for video in ("a", "bb", "ccc"):
        save(folder, video)
    before = row_count(folder)

    def killed(self: object, files: object) -> None:
        raise KeyboardInterrupt

    compact_until(killed, folder, monkeypatch)
    assert videos(folder) == ["a", "a", "bb", "bb", "ccc", "ccc"]
    assert len(folder.done()) == 3  # which counts a video once
    compact_folder(folder)
    assert row_count(folder) == before
    assert len(shards(folder)) == 1


def test_a_kill_during_the_deletion_loses_nothing(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(output)
    for video in ("a", "bb", "ccc"):
        save(folder, video)
    before = row_count(folder)
    remove_files = ShardFolder.remove_files

    def killed(self: ShardFolder, files: list[str]) -> None:
        remove_files(self, files[:1])
        raise KeyboardInterrupt

    compact_until(killed, folder, monkeypatch)
    save(folder, "dddd")  # a run is in progress
    compact_folder(folder)
    assert {name: row for name, row in row_count(folder).items() if name != "dddd"} == before


def test_a_failed_write_changes_nothing(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run(output)
    save(folder, "a")
    save(folder, "b")
    before = list(folder.files())

    def broken(*_: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr("rayclip.output.shards.write_tables", broken)
    ended = call("compact", output)
    assert (ended.status, len(ended.stderr.splitlines())) == (3, 1)
    assert "cannot be written: broken" in ended.stderr
    assert list(folder.files()) == before


def test_shards_are_joined_up_to_a_size_and_large_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path)
    noise = np.random.default_rng(0)

    def save_noise(name: str, frames: int) -> None:
        clip = noise.standard_normal((frames, DIM), np.float32)
        row = Row(name, Extraction(clip, np.arange(frames, dtype=np.float64), 25.0))
        folder.writer([name]).save([row])

    save_noise("large", 4000)
    for number in range(5):
        save_noise(f"v{number}", 500)
    small, large = sorted({file.size for file in folder.files()} - {0})[-2:]
    monkeypatch.setattr(compact, "TARGET_SIZE", 2.5 * small)
    assert large > 1.25 * small
    before = row_count(folder)
    compact_folder(folder)
    assert len(shards(folder)) == 1 + 3  # 2 + 2 + 1 of the small ones
    assert row_count(folder) == before


def test_shards_with_different_columns_are_not_joined(output: str) -> None:
    folder = a_run(output)
    save(folder, "a", extra_columns=pa.table({"label": ["x"]}))
    save(folder, "b", extra_columns=pa.table({"label": ["y"]}))
    save(folder, "c")
    save(folder, "d")
    compact_folder(folder)
    assert len(shards(folder)) == 2
    found = {name: row["label"] for name, row in row_count(folder).items()}  # type: ignore[index]
    assert found == {"a": "x", "b": "y", "c": None, "d": None}


def test_a_damaged_shard_stops_the_command_with_a_message(output: str) -> None:
    folder = a_run(output)
    save(folder, "a")
    cut(folder, save(folder, "b"))
    before = list(folder.files())
    with pytest.raises(RunStopped, match="damaged shard"):
        compact_folder(folder)
    assert list(folder.files()) == before


def test_a_shard_that_disappears_stops_the_command_with_a_message(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(output)
    save(folder, "a")
    name = save(folder, "b")
    plan = compact.plan_joins

    def remove_then_plan(sources: list[compact.Source]) -> list[list[compact.Source]]:
        folder.remove([name])
        return list(plan(sources))

    monkeypatch.setattr(compact, "plan_joins", remove_then_plan)
    with pytest.raises(RunStopped, match="changed during the command"):
        compact_folder(folder)
    assert videos(folder) == ["a"]


def test_a_folder_without_shards_is_unchanged_and_reported(output: str) -> None:
    commit(a_run_of_files(output), "cat")
    ended = call("compact", output)
    assert ended.status == 2
    assert "unchanged" in ended.stdout
    assert ended.stderr == (
        f"rayclip: There are no shards in {output}; --on-extraction save_parquet writes them.\n"
    )


def test_one_model_can_be_named(output: str) -> None:
    folder = a_run(output)
    save(folder, "a")
    save(folder, "b")
    assert call("compact", output, "--model-name", "ViT-B/32").status == 2
    assert len(shards(folder)) == 2
    assert call("compact", output, "--model-name", "demo").status == 0
    assert len(shards(folder)) == 1


def test_compaction_does_not_count_as_recent_work(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    save(folder, "a")
    folder.writer(["bb"]).save(rows("bb"))
    compact_folder(folder)
    assert [folder.estimate_work(file) for file in folder.files()] == [None]
    out = io.StringIO(call("status", tmp_path).stdout)
    assert "done       2 videos, 3 frames" in out.read()
