"""What is checked on nodes before a run, and how problems are reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rayclip.actors.preflight import describe_problems, find_problem, open_error
from rayclip.model.models import ModelSpec
from rayclip.model.preprocess import Resizing
from rayclip.output.array_folder import ArrayFolder

HERE = {"rayclip": "0.1.0", "Ray": "2.60.0", "Python": "3.11.7"}
FINE = {"versions": HERE, "problem": None}


def test_a_node_with_another_rayclip_is_named_with_both_versions() -> None:
    answers = {
        "good (10.0.0.1)": FINE,
        "bad (10.0.0.2)": {**FINE, "versions": {**HERE, "Ray": "2.59.0"}},
    }
    assert describe_problems(answers, HERE) == (
        "On node bad (10.0.0.2), there is rayclip 0.1.0, Ray 2.59.0, Python 3.11.7, but here "
        "rayclip 0.1.0, Ray 2.60.0, Python 3.11.7: install the same everywhere."
    )


def test_the_version_of_a_missing_package_is_not_compared() -> None:
    there = {"Ray": "2.60.0", "Python": "3.11.7"}
    answers = {"bad": {"versions": there, "problem": "rayclip cannot be imported."}}
    assert describe_problems(answers, HERE) == "On node bad, rayclip cannot be imported."


def test_nodes_without_problems_are_not_reported() -> None:
    assert describe_problems({"one": FINE, "two": FINE}, HERE) is None
    assert describe_problems({}, HERE) is None


def test_nodes_with_the_same_problem_are_named_together_and_many_are_counted() -> None:
    answers = {f"n{number}": {**FINE, "problem": "it is full."} for number in range(5)}
    answers["other"] = {**FINE, "problem": "it is broken."}
    assert describe_problems(answers, HERE) == "On nodes n0, n1, n2 and 2 more, it is full."


def test_a_check_that_succeeds_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    folder = ArrayFolder(str(tmp_path), 64, {})
    assert find_problem([], str(tmp_path / "a.mp4"), {}, [folder]) is None
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_missing_output_folder_is_reported(tmp_path: Path) -> None:
    folder = ArrayFolder(str(tmp_path / "elsewhere"), 64, {})
    problem = find_problem([], None, {}, [folder])
    assert problem is not None
    assert problem.startswith(
        f"nothing can be written to {tmp_path}/elsewhere (there is no such file"
    )
    assert "choose an output_path that all nodes mount in the same place" in problem


def test_a_write_that_is_denied_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any, path: str, *__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(LocalFileSystem, "pipe_file", refuse)
    problem = find_problem([], None, {}, [ArrayFolder(str(tmp_path), 64, {})])
    assert problem is not None
    assert "Permission denied" in problem


def test_a_missing_input_is_reported(tmp_path: Path) -> None:
    problem = find_problem([], str(tmp_path / "a.mp4"), {}, [])
    assert problem is not None
    assert problem.startswith(f"the input {tmp_path}/a.mp4 cannot be opened (there is no such file")
    assert "but here it can" in problem


def test_weights_that_cannot_be_loaded_are_reported(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = ModelSpec("RN50", Resizing(224), 1024, "0" * 64, source=str(tmp_path / "mirror"))
    problem = find_problem([wanted], None, {}, [])
    assert problem is not None
    assert problem.startswith("the weights cannot be loaded: ")
    assert "RAYCLIP_WEIGHTS_MIRROR" in problem

    checkpoint = tmp_path / "mirror" / ("0" * 64) / "RN50.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    assert find_problem([wanted], None, {}, []) is None
    checkpoint.unlink()
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "RN50.pt").write_bytes(b"weights")
    assert find_problem([wanted], None, {}, []) is None


def test_an_input_is_opened_wherever_it_is(tmp_path: Path, memory_url: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    os.mkfifo(tmp_path / "pipe.mp4")
    MemoryFileSystem().pipe_file(f"{memory_url}/b.mp4", b"video")
    assert open_error(str(tmp_path / "a.mp4"), {}) is None
    assert open_error(f"{memory_url}/b.mp4", {}) is None
    assert open_error(str(tmp_path / "c.mp4"), {}) == "there is no such file or folder"
    assert open_error(f"{memory_url}/c.mp4", {}) == "there is no such file or folder"
    assert open_error(str(tmp_path / "pipe.mp4"), {}) == "it is not a file"
