"""A run without Ray: one process decodes on one thread and encodes on others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from rayclip.actors.batcher import Batcher
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, LocalAttempts
from rayclip.inputs.selection import Selection
from rayclip.inputs.video_rows import from_video_table
from rayclip.machine import Machine
from rayclip.model.models import ModelSpec
from rayclip.model.zeroshot import ZeroShot, prompts
from rayclip.report.results import VideoResult
from rayclip.report.run_stats import RunState
from rayclip.report.stall_reason import describe_in_progress
from rayclip.session.devices import device_here
from rayclip.settings import Settings

VIDEOS_PER_TASK = 1024  # at the end of each task, the encoder idles for a moment


class LocalMachine:
    """A run in this process."""

    zero_shot: ZeroShot | None = None
    results: Iterator[VideoResult]

    def __init__(self, batcher: Batcher, attempts: LocalAttempts, description: str) -> None:
        self.description = description
        self._batcher = batcher
        self._attempts = attempts

    def state(self) -> RunState:
        batcher, attempts = self._batcher, self._attempts
        return RunState(
            attempts.done,
            attempts.failed,
            attempts.frames,
            (batcher.stats,),
            (batcher.waiting,),
            placed=1,
            up=int(batcher.ready.done()),
        )

    def stall_reason(self) -> str:
        if not self._batcher.ready.done():
            return "the model is being loaded"
        if self._attempts.in_progress is None:
            return "no video has begun yet"
        video, started = self._attempts.in_progress
        return describe_in_progress(video, time.monotonic() - started, self._batcher.waiting)

    def wait_until_up(self) -> None:
        self._batcher.ready.result()


@contextmanager
def in_process(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: Selection
) -> Iterator[Machine]:
    """Run in this process: decode on this thread and encode on others, while the model loads."""
    from rayclip.actors.encoder import EncoderSettings, load_encoder_model, make_zero_shot
    from rayclip.model.clip_model import ClipModel

    device = device_here(settings.device)
    encoder = EncoderSettings.of(settings, spec, device)
    batcher = Batcher(partial(load_encoder_model, encoder))
    attempts = LocalAttempts()
    machine = LocalMachine(batcher, attempts, f"{spec.model_name} on {device}, without Ray")
    try:
        if settings.show_pred:
            model = batcher.ready.result()
            assert isinstance(model, ClipModel)
            machine.zero_shot = make_zero_shot(model, prompts(settings.pred_texts or None))
            job = replace(job, zero_shot=machine.zero_shot)
            del model
        machine.results = _results(VideoExtractor(job, batcher, attempts), videos)
        yield machine
    except BaseException:
        batcher.abort()
        raise
    batcher.close()


def _results(extractor: VideoExtractor, videos: Selection) -> Iterator[VideoResult]:
    for table in videos.blocks():
        for start in range(0, table.num_rows, VIDEOS_PER_TASK):
            yield from extractor.run(*from_video_table(table.slice(start, VIDEOS_PER_TASK)))
