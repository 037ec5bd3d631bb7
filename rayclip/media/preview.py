"""Write a part of a video as every browser can play it, and say what a file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.video.stream import VideoStream

from rayclip.errors import BadVideo, Code, VideoError
from rayclip.media.clips import decode_part
from rayclip.media.container import open_stream
from rayclip.media.decoding import SelectedFrame
from rayclip.media.filters import filtered
from rayclip.media.reencode import upright_filters
from rayclip.media.source import VideoSource
from rayclip.media.watchdog import LIBAV

MAX_SIDE = 960  # pixels
MAX_FPS = 30.0
PIXEL_FORMAT = "yuv420p"  # browsers play no other
OPTIONS = {"preset": "veryfast", "crf": "25", "g": "60"}
INDEX_FIRST = {"movflags": "+faststart"}


@dataclass(frozen=True)
class VideoFacts:
    """What a file holds.

    Attributes:
        container: libav's names of its format, separated by commas.
        codec: of its video stream.
        width, height: of a frame in pixels, as stored; 0 if unknown.
    """

    container: str
    codec: str
    width: int
    height: int


def read_facts(source: VideoSource, storage_options: Mapping[str, Any] | None = None) -> VideoFacts:
    """Open a video and say what it holds.

    Raises:
        BadVideo, VideoError: it is no video, or cannot be read.
    """
    with open_stream(source, storage_options or {}) as (container, stream):
        codec = stream.codec_context
        return VideoFacts(container.format.name, codec.name, codec.width, codec.height)


def write_preview(
    source: VideoSource,
    destination: str,
    start_s: float,
    end_s: float,
    on_progress: Callable[[], object],
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write the pictures of a part of a video to a small H.264 mp4 file, without sound.

    Its time 0 is ``start_s``. Pictures are upright, at most :data:`MAX_SIDE` pixels wide and high.

    Args:
        source: a local path or an fsspec URL.
        destination: a local path.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        on_progress: called for each picture.
        storage_options: passed to fsspec for a URL.

    Raises:
        BadVideo: the source cannot be opened, or shows nothing then.
        VideoError: the source cannot be read, or libx264 refuses its pictures.
        OSError: the file cannot be written.
    """

    def write(frames: Iterator[SelectedFrame], fps: Fraction) -> None:
        try:
            _encode(frames, destination, fps, on_progress)
        except av.FFmpegError as error:
            message = f"its pictures cannot be encoded: {error}"
            raise VideoError("encode", Code.NOT_REENCODABLE, message) from error

    decode_part(source, start_s, end_s, write, storage_options, MAX_FPS)


def _encode(
    frames: Iterator[SelectedFrame],
    destination: str,
    fps: Fraction,
    on_progress: Callable[[], object],
) -> None:
    stream: VideoStream | None = None
    tick = 0
    with (
        open(destination, "wb") as file,
        av.open(file, "w", format="mp4", options=INDEX_FIRST) as output,
    ):
        for selected in frames:
            picture = _small(selected.frame, stream)
            stream = stream or _add_stream(output, picture, fps)
            for _ in selected.timestamps_ms:
                picture.pts, picture.duration, picture.time_base = tick, 1, 1 / fps
                with LIBAV:
                    output.mux(stream.encode(picture))
                tick += 1
            on_progress()
        if stream is None:
            raise BadVideo("decode", Code.NO_FRAMES, "the video shows nothing then")
        output.mux(stream.encode())


def _add_stream(
    output: av.container.OutputContainer, picture: av.VideoFrame, fps: Fraction
) -> VideoStream:
    stream = output.add_stream("libx264", fps, options=OPTIONS)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = PIXEL_FORMAT
    stream.codec_context.thread_count = 1
    return stream


def _small(frame: av.VideoFrame, stream: VideoStream | None) -> av.VideoFrame:
    """Turn a picture upright and scale it: to the size of the stream, if that is known."""
    turning = upright_filters(frame)
    width, height = frame.width, frame.height
    if any(name == "transpose" for name, _ in turning):
        width, height = height, width
    if stream is not None:
        size = stream.width, stream.height
    else:
        scale = min(1.0, MAX_SIDE / max(width, height))
        size = _even(width * scale), _even(height * scale)
    scaling = [("scale", f"{size[0]}:{size[1]}"), ("format", PIXEL_FORMAT)]
    picture = filtered(frame, [*turning, *scaling])
    picture.pict_type = av.video.frame.PictureType.NONE  # else x264 repeats the source's keyframes
    return picture


def _even(pixels: float) -> int:
    return max(2, round(pixels / 2) * 2)
