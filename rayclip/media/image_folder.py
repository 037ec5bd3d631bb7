"""A folder of images as a video: its frames in natural order of their names, at a given rate."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rayclip.errors import BadVideo, Code
from rayclip.io.remote import file_system
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.media.container import MAX_PIXELS
from rayclip.media.decoding import BEFORE_START, SelectedFrame
from rayclip.media.frame_choice import MICROSECONDS, FrameChoice
from rayclip.media.image_names import is_image_name
from rayclip.media.sampling import Clock, FrameRule, Shown, Span, frame_rule
from rayclip.media.segments import WHOLE, Segment, inner_boundaries, split_at
from rayclip.media.source import open_reader, translated_errors
from rayclip.media.watchdog import LIBAV

FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow knows others, whose decoders need not see such bytes
DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class ImageFolder:
    """A folder whose images are the frames of a video.

    Attributes:
        path: a local path or an fsspec URL.
        fps: how many of them are shown in a second.
    """

    path: str
    fps: Fraction


def as_source(path: str, fps: Fraction) -> str | ImageFolder:
    """What to open for an input: if it ends in a slash, a folder of images at this rate."""
    return ImageFolder(path, fps) if path.endswith("/") else path


class ImageSequence:
    """The images of a folder, to be read like a :class:`~rayclip.media.video.Video`.

    Their pts are their numbers. Each one is a keyframe.

    Attributes:
        clock: of their times.
        fps: how many of them are shown in a second.
        duration_s: in seconds.
    """

    def __init__(self, folder: ImageFolder, storage_options: Mapping[str, Any]) -> None:
        """List a folder.

        Raises:
            BadVideo: there is no such folder, or no image in it (stage ``open``).
            VideoError: it could not be listed (stage ``read``).
        """
        self._path = folder.path.rstrip("/")
        self._options = storage_options
        self._names = sorted(_image_names(folder.path, storage_options), key=natural_order)
        if not self._names:
            raise BadVideo("open", Code.NO_IMAGES, "there is no jpg, png or webp file in it")
        self.clock = Clock(1 / folder.fps, 0)
        self.fps = float(folder.fps)
        self.duration_s = float(len(self._names) / folder.fps)

    def selected_frames(
        self, choice: FrameChoice, segment: Segment = WHOLE
    ) -> Iterator[SelectedFrame]:
        """Read what is needed, and yield each image that the output shows, once.

        Args:
            choice: which frames to select.
            segment: the part of the folder to yield; the whole if frames are numbered.

        Raises:
            BadVideo: an image cannot be decoded (stage ``decode``), or the range has none.
            VideoError: an image could not be read (stage ``read``).
        """
        numbers = range(len(self._names))
        span = Span.of(choice, self.clock)
        rule = frame_rule(choice, self.clock, sum(number in span for number in numbers))
        first = max(span.first or 0, 0)
        is_shown = False
        stand_in = None
        for pts in numbers[segment.since or 0 : segment.until]:
            number = BEFORE_START if pts < first else pts - first
            shown = Shown(number, pts, pts, pts + 1, is_keyframe=True)
            if times := rule.timestamps_ms(shown):
                is_shown = True
                yield SelectedFrame(self._decode(pts), times)
            elif stand_in is None and (time_ms := rule.stand_in_ms(shown)) is not None:
                stand_in = pts, time_ms
        if is_shown or segment != WHOLE:
            return
        if stand_in is None:
            raise BadVideo(
                "decode",
                Code.EMPTY_RANGE,
                f"it has no frame {choice.range_words()}, and it lasts {self.duration_s:.1f} s",
            )
        yield SelectedFrame(self._decode(stand_in[0]), (stand_in[1],))

    def frames_of(self, rule: FrameRule, by_decoding: bool = False) -> Iterator[SelectedFrame]:
        """Read the images of any rule that does not count them.

        Args:
            rule: says which images are shown.
            by_decoding: changes nothing, since each image can be decoded by itself.
        """
        for pts in range(len(self._names)):
            shown = Shown(pts, pts, pts, pts + 1, is_keyframe=True)
            times, stand_in_ms = rule.timestamps_ms(shown), None
            if pts == 0:
                stand_in_ms = rule.stand_in_ms(shown)
            if times or stand_in_ms is not None:
                yield SelectedFrame(self._decode(pts), times, stand_in_ms)

    def segments(self, choice: FrameChoice, segment_s: float, max_segments: int) -> list[Segment]:
        """Divide the range of a choice into segments of about equal duration.

        Args:
            choice: which frames are wanted.
            segment_s: minimum duration of a segment in seconds.
            max_segments: maximum number of segments.
        """
        begin_s, end_s = choice.span_s(self.duration_s)
        boundaries = inner_boundaries(end_s - begin_s, segment_s, max_segments)
        us = (round((begin_s + boundary) * MICROSECONDS) for boundary in boundaries)
        return split_at(map(self.clock.pts_at, us))

    def _decode(self, number: int) -> av.VideoFrame:
        name = self._names[number]
        content = io.BytesIO()
        with open_reader(f"{self._path}/{name}", self._options, LIBAV.report_progress) as reader:
            reader.copy_to(content)
        try:
            with Image.open(content, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width}x{image.height}"
                    message = f"{name}: {size} is more than {MAX_PIXELS} pixels"
                    raise BadVideo("decode", Code.TOO_LARGE, message)
                rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except UnidentifiedImageError:
            message = f"{name} is no jpg, png or webp image"
            raise BadVideo("decode", Code.BAD_IMAGE, message) from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            message = f"{name} cannot be decoded: {error}"
            raise BadVideo("decode", Code.BAD_IMAGE, message) from None
        return av.VideoFrame.from_ndarray(rgb, format="rgb24")


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people count: ``2.jpg`` before ``10.jpg``."""
    parts = DIGITS.split(name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _image_names(path: str, storage_options: Mapping[str, Any]) -> list[str]:
    with translated_errors():
        if "://" in path:
            fs, root = file_system(path, storage_options)
            found = with_retry(lambda: fs.ls(root, detail=False), is_transient)
            names = [entry.rstrip("/").rpartition("/")[2] for entry in found]
        else:
            try:
                names = os.listdir(path)
            except NotADirectoryError:
                raise BadVideo("open", Code.NO_IMAGES, "this is no folder") from None
        return list(filter(is_image_name, names))
