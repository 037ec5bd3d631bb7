"""A run without Ray: this process supervises one worker process, which decodes and encodes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest

from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.job import ExtractionJob
from rayclip.errors import RunStopped
from rayclip.inputs.selection import Selection
from rayclip.local.messages import (
    TAR_POSITIONS,
    EncodeTexts,
    Failed,
    Finished,
    FromWorker,
    Loaded,
    LoadModel,
    Report,
    Rows,
    Started,
    TaskEnded,
)
from rayclip.local.process import WorkerProcess
from rayclip.local.schedule import Schedule
from rayclip.local.tasks import in_order, tar_tasks, video_tasks
from rayclip.machine import Machine, ShowPhase
from rayclip.model.models import ModelSpec
from rayclip.model.zeroshot import ZeroShot, prompts
from rayclip.output.spool import FeatureSpool
from rayclip.report.results import VideoResult, frames_of
from rayclip.report.run_stats import BatchStats, RunState
from rayclip.report.stall_reason import describe_in_progress
from rayclip.session.cores import available_cores
from rayclip.session.devices import devices_here
from rayclip.session.resources import videos_per_task
from rayclip.settings import Settings

TASKS_PER_CORE = 2  # while one waits for its last features, another decodes


@contextmanager
def worker_process() -> Iterator[WorkerProcess]:
    """Start the worker process of a run, which ends with the block."""
    worker = WorkerProcess()
    try:
        worker.start()
        yield worker
    finally:
        worker.kill()


@contextmanager
def on_this_machine(
    worker: WorkerProcess,
    settings: Settings,
    specs: Sequence[ModelSpec],
    job: ExtractionJob,
    videos: Selection,
    show_phase: ShowPhase,
) -> Iterator[Machine]:
    """Run without Ray, on all cores and GPUs of this machine.

    Args:
        worker: the worker process.
        settings: what to do.
        specs: the models.
        job: what to do with each video.
        videos: the videos.
        show_phase: shows what is awaited.
    """
    show_phase(f"Loading PyTorch and the model{'s' * (len(specs) > 1)}")
    machine = LocalMachine(worker, settings, specs, job, videos)
    try:
        yield machine
    except BaseException:
        worker.end()
        raise


class LocalMachine:
    """A run in a worker process, which is started again whenever it dies.

    One thread may use it, except for :meth:`state` and :meth:`stall_reason`.
    """

    zero_shot: ZeroShot | None = None
    results: Iterator[VideoResult]

    def __init__(
        self,
        worker: WorkerProcess,
        settings: Settings,
        specs: Sequence[ModelSpec],
        job: ExtractionJob,
        videos: Selection,
    ) -> None:
        """Start loading the models, and encode the texts if there are any.

        Raises:
            RunStopped: a model cannot be loaded.
            UsageError: a text is too long.
        """
        self._worker = worker
        self._job = job
        self._load: LoadModel | None = None
        self._is_up = False
        self._done = self._failed = self._frames = self._ended_tars = 0
        self._earlier: tuple[BatchStats, ...] = ()  # of dead processes
        self._report, self._reported_s = Report((), (), None), 0.0
        self._spools: dict[tuple[int, int], FeatureSpool] = {}
        cores = available_cores()
        with_arrays = not settings.saves or settings.show_pred  # for the user, in input order
        at_once = TASKS_PER_CORE * cores
        if job.of_tars:
            tasks, positions = tar_tasks(videos), TAR_POSITIONS
        else:
            positions = videos_per_task(len(videos), cores, with_arrays)
            tasks = video_tasks(videos, positions)
        max_ahead = 2 * at_once * positions if with_arrays else None
        self._schedule = Schedule(tasks, at_once, max_ahead)
        while not isinstance(started := self._receive(), Started):
            pass
        devices = devices_here(settings.device, started.gpus)[: settings.encoders]
        threads = cores if devices == ["cpu"] else None
        encoders = [
            [EncoderSettings.of(settings, spec, device, threads) for spec in specs]
            for device in devices
        ]
        names = ", ".join(spec.model_name for spec in specs)
        self.description = (
            f"{names} on {', '.join(devices)}; decoding threads: {cores}; without Ray"
        )
        self._load = LoadModel(encoders, cores, at_once)
        self._prepare_worker()
        if settings.show_pred:
            self.zero_shot = self._encode(prompts(settings.pred_texts or None))
            self._job = replace(job, zero_shot=self.zero_shot)
            self._worker.send(self._job)
        results = self._results()
        if with_arrays:
            ordered = in_order(results, TAR_POSITIONS if job.of_tars else 1)
            self.results = (result for video in ordered for result in video)
        else:
            self.results = (result for _, video in results for result in video)

    def state(self) -> RunState:
        report = self._report
        return RunState(
            self._done,
            self._failed,
            self._frames,
            _added(self._earlier, report.encoders),
            report.waiting,
            placed=1,
            up=int(self._is_up),
            ended_tars=self._ended_tars,
        )

    def stall_reason(self) -> str:
        if not self._is_up:
            return "the model is being loaded"
        report, age_s = self._report, time.monotonic() - self._reported_s
        if report.oldest is None:
            return "no video has begun yet"
        video, seconds = report.oldest
        return describe_in_progress(video, seconds + age_s, sum(report.waiting))

    def wait_until_up(self) -> None:
        while not self._is_up:
            self._receive()

    def _encode(self, texts: tuple[str, ...]) -> ZeroShot:
        while True:
            self.wait_until_up()
            self._worker.send(EncodeTexts(texts))
            while self._is_up:
                message = self._receive()
                if isinstance(message, ZeroShot):
                    return message

    def _results(self) -> Iterator[tuple[int, list[VideoResult]]]:
        """Hand out tasks, and yield the results of videos with their positions as they arrive."""
        while not self._schedule.is_done:
            while self._is_up and (task := self._schedule.next_task()):
                self._worker.send(task)
            message = self._receive()
            if isinstance(message, Rows):
                self._keep(message)
            elif isinstance(message, Finished):
                results = self._with_rows(message)
                if self._schedule.finish(message.position):
                    self._count(results)
                    yield message.position, results

    def _receive(self) -> FromWorker | None:
        """Wait for a message; None if the worker had to be started again."""
        message = self._worker.receive()
        match message:
            case None:
                self._restart()
            case Failed(error):
                raise error
            case Loaded():
                self._is_up = True
            case Report():
                self._report, self._reported_s = message, time.monotonic()
            case TaskEnded(start):
                self._schedule.end_task(start)
        return message

    def _restart(self) -> None:
        self._is_up = False
        self._earlier = _added(self._earlier, self._report.encoders)
        self._report = Report((), (), None)
        self._spools.clear()
        self._schedule.reschedule(self._worker.kill())
        self._worker.start()
        if self._load is not None:
            self._load = replace(self._load, is_restart=True)
            self._prepare_worker()

    def _prepare_worker(self) -> None:
        assert self._load is not None
        self._worker.send(self._load)
        self._worker.send(self._job)

    def _keep(self, rows: Rows) -> None:
        try:
            self._spools.setdefault((rows.position, rows.model), FeatureSpool()).append(
                rows.features
            )
        except OSError as error:
            raise RunStopped(
                f"The temporary file of a video's features cannot be written: {error}."
            ) from error

    def _with_rows(self, finished: Finished) -> list[VideoResult]:
        results = []
        for model, result in enumerate(finished.results):
            if result.extraction is not None:
                with self._spools.pop((finished.position, model)) as spool:
                    extraction = result.extraction._replace(clip=spool.array())
                result = replace(result, extraction=extraction)
            results.append(result)
        return results

    def _count(self, results: Sequence[VideoResult]) -> None:
        failed = any(result.failure is not None for result in results)
        is_tar = any(result.tar is not None for result in results)
        self._failed += failed
        self._done += not (failed or is_tar)
        self._ended_tars += is_tar
        self._frames += frames_of(results)


def _added(some: Iterable[BatchStats], others: Iterable[BatchStats]) -> tuple[BatchStats, ...]:
    pairs = zip_longest(some, others, fillvalue=BatchStats())
    return tuple(before + after for before, after in pairs)
