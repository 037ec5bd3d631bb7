"""What an export is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from rayclip.errors import UsageError

FormatName = Literal["npz", "hdf5", "frames-parquet", "webdataset"]
Pool = Literal["mean", "max"]
Dtype = Literal["float32", "float16"]
Naming = Literal["stem", "path"]

FORMATS: tuple[FormatName, ...] = get_args(FormatName)
"""The names of all formats."""


@dataclass(frozen=True)
class ExportOptions:
    """The validated options of an export.

    Attributes:
        format: what is written.
        normalize: whether each feature is scaled to length 1, after pooling.
        window: features pooled into one; None for all of a video, if ``pool`` is given.
        stride: features from the start of a window to that of the next; ``window`` by default.
        pool: how they are pooled; ``mean`` by default if there is a window, else not at all.
        dtype: of the exported features; None for that of the saved ones.
        naming: how the inputs of ``save_parquet`` are named, ``stem`` or ``path``.

    Raises:
        UsageError: a value is invalid; the message names the option and valid values.
    """

    format: FormatName
    normalize: bool = False
    window: int | None = None
    stride: int | None = None
    pool: Pool | None = None
    dtype: Dtype | None = None
    naming: Naming = "stem"

    def __post_init__(self) -> None:
        _check_word("format", self.format, FORMATS)
        _check_word("naming", self.naming, get_args(Naming))
        _check_word("pool", self.pool, (None, *get_args(Pool)))
        _check_word("dtype", self.dtype, (None, *get_args(Dtype)))
        for name, number in (("window", self.window), ("stride", self.stride)):
            if number is not None and number < 1:
                raise UsageError(f"{name} is {number}, and must be at least 1.")
        if self.window is None and self.stride is not None:
            raise UsageError("stride is the distance of windows: give window, too.")
        if self.window is not None:
            object.__setattr__(self, "stride", self.stride or self.window)
            object.__setattr__(self, "pool", self.pool or "mean")


def _check_word(name: str, value: Any, valid: tuple[Any, ...]) -> None:
    if value not in valid:
        words = ", ".join(word for word in valid if word is not None)
        raise UsageError(f"{name} is {value!r}, and must be one of {words}.")
