"""The tasks of a run without Ray, and their results in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from rayclip.inputs.arrow_arrays import numeric_array
from rayclip.inputs.selection import Selection
from rayclip.inputs.video_rows import VideoRows, from_video_table
from rayclip.local.messages import TAR_POSITIONS, Task

T = TypeVar("T")


def video_tasks(videos: Selection, rows: int) -> Iterator[Task]:
    """Yield tasks of this many videos, in order."""
    position = 0
    for names, extra_columns, lacking in _parts(videos, rows):
        yield Task(position, names, extra_columns, lacking=lacking)
        position += len(names)


def tar_tasks(tars: Selection) -> Iterator[Task]:
    """Yield a task for each tar file, in order."""
    for number, (names, _, lacking) in enumerate(_parts(tars, 1)):
        yield Task(number * TAR_POSITIONS, names, lacking=lacking, of_tar=True)


def _parts(inputs: Selection, rows: int) -> Iterator[VideoRows]:
    for block in inputs.blocks():
        for start in range(0, block.num_rows, rows):
            part = block.slice(start, rows)
            # a copy: pickle would send the whole block
            yield from_video_table(part.take(numeric_array(np.arange(part.num_rows))))


def in_order(results: Iterable[tuple[int, T]], together: int = 1) -> Iterator[T]:
    """Yield results in the order of their positions, which come in any order from 0 on.

    Args:
        results: with their positions.
        together: how many positions belong together; once the result of the last of these has come,
            those that are missing never come.
    """
    held: dict[int, T] = {}
    position = 0
    for arrived, result in results:
        held[arrived] = result
        while position in held or (position // together + 1) * together - 1 in held:
            if position not in held:
                position = min(held)
            yield held.pop(position)
            position += 1
