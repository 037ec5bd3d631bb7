"""Device faults: what an exception means, and which frames are blamed for a death."""

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
    """Whether a device ran out of memory; later calls may succeed."""
    if "OutOfMemoryError" in _type_names(error):
        return True
    return _is_of_device(error) and _NO_MEMORY.search(str(error)) is not None


def is_poisoned(error: BaseException) -> bool:
    """Whether every later call of this process will fail as well, as after a CUDA error."""
    return _is_of_device(error) and not is_out_of_memory(error)


def first_line(error: BaseException) -> str:
    """The message of an exception, without the advice that torch adds in further lines."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def empty_cache() -> None:
    """Return the memory that torch has cached to the device."""
    import torch

    torch.cuda.empty_cache()


def deaths_during(chunk: str, deaths: Sequence[Death]) -> list[Death]:
    """Return the deaths that a chunk may have caused.

    After the first death the chunk is a suspect and shares no forward pass, so a second one is its
    own. A kill from outside is no evidence against frames.
    """
    return [death for death in deaths if _is_evidence(death) and chunk in (death.busy or ())]


def is_given_up(deaths: Sequence[Death], now_s: float) -> bool:
    """Whether an encoder has recently died too often without frames to blame."""
    unexplained = [
        death
        for death in deaths
        if _is_evidence(death)
        and not {*(death.busy or ())} - {LOADING}
        and now_s - death.at_s < UNEXPLAINED_WITHIN_S
    ]
    return len(unexplained) >= UNEXPLAINED_DEATHS


def _is_evidence(death: Death) -> bool:
    """Whether a death says something about the work. A kill does only while the model loads: memory
    for it may never suffice."""
    return death.cause is not Cause.KILL or LOADING in (death.busy or ())


class BlamedFrames(Exception):
    """These frames ended too many processes to be retried."""


def _is_of_device(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    return "AcceleratorError" in _type_names(error) or bool(_DEVICE_ERROR.search(str(error)))


def _type_names(error: BaseException) -> set[str]:
    """Names of the exception's classes; comparing classes would import torch."""
    return {kind.__name__ for kind in type(error).__mro__}
