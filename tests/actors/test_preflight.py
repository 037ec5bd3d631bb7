"""What nodes are asked before a run, and what is said of their answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rayclip.actors.preflight import describe_problems, find_problem, open_error
from rayclip.output.storage import OutputFolder

HERE = {"rayclip": "0.1.0", "Ray": "2.60.0", "Python": "3.11.7"}
WELL = {"versions": HERE, "problem": None}


def test_a_node_with_another_rayclip_is_named_with_both_versions() -> None:
    answers = {
        "good (10.0.0.1)": WELL,
        "bad (10.0.0.2)": {**WELL, "versions": {**HERE, "Ray": "2.59.0"}},
    }
    assert describe_problems(answers, HERE) == (
        "On node bad (10.0.0.2), there is rayclip 0.1.0, Ray 2.59.0, Python 3.11.7, but here "
        "rayclip 0.1.0, Ray 2.60.0, Python 3.11.7: install the same everywhere."
    )


def test_the_version_of_a_package_that_is_missing_is_no_other_version() -> None:
    there = {"Ray": "2.60.0", "Python": "3.11.7"}
    answers = {"bad": {"versions": there, "problem": "rayclip cannot be imported."}}
    assert describe_problems(answers, HERE) == "On node bad, rayclip cannot be imported."


def test_of_nodes_that_lack_nothing_nothing_is_said() -> None:
    assert describe_problems({"one": WELL, "two": WELL}, HERE) is None
    assert describe_problems({}, HERE) is None


def test_nodes_with_the_same_trouble_are_named_together_and_many_are_counted() -> None:
    answers = {f"n{number}": {**WELL, "problem": "it is full."} for number in range(5)}
    answers["other"] = {**WELL, "problem": "it is broken."}
    assert describe_problems(answers, HERE) == "On nodes n0, n1, n2 and 2 more, it is full."


def test_a_node_that_has_all_that_is_needed_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    folder = OutputFolder(str(tmp_path), 64, {})
    assert find_problem(None, str(tmp_path / "a.mp4"), {}, folder) is None
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_an_output_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path / "elsewhere"), 64, {})
    said = find_problem(None, None, {}, folder)
    assert said is not None
    assert said.startswith(f"nothing can be written to {tmp_path}/elsewhere (there is no such file")
    assert "choose an output_path that all nodes mount in the same place" in said


def test_who_may_not_write_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any, path: str, *__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(LocalFileSystem, "pipe_file", refuse)
    said = find_problem(None, None, {}, OutputFolder(str(tmp_path), 64, {}))
    assert said is not None
    assert "Permission denied" in said


def test_an_input_that_is_not_there_is_said(tmp_path: Path) -> None:
    said = find_problem(None, str(tmp_path / "a.mp4"), {}, None)
    assert said is not None
    assert said.startswith(f"the input {tmp_path}/a.mp4 cannot be opened (there is no such file")
    assert "but here it can" in said


def test_weights_that_cannot_be_had_are_said(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = ("RN50", "0" * 64, str(tmp_path / "mirror"))
    said = find_problem(wanted, None, {}, None)
    assert said is not None
    assert said.startswith("the weights cannot be loaded: ")
    assert "RAYCLIP_WEIGHTS_MIRROR" in said

    checkpoint = tmp_path / "mirror" / ("0" * 64) / "RN50.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    assert find_problem(wanted, None, {}, None) is None
    checkpoint.unlink()
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "RN50.pt").write_bytes(b"weights")
    assert find_problem(wanted, None, {}, None) is None


def test_an_input_is_opened_wherever_it_is(tmp_path: Path, memory_url: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    os.mkfifo(tmp_path / "pipe.mp4")
    MemoryFileSystem().pipe_file(f"{memory_url}/b.mp4", b"video")
    assert open_error(str(tmp_path / "a.mp4"), {}) is None
    assert open_error(f"{memory_url}/b.mp4", {}) is None
    assert open_error(str(tmp_path / "c.mp4"), {}) == "there is no such file or folder"
    assert open_error(f"{memory_url}/c.mp4", {}) == "there is no such file or folder"
    assert open_error(str(tmp_path / "pipe.mp4"), {}) == "it is not a file"
