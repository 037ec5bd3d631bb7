"""Cut a part out of a video: copy its packets if a keyframe allows, otherwise re-encode it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import IO, Any

import av
from fsspec.implementations.local import LocalFileSystem

from rayclip.io.atomic_write import write_atomically
from rayclip.media.container import open_stream, start_us
from rayclip.media.decoding import SelectedFrame
from rayclip.media.frame_choice import MICROSECONDS, parse_fps
from rayclip.media.frames_at import AtTimes, open_for_times
from rayclip.media.gop import Irregular
from rayclip.media.image_folder import ImageFolder
from rayclip.media.packets import PacketReader
from rayclip.media.reencode import encode_frames
from rayclip.media.sampling import Clock
from rayclip.media.segments import Segment
from rayclip.media.source import VideoSource
from rayclip.media.watchdog import LIBAV

DEFAULT_RATE = 25  # frames per second, if the video does not say


def cut(
    source: VideoSource | ImageFolder,
    destination: str,
    start_s: float,
    end_s: float,
    storage_options: Mapping[str, Any] | None = None,
) -> bool:
    """Write the pictures of a part of a video to an mp4 file, without sound.

    Args:
        source: a local path, an fsspec URL or a folder of images.
        destination: a local path in an existing folder, written atomically.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        storage_options: passed to fsspec for a URL.

    Returns:
        Whether the packets were copied, which loses nothing and takes no time. The copy may have a
        few more pictures at its end.

    Raises:
        BadVideo: the source cannot be opened, or nothing can be decoded there.
        VideoError: the source cannot be read, or libx264 refuses its pictures.
        OSError: the file cannot be written.
    """
    options = storage_options or {}
    if not isinstance(source, ImageFolder):
        try:
            _copy(source, destination, start_s, end_s, options)
            return True
        except (Irregular, av.FFmpegError):  # no keyframe there, or mp4 cannot hold this codec
            pass
    decode_part(
        source,
        start_s,
        end_s,
        lambda frames, fps: encode_frames(frames, destination, fps),
        options,
    )
    return False


def _copy(
    source: VideoSource, destination: str, start_s: float, end_s: float, options: Mapping[str, Any]
) -> None:
    """Copy packets; raises Irregular if there is no keyframe where the part begins."""
    with open_stream(source, options) as (container, stream):
        if stream.time_base is None:
            raise Irregular("the video stream has no time base")
        clock = Clock(stream.time_base, start_us(container, stream))
        reader = PacketReader(container, stream, clock, can_seek=True)
        half_frame_us = int(MICROSECONDS / 2 / (stream.average_rate or DEFAULT_RATE))
        start_at = int(start_s * MICROSECONDS)
        earliest, latest = (clock.pts_at(start_at + by) for by in (-half_frame_us, half_frame_us))
        end = clock.pts_at(int(end_s * MICROSECONDS))
        points = reader.random_access_points([latest]) if reader.can_start_anywhere else iter(())
        since = next(points, None)
        if since is None or not earliest <= since <= latest:
            raise Irregular("there is no keyframe where the part begins")

        def write(file: IO[bytes]) -> None:
            with av.open(file, "w", format="mp4") as output:
                copied = output.add_stream_from_template(stream)
                for packet in reader.packets(Segment(since)):
                    if packet.dts is not None and packet.dts >= end:
                        break
                    packet.stream = copied
                    if packet.dts is not None:
                        packet.dts -= since
                    if packet.pts is not None:
                        packet.pts -= since
                    with LIBAV:
                        output.mux(packet)

        write_atomically(LocalFileSystem(), os.path.abspath(destination), 0, write)


def decode_part(
    source: VideoSource | ImageFolder,
    start_s: float,
    end_s: float,
    write: Callable[[Iterator[SelectedFrame], Fraction], None],
    storage_options: Mapping[str, Any] | None = None,
    max_fps: float = math.inf,
) -> None:
    """Decode the pictures of a part of a video, from a random access point on if there is one.

    Args:
        source: a local path, an fsspec URL or a folder of images.
        start_s: in seconds from the container's start.
        end_s: when the first picture after the part is shown.
        write: takes the frames, each with its times at a rate, and that rate: the video's own. It
            is called again if decoding turns out not to be able to start in the middle.
        storage_options: passed to fsspec for a URL.
        max_fps: limits the rate.

    Raises:
        BadVideo, VideoError: the video cannot be opened, decoded or read.
    """
    for by_decoding in (False, True):
        try:
            with open_for_times(source, storage_options) as video:
                fps = parse_fps(min(video.fps if video.fps > 0 else DEFAULT_RATE, max_fps))
                first = round(start_s * fps)
                ticks = range(first, max(round(end_s * fps), first + 1))
                times_ms = [float(tick / fps * 1000) for tick in ticks]
                rule = AtTimes(times_ms, fps, video.clock)
                write(_until_last(video.frames_of(rule, by_decoding), len(times_ms)), fps)
            return
        except Irregular:
            if by_decoding:
                raise


def _until_last(frames: Iterator[SelectedFrame], number: int) -> Iterator[SelectedFrame]:
    """Yield the frames that are shown at all, and stop reading after the last time."""
    for selected in frames:
        number -= len(selected.timestamps_ms)
        if selected.timestamps_ms:
            yield selected
        if number <= 0:
            return
