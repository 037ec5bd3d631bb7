"""``rayclip status``: the state of an output folder, during or after a run."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from rayclip.commands.recent import Rate, Recent
from rayclip.console import shown
from rayclip.inputs.videos import iter_videos
from rayclip.output.done import DoneVideos, name_hash
from rayclip.output.folder import RUN_FILE
from rayclip.output.open_run import RecordedRun, model_folders, open_run
from rayclip.report.progress_words import duration
from rayclip.settings import Settings


@dataclass(frozen=True)
class Listed:
    """The number of distinct videos in a list, and of those that are neither done nor failed."""

    videos: int
    remaining: int


@dataclass(frozen=True)
class Status:
    """The state of one model's folder.

    Attributes:
        done: number of complete videos.
        frames: number of frames of these videos.
        incomplete: feature files that are truncated or do not match their companion files.
        others: feature files with another suffix.
        failed: number of failed videos, by code.
        recent: the files written recently.
        listed: the remaining videos of the list; None without a list.
    """

    done: int
    frames: int
    incomplete: int
    others: int
    failed: Counter[str]
    recent: Recent
    listed: Listed | None


def show_status(
    output_path: str, settings: Settings, has_list: bool, with_verify: bool, out: TextIO
) -> bool:
    """Write the state of every model folder of an ``output_path``.

    Args:
        output_path: the output folder of a run, or one of the model folders in it.
        settings: names the list of videos and holds ``storage_options``.
        has_list: whether a list is given.
        with_verify: whether to open every file.
        out: receives the lines.

    Returns:
        Whether damaged files were found.

    Raises:
        UsageError: the folder does not exist, or the list cannot be read.
    """
    are_damaged = False
    for url in model_folders(output_path, settings.storage_options):
        recorded = open_run(url, settings.storage_options)
        status = read_status(recorded, settings if has_list else None, time.time())
        print("\n".join([shown(url), *status_lines(status, recorded)]), file=out, flush=True)
        if with_verify:
            are_damaged |= _show_damage(recorded, out)
    return are_damaged


def read_status(recorded: RecordedRun, settings: Settings | None, now: float) -> Status:
    """Read the state of one folder.

    Args:
        recorded: the folder.
        settings: names the list of videos; None without a list.
        now: seconds since 1970.
    """
    folder = recorded.folder
    recent = Recent(folder.estimate_work, now, folder.modified(RUN_FILE))
    done = folder.done(recent.tracking(folder.files()))
    failed: Counter[str] = Counter()
    failed_names = array("Q")
    for failure in folder.read_failures():
        name = folder.name_of(failure["video"])
        if name not in done:  # otherwise it has succeeded since
            failed[str(failure.get("code"))] += 1
            failed_names.append(name_hash(name))
    listed = None
    if settings is not None:
        names = array("Q", (name_hash(folder.name_of(video)) for video in iter_videos(settings)))
        listed = _count_listed(_hashes(names), done, _hashes(failed_names))
    return Status(len(done), done.frames, done.incomplete, done.others, failed, recent, listed)


def status_lines(status: Status, recorded: RecordedRun) -> list[str]:
    """A status as lines of text."""
    lines = [("done", f"{_count(status.done, 'video')}, {_count(status.frames, 'frame')}")]
    if status.incomplete:
        files = _count(status.incomplete, recorded.folder.unit)
        lines.append(("incomplete", f"{files}: rerun the same command to replace what is missing"))
    if status.others:
        files = _count(status.others, recorded.folder.unit)
        lines.append(("others", f"{files} with another suffix than the last run's"))
    codes = ", ".join(f"{code} {count:,}" for code, count in status.failed.most_common())
    lines.append(("failed", f"{status.failed.total():,}{f': {codes}' if codes else ''}"))
    rate = status.recent.rate()
    if status.listed is not None:
        lines.append(("left", _remaining(status.listed, rate)))
    lines.append(("rate", _rate(status.recent, rate)))
    run = recorded.run
    settings = [
        f"{name}={value}" for name, value in run.items() if name != "versions" and value is not None
    ]
    lines.append(("settings", shown(" ".join(settings))))
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        packages = [f"{name} {version}" for name, version in versions.items() if version]
        lines.append(("made with", shown(", ".join(packages))))
    return [_line(label, text) for label, text in lines]


def _show_damage(recorded: RecordedRun, out: TextIO) -> bool:
    videos = damaged = 0
    for damage in recorded.folder.verify():
        videos += 1
        if damage is not None:
            damaged += 1
            file = shown(f"{recorded.folder.url}/{damage.file}")
            print(_line("damaged", f"{file}: {damage.reason}"), file=out, flush=True)
    text = f"{_count(videos, 'video')} opened, {damaged:,} damaged"
    if damaged:
        text += ": remove these files and rerun the same command"
    print(_line("verified", text), file=out, flush=True)
    return damaged > 0


def _line(label: str, text: str) -> str:
    return f"  {label:<10} {text}"


def _count_listed(
    names: NDArray[np.uint64], done: DoneVideos, failed: NDArray[np.uint64]
) -> Listed:
    names = np.unique(names)
    remaining = ~np.isin(names, done.hashes, assume_unique=True) & ~np.isin(names, failed)
    return Listed(len(names), int(np.count_nonzero(remaining)))


def _hashes(values: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64)


def _remaining(listed: Listed, rate: Rate | None) -> str:
    text = f"{listed.remaining:,} of {_count(listed.videos, 'video')} listed"
    if rate is not None and listed.remaining:
        text += f", about {duration(listed.remaining * rate.seconds / rate.videos)} at this rate"
    return text


def _rate(recent: Recent, rate: Rate | None) -> str:
    if recent.newest is None:
        return "unknown: nothing is done, or the storage reports no modification times"
    last = f"the last video was finished {duration(max(0.0, recent.now - recent.newest))} ago"
    if rate is None:
        return last
    return (
        f"{rate.videos / rate.seconds * 60:.1f} videos a minute, "
        f"{rate.frames / rate.seconds:.1f} frames/s over the last {duration(rate.seconds)}; {last}"
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
