"""A run from settings to summary: what is to be done, the machine that does it, the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from rayclip.actors.job import ExtractionJob
from rayclip.errors import UsageError
from rayclip.in_process import in_process
from rayclip.inputs.selection import Inputs, Selection, every
from rayclip.inputs.videos import (
    carried_columns,
    folder_of_inputs,
    iter_all_videos,
    iter_rows,
    iter_videos,
)
from rayclip.machine import Machine
from rayclip.media.sampling import FrameChoice
from rayclip.messages import say_to_user
from rayclip.model.models import ModelSpec, describe
from rayclip.output.recorded import Form, open_folder
from rayclip.output.run_record import run_record
from rayclip.output.safe_names import output_name
from rayclip.output.storage import model_folder
from rayclip.pipeline import on_ray
from rayclip.plan import Plan, begin, plan_files, refuse_shared_names
from rayclip.report.batch_stats import BatchStats
from rayclip.report.breaker import CircuitBreaker
from rayclip.report.failures import FailureLog
from rayclip.report.printing import OnResult
from rayclip.report.progress import Progress, encoder_lines, summary_lines
from rayclip.report.results import Summary, Tally
from rayclip.settings import Settings


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
    inputs = Inputs(
        partial(iter_videos, settings), partial(iter_rows, settings, settings.carries_columns)
    )
    if settings.carries_columns:
        carried_columns(settings)  # to refuse them before anything is begun
    name_of: Callable[[str], str] = partial(output_name, naming=settings.naming)
    if settings.keep_tmp_files and (not settings.saves or settings.carries_columns):
        refuse_shared_names(inputs, name_of)  # else the plan does, where files have these names
    if settings.saves:
        url = model_folder(settings.output_path, settings.model_name)
        form = Form(spec.dim, settings.on_extraction, settings.feature_dtype, settings.naming)
        folder = open_folder(url, form, settings.storage_options)
        name_of = folder.name_of
        record = run_record(settings, spec)
        plan = plan_files(inputs, name_of, folder, record, settings.overwrite)
    else:
        folder = None
        plan = Plan(every(inputs))
    in_all = 0 if settings.limit is None else sum(1 for _ in iter_all_videos(settings))
    job = ExtractionJob(
        n_px=spec.n_px,
        resize=settings.resize,
        choice=FrameChoice(settings.extraction_fps, settings.extraction_total),
        naming=settings.naming,
        folder=folder,
        max_attempts=settings.max_attempts,
        folder_of_inputs=folder_of_inputs(settings),
        storage_options=dict(settings.storage_options),
        reencoded=_tmp_folder(settings) if settings.keep_tmp_files else None,
        feature_dtype=settings.feature_dtype if settings.saves else "float32",
    )
    tally = Tally(plan.skipped, folder.url if folder else None)
    say = say_to_user if show else _say_nothing
    failures = None
    if folder and plan.done is not None:
        done = plan.done
        if done.not_whole:
            say(f"not whole, and so not done: {done.not_whole} {folder.unit}(s) in {folder.url}")
        folder.remove(done.leftovers)
        failures = FailureLog(folder, lambda video: name_of(video) in done)
    breaker = CircuitBreaker(failures.known if failures else {})

    def end(work: Sequence[BatchStats] = ()) -> Summary:
        estimate = None
        if settings.limit is not None and in_all > settings.limit:
            estimate = tally.estimate(in_all, max((stats.wall_s for stats in work), default=0.0))
        summary = tally.summary(time.monotonic() - started, estimate)
        say("\n".join(summary_lines(summary)))
        if failures:
            failures.write()
        return summary

    if not plan.videos:
        return end()
    with _machine(settings, spec, job, plan.videos, tally) as machine:
        if plan.discarded:
            machine.wait_until_up()  # before anything that was made goes
        if folder:
            begin(plan, name_of, folder, record)
        say(f"{machine.description}; videos to do: {len(plan.videos)}")
        try:
            with Progress(len(plan.videos), machine.counts, machine.awaited, show=show):
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
            end()  # before the machine is put away, which may fail where Ray is gone
            raise
        work = machine.work()
        say("\n".join(encoder_lines(work, settings.verbose)))
        return end(work)


def _machine(
    settings: Settings, spec: ModelSpec, job: ExtractionJob, videos: Selection, tally: Tally
) -> AbstractContextManager[Machine]:
    if settings.address == "none":
        return in_process(settings, spec, job, videos, tally)
    return on_ray(settings, spec, job, videos)


def _tmp_folder(settings: Settings) -> str:
    """Where re-encoded videos are kept, laid out like the output folder."""
    folder = model_folder(os.path.abspath(settings.tmp_path), settings.model_name)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The tmp_path {settings.tmp_path} cannot be used: {error}.") from error
    return folder


def _say_nothing(text: str) -> None:
    pass
