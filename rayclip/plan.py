"""What is to be done: the inputs, less those that are done, and no two of one name."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rayclip.done import DoneVideos, name_hash
from rayclip.errors import UsageError
from rayclip.run_record import differences, refuse_to_mix
from rayclip.storage import OutputFolder


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        videos: to be extracted, in input order.
        skipped: how many were done before.
        discarded: names whose old features go before the work begins.
        done: what was complete in the folder; None where nothing is saved.
    """

    videos: list[str]
    skipped: int = 0
    discarded: list[str] = field(default_factory=list)
    done: DoneVideos | None = field(default=None, compare=False)


def plan_files(
    inputs: Callable[[], Iterator[str]],
    name_of: Callable[[str], str],
    folder: OutputFolder,
    record: dict[str, object],
    overwrite: bool,
) -> Plan:
    """Compare the inputs with the output folder; nothing is changed yet.

    Args:
        inputs: gives the videos; it is called once for each pass over them.
        name_of: gives the name of a video's files in the folder.
        folder: where features go.
        record: what ``run.json`` will hold.
        overwrite: make everything again.

    Raises:
        UsageError: two inputs would have the same file names, or the folder holds features of
            other settings.
    """
    repeated = refuse_shared_names(inputs, name_of)
    before = folder.read_run()
    done = folder.done()
    videos: list[str] = []
    discarded: list[str] = []
    skipped = 0
    if overwrite:
        begun = {int(name) for name in done.begun}
        for video in _once(inputs(), name_of, repeated):
            videos.append(video)
            if name_hash(name_of(video)) in begun:
                begun.remove(name_hash(name_of(video)))
                discarded.append(name_of(video))
        if begun and differences(before, record):
            raise UsageError(
                f"{folder.url} holds other videos, {len(begun)} of them, of other settings "
                f"({', '.join(differences(before, record))}): choose another output_path."
            )
        return Plan(videos, 0, discarded, done)
    if len(done.begun):
        refuse_to_mix(before, record, folder.url)
    for video in _once(inputs(), name_of, repeated):
        if done.frames_of(name_of(video)) is None:
            videos.append(video)
        else:
            skipped += 1
    return Plan(videos, skipped, done=done)


def begin(plan: Plan, folder: OutputFolder, record: dict[str, object]) -> None:
    """Take back what is to be made again, and say in ``run.json`` how it is made."""
    folder.prepare()
    folder.discard(plan.discarded)
    folder.write_run(record)


def refuse_shared_names(
    inputs: Callable[[], Iterator[str]], name_of: Callable[[str], str]
) -> set[int]:
    """Make sure that no two inputs have one name.

    Returns:
        Hashes of the names that come more than once, all of them for one and the same input.

    Raises:
        UsageError: naming two inputs of one name.
    """
    hashes = np.frombuffer(array("Q", (name_hash(name_of(video)) for video in inputs())), np.uint64)
    unique, counts = np.unique(hashes, return_counts=True)
    repeated = {int(value) for value in unique[counts > 1]}
    first: dict[int, str] = {}
    for video in inputs() if repeated else ():
        name = name_hash(name_of(video))
        if name in repeated and first.setdefault(name, video) != video:
            raise UsageError(
                f"{first[name]} and {video} would both be saved as {name_of(video)}: say "
                "--naming path, or extract them with different output_paths."
            )
    return repeated


def _once(
    videos: Iterable[str], name_of: Callable[[str], str], repeated: set[int]
) -> Iterator[str]:
    """Leave out the second and later copies of an input that is listed more than once."""
    seen: set[int] = set()
    for video in videos:
        name = name_hash(name_of(video)) if repeated else 0
        if name in repeated:
            if name in seen:
                continue
            seen.add(name)
        yield video
