"""What is to be done: the inputs, less those that are done, and no two of one name."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rayclip.errors import UsageError
from rayclip.run_record import differences, refuse_to_mix
from rayclip.storage import DoneVideos, OutputFolder, name_hash


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        videos: to be extracted, in input order.
        skipped: how many were done before.
    """

    videos: list[str]
    skipped: int


def plan_files(
    inputs: Callable[[], Iterator[str]],
    name_of: Callable[[str], str],
    folder: OutputFolder,
    record: dict[str, object],
    overwrite: bool,
) -> Plan:
    """Compare the inputs with the output folder, and write its ``run.json``.

    Args:
        inputs: gives the videos; it is called once for each pass over them.
        name_of: gives the name of a video's files in the folder.
        folder: where features go.
        record: the content of ``run.json``.
        overwrite: take back what is done of these inputs, so that it is made again.

    Raises:
        UsageError: two inputs would have the same file names, or the folder holds features of
            other settings.
    """
    repeated = _repeated_names(inputs, name_of)
    before = folder.read_run()
    done = folder.done()
    if overwrite:
        finished = [video for video in inputs() if done.frames_of(name_of(video)) is not None]
        names = dict.fromkeys(map(name_of, finished))
        if differences(before, record) and len(names) < len(done):
            raise UsageError(
                f"{folder.url} holds {len(done) - len(names)} other videos of other settings "
                f"({', '.join(differences(before, record))}): choose another output_path."
            )
        folder.discard(names)
        done = DoneVideos.none()
    elif len(done):
        refuse_to_mix(before, record, folder.url)
    videos, skipped = [], 0
    for video in _once(inputs(), name_of, repeated):
        if done.frames_of(name_of(video)) is None:
            videos.append(video)
        else:
            skipped += 1
    if videos:
        folder.prepare()
        folder.write_run(record)
    return Plan(videos, skipped)


def _repeated_names(inputs: Callable[[], Iterator[str]], name_of: Callable[[str], str]) -> set[int]:
    """Hashes of the names that come more than once, all of them for one and the same input."""
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
