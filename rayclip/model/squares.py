"""The squares that a frame becomes: one for each distinct preprocessing of several models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rayclip.model.preprocess import Resizing, resize

Frame = NDArray[np.uint8]
"""What is sent of a frame, RGB: its square, uint8 ``[n_px, n_px, 3]``, or the bytes of several
squares one after the other, uint8 ``[n]``."""


class Squares:
    """Where the squares of some models are in a frame. Models with the same preprocessing share
    one."""

    def __init__(self, resizings: Sequence[Resizing]) -> None:
        """Lay out a frame.

        Args:
            resizings: of each model; at least one.
        """
        self._distinct = tuple(dict.fromkeys(resizings))
        self._index = [self._distinct.index(resizing) for resizing in resizings]
        ends = np.cumsum([3 * resizing.n_px**2 for resizing in self._distinct]).tolist()
        self._places = list(zip([0, *ends[:-1]], ends, strict=True))
        self.nbytes: int = ends[-1]

    def of(self, rgb: NDArray[np.uint8]) -> Frame:
        """Resize a picture, uint8 ``[height, width, 3]``, once for each distinct preprocessing."""
        if len(self._distinct) == 1:
            return resize(rgb, self._distinct[0])
        frame = np.empty(self.nbytes, np.uint8)
        for number, resizing in enumerate(self._distinct):
            resize(rgb, resizing, self._square(frame, number))
        return frame

    def view(self, frame: Frame, model: int) -> NDArray[np.uint8]:
        """Return the square of a model, by its position among ``resizings``, without a copy."""
        return frame if len(self._distinct) == 1 else self._square(frame, self._index[model])

    def _square(self, frame: Frame, number: int) -> NDArray[np.uint8]:
        start, end = self._places[number]
        n_px = self._distinct[number].n_px
        return frame[start:end].reshape(n_px, n_px, 3)


@lru_cache(maxsize=256)
def squares_of(resizings: tuple[Resizing, ...]) -> Squares:
    """Return the layout for these models."""
    return Squares(resizings)
