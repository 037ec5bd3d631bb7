"""A run on Ray, on one page: list the videos, map them to features, pass the results on.

The tasks that extract features also commit them to the output folder, or return them with the rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayclip.actors.job import ExtractionJob
from rayclip.console import say_to_user
from rayclip.errors import RunStopped
from rayclip.inputs.selection import Selection
from rayclip.inputs.video_rows import from_video_table
from rayclip.machine import Machine, ShowPhase
from rayclip.model.models import ModelSpec, checkpoint_contents
from rayclip.model.precision import CPU_BATCH_SIZE
from rayclip.model.zeroshot import ZeroShot, prompts
from rayclip.report.progress import SILENCE_S, TERMINAL_PERIOD_S
from rayclip.report.progress_words import awaited_stage
from rayclip.report.results import VideoResult, from_table, to_table
from rayclip.report.run_stats import RunState
from rayclip.report.stall_reason import stall_reason as stall_reason
from rayclip.session.devices import device_on_ray
from rayclip.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from rayclip.actors.segment_tasks import Division
    from rayclip.session.resources import EncoderResources

STATE_TIMEOUT_S = 5.0


class RayMachine:
    """A run on Ray as its driver sees it: the control actor knows everything else."""

    zero_shot: ZeroShot | None = None
    results: Iterator[VideoResult]

    def __init__(
        self,
        control: Any,
        resources: EncoderResources,
        description: str,
        show_phase: ShowPhase,
    ) -> None:
        self.description = description
        self._control = control
        self._resources = resources
        self._show_phase = show_phase

    def state(self) -> RunState | None:
        import ray

        try:
            state: RunState = ray.get(self._control.state.remote(), timeout=STATE_TIMEOUT_S)
        except ray.exceptions.RayError:  # it is starting, busy or dead; the results will show
            return None
        return state

    def stall_reason(self) -> str:
        import ray

        replies = [self._control.state.remote(), self._control.longest_running.remote()]
        try:
            state, longest = ray.get(replies, timeout=STATE_TIMEOUT_S)
        except ray.exceptions.RayError:
            return "the control actor does not respond"
        free, cluster = ray.available_resources(), ray.cluster_resources()
        return stall_reason(state, longest, self._resources, free, cluster)

    def wait_until_up(self) -> None:
        self.wait_for(self._control.encoders.remote())

    def wait_for(self, reply: Any) -> Any:
        """Wait for the control actor's reply, and show what is awaited while there is no progress
        yet.

        Raises:
            RunStopped: it says so, or it has died.
        """
        import ray

        from rayclip.actors.ray_calls import get_reply

        said = time.monotonic()
        while not ray.wait([reply], timeout=TERMINAL_PERIOD_S)[0]:
            state = self.state()
            if state is not None and (stage := awaited_stage(state)):
                self._show_phase(stage)
            if time.monotonic() - said >= SILENCE_S:
                said = time.monotonic()
                say_to_user(self.stall_reason())
        return get_reply(reply)


@contextmanager
def on_ray(
    settings: Settings,
    specs: Sequence[ModelSpec],
    job: ExtractionJob,
    videos: Selection,
    show_phase: ShowPhase,
) -> Iterator[Machine]:
    """Run on Ray: videos are rows of Ray Data, and frames go straight from decoding tasks to
    encoders.

    Args:
        settings: what to do.
        specs: the models.
        job: what to do with each video.
        videos: the inputs.
        show_phase: receives what is awaited next, until the block begins.
    """
    from rayclip.session.ray_session import ray_session

    show_phase("Starting Ray")
    with ray_session(settings.address, settings.device, settings.verbose) as private:
        import ray

        from rayclip.actors.control_actor import IDLE_S, start_control_actor
        from rayclip.actors.encoder import EncoderSettings
        from rayclip.actors.preflight import check_nodes

        device, resources = device_on_ray(settings, private)
        if not private:  # other machines may lack something
            show_phase("Checking the nodes")
            check_nodes(specs, job, videos, device)
        batch_size: int | str | None = settings.batch_size
        if batch_size is None:  # each encoder checks its own GPU; all CPUs are alike
            batch_size = CPU_BATCH_SIZE if device == "cpu" else "by GPU memory"
        models = [EncoderSettings.of(settings, spec, device, resources.threads) for spec in specs]
        contents = None if private else checkpoint_contents(specs)
        # On CPUs, idle encoders may keep the tasks of another run from starting.
        idle_s = IDLE_S if device == "cpu" and not private else None
        show_phase("Starting the encoders")
        control = start_control_actor(models, resources, contents, idle_s)
        control.encoders.remote()  # starts them now
        tasks = resources.decoding_tasks(ray.cluster_resources().get("CPU", 1))
        names = ", ".join(spec.model_name for spec in specs)
        description = (
            f"{names} on {device}; encoders: {resources.encoders}, "
            f"batch size: {batch_size}, decoding tasks at once: {tasks}"
        )
        machine = RayMachine(control, resources, description, show_phase)
        try:
            blocks = _blocks(videos)  # read again, while the encoders start
            if settings.show_pred:
                texts = prompts(settings.pred_texts or None)
                machine.zero_shot = machine.wait_for(control.zero_shot.remote(texts))
                job = replace(job, zero_shot=machine.zero_shot)
            results = _dataset_results(
                settings, specs, job, blocks, len(videos), control, resources, tasks
            )
            with closing(results):  # otherwise Ray Data goes on and starts another Ray
                machine.results = results
                yield machine
        finally:
            ray.kill(control)  # its encoders end with it


def _dataset_results(
    settings: Settings,
    specs: Sequence[ModelSpec],
    job: ExtractionJob,
    blocks: list[Any],
    videos: int,
    control: Any,
    resources: EncoderResources,
    tasks: int,
) -> Generator[VideoResult]:
    """Run the Ray Data pipeline of one row per video, and yield its results: one row for each model
    that lacked the video."""
    import ray.data

    from rayclip.actors.segment_tasks import division_for
    from rayclip.session.resources import planned_tasks, videos_per_task

    with_arrays = not settings.saves or settings.show_pred  # for the user, in input order

    # Long videos are divided among as many tasks.
    tasks = planned_tasks(tasks, grows=resources.exceeds(ray.cluster_resources()))
    division = division_for(tasks)

    # 1. List: one row per video, in blocks that nodes can fetch independently.
    dataset: ray.data.Dataset = ray.data.from_arrow_refs(blocks)

    # 2. Repartition: each block becomes a task, however the list was stored.
    rows = 1 if job.of_tars else videos_per_task(videos, tasks, with_arrays)
    dataset = dataset.repartition(target_num_rows_per_block=rows)

    # 3. Map: each task decodes on one CPU and sends frames by actor calls, never as blocks.
    dims = {spec.dim for spec in specs}
    dim = dims.pop() if len(dims) == 1 else None
    step: Any = extract_rows
    dataset = dataset.map_batches(
        step,
        fn_kwargs={"job": job, "control": control, "division": division, "dim": dim},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        memory=division.memory,
    )

    if not settings.verbose:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # rayclip prints its own error
    options = dataset.context
    options.enable_progress_bars = False
    options.execution_no_progress_timeout_s = -1  # a long video is one quiet task
    options.execution_options.preserve_order = with_arrays
    try:
        # Prefetching would hold back the results of three blocks, which may be hours of video.
        for table in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            yield from from_table(table)
    except ray.exceptions.RayError as error:
        raise RunStopped(_stop_reason(control, error)) from error


def _stop_reason(control: Any, error: Exception) -> str:
    """Return the reason that a task gave the control actor; Ray's exceptions do not carry it."""
    import ray

    try:
        reason: str | None = ray.get(control.stop_reason.remote(), timeout=STATE_TIMEOUT_S)
    except ray.exceptions.RayError:
        reason = "The control actor of the run died."
    return reason or f"The run stopped: {type(error).__name__}: {str(error).strip()}"


def _blocks(videos: Selection) -> list[Any]:
    """Put the list into Ray's object store, block by block; the driver keeps none of it."""
    import ray

    return [ray.put(block) for block in videos.blocks()]


def extract_rows(
    table: pa.Table, *, job: ExtractionJob, control: Any, division: Division, dim: int | None
) -> pa.Table:
    """Run the map step, in a decoding task.

    Args:
        table: rows with ``video``, and further columns for shards; one row if it is a tar file.
        job: what to do with each video.
        control: the control actor.
        division: how long videos are divided.
        dim: features per frame; None if the models differ in it.

    Returns:
        One row for each and each of its models, in order, in ``result_schema(dim)``.
    """
    from rayclip.actors.decode_task import extract_tar_file, extract_videos

    rows = from_video_table(table)
    if job.of_tars:
        return to_table(extract_tar_file(rows, job, control), dim)
    return to_table(extract_videos(rows.names, job.videos(*rows), job, control, division), dim)
