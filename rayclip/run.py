"""A run from settings to summary: plan it, run it on a machine, report on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rayclip.actors.job import ExtractionJob
from rayclip.errors import UsageError
from rayclip.inputs.record import merge_inputs, record_inputs
from rayclip.inputs.selection import Inputs, select_all
from rayclip.inputs.videos import (
    are_tars,
    extra_columns,
    iter_all_videos,
    iter_rows,
    iter_videos,
    range_columns,
)
from rayclip.local.machine import on_this_machine, worker_process
from rayclip.machine import Machine
from rayclip.model import exact_resize
from rayclip.model.models import (
    CustomWeights,
    ModelSpec,
    describe,
    is_for_research_only,
    needs_torch_to_describe,
)
from rayclip.output.array_folder import model_folder
from rayclip.output.finished_tars import FinishedTars
from rayclip.output.folder import FeatureFolder
from rayclip.output.open_run import FolderFormat, open_folder, recorded_revision
from rayclip.output.run_record import run_record
from rayclip.output.safe_names import output_name
from rayclip.pipeline import on_ray
from rayclip.plan import Plan, Target, begin, plan_files, refuse_shared_names
from rayclip.report.display import Display
from rayclip.report.printing import OnResult
from rayclip.report.progress import Progress
from rayclip.report.progress_words import Goal
from rayclip.report.results import Summary
from rayclip.report.summary import encoder_lines
from rayclip.run_report import RunReport
from rayclip.session.default_address import WITHOUT_RAY, address_for
from rayclip.settings import Settings

RESIZED_BY_PILLOW = (
    "Pillow resizes the frames, which takes several times as long: rayclip's C library is missing "
    "(install a C compiler, then rayclip again) or turned off (RAYCLIP_NO_EXTENSION)"
)


OnMachine = Callable[..., AbstractContextManager[Machine]]
DescribeModel = Callable[[str, CustomWeights, str | None], ModelSpec]  # as models.describe


@dataclass(frozen=True)
class PlannedRun:
    """What a run has to do, found before anything is started or written.

    Attributes:
        specs: the models.
        job: what to do with each video.
        plan: the videos, and where the features of each model are saved, unless they are printed.
        name_of: returns the name of a video in the output folders.
        total_inputs: how many inputs there are, if a limit leaves some out.
    """

    specs: list[ModelSpec]
    job: ExtractionJob
    plan: Plan
    name_of: Callable[[str], str]
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
        videos = planned.plan.videos
        report = RunReport(planned.plan, planned.job, planned.total_inputs, started, display)
        if not videos:
            return report.end()
        for spec in planned.specs:
            if spec.license and is_for_research_only(spec.license):
                display.say(
                    f"The weights of {spec.model_name} are for research only: their license is "
                    f"{spec.license}."
                )
        if settings.verbose and not exact_resize.is_available():
            display.say(RESIZED_BY_PILLOW)
        arguments = settings, planned.specs, planned.job, videos, display.phase
        with on_machine(*arguments) as machine:
            if any(folder.discarded for folder in planned.plan.folders):
                machine.wait_until_up()  # only then remove old features
            begin(planned.plan, planned.name_of)
            reason = f" ({address.reason})" if address.reason else ""
            goal = Goal(len(videos), planned.job.of_tars)
            display.say(f"{machine.description}{reason}; {goal.things} to do: {goal.total}")
            try:
                with Progress(goal, machine.state, machine.stall_reason, display):
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
    """Inspect the models, the inputs and the output folders; change nothing.

    Args:
        settings: what to do.
        describe_model: looks up the model, maybe in another process.

    Raises:
        UsageError: they do not fit one another.
    """
    custom = CustomWeights.of(settings)
    specs = [
        describe_model(name, custom, _revision(settings, name)) for name in settings.model_name
    ]
    if settings.show_pred and not specs[0].has_texts:
        raise UsageError(
            f"show_pred compares frames with texts, but {specs[0].model_name} has no text encoder: "
            "leave show_pred out, or choose a model with texts."
        )
    of_tars = are_tars(settings)
    has_extra_columns = settings.has_extra_columns and not of_tars
    inputs = Inputs(partial(iter_videos, settings), partial(iter_rows, settings, has_extra_columns))
    if has_extra_columns:
        extra_columns(settings)  # refuses bad columns before anything begins
    if of_tars and settings.keep_tmp_files:
        raise UsageError(
            "keep_tmp_files cannot re-encode the videos in tar files: leave it out, or unpack them."
        )
    name_of: Callable[[str], str] = partial(output_name, naming=settings.naming)
    if settings.keep_tmp_files and (not settings.saves or settings.has_extra_columns):
        refuse_shared_names(inputs, name_of)  # otherwise plan_files does, if needed
    folders: list[FeatureFolder] = []
    if settings.saves:
        targets = [_target(settings, spec, of_tars) for spec in specs]
        folders = [target.folder for target in targets]
        _refuse_shared_folders(specs, folders)
        tars = targets[0].tars
        name_of = tars.name_of if tars else folders[0].name_of
        plan = plan_files(inputs, name_of, targets, settings.overwrite)
    else:
        plan = Plan(select_all(inputs))
    total_inputs = None
    if settings.limit is not None and not of_tars:
        count = sum(1 for _ in iter_all_videos(settings))
        total_inputs = count if count > settings.limit else None
    reencoded = _tmp_folder(settings) if settings.keep_tmp_files else None
    job = ExtractionJob.of(settings, specs, folders, reencoded)
    if of_tars:
        folders_kept = () if settings.overwrite else plan.folders
        job = job.for_tars([planned.done.hashes for planned in folders_kept])
    now = record_inputs(settings, job.folder_of_inputs)
    for target in (planned.target for planned in plan.folders):
        before = target.folder.read_run() or {}
        target.record["inputs"] = merge_inputs(before.get("inputs"), now)
    return PlannedRun(specs, job, plan, name_of, total_inputs)


def _revision(settings: Settings, model_name: str) -> str | None:
    """Return the commit of the hub's repository that the output folder was begun with: a run goes
    on with it, though there may be a newer one."""
    if not settings.saves or settings.overwrite:
        return None
    url = model_folder(settings.output_path, model_name)
    return recorded_revision(url, settings.storage_options)


def _target(settings: Settings, spec: ModelSpec, of_tars: bool) -> Target:
    url = model_folder(settings.output_path, spec.model_name)
    saved = settings.on_extraction, settings.feature_dtype, settings.naming
    form = FolderFormat(spec.dim, *saved, of_tars)
    folder = open_folder(url, form, settings.storage_options)
    tars = FinishedTars(folder, settings.storage_options, settings.naming) if of_tars else None
    return Target(folder, run_record(settings, spec, of_tars), tars)


def _refuse_shared_folders(specs: Sequence[ModelSpec], folders: Sequence[FeatureFolder]) -> None:
    names: dict[str, str] = {}
    for spec, folder in zip(specs, folders, strict=True):
        other = names.setdefault(folder.url, spec.model_name)
        if other != spec.model_name:
            raise UsageError(
                f"{other} and {spec.model_name} would both be saved in {folder.url}: extract them "
                "with different output_paths."
            )


@contextmanager
def _machines(settings: Settings) -> Iterator[tuple[OnMachine, DescribeModel]]:
    """Choose the machine, and who looks up the models. Without Ray, the machine's process starts
    now, while the run is planned."""
    if settings.address != WITHOUT_RAY:
        yield on_ray, describe
        return
    with worker_process() as worker:

        def describe_there(
            model_name: str, custom: CustomWeights, revision: str | None
        ) -> ModelSpec:
            in_worker = needs_torch_to_describe(model_name)
            return (worker.describe if in_worker else describe)(model_name, custom, revision)

        yield partial(on_this_machine, worker), describe_there


def _tmp_folder(settings: Settings) -> str:
    """Create the folder for re-encoded videos, laid out like the output folder."""
    folder = model_folder(os.path.abspath(settings.tmp_path), settings.model_name[0])
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The tmp_path {settings.tmp_path} cannot be used: {error}.") from error
    return folder
