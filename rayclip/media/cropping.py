"""What a container says to cut off: ``clap`` of mp4 and mov, ``PixelCrop`` of Matroska."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.video.stream import VideoStream

from rayclip.media.filters import filtered

SEGMENT, TRACKS, TRACK, VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0  # elements of Matroska
CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # PixelCrop: left, top, right, bottom
FRAGMENTED = "frag_keyframe+empty_moov"  # so that the index is in the header

Crop = Callable[[av.VideoFrame], av.VideoFrame]


def cropping(stream: VideoStream) -> Crop | None:
    """What cuts a stream's frames as ffmpeg does since version 7.1; None where nothing is cut off.

    libavformat reads the numbers and PyAV does not show them. But it copies them into the header of
    a new file, where they are found again: of Matroska, or of mov where that does not take a codec.
    """
    left, top, right, bottom = _margins(stream)
    if not (left or right or top or bottom):
        return None

    def crop(frame: av.VideoFrame) -> av.VideoFrame:
        width, height = frame.width - left - right, frame.height - top - bottom
        if width <= 0 or height <= 0:  # ffmpeg leaves such a frame whole
            return frame
        return filtered(frame, [("crop", f"{width}:{height}:{left}:{top}")])

    return crop


def _margins(stream: VideoStream) -> tuple[int, int, int, int]:
    """Pixels to cut off: left, top, right and bottom."""
    video = _header(stream, "matroska")
    if video:
        for element in (SEGMENT, TRACKS, TRACK, VIDEO):
            video = dict(_elements(video)).get(element, b"")
        said = {element: int.from_bytes(value) for element, value in _elements(video)}
        left, top, right, bottom = (said.get(element, 0) for element in CROPS)
        return left, top, right, bottom
    _, clap, numbers = _header(stream, "mov", {"movflags": FRAGMENTED}).partition(b"clap")
    if not clap:
        return 0, 0, 0, 0
    terms = struct.unpack(">8i", numbers[:32])  # width, height, and how far the centre is off
    width, height, x, y = (Fraction(*terms[place : place + 2]) for place in range(0, 8, 2))
    codec = stream.codec_context
    across, down = codec.width - width, codec.height - height
    return int(across / 2 + x), int(down / 2 + y), int(across / 2 - x), int(down / 2 - y)


def _header(stream: VideoStream, container: str, muxing: dict[str, str] | None = None) -> bytes:
    """The beginning of a file with such a stream; empty where its container does not take it."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, options=muxing or {}) as output:
            output.add_stream_from_template(stream, opaque=True)
            output.start_encoding()
            return file.getvalue()
    except (av.FFmpegError, ValueError):
        return b""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of an EBML document or of one of its elements: ``(id, content)``."""
    place = 0
    while place < len(data):
        length = 9 - data[place].bit_length()
        element = int.from_bytes(data[place : place + length])
        place += length
        length = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + length]) - (1 << 7 * length)
        place += length
        if size == (1 << 7 * length) - 1:  # unknown: to the end
            size = len(data) - place
        yield element, data[place : place + size]
        place += size
