"""A long video is divided into segments, each of which is a job of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, FeatureBlocks, SegmentFailed
from rayclip.media.frames import divide
from rayclip.media.segments import Segment, inner_boundaries
from rayclip.output.rows import Extraction
from rayclip.output.spool import slices

SEGMENT_S = 300.0


def is_long(job: ExtractionJob, duration_s: float, segment_s: float, max_segments: int) -> bool:
    """Whether a video is worth dividing, and its frames can be selected segment by segment."""
    if job.choice.is_numbered or job.reencoded is not None:
        return False
    return bool(inner_boundaries(duration_s, segment_s, max_segments))


def segments_of(
    job: ExtractionJob, video: str, segment_s: float, max_segments: int
) -> list[Segment]:
    """Return the segments of a video; fewer than two if it cannot be divided."""
    source, choice = job.source(video), job.choice_for(video)
    return divide(source, choice, segment_s, max_segments, job.storage_options)


def segment_job(job: ExtractionJob, segment: Segment) -> ExtractionJob:
    return replace(job, segment=segment, folder=None, zero_shot=None)


def extract_segment(extractor: VideoExtractor, video: str) -> Extraction:
    """Return the features of the segment of an extractor's job.

    Raises:
        SegmentFailed: there is no such segment, or it cannot be decoded or encoded.
    """
    (result,) = extractor.run([video])
    if result.failure is not None:
        raise SegmentFailed(result.failure.message)
    assert result.extraction is not None
    return result.extraction


def in_blocks(extraction: Extraction) -> FeatureBlocks:
    """Read features that may be in a temporary file."""
    times, start = extraction.timestamps_ms, 0
    for rows in slices(extraction.clip):
        yield times[start : start + len(rows)], np.array(rows)
        start += len(rows)
