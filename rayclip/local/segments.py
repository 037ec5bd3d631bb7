"""Long videos without Ray: each segment is decoded by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from rayclip.actors import segment_jobs
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, FeatureBlocks
from rayclip.actors.segment_jobs import (
    extract_segment,
    in_blocks,
    is_long,
    segment_job,
    segments_of,
)


class ThreadSegments:
    """Divides long videos among the threads of this process."""

    def __init__(
        self,
        job: ExtractionJob,
        extractor: Callable[[ExtractionJob], VideoExtractor],
        cores: Semaphore,
        pool: ThreadPoolExecutor,
        max_segments: int,
    ) -> None:
        """Prepare.

        Args:
            job: what to do with whole videos.
            extractor: makes the extractor of a segment's job.
            cores: held by each thread while it decodes.
            pool: has a thread for each segment of a video.
            max_segments: of a video.
        """
        self._job = job
        self._extractor = extractor
        self._cores = cores
        self._pool = pool
        self._max_segments = max_segments

    def is_long(self, duration_s: float) -> bool:
        return is_long(self._job, duration_s, segment_jobs.SEGMENT_S, self._max_segments)

    def extract(self, video: str, models: Sequence[int]) -> FeatureBlocks | None:
        segments = segments_of(self._job, video, segment_jobs.SEGMENT_S, self._max_segments)
        if len(segments) < 2:
            return None
        jobs = [segment_job(self._job, segment) for segment in segments]
        return self._blocks(video, models, jobs)

    def _blocks(
        self, video: str, models: Sequence[int], jobs: list[ExtractionJob]
    ) -> FeatureBlocks:
        starts = [
            self._pool.submit(extract_segment, self._extractor(job), video, models) for job in jobs
        ]
        self._cores.release()  # this thread only waits
        try:
            for start in starts:
                yield from in_blocks(start.result())
        finally:
            for start in starts:
                start.cancel()
            self._cores.acquire()
