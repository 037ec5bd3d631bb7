"""What a decoding task of Ray does with its group of videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.job import ExtractionJob
from rayclip.actors.reporting import RemoteAttempts
from rayclip.actors.segments import Division, RemoteSegments
from rayclip.media.source import VideoSource
from rayclip.media.watchdog import LIBAV
from rayclip.report.results import VideoResult


def results_of(
    videos: Iterable[str],
    job: ExtractionJob,
    pool: Any,
    division: Division | None,
    source_of: Callable[[str], VideoSource] | None = None,
    carried: pa.Table | None = None,
) -> list[VideoResult]:
    """One result for each video of a task, in order.

    Args:
        videos: their names.
        job: what to do with each.
        pool: the control actor.
        division: how long videos are divided; None never divides them.
        source_of: where a video of this name is read from; None takes the name for its place.
        carried: other columns of the videos, to be saved with them where there is a place.

    Raises:
        RunStopped: the run cannot go on; the control actor knows why.
    """
    with RemoteAttempts(pool) as attempts:
        segments = RemoteSegments(job, pool, division) if division else None
        encoders = EncoderClient(pool)
        extractor = VideoExtractor(job, encoders, attempts, segments, LIBAV.watching, source_of)
        return list(extractor.run(videos, carried))
