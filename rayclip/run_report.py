"""Counts and logs the results of a run, of each model."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rayclip.actors.job import ExtractionJob
from rayclip.plan import FolderPlan, Plan
from rayclip.report.breaker import CircuitBreaker
from rayclip.report.display import Display
from rayclip.report.failures import FailureLog
from rayclip.report.results import Summary, Tally, VideoResult
from rayclip.report.run_stats import BatchStats, RunState
from rayclip.report.summary import summary_lines, summary_sentences
from rayclip.report.tar_log import TarLog


class RunReport:
    """Counts and logs the results of a run, and stops the run if it is hopeless."""

    def __init__(
        self,
        plan: Plan,
        job: ExtractionJob,
        total_inputs: int | None,
        started: float,
        display: Display,
    ) -> None:
        """Say what is incomplete in the folders of a run, and read their failures.

        Args:
            plan: of the run.
            job: of the run.
            total_inputs: how many inputs there are, if a limit leaves some out.
            started: when it started, in seconds of the monotonic clock.
            display: shows the summary.
        """
        self._started = started
        self._display = display
        self._total_inputs = total_inputs
        urls = [folder.target.folder.url for folder in plan.folders]
        failed_before = {
            failure["video"]
            for folder in plan.folders
            for tar in folder.finished_tars
            for failure in tar.failures
        }
        self._tally = Tally(plan.skipped, _common_folder(urls), len(failed_before))
        labels = [model.label for model in job.models]
        self._tars = {
            label: TarLog(folder.target.tars)
            for label, folder in zip(labels, plan.folders, strict=False)
            if folder.target.tars is not None
        }
        self._failures = {
            label: _failure_log(folder, display)
            for label, folder in zip(labels, plan.folders, strict=False)
        }
        before = {label: log.failed_before for label, log in self._failures.items()}
        self._breakers = {label: CircuitBreaker(before.get(label, {})) for label in labels}

    def add(self, result: VideoResult) -> None:
        """Count a result.

        Raises:
            RunStopped: nearly everything fails, or failures cannot be written.
        """
        self._tally.add(result)
        if self._failures:
            self._failures[result.model].add(result)
        if self._tars:
            self._tars[result.model].add(result)
        if result.tar is None or result.failure is not None:
            self._breakers[result.model].add(result)

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
        for failures in self._failures.values():
            failures.write()
        return summary


def _failure_log(planned: FolderPlan, display: Display) -> FailureLog:
    """Say what is incomplete in a folder, remove what dead runs left, and read its failures."""
    folder, done = planned.target.folder, planned.done
    if done.incomplete:
        display.say(
            f"incomplete, so not counted as done: {done.incomplete} {folder.unit}(s) in "
            f"{folder.url}"
        )
    folder.remove(done.stale_tmp)
    of_tars = [failure for tar in planned.finished_tars for failure in tar.failures]
    return FailureLog(folder, lambda video: folder.name_of(video) in done, of_tars)


def _common_folder(urls: Sequence[str]) -> str | None:
    """Return the folder of the features of a run: of its model, or that with all models'."""
    if not urls:
        return None
    return urls[0] if len(urls) == 1 else urls[0].rpartition("/")[0]
