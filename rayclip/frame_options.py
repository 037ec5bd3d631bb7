"""The settings that select frames, which the command line and Python share."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from rayclip.media.frame_choice import FrameChoice
from rayclip.option_values import AnyPath, to_fps, to_local_folder, to_seconds
from rayclip.options import option


@dataclass(frozen=True)
class FrameOptions:
    """The part of :class:`rayclip.settings.Settings` that says which frames of a video are
    encoded."""

    extraction_fps: Fraction | None = option(
        None,
        "frames",
        "Frames per second, such as 5, 2.5 or 30000/1001; by default, every frame.",
        details="At most 1000. [docs/decoding.md](decoding.md#which-frames) says which frames are "
        "selected.",
        metavar="FPS",
        accepts=str | int | float | Fraction | None,
        convert=partial(to_fps, "extraction_fps"),
        encode=True,
        compared=True,
    )
    extraction_total: int | None = option(
        None,
        "frames",
        "This many frames of each video, evenly spaced; not with `extraction_fps`.",
        encode=True,
        compared=True,
    )
    every: int | None = option(
        None,
        "frames",
        "Every Nth frame: numbers 0, N, 2N and so on; not with the options above.",
        encode=True,
        compared=True,
    )
    keyframes: bool = option(
        False,
        "frames",
        "Only keyframes, and decode nothing else; not with the options above.",
        details="These are the frames at which decoding can start.",
        encode=True,
        compared=True,
    )
    start: float | None = option(
        None,
        "frames",
        "Only frames from this time on, in seconds.",
        details="With `extraction_fps`, the first one is on the screen at that time. A table has "
        "ranges for each row in its columns [`start_s` and `end_s`](inputs.md#ranges).",
        metavar="S",
        accepts=str | int | float | None,
        convert=partial(to_seconds, "start"),
        encode=True,
        compared=True,
    )
    end: float | None = option(
        None,
        "frames",
        "Only frames before this time, in seconds.",
        metavar="S",
        accepts=str | int | float | None,
        convert=partial(to_seconds, "end"),
        encode=True,
        compared=True,
    )
    keep_tmp_files: bool = option(
        False,
        "frames",
        "Re-encode each video at `extraction_fps` as video_features does, keep the file, and "
        "extract from it.",
        details="This is lossy. Without this option, nothing is re-encoded.",
    )
    tmp_path: str = option(
        "./tmp",
        "frames",
        "Local folder for re-encoded videos.",
        accepts=AnyPath,
        convert=to_local_folder,
        metavar="PATH",
    )

    @property
    def frame_choice(self) -> FrameChoice:
        """Which frames of each video are wanted."""
        return FrameChoice(
            self.extraction_fps,
            self.extraction_total,
            self.every,
            self.keyframes,
            self.start,
            self.end,
        )
