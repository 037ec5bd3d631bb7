"""Pictures that were dropped on the page: kept until the server ends, to be looked for."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.search.media_process import MediaPool
from rayclip.serve.requests import DroppedPictureRequest

MAX_BYTES = 32 * 2**20  # of one picture
MAX_PICTURES = 64
SHOWN_SIZE = 320  # pixels of a side, on the page
GONE = "This picture is no longer here: drop it again."


class DroppedPictures:
    """Keeps pictures as files with names of our own. Methods block."""

    def __init__(self, folder: Path, pool: MediaPool) -> None:
        """Prepare.

        Args:
            folder: for their files; it exists.
            pool: the processes that decode them.
        """
        self._folder = folder
        self._pool = pool
        self._shown: OrderedDict[str, bytes] = OrderedDict()

    def add(self, content: bytes) -> str:
        """Keep a picture, and return its ID: 32 hexadecimal digits of its content.

        Raises:
            UsageError: it is no picture, or has too many pixels.
        """
        picture = hashlib.blake2b(content, digest_size=16).hexdigest()
        if picture not in self._shown:
            self._file(picture).write_bytes(content)
            try:
                self._shown[picture] = self._decode(picture, SHOWN_SIZE)
            except UsageError:
                self._file(picture).unlink()
                raise
        self._shown.move_to_end(picture)
        while len(self._shown) > MAX_PICTURES:
            oldest, _ = self._shown.popitem(last=False)
            self._file(oldest).unlink(missing_ok=True)
        return picture

    def shown(self, picture: str) -> bytes:
        """Return a small JPEG file of a picture; raises UsageError if it is gone."""
        if picture not in self._shown:
            raise UsageError(GONE)
        return self._shown[picture]

    def rgb(self, picture: str) -> NDArray[np.uint8]:
        """Return a picture: uint8 RGB ``[height, width, 3]``; raises UsageError if it is gone."""
        self.shown(picture)
        decoded: NDArray[np.uint8] = self._decode(picture, None)
        return decoded

    def _decode(self, picture: str, size: int | None) -> Any:
        parts: list[Any] = []
        request = DroppedPictureRequest(os.fspath(self._file(picture)), size)
        error = self._pool.exchange(request, parts.append)
        if error is not None:
            raise UsageError(error)
        return parts[0]

    def _file(self, picture: str) -> Path:
        return self._folder / picture


def declared_too_large(headers: Mapping[str, str]) -> bool:
    """Whether a request says that its body is too large for a picture."""
    length = headers.get("content-length", "0")
    return not length.isdecimal() or int(length) > MAX_BYTES
