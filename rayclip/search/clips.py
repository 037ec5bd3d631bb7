"""Write moments as clips."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

from rayclip.errors import UsageError
from rayclip.output.safe_names import safe_name, stem
from rayclip.search.media_process import ClipRequest, MediaProcess
from rayclip.search.moments import Moment

NOT_FOUND = "the video cannot be found"


def cut_moments(
    moments: Sequence[Moment],
    paths: Mapping[str, str],
    folder: str,
    storage_options: Mapping[str, Any],
    processes: int,
    frames_fps: Fraction,
) -> Iterator[tuple[str, str | None]]:
    """Write each moment as an mp4 file, named after its rank, its video and its time.

    Args:
        moments: best first.
        paths: where the videos are, by name.
        folder: the local folder to write to; it is created.
        storage_options: passed to fsspec for URLs.
        processes: how many moments are cut at once.
        frames_fps: of the run, for folders of frames.

    Yields:
        The file of each moment, and why it could not be written; None if it was.

    Raises:
        UsageError: the folder cannot be created.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be created: {error}.") from error
    files = [os.path.join(folder, clip_name(n, moment)) for n, moment in enumerate(moments, 1)]

    def cut(moment: Moment, file: str) -> str | None:
        if moment.video not in paths:
            return NOT_FOUND
        video, process = paths[moment.video], MediaProcess()
        try:
            return process.cut(
                ClipRequest(video, moment.start_s, moment.end_s, file, storage_options, frames_fps)
            )
        finally:
            process.close()

    with ThreadPoolExecutor(processes) as threads:
        yield from zip(files, threads.map(cut, moments, files), strict=True)


def clip_name(rank: int, moment: Moment) -> str:
    """``003-cat-12.40-15.00s.mp4``: the order of the names is that of the answer."""
    name = f"{rank:03}-{stem(moment.video)}-{moment.start_s:.2f}-{moment.end_s:.2f}s"
    return f"{safe_name(name)}.mp4"
