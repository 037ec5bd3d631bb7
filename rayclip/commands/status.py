"""What an output folder says of the run that fills it, while that goes on or afterwards."""

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
from rayclip.report.progress import duration
from rayclip.settings import Settings


@dataclass(frozen=True)
class Listed:
    """How many different videos of a list there are, and how many are neither done nor failed."""

    videos: int
    left: int


@dataclass(frozen=True)
class Status:
    """How far the features of one model are.

    Attributes:
        done: videos that are complete.
        frames: of all of these.
        incomplete: files of features that are damaged, or do not go with the files beside them.
        others: features files that have another suffix.
        failed: videos that failed, by code.
        recent: what was finished lately.
        listed: what is left of the list; None where none was given.
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
    """Write what every model folder of an ``output_path`` holds.

    Args:
        output_path: of a run, or one of the model folders in it.
        settings: names the list of videos and holds ``storage_options``.
        has_list: whether there is a list.
        with_verify: open every file.
        out: takes the lines.

    Returns:
        Whether files were found damaged.

    Raises:
        UsageError: there is no such folder, or the list cannot be read.
    """
    are_damaged = False
    for url in model_folders(output_path, settings.storage_options):
        recorded = open_run(url, settings.storage_options)
        status = status_of(recorded, settings if has_list else None, time.time())
        print("\n".join([shown(url), *status_lines(status, recorded)]), file=out, flush=True)
        if with_verify:
            are_damaged |= _show_damage(recorded, out)
    return are_damaged


def status_of(recorded: RecordedRun, settings: Settings | None, now: float) -> Status:
    """Look at one folder.

    Args:
        recorded: the folder.
        settings: names the list of videos; None where there is none.
        now: seconds since 1970.
    """
    folder = recorded.folder
    recent = Recent(folder.estimate_work, now, folder.modified(RUN_FILE))
    done = folder.done(recent.noting(folder.files()))
    failed: Counter[str] = Counter()
    failed_names = array("Q")
    for failure in folder.read_failures():
        name = folder.name_of(failure["video"])
        if name not in done:  # else it has succeeded since
            failed[str(failure.get("code"))] += 1
            failed_names.append(name_hash(name))
    listed = None
    if settings is not None:
        names = array("Q", (name_hash(folder.name_of(video)) for video in iter_videos(settings)))
        listed = _listed(_hashes(names), done, _hashes(failed_names))
    return Status(len(done), done.frames, done.incomplete, done.others, failed, recent, listed)


def status_lines(status: Status, recorded: RecordedRun) -> list[str]:
    """A status in words."""
    lines = [f"done      {_count(status.done, 'video')}, {_count(status.frames, 'frame')}"]
    if status.incomplete:
        lines.append(
            f"not whole {_count(status.incomplete, recorded.folder.unit)}: the same command makes "
            "again what was there"
        )
    if status.others:
        lines.append(
            f"others    {_count(status.others, recorded.folder.unit)} of another suffix than those "
            "that the last run made"
        )
    codes = ", ".join(f"{code} {count:,}" for code, count in status.failed.most_common())
    lines.append(f"failed    {status.failed.total():,}{f': {codes}' if codes else ''}")
    rate = status.recent.rate()
    if status.listed is not None:
        lines.append(_left(status.listed, rate))
    lines.append(f"rate      {_rate(status.recent, rate)}")
    run = recorded.run
    said = {name: value for name, value in run.items() if name != "versions" and value is not None}
    words = [f"{name}={value}" for name, value in said.items()]
    lines.append(f"settings  {shown(' '.join(words))}")
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        made = [f"{name} {version}" for name, version in versions.items() if version]
        lines.append(f"made with {shown(', '.join(made))}")
    return [f"  {line}" for line in lines]


def _show_damage(recorded: RecordedRun, out: TextIO) -> bool:
    videos = damaged = 0
    for damage in recorded.folder.verify():
        videos += 1
        if damage is not None:
            damaged += 1
            where = shown(f"{recorded.folder.url}/{damage.file}")
            print(f"  damaged   {where}: {damage.reason}", file=out, flush=True)
    words = f"{_count(videos, 'video')} opened, {damaged:,} damaged"
    if damaged:
        words += ": remove these files and run the same command again"
    print(f"  verified  {words}", file=out, flush=True)
    return damaged > 0


def _listed(names: NDArray[np.uint64], done: DoneVideos, failed: NDArray[np.uint64]) -> Listed:
    names = np.unique(names)
    left = ~np.isin(names, done.hashes, assume_unique=True) & ~np.isin(names, failed)
    return Listed(len(names), int(np.count_nonzero(left)))


def _hashes(values: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64)


def _left(listed: Listed, rate: Rate | None) -> str:
    words = f"left      {listed.left:,} of {_count(listed.videos, 'video')} listed"
    if rate is not None and listed.left:
        words += f", about {duration(listed.left * rate.seconds / rate.videos)} at this rate"
    return words


def _rate(recent: Recent, rate: Rate | None) -> str:
    if recent.newest is None:
        return "unknown: nothing done, or a storage that does not tell when they were written"
    last = f"the last video was finished {duration(max(0.0, recent.now - recent.newest))} ago"
    if rate is None:
        return last
    return (
        f"{rate.videos / rate.seconds * 60:.1f} videos a minute, "
        f"{rate.frames / rate.seconds:.1f} frames/s over the last {duration(rate.seconds)}; {last}"
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
