"""What ``on_extraction=print`` writes to standard output: the words of video_features."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

import numpy as np

from rayclip.results import VideoResult
from rayclip.settings import Settings
from rayclip.zeroshot import ZeroShot, format_table

OnResult = Callable[[VideoResult, ZeroShot | None], None]


def printer_of(settings: Settings) -> OnResult | None:
    """What a run with these settings prints of each result; None where it prints nothing."""
    if settings.saves and not settings.show_pred:
        return None
    return partial(print_result, arrays=not settings.saves)


def print_result(
    result: VideoResult,
    zero_shot: ZeroShot | None = None,
    arrays: bool = True,
    stream: TextIO | None = None,
) -> None:
    """Print a video's name, its predictions and its arrays; failures print nothing here.

    Args:
        result: what came out.
        zero_shot: predicts texts for each frame; None prints no tables.
        arrays: whether the arrays are printed.
        stream: where to; standard output by default.
    """
    if result.extraction is None:
        return
    stream = stream or sys.stdout
    clip, timestamps_ms, fps = result.extraction
    print(os.fsencode(result.video).decode(errors="replace"), file=stream)
    if zero_shot is not None:
        for time, predictions in zip(timestamps_ms, zero_shot.top(clip), strict=True):
            print(f"{time:.1f} ms\n{format_table(predictions)}", end="", file=stream)
    if not arrays:
        return
    for key, value in (("clip", clip), ("fps", np.array(fps)), ("timestamps_ms", timestamps_ms)):
        print(key, value, sep="\n", file=stream)
        print(
            f"max: {value.max():.8f}; mean: {value.mean():.8f}; min: {value.min():.8f}\n",
            file=stream,
        )
    stream.flush()
