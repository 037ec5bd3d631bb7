"""``rayclip status``: the state of an output folder, during or after a run."""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from rayclip.commands.recent import Rate, Recent
from rayclip.console import folded, shown
from rayclip.errors import Code
from rayclip.inputs.videos import iter_videos
from rayclip.output.done import DoneVideos, name_hash
from rayclip.output.finished_tars import FinishedTars
from rayclip.output.folder import RUN_FILE
from rayclip.output.open_run import RecordedRun, model_folders, open_run
from rayclip.report.progress_words import count, duration
from rayclip.settings import Settings

LABEL_WIDTH = 11
SHOWN_DIGITS = 12  # of a SHA-256


@dataclass(frozen=True)
class Listed:
    """The number of distinct videos in a list, and of those that are neither done nor failed; of
    tar files, if they are the inputs."""

    videos: int
    remaining: int


class Verified(NamedTuple):
    """The number of videos that were opened, and the damaged files with the reasons."""

    videos: int
    damaged: list[dict[str, str]]


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
    output_path: str,
    settings: Settings,
    has_list: bool,
    with_verify: bool,
    out: TextIO,
    as_json: bool = False,
) -> bool:
    """Write the state of every model folder of an ``output_path``.

    Args:
        output_path: the output folder of a run, or one of the model folders in it.
        settings: names the list of videos and holds ``storage_options``.
        has_list: whether a list is given.
        with_verify: whether to open every file.
        out: receives the lines, folded if it is a terminal.
        as_json: write a JSON object on a line for each folder instead; docs/watching.md has its
            keys.

    Returns:
        Whether damaged files were found.

    Raises:
        UsageError: the folder does not exist, or the list cannot be read.
    """
    are_damaged = False
    for url in model_folders(output_path, settings.storage_options):
        recorded = open_run(url, settings.storage_options)
        status = read_status(recorded, settings if has_list else None, time.time())
        if as_json:
            verified = _verify(recorded) if with_verify else None
            record = json_record(url, status, recorded, verified)
            print(json.dumps(record), file=out, flush=True)
        else:
            _write("\n".join([shown(url), *status_lines(status, recorded)]), out)
            verified = _verify(recorded, out) if with_verify else None
        are_damaged |= verified is not None and bool(verified.damaged)
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
    failures = folder.read_failures()
    failed = Counter(
        str(failure.get("code"))
        for failure in failures
        if folder.name_of(failure["video"]) not in done  # otherwise it has succeeded since
        or failure.get("code") == Code.SAME_NAME
    )
    listed = None if settings is None else _count_listed(recorded, settings, done, failures)
    return Status(len(done), done.frames, done.incomplete, done.others, failed, recent, listed)


def status_lines(status: Status, recorded: RecordedRun) -> list[str]:
    """A status as lines of text."""
    run = recorded.run
    lines = [("done", f"{count(status.done, 'video')}, {count(status.frames, 'frame')}")]
    if status.incomplete:
        files = count(status.incomplete, recorded.folder.unit)
        lines.append(("incomplete", f"{files}: rerun the same command to replace what is missing"))
    if status.others:
        files = count(status.others, recorded.folder.unit)
        lines.append(("others", f"{files} with another suffix than the last run's"))
    codes = ", ".join(f"{code} {count:,}" for code, count in status.failed.most_common())
    lines.append(("failed", f"{status.failed.total():,}{f': {codes}' if codes else ''}"))
    rate = status.recent.rate()
    if status.listed is not None:
        lines.append(("left", _remaining(status.listed, rate, run.get("of_tars") is True)))
    lines.append(("rate", _rate(status.recent, rate)))
    settings = [
        f"{name}={str(value)[:SHOWN_DIGITS] if name == 'weights_sha256' else value}"
        for name, value in run.items()
        if name not in ("versions", "inputs") and value is not None
    ]
    lines.append(("settings", shown(" ".join(settings))))
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        packages = [f"{name} {version}" for name, version in versions.items() if version]
        lines.append(("made with", shown(", ".join(packages))))
    return [_line(label, text) for label, text in lines]


def json_record(
    url: str, status: Status, recorded: RecordedRun, verified: Verified | None
) -> dict[str, Any]:
    """A status as an object for JSON."""
    rate = status.recent.rate()
    return {
        "folder": url,
        "done": status.done,
        "frames": status.frames,
        "incomplete": status.incomplete,
        "others": status.others,
        "failed": dict(status.failed),
        "listed": status.listed and asdict(status.listed),
        "rate": rate and asdict(rate),
        "last_finished": status.recent.newest,
        "verified": verified and verified._asdict(),
        "run": recorded.run,
    }


def _verify(recorded: RecordedRun, out: TextIO | None = None) -> Verified:
    """Open every file; write the damaged ones as they are found, if there is a stream."""
    videos, damaged = 0, []
    for damage in recorded.folder.verify():
        videos += 1
        if damage is not None:
            file = f"{recorded.folder.url}/{damage.file}"
            damaged.append({"file": file, "reason": damage.reason})
            if out is not None:
                _write(_line("damaged", f"{shown(file)}: {damage.reason}"), out)
    if out is not None:
        text = f"{count(videos, 'video')} opened, {len(damaged):,} damaged"
        if damaged:
            text += ": remove these files and rerun the same command"
        _write(_line("verified", text), out)
    return Verified(videos, damaged)


def _write(text: str, out: TextIO) -> None:
    print(folded(text, out, indent=" " * LABEL_WIDTH), file=out, flush=True)


def _line(label: str, text: str) -> str:
    return f"  {label:<{LABEL_WIDTH}}{text}"


def _count_listed(
    recorded: RecordedRun,
    settings: Settings,
    done: DoneVideos,
    failures: Sequence[Mapping[str, Any]],
) -> Listed:
    name_of: Callable[[str], str] = recorded.folder.name_of
    finished = done.hashes
    if recorded.run.get("of_tars"):
        naming = recorded.run.get("naming", "stem")
        tars = FinishedTars(recorded.folder, settings.storage_options, naming)
        name_of, finished = tars.name_of, _hashes(tar.name for tar in tars.read())
    names = np.unique(_hashes(map(name_of, iter_videos(settings))))
    failed = _hashes(name_of(failure["video"]) for failure in failures)
    remaining = ~np.isin(names, finished) & ~np.isin(names, failed)
    return Listed(len(names), int(np.count_nonzero(remaining)))


def _hashes(names: Iterable[str]) -> NDArray[np.uint64]:
    return np.frombuffer(array("Q", map(name_hash, names)), np.uint64)


def _remaining(listed: Listed, rate: Rate | None, of_tars: bool) -> str:
    thing = "tar file" if of_tars else "video"
    text = f"{listed.remaining:,} of {count(listed.videos, thing)} listed"
    if rate is not None and listed.remaining and not of_tars:
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
