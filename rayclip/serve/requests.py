"""What the page asks of processes that decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from rayclip.media.preview import read_facts, write_preview
from rayclip.search.media_process import as_jpeg
from rayclip.search.queries import open_picture

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's names. Others may start programs, as EPS does."""

SIGN_OF_LIFE_S = 1.0


@dataclass(frozen=True)
class FactsRequest:
    """What a file holds; the answer is :class:`~rayclip.media.preview.VideoFacts`."""

    video: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def answer(self, send: Callable[[Any], None]) -> None:
        send(read_facts(self.video, self.storage_options))


@dataclass(frozen=True)
class PreviewRequest:
    """A part of a video, to be written as browsers play it.

    Attributes:
        video: a local path or an fsspec URL.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        destination: the local file to write.
        storage_options: passed to fsspec for a URL.
    """

    video: str
    start_s: float
    end_s: float
    destination: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def answer(self, send: Callable[[Any], None]) -> None:
        """Write it, and send None now and then: it takes longer than a picture."""
        sent_s = time.monotonic()

        def on_progress() -> None:
            nonlocal sent_s
            if time.monotonic() - sent_s > SIGN_OF_LIFE_S:
                sent_s = time.monotonic()
                send(None)

        write_preview(
            self.video,
            self.destination,
            self.start_s,
            self.end_s,
            on_progress,
            self.storage_options,
        )


@dataclass(frozen=True)
class DroppedPictureRequest:
    """A picture that somebody dropped on the page.

    Attributes:
        video: its local file.
        size: if it is given, the answer is a JPEG file with at most this many pixels a side;
            otherwise uint8 RGB ``[height, width, 3]``.
    """

    video: str
    size: int | None = None

    def answer(self, send: Callable[[Any], None]) -> None:
        Image.init()
        known = tuple(name for name in PICTURE_FORMATS if name in Image.OPEN)
        with open_picture(self.video, "that was dropped", known) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        send(rgb if self.size is None else as_jpeg(rgb, self.size))
