"""The whole machine on one page: list the videos, map them to features, sink the results."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayclip.actors.batch_stats import BatchStats
from rayclip.actors.batcher import Batcher
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, FirstAttempts
from rayclip.awaiting import at_work, awaited
from rayclip.breaker import CircuitBreaker
from rayclip.devices import device_here, device_on_ray
from rayclip.errors import RunStopped, UsageError
from rayclip.failures import FailureLog
from rayclip.formats import file_format
from rayclip.inputs import iter_videos, output_name
from rayclip.messages import say_to_user
from rayclip.models import ModelSpec, describe
from rayclip.plan import Plan, begin, plan_files, refuse_shared_names
from rayclip.precision import CPU_BATCH_SIZE
from rayclip.printing import OnResult
from rayclip.progress import Counts, Progress, encoder_lines, summary_lines
from rayclip.results import Summary, Tally, VideoResult, from_table, to_table, video_column
from rayclip.run_record import run_record
from rayclip.sampling import FrameChoice
from rayclip.settings import Settings
from rayclip.storage import OutputFolder, model_folder
from rayclip.watchdog import LIBAV
from rayclip.zeroshot import ZeroShot, prompts

if TYPE_CHECKING:
    import pyarrow as pa

    from rayclip.actors.resources import EncoderResources
    from rayclip.actors.segments import Division

SEGMENT_S = 300.0  # of a long video that several tasks decode
DECODING_MEMORY = 512 * 2**20  # bytes that a decoding task asks of its node


@dataclass(frozen=True)
class Machine:
    """Videos being turned into results.

    Attributes:
        description: devices, encoders and decoding tasks, for the first line of a run.
        zero_shot: the texts that frames are compared with, where they are.
        results: one for each video, as they are finished.
        counts: how far it is; None where that cannot be told just now.
        work: what each encoder did.
        wait_until_up: returns when an encoder is up; raises RunStopped where none can start.
    """

    description: str
    zero_shot: ZeroShot | None
    results: Iterator[VideoResult]
    counts: Callable[[], Counts | None]
    work: Callable[[], Sequence[BatchStats]]
    wait_until_up: Callable[[], object]


def run_extraction(
    settings: Settings, on_result: OnResult | None = None, show: bool = True
) -> Summary:
    """Extract the features of all videos that do not have them yet.

    Args:
        settings: what to do.
        on_result: called with every result; in input order and with the arrays, where they are
            printed or compared with texts.
        show: tell on standard error what is going on.

    Raises:
        UsageError: the settings do not fit one another, the inputs or the output folder.
        RunStopped: the run ended early; what was finished is kept.
    """
    started = time.monotonic()
    spec = describe(settings.model_name, settings.weights, settings.storage_options)
    inputs = partial(iter_videos, settings)
    name_of = partial(output_name, naming=settings.naming)
    if settings.saves:
        url = model_folder(settings.output_path, settings.model_name)
        files = file_format(settings.on_extraction, settings.feature_dtype)
        nested = settings.naming == "path"
        folder = OutputFolder(url, spec.dim, settings.storage_options, files, nested)
        record = run_record(settings, spec)
        plan = plan_files(inputs, name_of, folder, record, settings.overwrite)
    else:
        folder = None
        if settings.keep_tmp_files:
            refuse_shared_names(inputs, name_of)
        plan = Plan(list(inputs()))
    job = ExtractionJob(
        n_px=spec.n_px,
        resize=settings.resize,
        choice=FrameChoice(settings.extraction_fps, settings.extraction_total),
        naming=settings.naming,
        folder=folder,
        max_attempts=settings.max_attempts,
        folder_of_inputs=os.getcwd(),
        storage_options=dict(settings.storage_options),
        reencoded=_tmp_folder(settings) if settings.keep_tmp_files else None,
    )
    tally = Tally(plan.skipped, folder.url if folder else None)
    failures = None
    if folder and plan.done is not None:
        done = plan.done
        folder.remove(done.leftovers)
        failures = FailureLog(folder, lambda video: done.frames_of(name_of(video)) is not None)
    breaker = CircuitBreaker(failures.known if failures else {})
    say = say_to_user if show else _say_nothing
    begun = not plan.videos
    try:
        if plan.videos:
            with _machine(settings, spec, job, plan.videos, tally) as machine:
                if plan.discarded:
                    machine.wait_until_up()  # before anything that was made goes
                if folder:
                    begin(plan, folder, record)
                begun = True
                say(f"{machine.description}; videos to do: {len(plan.videos)}")
                try:
                    with _progress(len(plan.videos), machine.counts, show):
                        for result in machine.results:
                            tally.add(result)
                            if failures:
                                failures.add(result)
                            if on_result:
                                on_result(result, machine.zero_shot)
                            breaker.add(result)
                except BaseException:
                    counts = machine.counts()  # of results that were still on their way, too
                    if counts:
                        tally.heard(counts.done, counts.frames)
                    raise
                say("\n".join(encoder_lines(machine.work(), settings.verbose)))
    finally:
        summary = tally.summary(time.monotonic() - started)
        if begun:
            say("\n".join(summary_lines(summary)))
            if failures:
                failures.write()
    return summary


def _machine(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: list[str], tally: Tally
) -> AbstractContextManager[Machine]:
    if settings.address == "none":
        return _in_process(settings, spec, job, videos, tally)
    return _on_ray(settings, spec, job, videos)


@contextmanager
def _in_process(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: list[str], tally: Tally
) -> Iterator[Machine]:
    """Decode on this thread and encode on another; the model is loaded meanwhile."""
    from rayclip.actors.encoder import EncoderSettings, load_encoder_model, zero_shot_of
    from rayclip.clip_model import ClipModel

    device = device_here(settings.device)
    encoder = EncoderSettings(
        spec, device, settings.batch_size, None, settings.precision, settings.compile
    )
    batcher = Batcher(partial(load_encoder_model, encoder))
    attempts = FirstAttempts()
    if settings.show_pred:
        model = batcher.ready.result()
        assert isinstance(model, ClipModel)
        job = replace(job, zero_shot=zero_shot_of(model, prompts(settings.pred_texts or None)))
    yield Machine(
        f"{spec.model_name} on {device}, without Ray",
        job.zero_shot,
        VideoExtractor(job, batcher, attempts).run(videos),
        lambda: _counts_here(tally, batcher, attempts),
        lambda: [batcher.stats],
        batcher.ready.result,
    )
    batcher.close()  # not after an error: that would wait for all that is queued


@contextmanager
def _on_ray(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: list[str]
) -> Iterator[Machine]:
    """Videos are rows of Ray Data; their frames go straight from decoding tasks to encoders."""
    from rayclip.ray_session import ray_session

    with ray_session(settings.address, settings.device, settings.verbose) as private:
        import ray

        from rayclip.actors.client import ask_pool
        from rayclip.actors.encoder import EncoderSettings
        from rayclip.actors.pool import start_pool

        device, resources = device_on_ray(settings, private)
        batch_size: int | str | None = settings.batch_size
        if batch_size is None:  # each encoder looks at its own device, and CPUs are all alike
            batch_size = CPU_BATCH_SIZE if device == "cpu" else "by GPU memory"
        encoder = EncoderSettings(
            spec,
            device,
            settings.batch_size,
            resources.threads,
            settings.precision,
            settings.compile,
        )
        content = None
        if spec.checkpoint is not None and not private:  # a file of this node travels along
            content = Path(spec.checkpoint).read_bytes()
        pool = start_pool(encoder, resources, content)
        tasks = resources.decoding_tasks(ray.cluster_resources().get("CPU", 1))
        try:
            if settings.show_pred:
                texts = prompts(settings.pred_texts or None)
                job = replace(job, zero_shot=ask_pool(pool.zero_shot.remote(texts)))
            yield Machine(
                f"{spec.model_name} on {device}; encoders: {resources.encoders}, "
                f"batch size: {batch_size}, decoding tasks at once: {tasks}",
                job.zero_shot,
                _dataset_results(settings, spec, job, videos, pool, resources, tasks),
                lambda: _counts_on_ray(pool, resources),
                lambda: ray.get(pool.state.remote()).encoders,
                lambda: ask_pool(pool.encoders.remote()),
            )
        finally:
            ray.kill(pool)  # its encoders are released with it


def _dataset_results(
    settings: Settings,
    spec: ModelSpec,
    job: ExtractionJob,
    videos: list[str],
    pool: Any,
    resources: EncoderResources,
    tasks: int,
) -> Iterator[VideoResult]:
    """list -> map, as one Ray Data pipeline of one row for each video."""
    import pyarrow as pa
    import ray.data

    from rayclip.actors.resources import videos_per_task
    from rayclip.actors.segments import Division

    # Long videos are divided among tasks like those of the step.
    division = Division(SEGMENT_S, tasks, resources.decoding_cpus, DECODING_MEMORY)

    # 1. The list: one row for each video.
    dataset: ray.data.Dataset = ray.data.from_arrow(pa.table({"video": video_column(videos)}))

    # 2. Groups: a block becomes a task, and whatever the list came in, the work is shared out.
    rows = videos_per_task(len(videos), tasks)
    dataset = dataset.repartition(target_num_rows_per_block=rows)

    # 3. The step: one CPU decodes, and the frames leave by actor calls, never as blocks.
    step: Any = extract_group
    dataset = dataset.map_batches(
        step,
        fn_kwargs={"job": job, "pool": pool, "division": division, "dim": spec.dim},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=division.cpus,
        memory=division.memory,
    )

    if not settings.verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # our own sentence will do
    options = dataset.context
    options.enable_progress_bars = False
    options.execution_no_progress_timeout_s = -1  # a long video is one quiet task
    options.execution_options.preserve_order = not settings.saves or settings.show_pred
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from from_table(table)
    except ray.exceptions.RayError as error:
        raise RunStopped(_why_it_stopped(pool, error)) from error


def extract_group(
    table: pa.Table, *, job: ExtractionJob, pool: Any, division: Division, dim: int
) -> pa.Table:
    """The step of the pipeline, in a decoding task.

    Input: rows with ``video``. Output: one row for each, in order, in ``result_schema(dim)``.
    """
    from rayclip.actors.client import RemoteAttempts, RemoteEncoders
    from rayclip.actors.segments import RemoteSegments

    videos = map(os.fsdecode, table.column("video").to_pylist())
    with RemoteAttempts(pool) as attempts:
        segments = RemoteSegments(job, pool, division)
        extractor = VideoExtractor(job, RemoteEncoders(pool), attempts, segments, LIBAV.watching)
        return to_table(extractor.run(videos), dim)


def _counts_here(tally: Tally, batcher: Batcher, attempts: FirstAttempts) -> Counts:
    work = batcher.stats
    if not batcher.ready.done():
        why = "the model is being loaded"
    elif attempts.busy is None:
        why = "no video is begun yet"
    else:
        video, since = attempts.busy
        why = at_work(video, time.monotonic() - since, batcher.waiting)
    failed = len(tally.failed)
    return Counts(tally.done, failed, tally.frames, work.frames, work.notes, why)


def _counts_on_ray(pool: Any, resources: EncoderResources) -> Counts | None:
    import ray

    try:
        state = ray.get(pool.state.remote(), timeout=5)
        why = awaited(state, resources, ray.available_resources())
    except ray.exceptions.RayError:  # it is starting, busy or gone; the results will tell
        return None
    work = sum(state.encoders, BatchStats())
    return Counts(state.done, state.failed, state.frames, work.frames, work.notes, why)


def _why_it_stopped(pool: Any, error: Exception) -> str:
    """What the step told the control actor; Ray's exceptions do not carry it."""
    import ray

    try:
        reason: str | None = ray.get(pool.stop_reason.remote(), timeout=5)
    except ray.exceptions.RayError:
        reason = "The control actor of the run died."
    return reason or f"The run stopped: {type(error).__name__}: {str(error).strip()}"


def _tmp_folder(settings: Settings) -> str:
    """Where re-encoded videos are kept, laid out like the output folder."""
    folder = model_folder(os.path.abspath(settings.tmp_path), settings.model_name)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The tmp_path {settings.tmp_path} cannot be used: {error}.") from error
    return folder


def _progress(
    total: int, counts: Callable[[], Counts | None], show: bool
) -> AbstractContextManager[object]:
    return Progress(total, counts) if show else nullcontext()


def _say_nothing(text: str) -> None:
    pass
