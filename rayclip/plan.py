"""Plan a run: its inputs without finished videos and duplicates, all with different names, and the
models that lack each."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.inputs.selection import Inputs, PassStats, Selection, in_blocks
from rayclip.output.done import DoneVideos, is_in, name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.run_record import differences, refuse_to_mix


class Target(NamedTuple):
    """Where the features of a model go.

    Attributes:
        folder: the output folder.
        record: the new content of ``run.json``.
    """

    folder: FeatureFolder
    record: dict[str, object]


@dataclass(frozen=True)
class FolderPlan:
    """What a run does with the output folder of a model.

    Attributes:
        target: the folder.
        done: its complete videos.
        discarded: the videos whose old features are removed before the run starts.
    """

    target: Target
    done: DoneVideos
    discarded: Selection | None = None


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        videos: the videos to extract, in input order, with the models that lack each.
        skipped: the number of videos that no model lacks.
        folders: of each model; empty if nothing is saved.
    """

    videos: Selection
    skipped: int = 0
    folders: tuple[FolderPlan, ...] = ()


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
    inputs: Inputs, name_of: Callable[[str], str], targets: Sequence[Target], overwrite: bool
) -> Plan:
    """Compare the inputs with the output folders, without changing them.

    This takes one pass over the inputs; each use of the plan's videos takes another.

    Args:
        inputs: the videos.
        name_of: returns the name of a video in each folder.
        targets: of each model.
        overwrite: whether to recompute everything.

    Raises:
        UsageError: two inputs have the same name, or a folder holds features of other settings or
            in another format.
    """
    hashed = _hash_inputs(inputs, name_of)
    first = _first_occurrences(hashed, inputs, name_of)
    names, block_hashes = np.frombuffer(hashed.names, np.uint64), hashed.block_hashes
    del hashed  # frees 80 MB for 10 million inputs
    lacking = np.zeros(len(names), np.uint32)
    folders = []
    for number, target in enumerate(targets):
        before, done = target.folder.read_run(), target.folder.done()
        if done.other_format:
            raise UsageError(
                f"{target.folder.url} holds features in another format, such as "
                f"{done.other_format}: choose another output_path."
            )
        if overwrite:
            mask = _discarded(target, before, done, names, first)
            discarded = Selection(inputs, mask, block_hashes)
            folders.append(FolderPlan(target, done, discarded))
            remaining = first
        else:
            if len(done.started):
                refuse_to_mix(before, target.record, target.folder.url)
            folders.append(FolderPlan(target, done))
            remaining = first & ~is_in(names, done.hashes)
        lacking |= remaining.astype(np.uint32) << np.uint32(number)
    chosen = lacking > 0
    skipped = int(np.count_nonzero(first) - np.count_nonzero(chosen))
    masks = lacking if len(targets) > 1 else None
    return Plan(Selection(inputs, chosen, block_hashes, masks), skipped, tuple(folders))


def _discarded(
    target: Target,
    before: dict[str, object] | None,
    done: DoneVideos,
    names: NDArray[np.uint64],
    first: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return for each input whether its old features are removed.

    Raises:
        UsageError: the folder holds other videos that cannot stay.
    """
    folder = target.folder
    started = np.unique(done.started)
    discarded: NDArray[np.bool_] = first & is_in(names, started)
    others = len(started) - np.count_nonzero(discarded)
    if others and differences(before, target.record):
        raise UsageError(
            f"{folder.url} holds other videos ({others}), made with other settings "
            f"({', '.join(differences(before, target.record))}): choose another output_path."
        )
    if others and folder.discards_all:
        raise UsageError(
            f"{folder.url} holds other videos ({others}) in the {folder.unit}s that overwrite "
            "would remove: choose another output_path, or add these videos to the inputs."
        )
    return discarded


def begin(plan: Plan, name_of: Callable[[str], str]) -> None:
    """Remove the features to be recomputed, and write each ``run.json``.

    Raises:
        UsageError, RunStopped: a folder cannot be written, or the inputs cannot be read again.
    """
    for planned in plan.folders:
        folder, record = planned.target
        folder.prepare()
        if planned.discarded:
            folder.discard(map(name_of, planned.discarded))
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
