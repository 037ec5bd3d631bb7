"""Select some of a run's inputs; these are read again for each pass, and never all in memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayclip.errors import RunStopped, UsageError
from rayclip.inputs.arrow_arrays import numeric_array
from rayclip.inputs.video_rows import LACKING, names_in, rechunk

BLOCK_ROWS = 65_536  # inputs in memory at a time; about 4 MB, which become one block on Ray


@dataclass(frozen=True)
class Inputs:
    """All inputs of a run, in order; each call is another pass over them.

    Attributes:
        names: returns their names.
        rows: returns tables with a column ``video`` and the extra columns. There may be more rows
            than names.
    """

    names: Callable[[], Iterator[str]]
    rows: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Selection:
    """Selected inputs, in input order, as a mask over all inputs.

    Attributes:
        inputs: all inputs.
        chosen: whether each input is selected.
        block_hashes: a hash of each block of inputs, from the first pass (:class:`PassStats`).
        lacking: for each input, the models that lack it, as the bits of a number; None if all
            models lack those that are selected.
    """

    inputs: Inputs
    chosen: NDArray[np.bool_]
    block_hashes: array[int]
    lacking: NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        return int(np.count_nonzero(self.chosen))

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from names_in(block)

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the selected rows of each block of :data:`BLOCK_ROWS` inputs, if there are any.

        Ignores inputs that were appended after the first pass.

        Raises:
            RunStopped: the inputs cannot be read again, or have changed.
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
                        "The list of videos was changed during the run: rerun the same command; "
                        "finished videos are kept."
                    )
                here = slice(start, start + block.num_rows)
                chosen = self.chosen[here]
                start += block.num_rows
                if chosen.any():
                    if self.lacking is not None:
                        block = block.append_column(LACKING, numeric_array(self.lacking[here]))
                    yield block.filter(numeric_array(chosen))
        except UsageError as error:  # they were readable before, so the command is not wrong
            raise RunStopped(str(error)) from error


@dataclass
class PassStats:
    """What one pass over the inputs records.

    Attributes:
        count: the number of inputs.
        block_hashes: a hash of each block, so that later passes can check that it is the same.
    """

    count: int = 0
    block_hashes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, block: list[str]) -> None:
        """Record the next block."""
        self.count += len(block)
        self.block_hashes.append(_block_hash(block))


def select_all(inputs: Inputs) -> Selection:
    """Select all inputs, which takes one pass to count them."""
    stats = PassStats()
    for block in in_blocks(inputs.names()):
        stats.add(block)
    return Selection(inputs, np.ones(stats.count, np.bool_), stats.block_hashes)


def in_blocks(videos: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of :data:`BLOCK_ROWS` videos; the last one may be shorter."""
    videos = iter(videos)
    while block := list(islice(videos, BLOCK_ROWS)):
        yield block


def _block_hash(block: list[str]) -> int:
    return hash(tuple(block))
