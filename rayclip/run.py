"""A run from settings to summary: plan it, run it on a machine, report on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rayclip.actors.job import ExtractionJob
from rayclip.errors import UsageError
from rayclip.inputs.record import merge_inputs, record_inputs
from rayclip.inputs.selection import Inputs, select_all
from rayclip.inputs.videos import (
    extra_columns,
    iter_all_videos,
    iter_rows,
    iter_videos,
    range_columns,
)
from rayclip.local.machine import on_this_machine, worker_process
from rayclip.machine import Machine
from rayclip.model import exact_resize
from rayclip.model.models import ModelSpec, describe, is_for_research_only, needs_torch_to_describe
from rayclip.output.folder import FeatureFolder
from rayclip.output.open_run import FolderFormat, open_folder
from rayclip.output.run_record import run_record
from rayclip.output.safe_names import output_name
from rayclip.output.storage import model_folder
from rayclip.pipeline import on_ray
from rayclip.plan import Plan, begin, plan_files, refuse_shared_names
from rayclip.report.breaker import CircuitBreaker
from rayclip.report.display import Display
from rayclip.report.failures import FailureLog
from rayclip.report.printing import OnResult
from rayclip.report.progress import Progress
from rayclip.report.results import Summary, Tally, VideoResult
from rayclip.report.run_stats import BatchStats, RunState
from rayclip.report.summary import encoder_lines, summary_lines, summary_sentences
from rayclip.session.default_address import WITHOUT_RAY, address_for
from rayclip.settings import Settings

RESIZED_BY_PILLOW = (
    "Pillow resizes the frames, which takes several times as long: rayclip's C library is missing "
    "(install a C compiler, then rayclip again) or turned off (RAYCLIP_NO_EXTENSION)"
)


OnMachine = Callable[..., AbstractContextManager[Machine]]
DescribeModel = Callable[..., ModelSpec]  # as models.describe


@dataclass(frozen=True)
class PlannedRun:
    """What a run has to do, found before anything is started or written.

    Attributes:
        spec: the model.
        job: what to do with each video.
        plan: the videos.
        name_of: returns the name of a video in the output folder.
        folder: where features are saved; None if they are printed.
        record: content of ``run.json``.
        total_inputs: how many inputs there are, if a limit leaves some out.
    """

    spec: ModelSpec
    job: ExtractionJob
    plan: Plan
    name_of: Callable[[str], str]
    folder: FeatureFolder | None
    record: dict[str, object]
    total_inputs: int | None


def run_extraction(
    settings: Settings, on_result: OnResult | None = None, display: Display | None = None
) -> Summary:
    """Extract the features of all videos that have none yet.

    Args:
        settings: what to do.
        on_result: called with each result; in input order and with the arrays if they are printed
            or compared with texts.
        display: shows the run; None only shows what it waits for if nothing moves.

    Raises:
        UsageError: the settings do not fit one another, the inputs or the output folder.
        RunStopped: the run ended early; finished videos are kept.
    """
    display = display or Display(show=False)
    started = time.monotonic()
    display.phase("Reading the list of videos")
    address = address_for(settings)
    settings = replace(settings, address=address.address)
    with _machines(settings) as (on_machine, describe_model):
        if ranges := range_columns(settings):
            display.say(
                f"{settings.file_with_video_paths} has {' and '.join(ranges)}: each row is that "
                "part of its video (--ignore-ranges extracts whole videos)"
            )
        planned = plan_run(settings, describe_model)
        videos, folder = planned.plan.videos, planned.folder
        report = _Report(planned, started, display)
        if not videos:
            return report.end()
        if planned.spec.license and is_for_research_only(planned.spec.license):
            display.say(
                f"The weights of {planned.spec.model_name} are for research only: their license is "
                f"{planned.spec.license}."
            )
        if settings.verbose and not exact_resize.is_available():
            display.say(RESIZED_BY_PILLOW)
        arguments = settings, planned.spec, planned.job, videos, display.phase
        with on_machine(*arguments) as machine:
            if planned.plan.discarded:
                machine.wait_until_up()  # only then remove old features
            if folder:
                begin(planned.plan, planned.name_of, folder, planned.record)
            reason = f" ({address.reason})" if address.reason else ""
            display.say(f"{machine.description}{reason}; videos to do: {len(videos)}")
            try:
                with Progress(len(videos), machine.state, machine.stall_reason, display):
                    for result in machine.results:
                        report.add(result)
                        if on_result:
                            with display.hidden():
                                on_result(result, machine.zero_shot)
            except BaseException:
                # before the machine shuts down, which may fail if Ray is gone
                report.end(machine.state(), is_complete=False)
                raise
            state = machine.state()
            if settings.verbose or not display.is_live:
                encoders = state.encoders if state else ()
                display.say("\n".join(encoder_lines(encoders, settings.verbose)))
            return report.end(state)


def plan_run(settings: Settings, describe_model: DescribeModel = describe) -> PlannedRun:
    """Inspect the model, the inputs and the output folder; change nothing.

    Args:
        settings: what to do.
        describe_model: looks up the model, maybe in another process.

    Raises:
        UsageError: they do not fit one another.
    """
    spec = describe_model(
        settings.model_name, settings.weights, settings.storage_options, settings.activation
    )
    if settings.show_pred and not spec.has_texts:
        raise UsageError(
            f"show_pred compares frames with texts, but {spec.model_name} has no text encoder: "
            "leave show_pred out, or choose a model with texts."
        )
    inputs = Inputs(
        partial(iter_videos, settings), partial(iter_rows, settings, settings.has_extra_columns)
    )
    if settings.has_extra_columns:
        extra_columns(settings)  # refuses bad columns before anything begins
    name_of: Callable[[str], str] = partial(output_name, naming=settings.naming)
    if settings.keep_tmp_files and (not settings.saves or settings.has_extra_columns):
        refuse_shared_names(inputs, name_of)  # otherwise plan_files does, if needed
    folder, record = None, run_record(settings, spec)
    if settings.saves:
        url = model_folder(settings.output_path, settings.model_name)
        form = FolderFormat(
            spec.dim, settings.on_extraction, settings.feature_dtype, settings.naming
        )
        folder = open_folder(url, form, settings.storage_options)
        name_of = folder.name_of
        plan = plan_files(inputs, name_of, folder, record, settings.overwrite)
    else:
        plan = Plan(select_all(inputs))
    total_inputs = None
    if settings.limit is not None:
        count = sum(1 for _ in iter_all_videos(settings))
        total_inputs = count if count > settings.limit else None
    reencoded = _tmp_folder(settings) if settings.keep_tmp_files else None
    job = ExtractionJob.of(settings, spec, folder, reencoded)
    earlier = (folder.read_run() or {}).get("inputs") if folder else None
    record["inputs"] = merge_inputs(earlier, record_inputs(settings, job.folder_of_inputs))
    return PlannedRun(spec, job, plan, name_of, folder, record, total_inputs)


class _Report:
    """Counts and logs the results of a run, and stops the run if it is hopeless."""

    def __init__(self, planned: PlannedRun, started: float, display: Display) -> None:
        self._started = started
        self._display = display
        self._total_inputs = planned.total_inputs
        folder, done, name_of = planned.folder, planned.plan.done, planned.name_of
        self._tally = Tally(planned.plan.skipped, folder.url if folder else None)
        self._failures = None
        if folder and done is not None:
            if done.incomplete:
                display.say(
                    f"incomplete, so not counted as done: {done.incomplete} {folder.unit}(s) in "
                    f"{folder.url}"
                )
            folder.remove(done.stale_tmp)
            self._failures = FailureLog(folder, lambda video: name_of(video) in done)
        self._breaker = CircuitBreaker(self._failures.failed_before if self._failures else {})

    def add(self, result: VideoResult) -> None:
        """Count a result.

        Raises:
            RunStopped: nearly everything fails, or failures cannot be written.
        """
        self._tally.add(result)
        if self._failures:
            self._failures.add(result)
        self._breaker.add(result)

    def end(self, state: RunState | None = None, is_complete: bool = True) -> Summary:
        """Show the summary, and write the failures.

        Args:
            state: of the machine; if the run ends early, results are missing, but the state counts
                them.
            is_complete: whether all results have come. Otherwise, nothing is estimated from them.
        """
        encoders = state.encoders if state and is_complete else ()
        if state:
            self._tally.report(state.done, state.frames)
        encoding_s = max((stats.wall_s for stats in encoders), default=0.0)
        summary = self._tally.summary(
            time.monotonic() - self._started, self._total_inputs, encoding_s
        )
        lines = (
            summary_sentences(summary, sum(encoders, BatchStats()))
            if self._display.is_live
            else summary_lines(summary)
        )
        self._display.say("\n".join(lines))
        if self._failures:
            self._failures.write()
        return summary


@contextmanager
def _machines(settings: Settings) -> Iterator[tuple[OnMachine, DescribeModel]]:
    """Choose the machine, and who looks up the model. Without Ray, the machine's process starts
    now, while the run is planned."""
    if settings.address != WITHOUT_RAY:
        yield on_ray, describe
        return
    with worker_process() as worker:
        in_worker = needs_torch_to_describe(settings.model_name)
        yield partial(on_this_machine, worker), worker.describe if in_worker else describe


def _tmp_folder(settings: Settings) -> str:
    """Create the folder for re-encoded videos, laid out like the output folder."""
    folder = model_folder(os.path.abspath(settings.tmp_path), settings.model_name)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The tmp_path {settings.tmp_path} cannot be used: {error}.") from error
    return folder
