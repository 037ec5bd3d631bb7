"""Device faults: what an exception means, and which frames are blamed for a death."""

from __future__ import annotations

import pytest
import torch

from rayclip.actors.device_faults import (
    UNEXPLAINED_DEATHS,
    deaths_during,
    first_line,
    is_given_up,
    is_out_of_memory,
    is_poisoned,
)
from rayclip.io.crash_log import LOADING, Cause, Death

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


def test_only_the_first_line_of_an_exception_is_reported() -> None:
    assert first_line(RuntimeError("CUDA error: x\nFor debugging")) == "CUDA error: x"
    assert first_line(RuntimeError()) == "RuntimeError"


# ---- which frames are blamed ----


def deaths(*chunks: str, cause: Cause = Cause.DEVICE) -> list[Death]:
    """Return deaths 10 s apart; each argument names the chunks in progress by its letters."""
    return [Death(cause, "an error", tuple(names), 10.0 * i) for i, names in enumerate(chunks)]


def test_the_deaths_of_a_chunk_are_those_while_it_was_in_progress() -> None:
    known_deaths = deaths("ab", "a", "c")
    assert [len(deaths_during(chunk, known_deaths)) for chunk in "abcd"] == [2, 1, 1, 0]


def test_a_kill_from_outside_blames_no_frames() -> None:
    assert deaths_during("a", deaths("a", "a", cause=Cause.KILL)) == []


@pytest.mark.parametrize("cause", [Cause.CRASH, Cause.DEVICE])
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
def test_an_encoder_is_given_up_after_three_unexplained_deaths_in_ten_minutes(
    died_with: list[str], now_s: float, given_up: bool, cause: Cause
) -> None:
    assert is_given_up(deaths(*died_with, cause=cause), now_s) == given_up


@pytest.mark.parametrize("cause", [Cause.CRASH, Cause.DEVICE, Cause.KILL])
def test_an_encoder_that_never_loads_its_model_is_given_up(cause: Cause) -> None:
    died = [Death(cause, "", (LOADING,))] * UNEXPLAINED_DEATHS
    assert is_given_up(died, 0.0)
    assert not is_given_up(died[1:], 0.0)


def test_an_encoder_that_is_killed_while_idle_is_not_given_up() -> None:
    assert not is_given_up(deaths("", "", "", "", cause=Cause.KILL), 30.0)
