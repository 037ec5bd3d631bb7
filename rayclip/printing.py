"""What ``on_extraction=print`` writes to standard output: the words of video_features."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import numpy as np

from rayclip.results import VideoResult


def print_result(result: VideoResult, stream: TextIO | None = None) -> None:
    """Print a video's name and its arrays, as the reference does; failures print nothing here."""
    if result.extraction is None:
        return
    stream = stream or sys.stdout
    clip, timestamps_ms, fps = result.extraction
    print(os.fsencode(result.video).decode(errors="replace"), file=stream)
    for key, value in (("clip", clip), ("fps", np.array(fps)), ("timestamps_ms", timestamps_ms)):
        print(key, value, sep="\n", file=stream)
        print(
            f"max: {value.max():.8f}; mean: {value.mean():.8f}; min: {value.min():.8f}\n",
            file=stream,
        )
    stream.flush()
