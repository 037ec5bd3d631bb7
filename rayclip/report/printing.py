"""What ``on_extraction=print`` writes to standard output, in the format of video_features."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import numpy as np

from rayclip.errors import RunStopped
from rayclip.model.zeroshot import ZeroShot, format_table
from rayclip.output.rows import Extraction
from rayclip.report.results import VideoResult
from rayclip.settings import Settings

OnResult = Callable[[VideoResult, ZeroShot | None], None]


def result_printer(settings: Settings) -> OnResult | None:
    """A callback that prints each result to the current standard output.

    None if these settings print nothing.
    """
    if settings.saves and not settings.show_pred:
        return None
    return partial(print_result, arrays=not settings.saves, stream=sys.stdout)


def print_result(
    result: VideoResult,
    zero_shot: ZeroShot | None = None,
    arrays: bool = True,
    stream: TextIO | None = None,
) -> None:
    """Print a video's name, its predictions and its arrays; print nothing if it failed.

    If the run has several models, the keys of the arrays name the model.

    Args:
        result: the result of one video.
        zero_shot: predicts texts for each frame; None prints no tables.
        arrays: whether to print the arrays.
        stream: where to print; standard output by default.

    Raises:
        RunStopped: the stream cannot be written, for example because the other end of a pipe
            was closed.
    """
    if result.extraction is None:
        return
    try:
        _print(result, result.extraction, zero_shot, arrays, stream or sys.stdout)
    except (OSError, ValueError, AttributeError) as error:  # full, closed, or None
        raise RunStopped(f"Standard output cannot be written: {error}.") from error


def _print(
    result: VideoResult,
    extraction: Extraction,
    zero_shot: ZeroShot | None,
    arrays: bool,
    stream: TextIO,
) -> None:
    clip, timestamps_ms, fps = extraction
    print(os.fsencode(result.video).decode(errors="replace"), file=stream)
    if zero_shot is not None:
        for time, predictions in zip(timestamps_ms, zero_shot.top(clip), strict=True):
            print(f"{time:.1f} ms\n{format_table(predictions)}", end="", file=stream)
    if not arrays:
        return
    for key, value in (("clip", clip), ("fps", np.array(fps)), ("timestamps_ms", timestamps_ms)):
        name = f"{key}_{result.model}" if result.model else key
        print(name, value, sep="\n", file=stream)
        print(
            f"max: {value.max():.8f}; mean: {value.mean():.8f}; min: {value.min():.8f}\n",
            file=stream,
        )
    stream.flush()
