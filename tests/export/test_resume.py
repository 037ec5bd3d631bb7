"""An export goes on where it was killed, and follows what happens to the features."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from output_folders import a_run as a_run_of_files
from readers import READERS
from run_cli import call
from sources import a_source, contents, extraction, save, saved

from rayclip.commands.compact import compact_folder
from rayclip.export.format import Format
from rayclip.export.npz import NpzFormat
from rayclip.io import folder as folders
from rayclip.io.atomic_write import write_atomically
from rayclip.io.folder import Folder
from rayclip.output.shards import ShardFolder


@pytest.fixture(autouse=True)
def _in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Format, NpzFormat):
        monkeypatch.setattr(kind, "part_files", 2)


def export(output: str | Path, target: str | Path, name: str) -> int:
    """Export, and return how many videos were written."""
    ended = call("export", output, target, "--format", name)
    assert (ended.status, ended.stderr) == (0, "")
    found = re.search(r"([\d,]+) videos? written", ended.stdout)
    assert found is not None
    return int(found[1])


def held(target: Path, name: str) -> dict[str, tuple[bytes, list[float]]]:
    """What a reader finds."""
    found = READERS[name](target)
    return {video: (read.features.tobytes(), read.timestamps_ms) for video, read in found.items()}


def saved_by_name(output: Path) -> dict[str, tuple[bytes, list[float]]]:
    return {
        video.video: (video.clip.tobytes(), video.timestamps_ms.tolist())
        for video in saved(output).values()
    }


@pytest.mark.parametrize("name", READERS)
def test_a_killed_export_goes_on_and_ends_as_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    for number in range(5):
        folder.commit(f"v{number}", extraction(number, 40))
    export(tmp_path / "out", tmp_path / "undisturbed", name)
    files = {"npz": 3, "hdf5": 0}.get(name, 1)
    here = Path(__file__).parent
    paths = [str(path) for path in (here, here.parent.parent)]
    command = [sys.executable, here / "killed_export.py", str(files), "700"]
    ended = subprocess.run(
        [*command, tmp_path / "out", tmp_path / "target", "--format", name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *sys.path])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = contents(tmp_path / "target")
    undisturbed = contents(tmp_path / "undisturbed")
    assert {path for path in left if path.endswith(".tmp")}
    whole = {path: content for path, content in left.items() if not path.endswith(".tmp")}
    assert len([path for path in whole if not path.endswith(".json")]) == files
    assert all(undisturbed[path] == content for path, content in whole.items())
    written = export(tmp_path / "out", tmp_path / "target", name)
    assert written == {"npz": 3, "hdf5": 5}.get(name, 3)
    assert contents(tmp_path / "target") == undisturbed
    assert held(tmp_path / "target", name) == saved_by_name(tmp_path / "out")


@pytest.mark.parametrize("name", READERS)
def test_new_videos_are_added_and_those_made_again_are_replaced(name: str, tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    for number in range(5):
        folder.commit(f"v{number}", extraction(number, 3))
    target = tmp_path / "target"
    assert export(tmp_path / "out", target, name) == 5
    before = contents(target)
    assert export(tmp_path / "out", target, name) == 0
    assert contents(target) == before
    folder.commit("v9", extraction(9, 4))
    assert export(tmp_path / "out", target, name) == (6 if name == "hdf5" else 1)
    assert held(target, name) == saved_by_name(tmp_path / "out")
    folder.commit("v0", extraction(10, 3))  # in a part with v1, and of the same size
    assert export(tmp_path / "out", target, name) == (6 if name == "hdf5" else 2)
    assert held(target, name) == saved_by_name(tmp_path / "out")
    folder.discard(["v1", "v2", "v3"])
    export(tmp_path / "out", target, name)
    assert held(target, name) == saved_by_name(tmp_path / "out")
    features = {path for path in contents(target) if not path.endswith(".json")}
    assert len(features) == {"npz": 3, "hdf5": 1}.get(name, 2)


def test_joined_shards_are_exported_again_and_nothing_is_there_twice(tmp_path: Path) -> None:
    folder = a_source("parquet", tmp_path / "out")
    assert isinstance(folder, ShardFolder)
    for number in range(4):
        save(folder, {f"v{number}.mp4": 3})
    target = tmp_path / "target"
    export(tmp_path / "out", target, "frames-parquet")
    compact_folder(folder)
    save(folder, {"new.mp4": 2})
    export(tmp_path / "out", target, "frames-parquet")
    assert held(target, "frames-parquet") == saved_by_name(tmp_path / "out")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("change", ["removed", "cut"])
def test_a_file_of_the_target_that_is_lost_is_written_again(
    change: str, name: str, tmp_path: Path
) -> None:
    save(a_source("npy", tmp_path / "out"), {"a.mp4": 2, "b.mp4": 3, "c.mp4": 4})
    target = tmp_path / "target"
    export(tmp_path / "out", target, name)
    before = contents(target)
    lost = target / max(path for path in before if not path.endswith(".json"))
    if change == "cut":
        lost.write_bytes(lost.read_bytes()[:-1])
    else:
        lost.unlink()
    export(tmp_path / "out", target, name)
    assert contents(target) == before


def test_a_kill_while_stale_files_are_removed_leaves_none_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run_of_files(tmp_path / "out")
    for number in range(4):
        folder.commit(f"v{number}", extraction(number, 3))
    target = tmp_path / "target"
    export(tmp_path / "out", target, "npz")
    folder.discard(["v0", "v1", "v2"])
    remove_files = Folder.remove_files

    def killed(self: Folder, files: object) -> None:
        names = list(files)  # type: ignore[call-overload]
        if "v0.npz" in names:
            raise KeyboardInterrupt
        remove_files(self, names)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove_files", killed)
        call("export", tmp_path / "out", target, "--format", "npz")
    assert (target / "v0.npz").exists()
    export(tmp_path / "out", target, "npz")
    assert {*contents(target)} == {"export.json", ".export/000000.json", "v3.npz"}


def test_other_options_or_another_source_are_refused_by_name(tmp_path: Path) -> None:
    for output in ("out", "other"):
        a_run_of_files(tmp_path / output).commit("cat", extraction(1, 3))
    target = tmp_path / "target"
    export(tmp_path / "out", target, "npz")
    before = contents(target)
    words = ("--format", "npz", "--normalize")
    ended = call("export", tmp_path / "out", target, *words)
    assert ended.status == 2
    assert f"{target} was made with normalize=False (now True): choose another" in ended.stderr
    ended = call("export", tmp_path / "other", target, "--format", "npz")
    assert ended.status == 2
    assert f"source={tmp_path}/out/clip/demo (now {tmp_path}/other/clip/demo)" in ended.stderr
    assert contents(target) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    a_run_of_files(tmp_path / "out").commit("cat", extraction(1, 3))
    (tmp_path / "target").mkdir()
    (tmp_path / "target/cat.npz").write_bytes(b"mine")
    ended = call("export", tmp_path / "out", tmp_path / "target", "--format", "npz")
    assert ended.status == 2
    assert "has files and no export.json, so no export made it" in ended.stderr
    assert contents(tmp_path / "target") == {"cat.npz": b"mine"}


def test_a_shard_that_is_joined_meanwhile_stops_the_export_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_source("parquet", tmp_path / "out")
    assert isinstance(folder, ShardFolder)
    for number in range(3):
        save(folder, {f"v{number}.mp4": 3})
    read_file = ShardFolder.read_file

    def joined_before(self: ShardFolder, file: str) -> object:
        compact_folder(folder)
        return read_file(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "read_file", joined_before)
        ended = call("export", tmp_path / "out", tmp_path / "target", "--format", "npz")
    assert ended.status == 3
    assert "was removed during the command" in ended.stderr
    assert export(tmp_path / "out", tmp_path / "target", "npz") == 3


class Full:
    """A file on a disk that becomes full."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._room = 700

    def write(self, content: Any) -> int:
        self._room -= memoryview(content).nbytes
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("name", READERS)
def test_a_full_disk_stops_the_export_with_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run_of_files(tmp_path / "out").commit("cat", extraction(1, 300))

    def on_a_full_disk(fs: Any, path: str, size: int, write: Any) -> None:
        write_atomically(
            fs, path, size, write if path.endswith("json") else lambda file: write(Full(file))
        )

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_atomically", on_a_full_disk)
        ended = call("export", tmp_path / "out", tmp_path / "target", "--format", name)
    assert ended.status == 3
    assert f"There is no space left for {tmp_path}/target" in ended.stderr
    assert {*contents(tmp_path / "target")} == {"export.json"}
    assert export(tmp_path / "out", tmp_path / "target", name) == 1


def test_a_record_does_not_lead_out_of_the_target(tmp_path: Path) -> None:
    a_run_of_files(tmp_path / "out").commit("cat", extraction(1, 3))
    target = tmp_path / "target"
    export(tmp_path / "out", target, "npz")
    (tmp_path / "mine").touch()
    (target / ".export/stale.json").write_text('["../mine"]')
    export(tmp_path / "out", target, "npz")
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"sources": [], "files": []}'])
def test_a_damaged_record_is_one_sentence(content: str, tmp_path: Path) -> None:
    a_run_of_files(tmp_path / "out").commit("cat", extraction(1, 3))
    target = tmp_path / "target"
    export(tmp_path / "out", target, "npz")
    (target / ".export/000000.json").write_text(content)
    ended = call("export", tmp_path / "out", target, "--format", "npz")
    assert ended.status == 2
    assert ".export/000000.json is damaged (" in ended.stderr
