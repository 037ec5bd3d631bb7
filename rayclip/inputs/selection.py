"""Some of a run's inputs: read again where they are needed, and never held all at once."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayclip.errors import RunStopped, UsageError
from rayclip.inputs.video_rows import names_in, rechunk

BLOCK_ROWS = 65_536  # inputs that are held at a time; some 4 MB of them become one block on Ray


@dataclass(frozen=True)
class Inputs:
    """All inputs of a run, in order; each call is one more pass over them.

    Attributes:
        names: gives their names.
        rows: gives the same as tables of a column ``video`` and whatever is carried beside it. It
            may go on after the last name.
    """

    names: Callable[[], Iterator[str]]
    rows: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Selection:
    """Inputs that were chosen, in input order, as a byte for each input that there is.

    Attributes:
        inputs: gives all of them.
        chosen: of each, whether it is one of these.
        block_hashes: of each block of inputs, as :meth:`Seen.add` first saw it.
    """

    inputs: Inputs
    chosen: NDArray[np.bool_]
    block_hashes: array[int]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.chosen))

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from names_in(block)

    def blocks(self) -> Iterator[pa.Table]:
        """The rows that are chosen of each :data:`BLOCK_ROWS` inputs, where any are.

        Inputs that were added at the end since they were first read are left alone.

        Raises:
            RunStopped: the inputs cannot be read again, or are no more what they were.
        """
        start = 0
        try:
            blocks = rechunk(self.inputs.rows(), BLOCK_ROWS)
            for block_hash in self.block_hashes:
                block = next(blocks, None)
                if block is not None:
                    block = block.slice(0, len(self.chosen) - start)
                if block is None or _block_hash(names_in(block)) != block_hash:
                    raise RunStopped(
                        "The list of videos was changed while it was in use: give the same "
                        "command again; what is done is kept."
                    )
                chosen = self.chosen[start : start + block.num_rows]
                start += block.num_rows
                if chosen.any():
                    yield block.filter(pa.array(chosen))
        except UsageError as error:  # they could be read before: the command was not wrong
            raise RunStopped(str(error)) from error


@dataclass
class PassStats:
    """What one pass over the inputs keeps of them.

    Attributes:
        count: how many there are.
        block_hashes: a number for each block, by which a later pass sees that it is the same.
    """

    count: int = 0
    block_hashes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, block: list[str]) -> None:
        """Note the next block."""
        self.count += len(block)
        self.block_hashes.append(_block_hash(block))


def select_all(inputs: Inputs) -> Selection:
    """All inputs, counted in one pass."""
    seen = PassStats()
    for block in in_blocks(inputs.names()):
        seen.add(block)
    return Selection(inputs, np.ones(seen.count, np.bool_), seen.block_hashes)


def in_blocks(videos: Iterable[str]) -> Iterator[list[str]]:
    """Lists of :data:`BLOCK_ROWS`; the last one may be shorter."""
    videos = iter(videos)
    while block := list(islice(videos, BLOCK_ROWS)):
        yield block


def _block_hash(block: list[str]) -> int:
    return hash(tuple(block))
