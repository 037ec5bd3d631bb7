"""What is to be done: the inputs, less those that are done, and no two of one name."""

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
        videos: to be extracted, in input order.
        skipped: how many were done before.
        discarded: those whose old features go before the work begins.
        done: what was complete in the folder; None where nothing is saved.
    """

    videos: Selection
    skipped: int = 0
    discarded: Selection | None = None
    done: DoneVideos | None = None


@dataclass
class NamedInputs(PassStats):
    """What a pass keeps of inputs that have names: 16 bytes of each.

    Attributes:
        names: hashes of their names.
        texts: hashes of the inputs themselves, of this process only.
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
    """Compare the inputs with the output folder; nothing is changed yet.

    This is one pass over the inputs; each use of what is in the plan is another.

    Args:
        inputs: gives the videos.
        name_of: gives the name of a video's files in the folder.
        folder: where features go.
        record: what ``run.json`` will hold.
        overwrite: make everything again.

    Raises:
        UsageError: two inputs would have the same file names, or the folder holds features of
            other settings or in another form.
    """
    seen = _hash_inputs(inputs, name_of)
    first = _first_of_each(seen, inputs, name_of)
    names, block_hashes = np.frombuffer(seen.names, np.uint64), seen.block_hashes
    del seen  # 80 MB of 10 million inputs
    before = folder.read_run()
    done = folder.done()
    if done.other_format:
        raise UsageError(
            f"{folder.url} holds features in another format, such as {done.other_format}: choose "
            "another output_path."
        )
    if overwrite:
        begun = np.unique(done.begun)
        discarded = first & is_in(names, begun)
        others = len(begun) - np.count_nonzero(discarded)
        if others and differences(before, record):
            raise UsageError(
                f"{folder.url} holds other videos, {others} of them, of other settings "
                f"({', '.join(differences(before, record))}): choose another output_path."
            )
        if others and folder.discards_all:
            raise UsageError(
                f"{folder.url} holds other videos, {others} of them, in the {folder.unit}s that "
                "overwrite would remove: choose another output_path, or give them, too."
            )
        again = Selection(inputs, discarded, block_hashes)
        return Plan(Selection(inputs, first, block_hashes), 0, again, done)
    if len(done.begun):
        refuse_to_mix(before, record, folder.url)
    left = first & ~is_in(names, done.hashes)
    skipped = int(np.count_nonzero(first) - np.count_nonzero(left))
    return Plan(Selection(inputs, left, block_hashes), skipped, done=done)


def begin(
    plan: Plan, name_of: Callable[[str], str], folder: FeatureFolder, record: dict[str, object]
) -> None:
    """Take back what is to be made again, and say in ``run.json`` how it is made.

    Raises:
        UsageError, RunStopped: the folder cannot be written, or the inputs not be read again.
    """
    folder.prepare()
    if plan.discarded:
        folder.discard(map(name_of, plan.discarded))
    folder.write_run(record)


def refuse_shared_names(inputs: Inputs, name_of: Callable[[str], str]) -> None:
    """Make sure that no two inputs have one name, in one pass.

    Raises:
        UsageError: naming two inputs of one name.
    """
    _first_of_each(_hash_inputs(inputs, name_of), inputs, name_of)


def _hash_inputs(inputs: Inputs, name_of: Callable[[str], str]) -> NamedInputs:
    seen = NamedInputs()
    for block in in_blocks(inputs.names()):
        seen.add(block)
        seen.names.extend(name_hash(name_of(video)) for video in block)
        seen.texts.extend(map(hash, block))
    return seen


def _first_of_each(
    seen: NamedInputs, inputs: Inputs, name_of: Callable[[str], str]
) -> NDArray[np.bool_]:
    """Of each input, whether it is not there before: one that is listed again is done once.

    Raises:
        UsageError: naming two inputs of one name, for which they are read again.
    """
    names, texts = np.frombuffer(seen.names, np.uint64), np.frombuffer(seen.texts, np.int64)
    first = np.ones(seen.count, np.bool_)
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
                f"{first[name]} and {video} would both be saved as {name_of(video)}: say "
                "--naming path, where their folders differ, or extract them with different "
                "output_paths."
            )
