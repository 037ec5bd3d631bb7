"""Faults of a device: which exception means which, and whom the deaths of an encoder's processes
are blamed on, so that only the frames at fault are given up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rayclip.io.crash_log import LOADING, Cause, Death

DEATHS_OF_BLAMED_FRAMES = 2
UNEXPLAINED_DEATHS = 3
UNEXPLAINED_WITHIN_S = 600.0

_DEVICE_ERROR = re.compile(
    r"CUDA (driver )?error|cuDNN error|(CUDNN|CUBLAS)_STATUS_|Triton Error \[CUDA\]"
)
_NO_MEMORY = re.compile(r"out of memory|_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left for what was asked; later calls may work."""
    if "OutOfMemoryError" in _type_names(error):
        return True
    return _is_of_device(error) and _NO_MEMORY.search(str(error)) is not None


def is_poisoned(error: BaseException) -> bool:
    """Whether a device will fail every later call of this process, as CUDA does after an error."""
    return _is_of_device(error) and not is_out_of_memory(error)


def first_line(error: BaseException) -> str:
    """What an exception says, without the advice that torch adds in further lines."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def empty_cache() -> None:
    """Give memory that torch keeps for later back to the device."""
    import torch

    torch.cuda.empty_cache()


def deaths_with(chunk: str, deaths: Sequence[Death]) -> list[Death]:
    """Those that a chunk may be the reason for. After the first it is a suspect and goes through
    passes of its own, so that no second can be another's fault.

    A kill from outside says nothing about the frames that were there.
    """
    return [death for death in deaths if _says_something(death) and chunk in (death.busy or ())]


def is_given_up(deaths: Sequence[Death], now_s: float) -> bool:
    """Whether an encoder died too often of late and no frames were there that may be the reason."""
    unexplained = [
        death
        for death in deaths
        if _says_something(death)
        and not {*(death.busy or ())} - {LOADING}
        and now_s - death.at_s < UNEXPLAINED_WITHIN_S
    ]
    return len(unexplained) >= UNEXPLAINED_DEATHS


def _says_something(death: Death) -> bool:
    """A kill from outside does only while the model loads: there may never be memory for it."""
    return death.cause is not Cause.KILL or LOADING in (death.busy or ())


class BlamedFrames(Exception):
    """Frames that ended too many processes to be tried again."""


def _is_of_device(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    return "AcceleratorError" in _type_names(error) or bool(_DEVICE_ERROR.search(str(error)))


def _type_names(error: BaseException) -> set[str]:
    """By name, because decoding processes import this module and must not import torch."""
    return {kind.__name__ for kind in type(error).__mro__}
