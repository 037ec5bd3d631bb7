"""Long videos: their segments are decoded by tasks of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import NodeDiedError, ObjectLostError, RayError

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.job import ExtractionJob, FeatureBlocks, LocalAttempts, SegmentFailed
from rayclip.inputs.videos import absolute
from rayclip.media.frames import cut
from rayclip.media.segments import Segment, inner_borders
from rayclip.media.watchdog import LIBAV
from rayclip.output.spool import slices

SEGMENT_S = 300.0  # of a long video that several tasks decode
DECODING_MEMORY = 512 * 2**20  # bytes that a decoding task asks of its node
ROOM_S = 60.0  # for a segment to begin: who waits for it has memory, too, and may have the last
MAX_LOSSES = 3  # of a segment with its node, until the video is decoded undivided


@dataclass(frozen=True)
class Division:
    """When videos are divided, and into what.

    Attributes:
        segment_s: seconds of a segment, at the least.
        most: segments of a video.
        memory: bytes that the task of a segment asks of its node.
        room_s: seconds within which a first one must have begun.
    """

    segment_s: float
    most: int
    memory: int
    room_s: float


def division_among(tasks: int) -> Division:
    """How this many tasks at once divide long videos."""
    return Division(SEGMENT_S, tasks, DECODING_MEMORY, ROOM_S)


class RemoteSegments:
    """Divides long videos and has a Ray task extract each segment."""

    def __init__(self, job: ExtractionJob, control: Any, division: Division) -> None:
        self._job = job
        self._control = control
        self._division = division

    def is_long(self, duration_s: float) -> bool:
        """Whether a video is worth dividing, and frames can be chosen in its parts."""
        job, division = self._job, self._division
        if job.choice.extraction_total is not None or job.reencoded is not None:
            return False
        return bool(inner_borders(duration_s, division.segment_s, division.most))

    def extract(self, video: str) -> FeatureBlocks | None:
        """The features of a long video; None where it cannot be divided."""
        job, division = self._job, self._division
        place = absolute(video, job.folder_of_inputs)
        segments = cut(place, division.segment_s, division.most, job.storage_options)
        return self._blocks(video, segments) if len(segments) > 1 else None

    def _blocks(self, video: str, segments: list[Segment]) -> FeatureBlocks:
        task = ray.remote(extract_segment).options(
            num_cpus=1,
            memory=self._division.memory,
            num_returns="streaming",
            max_retries=0,  # a segment that takes its worker down is for the undivided run
        )
        jobs = [
            replace(self._job, segment=segment, folder=None, zero_shot=None) for segment in segments
        ]
        starts = [partial(task.remote, job, self._control, video) for job in jobs]
        streams: list[Any] = [start() for start in starts]
        try:
            if not ray.wait(streams, num_returns=1, timeout=self._division.room_s)[0]:
                raise SegmentFailed("no node has room for its segments")
            for place, start in enumerate(starts):
                yield from _blocks_of(streams, place, start)
        except RayError as error:
            raise SegmentFailed(str(error).strip().rpartition("\n")[2]) from error
        finally:
            for stream in streams:
                ray.cancel(stream)


def _blocks_of(streams: list[Any], place: int, start: Callable[[], Any]) -> FeatureBlocks:
    """The blocks of one segment, which is started again where a node takes it along: those that
    were given already come out the same."""
    given = losses = 0
    while True:
        try:
            for number, reply in enumerate(streams[place]):
                block = ray.get(reply)
                if block is not None and number > given:
                    given = number
                    yield block
            return
        except (NodeDiedError, ObjectLostError):
            losses += 1
            if losses == MAX_LOSSES:
                raise
            streams[place] = start()


def extract_segment(
    job: ExtractionJob, control: Any, video: str
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]] | None]:
    """Extract one segment, in a Ray task: None as a sign that it has begun, then blocks of
    timestamps in ms and features, in order.

    Raises:
        SegmentFailed: there is no such segment, or it cannot be decoded or encoded.
    """
    yield None
    extractor = VideoExtractor(
        job, EncoderClient(control), LocalAttempts(), watching=LIBAV.watching
    )
    (result,) = extractor.run([video])
    if result.failure is not None:
        raise SegmentFailed(result.failure.message)
    assert result.extraction is not None
    times = result.extraction.timestamps_ms
    given = 0
    for rows in slices(result.extraction.clip):
        yield times[given : given + len(rows)], np.array(rows)
        given += len(rows)
