"""Plan a run: its inputs without finished videos and duplicates, all with different names."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.inputs.selection import Inputs, PassStats, Selection, in_blocks
from rayclip.output.done import DoneVideos, is_in, name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.run_record import differences, refuse_to_mix


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        videos: the videos to extract, in input order.
        skipped: the number of videos finished before.
        discarded: the videos whose old features are removed before the run starts.
        done: the complete videos of the folder; None if nothing is saved.
    """

    videos: Selection
    skipped: int = 0
    discarded: Selection | None = None
    done: DoneVideos | None = None


@dataclass
class NamedInputs(PassStats):
    """What a pass over the inputs records: 16 bytes per input.

    Attributes:
        names: hashes of their names in the output folder.
        texts: hashes of the inputs themselves, valid only in this process.
    """

    names: array[int] = field(default_factory=lambda: array("Q"))
    texts: array[int] = field(default_factory=lambda: array("q"))


def plan_files(
    inputs: Inputs,
    name_of: Callable[[str], str],
    folder: FeatureFolder,
    record: dict[str, object],
    overwrite: bool,
) -> Plan:
    """Compare the inputs with the output folder, without changing it.

    This takes one pass over the inputs; each use of the plan's videos takes another.

    Args:
        inputs: the videos.
        name_of: returns the name of a video in the folder.
        folder: the output folder.
        record: the new content of ``run.json``.
        overwrite: whether to recompute everything.

    Raises:
        UsageError: two inputs have the same name, or the folder holds features of other settings or
            in another format.
    """
    hashed = _hash_inputs(inputs, name_of)
    first = _first_occurrences(hashed, inputs, name_of)
    names, block_hashes = np.frombuffer(hashed.names, np.uint64), hashed.block_hashes
    del hashed  # frees 80 MB for 10 million inputs
    before = folder.read_run()
    done = folder.done()
    if done.other_format:
        raise UsageError(
            f"{folder.url} holds features in another format, such as {done.other_format}: choose "
            "another output_path."
        )
    if overwrite:
        started = np.unique(done.started)
        discarded = first & is_in(names, started)
        others = len(started) - np.count_nonzero(discarded)
        if others and differences(before, record):
            raise UsageError(
                f"{folder.url} holds other videos ({others}), made with other settings "
                f"({', '.join(differences(before, record))}): choose another output_path."
            )
        if others and folder.discards_all:
            raise UsageError(
                f"{folder.url} holds other videos ({others}) in the {folder.unit}s that overwrite "
                "would remove: choose another output_path, or add these videos to the inputs."
            )
        overwritten = Selection(inputs, discarded, block_hashes)
        return Plan(Selection(inputs, first, block_hashes), 0, overwritten, done)
    if len(done.started):
        refuse_to_mix(before, record, folder.url)
    remaining = first & ~is_in(names, done.hashes)
    skipped = int(np.count_nonzero(first) - np.count_nonzero(remaining))
    return Plan(Selection(inputs, remaining, block_hashes), skipped, done=done)


def begin(
    plan: Plan, name_of: Callable[[str], str], folder: FeatureFolder, record: dict[str, object]
) -> None:
    """Remove the features to be recomputed, and write ``run.json``.

    Raises:
        UsageError, RunStopped: the folder cannot be written, or the inputs cannot be read again.
    """
    folder.prepare()
    if plan.discarded:
        folder.discard(map(name_of, plan.discarded))
    folder.write_run(record)


def refuse_shared_names(inputs: Inputs, name_of: Callable[[str], str]) -> None:
    """Refuse inputs that share a name, in one pass.

    Raises:
        UsageError: two inputs share a name; the message names both.
    """
    _first_occurrences(_hash_inputs(inputs, name_of), inputs, name_of)


def _hash_inputs(inputs: Inputs, name_of: Callable[[str], str]) -> NamedInputs:
    hashed = NamedInputs()
    for block in in_blocks(inputs.names()):
        hashed.add(block)
        hashed.names.extend(name_hash(name_of(video)) for video in block)
        hashed.texts.extend(map(hash, block))
    return hashed


def _first_occurrences(
    hashed: NamedInputs, inputs: Inputs, name_of: Callable[[str], str]
) -> NDArray[np.bool_]:
    """Return for each input whether it is its first occurrence, since duplicates run once.

    Raises:
        UsageError: two inputs share a name; reads the inputs again to name both.
    """
    names, texts = np.frombuffer(hashed.names, np.uint64), np.frombuffer(hashed.texts, np.int64)
    first = np.ones(hashed.count, np.bool_)
    order = np.argsort(names, kind="stable")
    earlier, later = order[:-1], order[1:]
    repeated = names[earlier] == names[later]
    if repeated.any():
        earlier, later = earlier[repeated], later[repeated]
        shared = names[later[texts[earlier] != texts[later]]]
        if len(shared):
            _raise_shared_name({int(name) for name in shared}, inputs, name_of)
        first[later] = False
    return first


def _raise_shared_name(shared: set[int], inputs: Inputs, name_of: Callable[[str], str]) -> None:
    first: dict[int, str] = {}
    for video in inputs.names():
        name = name_hash(name_of(video))
        if name in shared and first.setdefault(name, video) != video:
            raise UsageError(
                f"{first[name]} and {video} would both be saved as {name_of(video)}: use "
                "--naming path if their folders differ, or extract them with different "
                "output_paths."
            )
