"""``rayclip status --verify`` opens every file and trusts none."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_folders import DIM, Harm, a_run, commit
from run_cli import call

from rayclip.io.concurrent_map import MAX_IN_FLIGHT
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.open_run import open_run
from rayclip.output.rows import Damage

FRAMES = 3


def make_folder(tmp_path: Path, suffix: str) -> tuple[ArrayFolder, Path]:
    folder = a_run(tmp_path, pickled=suffix == ".pkl")
    for name in ("cat", "dog"):
        commit(folder, name, FRAMES)
    return folder, tmp_path / "clip/demo"


def damages(model: Path) -> list[Damage]:
    return [damage for damage in open_run(str(model), {}).folder.verify() if damage is not None]


def write(path: Path, values: Any) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        path.write_bytes(pickle.dumps(values, protocol=4))


@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
def test_complete_files_are_not_damaged(suffix: str, tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, suffix)
    assert list(open_run(str(model), {}).folder.verify()) == [None, None]


def test_the_frame_rate_may_be_unknown(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".npy")
    np.save(model / "cat_fps.npy", np.array(np.nan))
    assert damages(model) == []


def not_finite() -> np.ndarray:
    values = np.ones((FRAMES, DIM), np.float32)
    values[-1, -1] = np.nan
    return values


WRONG: list[tuple[str, Callable[[], Any], str]] = [
    ("_clip", lambda: np.ones((FRAMES, DIM + 1), np.float32), r"shape is \(3, 5\), not \(T, 4"),
    ("_clip", lambda: np.ones(FRAMES * DIM, np.float32), r"shape is \(12,\)"),
    ("_clip", lambda: np.ones((0, DIM), np.float32), r"shape is \(0, 4\)"),
    ("_clip", lambda: np.ones((FRAMES, DIM)), "numbers are float64, not float32"),
    ("_clip", not_finite, "not all of its numbers are finite"),
    ("_timestamps_ms", lambda: np.ones(FRAMES + 1), r"shape is \(4,\), not \(3,\)"),
    ("_timestamps_ms", lambda: np.full(FRAMES, np.inf), "not all of its numbers are finite"),
    ("_timestamps_ms", lambda: np.ones(FRAMES, np.int64), "numbers are int64"),
    ("_fps", lambda: np.ones(1), r"shape is \(1,\), not \(\)"),
]


@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
@pytest.mark.parametrize(("kind", "values", "reason"), WRONG)
def test_a_wrong_array_is_reported_with_the_reason(
    kind: str, values: Callable[[], Any], reason: str, suffix: str, tmp_path: Path
) -> None:
    _, model = make_folder(tmp_path, suffix)
    write(model / f"cat{kind}{suffix}", values())
    (damage,) = damages(model)
    assert damage.file == f"cat{kind}{suffix}"
    assert re.search(reason, damage.reason), damage.reason


@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
@pytest.mark.parametrize("kind", ["_clip", "_timestamps_ms", "_fps"])
@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_truncated_files_are_damaged(size: int, kind: str, suffix: str, tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, suffix)
    path = model / f"cat{kind}{suffix}"
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    assert [damage.file for damage in damages(model)] == [path.name]


@pytest.mark.parametrize("content", [b"garbage" * 30, b"\0" * 200, b"\x93NUMPY\x01\x00\xff\xff{"])
@pytest.mark.parametrize("suffix", [".npy", ".pkl"])
def test_files_of_another_format_are_damaged(content: bytes, suffix: str, tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, suffix)
    (model / f"cat_clip{suffix}").write_bytes(content)
    assert [damage.file for damage in damages(model)] == [f"cat_clip{suffix}"]


def test_extra_bytes_are_damage(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".npy")
    with (model / "cat_clip.npy").open("ab") as file:
        file.write(b"\0")
    assert damages(model) == [Damage("cat_clip.npy", "it is longer than its header says")]


@pytest.mark.parametrize("kind", ["_timestamps_ms", "_fps"])
def test_a_missing_companion_file_is_damage(kind: str, tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".npy")
    (model / f"cat{kind}.npy").unlink()
    assert damages(model) == [Damage(f"cat{kind}.npy", "it is missing")]


def test_a_video_that_is_being_replaced_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = make_folder(tmp_path, ".npy")
    recorded = open_run(str(model), {})
    before = list(recorded.folder.files())
    monkeypatch.setattr(recorded.folder, "files", lambda: iter(before))
    folder.discard(["cat"])
    assert list(recorded.folder.verify()) == [None, None]


# ---- malicious files ----


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".pkl")
    mark = tmp_path / "harm"
    (model / "cat_clip.pkl").write_bytes(pickle.dumps(Harm(mark)))
    (damage,) = damages(model)
    assert "which no array needs" in damage.reason
    assert not mark.exists()


def test_code_in_an_object_array_is_not_executed(tmp_path: Path) -> None:
    for suffix in (".npy", ".pkl"):
        _, model = make_folder(tmp_path / suffix, suffix)
        mark = tmp_path / "harm"
        write(model / f"cat_clip{suffix}", np.array([Harm(mark)], object))
        (damage,) = damages(model)
        assert damage.file == f"cat_clip{suffix}"
        assert not mark.exists()


def test_a_header_with_a_huge_shape_takes_no_memory(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".npy")
    with (model / "cat_clip.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**50, DIM)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 100)
    (damage,) = damages(model)
    assert damage.reason.startswith("it ends after 100 of ")


def test_a_pickle_with_a_huge_size_takes_no_memory(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".pkl")
    claim = b"\x80\x04" + pickle.BINBYTES8 + (2**45).to_bytes(8, "little") + b"abc"
    (model / "cat_clip.pkl").write_bytes(claim)
    (damage,) = damages(model)
    assert damage.reason.startswith("it is not a complete pickle")


# ---- the command ----


def test_the_command_names_each_damaged_file_and_ends_with_1(tmp_path: Path) -> None:
    _, model = make_folder(tmp_path, ".npy")
    os.truncate(model / "dog_clip.npy", 150)
    (model / "cat_fps.npy").unlink()
    ended = call("status", tmp_path, "--verify")
    assert ended.status == 1
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  damaged")]
    assert sorted(lines) == [
        f"  damaged    {model}/cat_fps.npy: it is missing",
        f"  damaged    {model}/dog_clip.npy: it ends after 22 of 48 bytes of numbers",
    ]
    assert "2 videos opened, 2 damaged" in ended.stdout


def test_an_undamaged_folder_ends_with_0(tmp_path: Path) -> None:
    make_folder(tmp_path, ".npy")
    ended = call("status", tmp_path, "--verify")
    assert ended.status == 0
    assert "2 videos opened, 0 damaged" in ended.stdout


def test_damage_is_found_among_many_videos(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    for number in range(MAX_IN_FLIGHT + 10):
        commit(folder, f"v{number}")
    model = tmp_path / "clip/demo"
    for number in (3, MAX_IN_FLIGHT + 5):
        (model / f"v{number}_fps.npy").unlink()
    assert {damage.file for damage in damages(model)} == {
        "v3_fps.npy",
        f"v{MAX_IN_FLIGHT + 5}_fps.npy",
    }
