"""What a format of exports is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO

from rayclip.export.videos import ExportedVideo

Put = Callable[[str, Callable[[IO[bytes]], object]], None]
"""Writes a file of the export atomically, given its name and what writes its content. That is
called once, and may read the videos of the part meanwhile."""


class Format(ABC):
    """A format. The videos of an export are written in parts, each with files of its own.

    Attributes:
        part_bytes: bytes of saved features in a part; None if all videos are one part.
        part_files: saved files of features in a part.
        has_files_per_video: whether videos need names that are valid as file names and differ.
    """

    part_bytes: int | None = 256 * 2**20
    part_files = 10_000
    has_files_per_video = True

    @abstractmethod
    def write_part(self, number: int, videos: Iterator[ExportedVideo], put: Put) -> None:
        """Write the files of a part.

        Args:
            number: of the part, from 0; no other part has it.
            videos: its videos; each is valid until the next is taken.
            put: writes a file.
        """
