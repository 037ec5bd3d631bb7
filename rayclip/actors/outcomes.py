"""What became of a video: a result of each model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from rayclip.actors.attempts import give_up_error
from rayclip.actors.commit_buffer import CommitBuffer, Extracted
from rayclip.actors.job import ExtractionJob, TaskVideo
from rayclip.actors.pending_video import ModelFeatures, PendingVideo
from rayclip.errors import Code, CredentialsRefused, RunStopped, VideoError
from rayclip.io.crash_log import Death
from rayclip.io.storage_errors import stop_reason
from rayclip.output.rows import Extraction, Predictions
from rayclip.report.results import Failure, VideoResult

logger = logging.getLogger(__name__)


def earlier_results(
    job: ExtractionJob, buffer: CommitBuffer, video: TaskVideo, deaths: Sequence[Death]
) -> dict[int, VideoResult]:
    """Return the results of a video that an earlier, dead process of this task saved, or that must
    be given up, by the numbers of their models."""
    results = {}
    error = give_up_error(deaths, job.max_attempts)
    for model in video.models:
        frames = buffer.saved_before(model, video.video)
        if frames is not None:
            results[model] = _result(job, model, video.video, frames)
        elif error is not None:
            results[model] = _failed(job, model, video.video, error, len(deaths))
    return results


def extracted(
    job: ExtractionJob, pending: PendingVideo, earlier: Mapping[int, VideoResult]
) -> Extracted:
    """Wait for the outcome of a video, and add its earlier results.

    Raises:
        RunStopped: no encoder remains, or no other video could be read either.
    """
    results, predictions = dict(earlier), None
    with pending:
        pending.wait()
        for model in pending.models:
            results[model.number], predictions = _outcome(job, pending, model)
    return Extracted(
        pending.position,
        dict(sorted(results.items())),
        pending.attempt,
        predictions,
        pending.columns,
    )


def is_refused(error: VideoError | None) -> bool:
    """Whether no other video in this storage could be read either."""
    return isinstance(error, CredentialsRefused)


def _outcome(
    job: ExtractionJob, pending: PendingVideo, model: ModelFeatures
) -> tuple[VideoResult, Predictions | None]:
    """Return the result of a model, whose features are all back, and the best texts for each frame,
    if they are saved."""
    video, attempt, predictions = pending.video, pending.attempt, None
    try:
        extraction = pending.extraction(model)
        if job.folders and job.zero_shot is not None:
            predictions = job.zero_shot.top(extraction.clip)
    except VideoError as error:
        if is_refused(error):
            raise RunStopped(str(stop_reason(error, video))) from error
        return _failed(job, model.number, video, error, attempt), None
    except Exception as error:  # a bug of ours must not fail the other videos
        logger.exception("finishing %s", video)
        bug = VideoError("write", Code.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        return _failed(job, model.number, video, bug, attempt), None
    return _result(job, model.number, video, len(extraction.clip), extraction), predictions


def _result(
    job: ExtractionJob, model: int, video: str, frames: int, extraction: Extraction | None = None
) -> VideoResult:
    return VideoResult(video, frames, None, extraction, job.models[model].label)


def _failed(
    job: ExtractionJob, model: int, video: str, error: VideoError, attempts: int
) -> VideoResult:
    label = job.models[model].label
    return VideoResult(video, 0, Failure.of(video, error, attempts, label), model=label)
