"""Faults of a device: what an exception means, and what a process leaves for the next."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rayclip.actors.device_faults import (
    UNEXPLAINED_DEATHS,
    BlackBox,
    Death,
    deaths_with,
    first_line,
    is_given_up,
    is_out_of_memory,
    is_poisoned,
)

# ---- what an exception means ----


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "memory"),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), "poison"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "poison"),
        (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors"), "poison"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `x`"), "poison"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "poison"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access"), "poison"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "neither"),
        (RuntimeError("3 features came for 4 frames"), "neither"),
        (ValueError("CUDA error: only quoted"), "neither"),
        (MemoryError("out of memory"), "neither"),
    ],
    ids=str,
)
def test_what_an_exception_says_about_the_device(error: Exception, meaning: str) -> None:
    assert is_out_of_memory(error) == (meaning == "memory")
    assert is_poisoned(error) == (meaning == "poison")


def test_only_the_first_line_of_an_exception_is_for_people() -> None:
    assert first_line(RuntimeError("CUDA error: x\nFor debugging")) == "CUDA error: x"
    assert first_line(RuntimeError()) == "RuntimeError"


# ---- who is guilty, and when nobody is ----


def deaths(*chunks: str) -> list[Death]:
    """Deaths 10 s apart, each with the chunks that one word names by its letters."""
    return [Death(10.0 * i, "an error", tuple(names)) for i, names in enumerate(chunks)]


def test_the_deaths_of_a_chunk_are_those_that_it_was_there_for() -> None:
    told = deaths("ab", "a", "c")
    assert [len(deaths_with(chunk, told)) for chunk in "abcd"] == [2, 1, 1, 0]


@pytest.mark.parametrize(
    ("died_with", "now_s", "given_up"),
    [
        (["", ""], 20.0, False),
        (["", "", ""], 20.0, True),
        (["", "a", ""], 20.0, False),
        (["", "a", "a", "", "b", ""], 50.0, True),
        (["a", "a", "b", "b", "c"], 40.0, False),
        (["", "", ""], 599.9, True),
        (["", "", ""], 600.0, False),
    ],
)
def test_an_encoder_is_given_up_after_three_deaths_without_suspects_in_ten_minutes(
    died_with: list[str], now_s: float, given_up: bool
) -> None:
    assert is_given_up(deaths(*died_with), now_s) == given_up


# ---- the black box ----

PROCESS = """
import contextlib, os, signal, sys, threading
from pathlib import Path
from rayclip.actors.device_faults import BlackBox

box, (end, *chunks) = BlackBox(Path(sys.argv[1])), sys.argv[2:]
with box.loading():
    if chunks == ["loading"]:
        os.kill(os.getpid(), getattr(signal, end))
with contextlib.suppress(ValueError), box.loading():
    raise ValueError("the model cannot be loaded, which is no death")
with box.noting(["through"]):
    pass
with box.noting(chunks[:1]), box.noting(chunks):
    if end == "fatal":
        box.end_process("CUDA error: unknown")
    os.kill(os.getpid(), getattr(signal, end))
"""


def life(path: Path, end: str, *chunks: str) -> int:
    """A process that ends in a pass, for good reason or by a signal; its status."""
    words = [sys.executable, "-c", PROCESS, path, end, *chunks]
    return subprocess.run(words, capture_output=True).returncode


def told(path: Path) -> list[tuple[str, Sequence[str]]]:
    return [(death.reason, death.chunks) for death in BlackBox(path).deaths]


def test_a_process_that_ends_itself_leaves_its_reason_and_the_chunks_in_passes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "box"
    before = time.time()
    assert life(path, "fatal", "a", "b") == 1
    assert told(path) == [("CUDA error: unknown", ("a", "b"))]
    (death,) = BlackBox(path).deaths
    assert before <= death.at_s <= time.time()


@pytest.mark.parametrize(
    ("number", "reason"), [("SIGSEGV", "Segmentation fault"), ("SIGABRT", "Aborted")]
)
def test_a_crash_counts(tmp_path: Path, number: str, reason: str) -> None:
    path = tmp_path / "box"
    assert life(path, number, "a", "b") == -getattr(signal, number)
    assert told(path) == [(reason, ("a", "b"))]


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_kill_from_outside_says_nothing_about_the_frames(tmp_path: Path, number: str) -> None:
    path = tmp_path / "box"
    for _ in range(2):
        assert life(path, number, "a") == -getattr(signal, number)
    assert told(path) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [("SIGKILL", "killed while it loaded its model"), ("SIGSEGV", "Segmentation fault")],
)
def test_a_process_that_never_has_its_model_is_given_up(
    tmp_path: Path, number: str, reason: str
) -> None:
    path = tmp_path / "box"
    for deaths in range(UNEXPLAINED_DEATHS):
        assert not is_given_up(BlackBox(path).deaths, time.time())
        assert told(path) == [(reason, ())] * deaths
        life(path, number, "loading")
    assert is_given_up(BlackBox(path).deaths, time.time())


def test_deaths_are_remembered_over_many_lives(tmp_path: Path) -> None:
    path = tmp_path / "box"
    for end in ("fatal", "SIGKILL", "SIGSEGV", "fatal"):
        life(path, end, end.lower())
    assert [chunks for _, chunks in told(path)] == [("fatal",), ("sigsegv",), ("fatal",)]


def test_a_suspect_that_came_through_is_none_any_more(tmp_path: Path) -> None:
    path = tmp_path / "box"
    life(path, "fatal", "a", "b")
    box = BlackBox(path)
    box.acquit("a")
    assert (box.deaths_of("a"), len(box.deaths_of("b"))) == ([], 1)
    assert told(path) == [("CUDA error: unknown", ("b",))]


@pytest.mark.parametrize("content", ["", "{}\n", '[[1, "x"]]\n[]\n', "\0\0\n\n", "[]\n[\nFatal"])
def test_a_damaged_file_tells_nothing_and_does_not_matter(tmp_path: Path, content: str) -> None:
    path = tmp_path / "box"
    path.write_text(content)
    assert told(path) == []
    with BlackBox(path).noting(["a"]):
        pass


def test_a_chunk_in_two_passes_stays_noted_until_both_are_over(tmp_path: Path) -> None:
    path = tmp_path / "box"
    box = BlackBox(path)

    def noted() -> list[str]:
        names: list[str] = json.loads(path.read_text().splitlines()[1])
        return names

    with box.noting(["a", "b"]):
        with box.noting(["a"]):
            assert noted() == ["a", "b"]
        assert noted() == ["a", "b"]
    assert noted() == []


def test_a_pass_that_raises_is_over(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with pytest.raises(ValueError, match="bad"), BlackBox(path).noting(["a"]):
        raise ValueError("bad")
    assert path.read_text() == "[]\n[]\n"


def test_noting_a_pass_takes_less_than_100_microseconds(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box")
    took = []
    for i in range(200):
        started = time.perf_counter()
        with box.noting([f"{i:016x}", f"{i + 1:016x}"]):
            pass
        took.append(time.perf_counter() - started)
    assert sorted(took)[len(took) // 2] < 100e-6


def test_passes_side_by_side_are_noted_together(tmp_path: Path) -> None:
    path = tmp_path / "box"
    box, both = BlackBox(path), threading.Barrier(3, timeout=10)

    def forward(name: str) -> None:
        with box.noting([name]):
            both.wait()
            both.wait()

    threads = [threading.Thread(target=forward, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    both.wait()
    assert sorted(json.loads(path.read_text().splitlines()[1])) == ["a", "b"]
    both.wait()
    for thread in threads:
        thread.join(10)
    assert path.read_text() == "[]\n[]\n"
