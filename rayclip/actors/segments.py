"""Long videos: their segments are decoded by tasks of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from rayclip.actors.client import RemoteEncoders
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import Blocks, ExtractionJob, FirstAttempts, SegmentFailed
from rayclip.inputs.videos import absolute
from rayclip.media.frames import cut
from rayclip.media.segments import Segment, inner_borders
from rayclip.media.watchdog import LIBAV
from rayclip.output.spool import slices

SEGMENT_S = 300.0  # of a long video that several tasks decode
DECODING_MEMORY = 512 * 2**20  # bytes that a decoding task asks of its node


@dataclass(frozen=True)
class Division:
    """When videos are divided, and into what.

    Attributes:
        segment_s: seconds of a segment, at the least.
        most: segments of a video.
        cpus: of the task that decodes a segment.
        memory: bytes that it asks of its node.
    """

    segment_s: float
    most: int
    cpus: float
    memory: int


def division_among(tasks: int, cpus: float) -> Division:
    """How so many tasks at once, of so many CPUs each, divide long videos."""
    return Division(SEGMENT_S, tasks, cpus, DECODING_MEMORY)


class RemoteSegments:
    """Divides long videos and has a Ray task extract each segment."""

    def __init__(self, job: ExtractionJob, pool: Any, division: Division) -> None:
        self._job = job
        self._pool = pool
        self._division = division

    def is_long(self, duration_s: float) -> bool:
        """Whether a video is worth dividing, and frames can be chosen in its parts."""
        job, division = self._job, self._division
        if job.choice.extraction_total is not None or job.reencoded is not None:
            return False
        return bool(inner_borders(duration_s, division.segment_s, division.most))

    def extract(self, video: str) -> Blocks | None:
        """The features of a long video; None where it cannot be divided."""
        job, division = self._job, self._division
        place = absolute(video, job.folder_of_inputs)
        segments = cut(place, division.segment_s, division.most, job.storage_options)
        return self._blocks(video, segments) if len(segments) > 1 else None

    def _blocks(self, video: str, segments: list[Segment]) -> Blocks:
        task = ray.remote(extract_segment).options(
            num_cpus=self._division.cpus,
            memory=self._division.memory,
            num_returns="streaming",
            max_retries=0,  # a segment that takes its worker down is for the undivided run
        )
        jobs = [
            replace(self._job, segment=segment, folder=None, zero_shot=None) for segment in segments
        ]
        streams: list[Any] = [task.remote(job, self._pool, video) for job in jobs]
        try:
            for stream in streams:
                for reply in stream:
                    yield ray.get(reply)
        except RayError as error:
            raise SegmentFailed(str(error).strip().rpartition("\n")[2]) from error
        finally:
            for stream in streams:
                ray.cancel(stream)


def extract_segment(
    job: ExtractionJob, pool: Any, video: str
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Extract one segment, in a Ray task: blocks of timestamps in ms and features, in order.

    Raises:
        SegmentFailed: there is no such segment, or it cannot be decoded or encoded.
    """
    extractor = VideoExtractor(job, RemoteEncoders(pool), FirstAttempts(), watching=LIBAV.watching)
    (result,) = extractor.run([video])
    if result.failure is not None:
        raise SegmentFailed(result.failure.message)
    assert result.extraction is not None
    times = result.extraction.timestamps_ms
    given = 0
    for rows in slices(result.extraction.clip):
        yield times[given : given + len(rows)], np.array(rows)
        given += len(rows)
