"""Re-encode a video with only the frames that a rate shows, as video_features keeps it.

Equivalent to ``ffmpeg -i source -filter:v fps=fps=N destination.mp4``, without audio.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from typing import IO, Any, Final

import av
from av.container import OutputContainer
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.stream import VideoStream
from fsspec.implementations.local import LocalFileSystem

from rayclip.errors import BadVideo, Code, VideoError
from rayclip.io.atomic_write import write_atomically
from rayclip.media.decoding import SelectedFrame
from rayclip.media.filters import Filter, filtered
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.orientation import orientation
from rayclip.media.source import VideoSource
from rayclip.media.video import open_video

ENCODER: Final = "libx264"  # ffmpeg's default for mp4, with crf 23 and preset medium
FULL_CHROMA = "yuv444p"  # for pixel formats that libx264 does not support, such as RGB


def reencode(
    source: VideoSource,
    destination: str,
    extraction_fps: Fraction,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write the frames that ``extraction_fps`` shows to an H.264 mp4 file of exactly that rate.

    Frame n of the file is shown at n / ``extraction_fps``. All pictures are upright and have the
    size of the first. A delay before the source's first frame is dropped.

    Args:
        source: a local path, an fsspec URL or a binary file object; read once, forward.
        destination: a local path, written atomically; a missing folder is created.
        extraction_fps: frames per second.
        storage_options: passed to fsspec for URLs.

    Raises:
        BadVideo: the source cannot be opened or decoded.
        VideoError: the source could not be read (stage ``read``), or libx264 refuses its pictures
            (stage ``encode``), for example if a side has more than 16384 pixels.
        OSError: the file could not be written.
    """
    with open_video(source, storage_options) as video:
        frames = video.selected_frames(FrameChoice(fps=extraction_fps))
        encode_frames(frames, destination, extraction_fps)


def encode_frames(frames: Iterator[SelectedFrame], destination: str, fps: Fraction) -> None:
    """Write frames to an H.264 mp4 file, each at as many ticks of a rate as it has times.

    Args:
        frames: of one video; the first one is taken before anything is written.
        destination: a local path, written atomically; a missing folder is created.
        fps: ticks per second.

    Raises:
        BadVideo: there is no frame.
        VideoError: libx264 refuses the pictures (stage ``encode``); or from the frames.
        OSError: the file could not be written.
    """
    first = next(frames, None)  # a bad video raises here
    if first is None:
        raise BadVideo("decode", Code.NO_FRAMES, "no frame could be decoded")
    size = f"{first.frame.width}x{first.frame.height}"
    os.makedirs(os.path.dirname(destination) or ".", exist_ok=True)

    def write(file: IO[bytes]) -> None:
        try:
            _encode(chain([first], frames), file, fps)
        except av.FFmpegError as error:
            raise VideoError(
                "encode",
                Code.NOT_REENCODABLE,
                f"{ENCODER} refuses its {size} pictures: {error}",
            ) from error

    write_atomically(LocalFileSystem(), os.path.abspath(destination), 0, write)


def _encode(selected_frames: Iterator[SelectedFrame], file: IO[bytes], fps: Fraction) -> None:
    stream: VideoStream | None = None
    tick = 0
    with av.open(file, "w", format="mp4") as output:
        for selected in selected_frames:
            picture = _make_encodable(selected.frame)
            stream = stream or _add_stream(output, picture, fps)
            for _ in selected.timestamps_ms:
                picture.pts, picture.duration, picture.time_base = tick, 1, 1 / fps
                output.mux(stream.encode(picture))  # scales if the size has changed
                tick += 1
        if stream is not None:
            output.mux(stream.encode())


def _add_stream(output: OutputContainer, picture: av.VideoFrame, fps: Fraction) -> VideoStream:
    stream = output.add_stream(ENCODER, fps)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = picture.format.name
    codec = stream.codec_context
    codec.colorspace, codec.color_range = picture.colorspace, picture.color_range
    codec.thread_count = 1  # x264's output depends on it, and must not depend on the machine
    return stream


def _make_encodable(frame: av.VideoFrame) -> av.VideoFrame:
    """Turn a frame upright and give it a pixel format and a size that libx264 supports.

    Most frames are unchanged. None is converted through RGB: subsampling the chroma again would
    cost more than x264 itself.
    """
    filters = upright_filters(frame)
    turned = any(name == "transpose" for name, _ in filters)
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    pixel_format = frame.format
    supported = {known.name for known in av.Codec(ENCODER, "w").video_formats or ()}
    if pixel_format.name not in supported:
        pixel_format = VideoFormat(FULL_CHROMA)
        filters.append(("format", FULL_CHROMA))
    # Pixels that share a chroma sample cannot be separated. ffmpeg fails on such sizes; we drop the
    # last row or column, since scaling would blur all the others.
    odd_columns = width % (2 // pixel_format.chroma_width(2))
    odd_rows = height % (2 // pixel_format.chroma_height(2))
    if odd_columns or odd_rows:
        filters.append(("crop", f"{width - odd_columns}:{height - odd_rows}:0:0"))
    picture = filtered(frame, filters) if filters else frame
    picture.pict_type = PictureType.NONE  # otherwise x264 repeats the source's keyframes
    return picture


def upright_filters(frame: av.VideoFrame) -> list[Filter]:
    """The filters that turn a frame as ``upright_rgb`` turns its pixels."""
    transpose, mirror_x, mirror_y = orientation(frame)
    filters: list[Filter] = []
    if transpose:
        filters.append(("transpose", "cclock_flip"))  # rows become columns
    if mirror_x:
        filters.append(("hflip", ""))
    if mirror_y:
        filters.append(("vflip", ""))
    return filters
