"""What a container says to cut off: ``clap`` of mp4 and mov, ``PixelCrop`` of Matroska."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import av.filter
from av.video.stream import VideoStream

SEGMENT, TRACKS, TRACK, VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0  # elements of Matroska
CROP_BOTTOM, CROP_TOP, CROP_LEFT, CROP_RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD

Crop = Callable[[av.VideoFrame], av.VideoFrame]


def cropping(stream: VideoStream) -> Crop | None:
    """What cuts a stream's frames as ffmpeg does since version 7.1; None where nothing is cut off.

    libavformat reads the numbers and PyAV does not show them. But it copies them into a Matroska
    header, where they are found again.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as output:
            output.add_stream_from_template(stream)
            output.start_encoding()
    except (av.FFmpegError, ValueError):  # not for Matroska: then nothing can be said
        return None
    video = header.getvalue()
    for element in (SEGMENT, TRACKS, TRACK, VIDEO):
        video = dict(_elements(video)).get(element, b"")
    said = {element: int.from_bytes(value) for element, value in _elements(video)}
    left, right, top, bottom = (
        said.get(element, 0) for element in (CROP_LEFT, CROP_RIGHT, CROP_TOP, CROP_BOTTOM)
    )
    if not (left or right or top or bottom):
        return None

    def crop(frame: av.VideoFrame) -> av.VideoFrame:
        width, height = frame.width - left - right, frame.height - top - bottom
        if width <= 0 or height <= 0:  # ffmpeg leaves such a frame whole
            return frame
        return _cropped(frame, f"{width}:{height}:{left}:{top}")

    return crop


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


def _cropped(frame: av.VideoFrame, arguments: str) -> av.VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    crop = graph.add("crop", arguments)
    graph.link_nodes(source, crop, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
