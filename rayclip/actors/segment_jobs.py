"""A long video is divided into segments, each of which is a job of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, FeatureBlocks, SegmentFailed, TaskVideo
from rayclip.media.frames import divide
from rayclip.media.segments import Segment, inner_boundaries
from rayclip.output.rows import Extraction
from rayclip.output.spool import rows_per_slice, slices

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
    models = tuple(replace(model, folder=None) for model in job.models)
    return replace(job, segment=segment, models=models, zero_shot=None)


def extract_segment(
    extractor: VideoExtractor, video: str, models: Sequence[int]
) -> list[Extraction]:
    """Return the features of the segment of an extractor's job, by each of these models.

    Raises:
        SegmentFailed: there is no such segment, or it cannot be decoded or encoded.
    """
    extractions = []
    for result in extractor.run([video], [TaskVideo(0, video, models)]):
        if result.failure is not None:
            raise SegmentFailed(result.failure.message)
        assert result.extraction is not None
        extractions.append(result.extraction)
    return extractions


def in_blocks(extractions: Sequence[Extraction]) -> FeatureBlocks:
    """Read the features of a video by several models, which may be in temporary files."""
    times, start = extractions[0].timestamps_ms, 0
    rows = rows_per_slice([extraction.clip for extraction in extractions])
    for blocks in zip(*(slices(extraction.clip, rows) for extraction in extractions), strict=True):
        features = [np.array(block) for block in blocks]
        yield times[start : start + len(features[0])], features
        start += len(features[0])
