"""Cropping that a container asks for: ``clap`` in mp4 and mov, ``PixelCrop`` in Matroska."""

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
FRAGMENTED = "frag_keyframe+empty_moov"  # puts the index into the header

Crop = Callable[[av.VideoFrame], av.VideoFrame]


def crop_function(stream: VideoStream) -> Crop | None:
    """A function that crops a stream's frames as ffmpeg does since 7.1; None if nothing is cropped.

    libavformat reads the margins, but PyAV does not expose them. libavformat also copies them into
    the header of a new file, so we write one and read them from there: a Matroska header, or a mov
    header if Matroska does not support the codec.
    """
    left, top, right, bottom = _margins(stream)
    if not (left or right or top or bottom):
        return None

    def crop(frame: av.VideoFrame) -> av.VideoFrame:
        width, height = frame.width - left - right, frame.height - top - bottom
        if width <= 0 or height <= 0:  # ffmpeg does not crop such a frame
            return frame
        return filtered(frame, [("crop", f"{width}:{height}:{left}:{top}")])

    return crop


def _margins(stream: VideoStream) -> tuple[int, int, int, int]:
    """Pixels to crop: left, top, right and bottom."""
    video = _header(stream, "matroska")
    if video:
        for element in (SEGMENT, TRACKS, TRACK, VIDEO):
            video = dict(_elements(video)).get(element, b"")
        values = {element: int.from_bytes(value) for element, value in _elements(video)}
        left, top, right, bottom = (values.get(element, 0) for element in CROPS)
        return left, top, right, bottom
    _, clap, numbers = _header(stream, "mov", {"movflags": FRAGMENTED}).partition(b"clap")
    if not clap:
        return 0, 0, 0, 0
    terms = struct.unpack(">8i", numbers[:32])  # width, height, and offset of the centre
    width, height, x, y = (Fraction(*terms[offset : offset + 2]) for offset in range(0, 8, 2))
    codec = stream.codec_context
    across, down = codec.width - width, codec.height - height
    return int(across / 2 + x), int(down / 2 + y), int(across / 2 - x), int(down / 2 - y)


def _header(stream: VideoStream, container: str, muxing: dict[str, str] | None = None) -> bytes:
    """The header of a file with this stream; empty if the container does not support the codec."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, options=muxing or {}) as output:
            output.add_stream_from_template(stream, opaque=True)
            output.start_encoding()
            return file.getvalue()
    except (av.FFmpegError, ValueError):
        return b""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the child elements of an EBML document or element as ``(id, content)``."""
    offset = 0
    while offset < len(data):
        length = 9 - data[offset].bit_length()
        element = int.from_bytes(data[offset : offset + length])
        offset += length
        length = 9 - data[offset].bit_length()
        size = int.from_bytes(data[offset : offset + length]) - (1 << 7 * length)
        offset += length
        if size == (1 << 7 * length) - 1:  # unknown size: up to the end
            size = len(data) - offset
        yield element, data[offset : offset + size]
        offset += size
