"""Chunks that wait for their features, and the pieces of them that fill batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Features = NDArray[np.float32]


class SmallChunk(NamedTuple):
    """A chunk among others that are sent together.

    Attributes:
        name: the same whenever it is sent: it tells which frames end processes.
        frames: how many.
    """

    name: str
    frames: int


class QueuedChunk:
    """Frames that came together, and their features as they are made, in any order.

    A suspect was there when a process of this encoder died: it shares no forward pass.
    """

    def __init__(self, frames: Frames, name: str, suspect: bool) -> None:
        self.frames = frames
        self.name = name
        self.suspect = suspect
        self.future: Future[Features] = Future()
        self.taken = 0
        self._features: Features | None = None
        self._missing = len(frames)

    def take(self, most: int) -> Piece:
        piece = Piece(self, self.taken, self.frames[self.taken : self.taken + most])
        self.taken += len(piece.frames)
        return piece

    def add(self, start: int, features: Features) -> None:
        if self._features is None:
            self._features = np.empty((len(self.frames), features.shape[1]), np.float32)
        self._features[start : start + len(features)] = features
        self._missing -= len(features)
        if not self._missing and not self.future.done():
            self.future.set_result(self._features)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True)
class Piece:
    """Some frames of a chunk, on their way through one forward pass."""

    chunk: QueuedChunk
    start: int
    frames: Frames

    def divided(self, at: int) -> tuple[Piece, Piece]:
        rest = Piece(self.chunk, self.start + at, self.frames[at:])
        return Piece(self.chunk, self.start, self.frames[:at]), rest


def in_batches(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Pieces in batches of at most so many frames."""
    batch: list[Piece] = []
    room = size
    for piece in pieces:
        while len(piece.frames):
            part, piece = piece.divided(room)
            batch.append(part)
            room -= len(part.frames)
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch
