"""The machine without Ray: one process decodes on one thread and encodes on others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from rayclip.actors.batcher import Batcher
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, FirstAttempts
from rayclip.inputs.selection import Selection
from rayclip.inputs.video_rows import from_video_table
from rayclip.machine import Machine
from rayclip.model.models import ModelSpec
from rayclip.model.zeroshot import prompts
from rayclip.report.awaiting import at_work
from rayclip.report.progress import Counts
from rayclip.report.results import Tally, VideoResult
from rayclip.session.devices import device_here
from rayclip.settings import Settings

GROUP = 1024  # videos that are taken together: at the end of each, encoders run dry for a moment


@contextmanager
def in_process(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: Selection, tally: Tally
) -> Iterator[Machine]:
    """Decode on this thread and encode on another; the model is loaded meanwhile."""
    from rayclip.actors.encoder import EncoderSettings, load_encoder_model, zero_shot_of
    from rayclip.model.clip_model import ClipModel

    device = device_here(settings.device)
    encoder = EncoderSettings(
        spec, device, settings.batch_size, None, settings.precision, settings.compile
    )
    batcher = Batcher(partial(load_encoder_model, encoder))
    attempts = FirstAttempts()
    try:
        if settings.show_pred:
            model = batcher.ready.result()
            assert isinstance(model, ClipModel)
            job = replace(job, zero_shot=zero_shot_of(model, prompts(settings.pred_texts or None)))
            del model
        yield Machine(
            f"{spec.model_name} on {device}, without Ray",
            job.zero_shot,
            _results(VideoExtractor(job, batcher, attempts), videos),
            lambda: _counts(tally, batcher),
            lambda: _awaited(batcher, attempts),
            lambda: [batcher.stats],
            batcher.ready.result,
        )
    except BaseException:
        batcher.abort()
        raise
    batcher.close()


def _results(extractor: VideoExtractor, videos: Selection) -> Iterator[VideoResult]:
    for table in videos.blocks():
        for start in range(0, table.num_rows, GROUP):
            yield from extractor.run(*from_video_table(table.slice(start, GROUP)))


def _counts(tally: Tally, batcher: Batcher) -> Counts:
    work = batcher.stats
    return Counts(tally.done, len(tally.failed), tally.frames, work.frames, work.notes)


def _awaited(batcher: Batcher, attempts: FirstAttempts) -> str:
    if not batcher.ready.done():
        return "the model is being loaded"
    if attempts.busy is None:
        return "no video is begun yet"
    video, since = attempts.busy
    return at_work(video, time.monotonic() - since, batcher.waiting)
