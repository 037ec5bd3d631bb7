"""Long videos: each segment is decoded by a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayError

from rayclip.actors import segment_jobs
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.job import (
    ExtractionJob,
    FeatureBlock,
    FeatureBlocks,
    SegmentFailed,
    UncountedAttempts,
)
from rayclip.actors.segment_jobs import SEGMENT_S, in_blocks, is_long, segment_job, segments_of
from rayclip.media.segments import Segment
from rayclip.media.watchdog import LIBAV

DECODING_MEMORY = 512 * 2**20  # bytes that a decoding task requests of its node
START_TIMEOUT_S = 60.0  # the waiting task holds memory as well, maybe the last
MAX_LOSSES = 3  # of nodes with the same segment; then the whole video is decoded instead


@dataclass(frozen=True)
class Division:
    """When videos are divided, and how.

    Attributes:
        segment_s: minimum length of a segment, in seconds.
        max_segments: of a video.
        memory: bytes that the task of a segment requests of its node.
        start_timeout_s: seconds within which a first segment must have begun.
    """

    segment_s: float
    max_segments: int
    memory: int
    start_timeout_s: float


def division_for(tasks: int) -> Division:
    """Return how long videos are divided if this many tasks run at a time."""
    return Division(SEGMENT_S, tasks, DECODING_MEMORY, START_TIMEOUT_S)


class RemoteSegments:
    """Divides long videos, and has a Ray task extract each segment."""

    def __init__(self, job: ExtractionJob, control: Any, division: Division) -> None:
        self._job = job
        self._control = control
        self._division = division

    def is_long(self, duration_s: float) -> bool:
        """Whether a video is worth dividing, and its frames can be selected segment by segment."""
        division = self._division
        return is_long(self._job, duration_s, division.segment_s, division.max_segments)

    def extract(self, video: str, models: Sequence[int]) -> FeatureBlocks | None:
        """Return the features of a long video by these models; None if it cannot be divided."""
        division = self._division
        segments = segments_of(self._job, video, division.segment_s, division.max_segments)
        return self._blocks(video, models, segments) if len(segments) > 1 else None

    def _blocks(self, video: str, models: Sequence[int], segments: list[Segment]) -> FeatureBlocks:
        task = ray.remote(extract_segment).options(
            num_cpus=1,
            memory=self._division.memory,
            num_returns="streaming",
            max_retries=0,  # a segment that ends its worker is left to decoding the whole video
        )
        jobs = [segment_job(self._job, segment) for segment in segments]
        starts = [partial(task.remote, job, self._control, video, models) for job in jobs]
        streams: list[Any] = [start() for start in starts]
        try:
            if not ray.wait(streams, num_returns=1, timeout=self._division.start_timeout_s)[0]:
                raise SegmentFailed("no node has room for its segments")
            for index, start in enumerate(starts):
                yield from _segment_blocks(streams, index, start)
        except RayError as error:
            raise SegmentFailed(str(error).strip().rpartition("\n")[2]) from error
        finally:
            for stream in streams:
                ray.cancel(stream)


def _segment_blocks(streams: list[Any], index: int, start: Callable[[], Any]) -> FeatureBlocks:
    """Yield the blocks of one segment. If its node is lost, restart it and skip the blocks that
    were already yielded: they come out the same."""
    yielded = losses = 0
    while True:
        try:
            for number, reply in enumerate(streams[index]):
                block = ray.get(reply)
                if block is not None and number > yielded:
                    yielded = number
                    yield block
            return
        except (NodeDiedError, ObjectLostError):
            losses += 1
            if losses == MAX_LOSSES:
                raise
            streams[index] = start()


def extract_segment(
    job: ExtractionJob, control: Any, video: str, models: Sequence[int]
) -> Iterator[FeatureBlock | None]:
    """Extract one segment, in a Ray task. Yield None to signal that it has begun, then blocks of
    timestamps in ms and features, in order.

    Raises:
        SegmentFailed: there is no such segment, or it cannot be decoded or encoded.
    """
    yield None
    extractor = VideoExtractor(
        job, EncoderClient(control), UncountedAttempts(), watching=LIBAV.watching
    )
    yield from in_blocks(segment_jobs.extract_segment(extractor, video, models))
