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
from rayclip.output.finished_tars import FinishedTar, FinishedTars
from rayclip.output.folder import FeatureFolder
from rayclip.output.run_record import differences, refuse_to_mix


class Target(NamedTuple):
    """Where the features of a model go.

    Attributes:
        folder: the output folder.
        record: the new content of ``run.json``.
        tars: the records of tar files, if the inputs are such files.
    """

    folder: FeatureFolder
    record: dict[str, object]
    tars: FinishedTars | None = None


@dataclass(frozen=True)
class FolderPlan:
    """What a run does with the output folder of a model.

    Attributes:
        target: the folder.
        done: its complete videos.
        discarded: the inputs whose old features are removed before the run starts.
        finished_tars: those among the inputs, if these are tar files.
    """

    target: Target
    done: DoneVideos
    discarded: Selection | None = None
    finished_tars: tuple[FinishedTar, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        videos: the inputs to extract, in input order, with the models that lack each.
        skipped: the number of videos that no model lacks; of tar files, those in finished ones.
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
        found = _Found.of(target)
        if overwrite:
            mask = _discarded(target, found, inputs, names, first)
            folders.append(FolderPlan(target, found.done, Selection(inputs, mask, block_hashes)))
            remaining = first
        else:
            if len(found.done.started) or found.tars:
                refuse_to_mix(found.record, target.record, target.folder.url)
            remaining = first & ~is_in(names, found.finished)
            tars = found.tars_among(names[first & ~remaining])
            folders.append(FolderPlan(target, found.done, finished_tars=tars))
        lacking |= remaining.astype(np.uint32) << np.uint32(number)
    chosen = lacking > 0
    skipped = first & ~chosen
    count = int(np.count_nonzero(skipped))
    if targets and targets[0].tars is not None:
        finished = {name_hash(tar.name): tar.done for tar in folders[0].finished_tars}
        count = sum(finished[int(name)] for name in names[skipped])
    masks = lacking if len(targets) > 1 else None
    return Plan(Selection(inputs, chosen, block_hashes, masks), count, tuple(folders))


@dataclass(frozen=True)
class _Found:
    """What is in the folder of a target.

    Attributes:
        record: its ``run.json``; None if there is none.
        done: its complete videos.
        finished: hashes of the names of finished inputs, in ascending order.
        started: the same of inputs with features, in any state as far as names tell.
        tars: the finished tar files, if inputs are such files.
    """

    record: dict[str, object] | None
    done: DoneVideos
    finished: NDArray[np.uint64]
    started: NDArray[np.uint64]
    tars: Sequence[FinishedTar] = ()

    @classmethod
    def of(cls, target: Target) -> _Found:
        """Read a folder.

        Raises:
            UsageError: it holds features in another format.
        """
        recorded = [] if target.tars is None else list(target.tars.read())
        record, done = target.folder.read_run(), target.folder.done()
        if done.other_format:
            raise UsageError(
                f"{target.folder.url} holds features in another format, such as "
                f"{done.other_format}: choose another output_path."
            )
        if target.tars is None:
            return cls(record, done, done.hashes, np.unique(done.started))
        tars = target.tars.with_features(recorded, done)
        finished = np.array(sorted(name_hash(tar.name) for tar in tars), np.uint64)
        return cls(record, done, finished, finished, tars)

    def tars_among(self, names: NDArray[np.uint64]) -> tuple[FinishedTar, ...]:
        """Return the finished tar files whose names have these hashes."""
        wanted = set(names.tolist()) if self.tars else set()
        return tuple(tar for tar in self.tars if name_hash(tar.name) in wanted)


def _discarded(
    target: Target,
    found: _Found,
    inputs: Inputs,
    names: NDArray[np.uint64],
    first: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return for each input whether its old features are removed.

    Raises:
        UsageError: the folder holds other videos that cannot stay.
    """
    folder, changed = target.folder, differences(found.record, target.record)
    discarded: NDArray[np.bool_] = first & is_in(names, found.started)
    others = len(found.started) - int(np.count_nonzero(discarded))
    if target.tars is not None:
        discarded = first  # one that is not finished may have left features, too
        if (found.record or {}).get("of_tars"):
            others = target.tars.others(inputs.names())
        else:
            others = len(np.unique(found.done.started))
    if others and changed:
        raise UsageError(
            f"{folder.url} holds other videos ({others}), made with other settings "
            f"({', '.join(changed)}): choose another output_path."
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
        target = planned.target
        folder, record = target.folder, target.record
        folder.prepare()
        if planned.discarded and target.tars is not None:
            target.tars.discard(set(planned.discarded))
        elif planned.discarded:
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
